"""A certificate file and a model file -> what holds, and with inputs what is certified of them."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from certifier.auditing import Audit
from certifier.limits import Limits
from certifier.portable.envelope import read_keys
from certifier.verification import Verification, verify
from service.commandline.arrays import InputFile
from service.commandline.files import read_model_file
from service.commandline.output import counting


def verify_file(certificate: str, model: str, *, public_key: Path | None, seconds: float) -> Verification:
    """What the file `certificate` proves of the model in the file `model`.

    Raises: CertifierError; typer.BadParameter if a file cannot be opened.
    """
    limits = Limits(seconds=seconds)
    document, keys = _read(certificate, public_key, limits)
    return verify(document, read_model_file(model, limits), keys=keys, limits=limits)


def audit_file(
    certificate: str, model: str, inputs: InputFile, *, public_key: Path | None, seconds: float
) -> Verification:
    """The same, with label, margin and radius of every row of the inputs.

    Raises: CertifierError; typer.BadParameter if a file cannot be opened.
    """
    limits = Limits(seconds=seconds)
    document, keys = _read(certificate, public_key, limits)
    audit = Audit(document, read_model_file(model, limits), keys=keys, limits=limits)
    rows = inputs.rows(audit.inputs)
    with counting("auditing", len(rows)) as progress:
        return audit.of(rows, progress=progress)


def _read(certificate: str, public_key: Path | None, limits: Limits) -> tuple[bytes, list[Ed25519PublicKey]]:
    document = read_model_file(certificate, limits, argument="CERTIFICATE")
    if public_key is None:
        return document, []
    return document, read_keys(read_model_file(str(public_key), limits, argument="--public-key"))
