"""What a network is made of: affine maps, elementwise activations and contractions of vectors."""

from certifier.terms.activation import INNER, Activation
from certifier.terms.affine import BLURRING, Affine, Blurred
from certifier.terms.contraction import Contraction, Rounding, VectorFunction
from certifier.terms.elementwise import DERIVATIVE_ROOM, Bend, Elementwise
from certifier.terms.precision import EXACT, PRECISIONS, REFERENCE, Precision
from certifier.terms.term import Term

__all__ = [
    "BLURRING",
    "DERIVATIVE_ROOM",
    "EXACT",
    "INNER",
    "PRECISIONS",
    "REFERENCE",
    "Activation",
    "Affine",
    "Bend",
    "Blurred",
    "Contraction",
    "Elementwise",
    "Precision",
    "Rounding",
    "Term",
    "VectorFunction",
]
