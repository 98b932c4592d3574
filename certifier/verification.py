"""certificate, model -> what holds: behind `lipcert verify`.  Nothing is searched, no engine runs, no torch is loaded.

The model is read as at its certification, the network compared term by term, and every constant proved again from the
document's evidence.  What the document says of tests, lower bounds and times is not looked at.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import Field

from certifier.box import Box
from certifier.certificates import Constants
from certifier.choice import choose
from certifier.documents import (
    Arithmetic,
    CertifyOptions,
    Document,
    FixedInput,
    RowPrediction,
    Task,
    TensorDescription,
)
from certifier.errors import CertificateRefused, CertifierError, NotFinished
from certifier.executions import Derived, Execution
from certifier.flow import Network
from certifier.limits import Deadline, Limits
from certifier.network import build_network
from certifier.parts import InputParts
from certifier.portable import document, drifts, evidence
from certifier.portable.document import CONSTANTS_ALONE, Contents, PortableCertificate
from certifier.portable.envelope import is_envelope, open_envelope
from certifier.portable.structure import described
from certifier.portable.writing import versions
from certifier.proof.drifts import Drifts
from certifier.proof.execution import Gains
from certifier.tasks import notes_of, task_of


class Verification(Document):
    """What was proved again, of what, and what it rests on."""

    verdict: Literal["holds"] = "holds"
    model_sha256: str
    task: Task
    classes: int = Field(description="Number of outputs per row.")
    inputs: list[TensorDescription] = Field(description="The perturbed inputs, in the order of a joint row.")
    fixed_inputs: list[FixedInput]
    options: CertifyOptions = Field(
        description="What the constants are constants of: inputs, outputs, input box, preprocessing."
    )
    terms: int = Field(description="Terms of the network that agree with the document's.")
    lipschitz_upper: float
    methods: list[str] = Field(description="The methods whose evidence was needed.")
    norms: int = Field(description="Spectral norms that were proved.")
    multipliers: int = Field(description="Numbers that proofs were made with.")
    drifts: int = Field(description="Numbers of the rounding's forms that were derived again; 0 where there are none.")
    arithmetic: Arithmetic
    signed_by: str | None = Field(description="The key whose signature was checked; null: none was.")
    assumptions: list[str]
    notes: list[str]
    certified_with: dict[str, str] = Field(description="Versions of the software that wrote the document.")
    verified_with: dict[str, str] = Field(description="Versions of the software that proved it again.")
    unchecked: list[str] = Field(description="What a verification cannot say.")
    rows: list[RowPrediction] | None = Field(
        default=None,
        description="Label, margin and radius of every input row, from what the document states and the float64 "
        "evaluation of the network, which stands in for the engine's outputs; null without inputs.",
    )


UNCHECKED = [
    "that an engine computes what the network says and keeps to the assumptions: its self-test ran when the model was "
    "certified",
    "lower bounds, times and tests, which no radius rests on",
]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What the certificate speaks of: a network, how it is executed, and the box of inputs in which it does."""

    network: Network
    execution: Execution
    box: Box


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A certificate that was proved again: `constants` and `drifts` are those that it states.

    `drifts` are None for exact arithmetic, and where `certificate.arithmetic.because` says why there are none; `gains`
    are proved norms of single terms.
    """

    verification: Verification
    certificate: PortableCertificate
    subject: Subject
    constants: Constants
    drifts: Drifts | None
    gains: Gains


def verify(data: bytes, model: bytes, *, keys: list[Ed25519PublicKey], limits: Limits) -> Verification:
    """Prove a certificate again for a model's bytes: what `verified` finds, in words and figures."""
    return verified(data, model, keys=keys, limits=limits, with_gains=False).verification


