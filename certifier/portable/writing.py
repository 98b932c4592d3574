"""What a certification proved, as the file that proves it again elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version

from certifier.certificates import Constants
from certifier.documents import REAL_ARITHMETIC, Arithmetic, Certificate, RungName
from certifier.executions import REAL_ASSUMPTIONS, Derived, Execution
from certifier.flow import Network
from certifier.portable import claims, drifts, evidence
from certifier.portable.document import (
    CertifiedModelDescription,
    Contents,
    PortableCertificate,
    WitnessDescription,
    from_bytes,
    to_bytes,
)
from certifier.portable.structure import described
from certifier.witness import Witness

VERSIONED = ("lipcert", "numpy", "scipy", "onnx")
"""What takes part in a proof."""


def portable(
    certificate: Certificate,
    network: Network,
    *,
    constants: Constants,
    execution: Execution,
    derived: Derived,
    notes: Sequence[str],
    norms: Mapping[str, float],
    witnesses: Mapping[RungName, Witness],
) -> bytes:
    """The file.  `network` is the one that was read, before ranges were found; `norms` are proved, by digest;
    `derived` is what the execution drifts; `notes` are those that a verifier comes to as well.
    """
    header, numbers = (None, {}) if derived.drifts is None else drifts.written(derived.drifts)
    model = certificate.model
    document = PortableCertificate(
        model=CertifiedModelDescription(
            sha256=model.sha256, format=model.format, inputs=model.inputs, fixed_inputs=model.fixed_inputs
        ),
        options=certificate.options,
        task=certificate.task,
        classes=certificate.classes,
        arithmetic=execution.claim(derived.because),
        network=described(network),
        norms=claims.written(norms),
        witnesses=[
            WitnessDescription(method=method, header=dict(witness.header)) for method, witness in witnesses.items()
        ],
        assumptions=list(execution.assumptions),
        notes=list(notes),
        versions=versions(),
        drifts=header,
    )
    return to_bytes(
        Contents(certificate=document, constants=evidence.written(constants), witnesses={**witnesses}, drifts=numbers)
    )


def of_this_layout(data: bytes) -> bytes:
    """The file, as long as its drifts mean what this build means by them; or else what it says without them.

    The constants of the exact network are left then, and the file speaks of exact arithmetic.
    Raises: CertificateRefused for what is no certificate file.
    """
    contents = from_bytes(data)
    certificate = contents.certificate
    if certificate.drifts is None or not drifts.is_of_another_layout(certificate.drifts):
        return data
    bare = certificate.model_copy(
        update={
            "options": certificate.options.model_copy(update={"arithmetic": "real"}),
            "arithmetic": Arithmetic(name="real", statement=REAL_ARITHMETIC),
            "assumptions": list(REAL_ASSUMPTIONS),
            "drifts": None,
        }
    )
    return to_bytes(replace(contents, certificate=bare, drifts={}))


def versions() -> dict[str, str]:
    """Of everything that takes part in a proof."""
    return {name: version(name) for name in VERSIONED}
