"""The stored models as documents."""

from __future__ import annotations

from urllib.parse import urlencode

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from certifier.documents import Certificate, LipschitzBound
from certifier.errors import CertificateRefused
from certifier.packing import unpack_constants
from certifier.portable.envelope import sign
from certifier.portable.writing import of_this_layout
from service.artifacts import CERTIFICATE, CONSTANTS, PORTABLE
from service.errors import InvalidRequest, NoPortableCertificate, UnknownModel
from service.schemas import Deleted, ModelList, ModelSummary, Pairs, VersionSummary
from service.store import Store, StoredVersion


def model_page(store: Store, *, limit: int, after: str) -> ModelList:
    """Names behind `after`, at most `limit`."""
    names = store.names(limit=limit + 1, after=after)
    page = names[:limit]
    more = f"/models?{urlencode({'limit': limit, 'after': page[-1]})}" if len(names) > limit else None
    return ModelList(models=page, next=more)


def model_summary(store: Store, name: str) -> ModelSummary:
    """The versions of `name`, newest first.

    Raises: UnknownModel.
    """
    return ModelSummary(name=name, versions=[_summary(version) for version in store.versions(name)])


def deleted_summary(name: str, gone: list[StoredVersion]) -> Deleted:
    """What was deleted."""
    return Deleted(name=name, versions=sorted(version.version for version in gone))


def pair_constants(store: Store, name: str, version: int) -> Pairs:
    """The constants of all pairs of classes, from the certificate or, where it lists none, from the proved constants.

    Raises: UnknownModel, InvalidRequest for a model without classes.
    """
    stored = store.resolve(name, version)
    certificate = Certificate.model_validate_json(store.read(stored, CERTIFICATE))
    listed = certificate.pairs
    if listed is None and certificate.task == "classification":
        constants, _ = unpack_constants(store.read(stored, CONSTANTS))
        listed = None if constants.pairs is None else constants.pairs.tolist()
    if listed is None:
        raise InvalidRequest([("name", "the model has no pairs of classes")])
    return Pairs(name=stored.name, version=stored.version, pairs=listed)


def signed_certificate(store: Store, key: Ed25519PrivateKey, name: str, version: int) -> bytes:
    """The certificate file of one version in a signed envelope.

    Nobody vouches here for drifts that another build wrote: without them, the file speaks of exact arithmetic.

    Raises: UnknownModel, NoPortableCertificate.
    """
    stored = store.resolve(name, version)
    try:
        document = store.read(stored, PORTABLE)
    except UnknownModel:
        store.resolve(name, version)
        raise NoPortableCertificate(name, version) from None
    try:
        return sign(of_this_layout(document), key)
    except CertificateRefused:
        raise NoPortableCertificate(name, version) from None


def _summary(stored: StoredVersion) -> VersionSummary:
    facts = stored.summary
    return VersionSummary(
        version=stored.version,
        sha256=stored.sha256,
        bytes=stored.bytes,
        created=stored.created,
        format=str(facts["format"]),
        task=str(facts["task"]),
        classes=int(str(facts["classes"])),
        lipschitz=LipschitzBound.model_validate(facts["lipschitz"]),
        arithmetic=str(facts["arithmetic"]),
        link=f"/models/{stored.name}/versions/{stored.version}",
    )
