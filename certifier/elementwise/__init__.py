"""Scalar functions with their slope intervals, each derived at high precision and rounded outward.

Every maker returns an `Elementwise`.  A differentiable function's secant slopes are means of its derivative,
so the derivative's range bounds them; finitely many kinks change nothing, piece by piece.  `ulps` and
`absolute_ulps` are at least four times the error measured of the float32 kernels (assumption A5).  `evaluate`
neither overflows nor cancels for any finite float64.
"""

from certifier.elementwise.bends import bend, turns
from certifier.elementwise.gated import (
    GELU_BEND,
    GELU_SLOPES,
    GELU_TANH_BEND,
    GELU_TANH_SLOPES,
    MISH_BENDS,
    MISH_SLOPES,
    SILU_BEND,
    SILU_SLOPES,
    gelu,
    gelu_tanh,
    hard_swish,
    mish,
    silu,
    swish,
)
from certifier.elementwise.monotone import ERF_SLOPE, asinh, atan, erf, sigmoid, softplus, softsign, tanh
from certifier.elementwise.rectifiers import (
    absolute,
    celu,
    clip,
    elu,
    hard_sigmoid,
    leaky_relu,
    maximum,
    minimum,
    prelu,
    relu,
    selu,
)
from certifier.elementwise.waves import cos, sin

__all__ = [
    "ERF_SLOPE",
    "GELU_BEND",
    "GELU_SLOPES",
    "GELU_TANH_BEND",
    "GELU_TANH_SLOPES",
    "MISH_BENDS",
    "MISH_SLOPES",
    "SILU_BEND",
    "SILU_SLOPES",
    "absolute",
    "asinh",
    "atan",
    "bend",
    "celu",
    "clip",
    "cos",
    "elu",
    "erf",
    "gelu",
    "gelu_tanh",
    "hard_sigmoid",
    "hard_swish",
    "leaky_relu",
    "maximum",
    "minimum",
    "mish",
    "prelu",
    "relu",
    "selu",
    "sigmoid",
    "silu",
    "sin",
    "softplus",
    "softsign",
    "swish",
    "tanh",
    "turns",
]
