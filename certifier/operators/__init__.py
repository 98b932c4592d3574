"""The linear maps that networks are made of, each written once: forward, adjoint, |A| and fan-in."""

from certifier.operators.compositions import Adjoint, Composed, Sum, compose
from certifier.operators.convolution import Convolution
from certifier.operators.matrices import Diagonal, Kronecker, dense
from certifier.operators.movements import Identity, Placed, Rearrange
from certifier.operators.operator import Array, Operator

__all__ = [
    "Adjoint",
    "Array",
    "Composed",
    "Convolution",
    "Diagonal",
    "Identity",
    "Kronecker",
    "Operator",
    "Placed",
    "Rearrange",
    "Sum",
    "compose",
    "dense",
]
