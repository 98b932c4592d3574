"""What a certification proved, as the file that proves it again elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version

from certifier.certificates import Constants
from certifier.documents import REAL_ARITHMETIC, Arithmetic, Certificate, RungName
from certifier.flow import Network
from certifier.portable import claims, evidence
from certifier.portable.document import CertifiedModelDescription, PortableCertificate, WitnessDescription, to_bytes
from certifier.portable.structure import described
from certifier.witness import Witness

ASSUMPTIONS = (
    "A1: the checker's arithmetic is IEEE-754 double",
    "A2: underflow at worst flushes a result to zero",
    "A4: the float64 reference's functions err by a few units",
)
"""Those of `docs/assumptions.md` that constants in real arithmetic rest on; the others are about engines."""
VERSIONED = ("lipcert", "numpy", "scipy", "onnx")
"""What takes part in a proof."""


def portable(
    certificate: Certificate,
    network: Network,
    *,
    constants: Constants,
    notes: Sequence[str],
    norms: Mapping[str, float],
    witnesses: Mapping[RungName, Witness],
) -> bytes:
    """The file.  `network` is the one that was read, before ranges were found; `norms` are proved, by digest;
    `notes` are those that a verifier comes to as well.
    """
    model = certificate.model
    document = PortableCertificate(
        model=CertifiedModelDescription(
            sha256=model.sha256, format=model.format, inputs=model.inputs, fixed_inputs=model.fixed_inputs
        ),
        options=certificate.options,
        task=certificate.task,
        classes=certificate.classes,
        # The constants are those of the exact network, whatever engine serves it.
        arithmetic=Arithmetic(name="real", statement=REAL_ARITHMETIC),
        network=described(network),
        norms=claims.written(norms),
        witnesses=[
            WitnessDescription(method=method, header=dict(witness.header)) for method, witness in witnesses.items()
        ],
        assumptions=list(ASSUMPTIONS),
        notes=list(notes),
        versions=versions(),
    )
    return to_bytes(document, evidence.written(constants), list(witnesses.values()))


def versions() -> dict[str, str]:
    """Of everything that takes part in a proof."""
    return {name: version(name) for name in VERSIONED}
