"""Sound global L2 Lipschitz bounds and certified radii for the networks that people already have.

The claim: for every input x' with ||x' - x|| <= radius the network gives the same class as for x, in the arithmetic
that the certificate names.  The pipeline, in which data flows one way:

    bytes -> reading -> graph -> rules -> terms -> network -> (search, proof) -> bounds -> certificate -> prediction

Search is clever and untrusted; proof is small, and all that a certificate rests on.
"""

from certifier.certification import CertifiedModel, certify
from certifier.checking import check
from certifier.documents import Certificate, CertifyOptions, ModelCheck, Preprocessing
from certifier.errors import CertifierError
from certifier.limits import Limits
from certifier.prediction import Predictor
from certifier.rules.registry import support as operators_table
from certifier.search.state import Seal, SearchState

__all__ = [
    "Certificate",
    "CertifiedModel",
    "CertifierError",
    "CertifyOptions",
    "Limits",
    "ModelCheck",
    "Predictor",
    "Preprocessing",
    "Seal",
    "SearchState",
    "certify",
    "check",
    "operators_table",
]
