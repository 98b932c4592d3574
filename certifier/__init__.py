"""Sound global L2 Lipschitz bounds and certified radii for the networks that people already have.

The claim: for every input x' with ||x' - x|| <= radius the network gives the same class as for x, in the arithmetic
that the certificate names.  The pipeline, in which data flows one way:

    bytes -> reading -> graph -> rules -> terms -> network -> (search, proof) -> bounds -> certificate -> prediction

Search is clever and untrusted; proof is small, and all that a certificate rests on.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from certifier.auditing import Audit
    from certifier.certification import CertifiedModel, certify
    from certifier.checking import check
    from certifier.documents import Certificate, CertifyOptions, ModelCheck, Preprocessing
    from certifier.errors import CertifierError
    from certifier.limits import Limits
    from certifier.prediction import Predictor
    from certifier.progress import Progress
    from certifier.rules.registry import support as operators_table
    from certifier.search.state import Seal, SearchState
    from certifier.verification import Verification, verify

__all__ = [
    "Audit",
    "Certificate",
    "CertifiedModel",
    "CertifierError",
    "CertifyOptions",
    "Limits",
    "ModelCheck",
    "Predictor",
    "Preprocessing",
    "Progress",
    "Seal",
    "SearchState",
    "Verification",
    "certify",
    "check",
    "operators_table",
    "verify",
]

_HOMES = {
    "auditing": ("Audit",),
    "certification": ("CertifiedModel", "certify"),
    "checking": ("check",),
    "documents": ("Certificate", "CertifyOptions", "ModelCheck", "Preprocessing"),
    "errors": ("CertifierError",),
    "limits": ("Limits",),
    "prediction": ("Predictor",),
    "progress": ("Progress",),
    "search.state": ("Seal", "SearchState"),
    "verification": ("Verification", "verify"),
}


def __getattr__(name: str) -> Any:
    # Imported when they are asked for, so that a verification loads neither the engine nor a search.
    if name == "operators_table":
        return import_module("certifier.rules.registry").support
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"certifier.{module}"), name)
    raise AttributeError(f"module 'certifier' has no attribute {name!r}")