def verified(data: bytes, model: bytes, *, keys: list[Ed25519PublicKey], limits: Limits, with_gains: bool) -> Verified:
    """Prove a certificate again for a model's bytes.

    `with_gains` proves norms of single terms also where no drifts rest on them; constants alone claim none.
    `data` is a certificate or a DSSE envelope around one; with `keys`, one of them has to have signed it.  Of `limits`,
    `model_bytes` holds for `data` as for the model; after `seconds` no step of the proof is begun.
    Raises: CertificateRefused at the first step that fails; NotFinished where one comes too late; ResourceLimitExceeded
        for a file that is too large.
    """
    limits.demand("model_bytes", len(data), "the certificate")
    signer, deadline = None, Deadline(limits)
    if is_envelope(data):
        data, signer = open_envelope(data, keys)
    elif keys:
        raise CertificateRefused("signature", "a key is given, but the certificate is not signed")
    contents = document.from_bytes(data)
    certificate, stated, witnesses = contents.certificate, contents.constants, contents.witnesses
    subject = _subject(certificate, model, limits)
    claims = evidence.Evidence(norms=certificate.norms, witnesses=witnesses)
    try:
        proved = evidence.prove(
            subject.network,
            claims,
            box=subject.box,
            task=certificate.task,
            execution=subject.execution,
            deadline=deadline,
        )
        has_gains = with_gains and certificate.document != CONSTANTS_ALONE
        gains = proved.product.gains() if has_gains else {}
    except NotFinished:
        raise
    except CertifierError as error:
        raise CertificateRefused("proof", str(error)) from None
    reason = evidence.difference(stated, proved.constants)
    if reason is not None:
        raise CertificateRefused("constants", reason)
    known = _drifts(contents, proved.derived)
    verification = Verification(
        model_sha256=certificate.model.sha256,
        task=certificate.task,
        classes=certificate.classes,
        inputs=certificate.model.inputs,
        fixed_inputs=certificate.model.fixed_inputs,
        options=certificate.options,
        terms=len(subject.network.terms),
        lipschitz_upper=stated.upper,
        methods=["product", *witnesses],
        norms=proved.norms,
        multipliers=sum(array.size for witness in witnesses.values() for array in witness.arrays.values()),
        drifts=sum(array.size for array in contents.drifts.values()),
        arithmetic=certificate.arithmetic,
        signed_by=signer,
        assumptions=certificate.assumptions,
        notes=certificate.notes,
        certified_with=certificate.versions,
        verified_with=versions(),
        unchecked=UNCHECKED,
    )
    return Verified(
        verification=verification,
        certificate=certificate,
        subject=subject,
        constants=stated,
        drifts=known,
        gains=gains,
    )


def _subject(certificate: PortableCertificate, model: bytes, limits: Limits) -> Subject:
    """The network of the model and the box, which are the certified ones.

    Raises: CertificateRefused if they are others, or if the document says anything else of them than what is proved.
    """
    digest = hashlib.sha256(model).hexdigest()
    if digest != certificate.model.sha256:
        raise CertificateRefused("model", f"it speaks of a model with digest {certificate.model.sha256}, not {digest}")
    options = certificate.options
    try:
        chosen = choose(model, options=options, limits=limits)
        network = build_network(chosen.graph, limits=limits, cut_head=options.task != "regression")
        task, task_notes = task_of(network, options)
        box = Box.of(options.input_box, InputParts.of(chosen.inputs))
    except CertifierError as error:
        raise CertificateRefused("model", f"it is not read as it was: {error}") from error
    said = (certificate.model.format, certificate.model.inputs, certificate.model.fixed_inputs)
    if said != (chosen.format, list(chosen.inputs), list(chosen.fixed_inputs)):
        raise CertificateRefused("model", "its format or inputs are others than the document says")
    if (certificate.task, certificate.classes) != (task, network.output_size):
        raise CertificateRefused("model", f"it is a {task} of {network.output_size} outputs")
    terms = described(network)
    for known, term in zip(certificate.network, terms, strict=False):
        if known != term:
            raise CertificateRefused("network", f"node {term.node!r} computes something else than the certified one")
    if len(terms) != len(certificate.network):
        raise CertificateRefused("network", f"it has {len(terms)} terms, not {len(certificate.network)}")
    # What was written before there were drifts says nothing of rounding, whatever its options ask for.
    asked = "real" if certificate.document == CONSTANTS_ALONE else options.arithmetic
    execution = Execution.of(asked, network)
    words = (
        execution.claim(certificate.arithmetic.because),
        list(execution.assumptions),
        notes_of(network, task_notes, box),
    )
    if (certificate.arithmetic, certificate.assumptions, certificate.notes) != words:
        raise CertificateRefused("network", "its arithmetic, assumptions or notes are not those of what is proved")
    return Subject(network=network, execution=execution, box=box)


def _drifts(contents: Contents, derived: Derived) -> Drifts | None:
    """The stated drifts, which are at least the derived ones; None where there are none.

    Raises: CertificateRefused if they are others, or if there are none for a reason that is another.
    """
    header, because = contents.certificate.drifts, contents.certificate.arithmetic.because
    if because != derived.because:
        found = "there are drifts" if derived.because is None else f"there are none: {derived.because}"
        stated = "it states drifts" if because is None else "it has another reason against drifts"
        raise CertificateRefused("drifts", f"{stated}; but {found}")
    if derived.drifts is None:
        if header is not None:
            raise CertificateRefused("drifts", "it states drifts where there are none")
        return None
    if header is None:
        raise CertificateRefused(
            "drifts", f"radii for {contents.certificate.arithmetic.name} rest on drifts: it has none"
        )
    found = drifts.read(header, contents.drifts, derived.drifts)
    if isinstance(found, str):
        raise CertificateRefused("drifts", found)
    return found
