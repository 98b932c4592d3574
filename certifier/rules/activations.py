"""Elementwise activations: each rule names its function of `certifier.elementwise` and passes the attributes.

Defaults are the standard's single-precision numbers, which are not the decimal fractions of its text.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from certifier import elementwise
from certifier.rules.building import activation
from certifier.rules.registry import Site, rule
from certifier.terms import Elementwise, Term

_SINGLE_0_01 = 0.009999999776482582
_SINGLE_0_2 = 0.20000000298023224
_SELU_ALPHA = 1.6732631921768188
_SELU_GAMMA = 1.0507010221481323


@rule("Relu", since=(6, 13, 14))
def relu(site: Site) -> tuple[Term, ...]:
    """max(0, x); slopes [0, 1]."""
    return (activation(site, elementwise.relu()),)


@rule("LeakyRelu", since=(6, 16), attributes=("alpha",))
def leaky_relu(site: Site) -> tuple[Term, ...]:
    """x for x >= 0, alpha x below; slopes [min(1, alpha), max(1, alpha)]."""
    return (activation(site, elementwise.leaky_relu(site.number("alpha", _SINGLE_0_01))),)


@rule("PRelu", since=(7, 9, 16))
def prelu(site: Site) -> tuple[Term, ...]:
    """x for x >= 0, slope x below; slope constant, of any sign, broadcast to x."""
    site.live(0)
    slopes, shape = site.weights(1, "the slope"), site.shape(0)
    try:
        flat = np.broadcast_to(slopes, shape).reshape(-1)
    except ValueError:
        raise site.refuse(f"the slope's shape {slopes.shape} does not broadcast to {shape}") from None
    return (activation(site, elementwise.prelu(flat)),)


@rule("Elu", since=(6, 22), attributes=("alpha",))
def elu(site: Site) -> tuple[Term, ...]:
    """x for x >= 0, alpha (e^x - 1) below; slopes [min(0, alpha), max(1, alpha)]."""
    return (activation(site, elementwise.elu(site.number("alpha", 1.0))),)


@rule("Celu", since=(12, 28), attributes=("alpha",))
def celu(site: Site) -> tuple[Term, ...]:
    """max(0, x) + min(0, alpha (e^(x/alpha) - 1)) for alpha > 0; slopes [0, 1]."""
    alpha = site.number("alpha", 1.0)
    if alpha <= 0:
        raise site.refuse(f"alpha is {alpha}: the slope has no bound unless alpha is positive")
    return (activation(site, elementwise.celu(alpha)),)


@rule("Selu", since=(6, 22), attributes=("alpha", "gamma"))
def selu(site: Site) -> tuple[Term, ...]:
    """gamma x for x > 0, gamma alpha (e^x - 1) below; slopes gamma [min(0, alpha), max(1, alpha)]."""
    alpha, gamma = site.number("alpha", _SELU_ALPHA), site.number("gamma", _SELU_GAMMA)
    return (activation(site, elementwise.selu(alpha, gamma)),)


@rule("Sigmoid", since=(6, 13))
def sigmoid(site: Site) -> tuple[Term, ...]:
    """1/(1 + e^-x); slopes [0, 1/4]."""
    return (activation(site, elementwise.sigmoid()),)


@rule("HardSigmoid", since=(6, 22), attributes=("alpha", "beta"))
def hard_sigmoid(site: Site) -> tuple[Term, ...]:
    """max(0, min(1, alpha x + beta)); slopes [min(0, alpha), max(0, alpha)]."""
    alpha, beta = site.number("alpha", _SINGLE_0_2), site.number("beta", 0.5)
    return (activation(site, elementwise.hard_sigmoid(alpha, beta)),)


@rule("Tanh", since=(6, 13))
def tanh(site: Site) -> tuple[Term, ...]:
    """tanh x; slopes [0, 1]."""
    return (activation(site, elementwise.tanh()),)


@rule("Softplus", since=(1, 22))
def softplus(site: Site) -> tuple[Term, ...]:
    """log(1 + e^x); slopes [0, 1]."""
    return (activation(site, elementwise.softplus()),)


@rule("Softsign", since=(1, 22))
def softsign(site: Site) -> tuple[Term, ...]:
    """x/(1 + |x|); slopes [0, 1]."""
    return (activation(site, elementwise.softsign()),)


@rule("Erf", since=(9, 13))
def erf(site: Site) -> tuple[Term, ...]:
    """erf x; slopes [0, 2/√π]."""
    return (activation(site, elementwise.erf()),)


@rule("Gelu", since=(20,), attributes=("approximate",))
def gelu(site: Site) -> tuple[Term, ...]:
    """x Φ(x), or by tanh if `approximate` says so; slopes within [-0.129, 1.129]."""
    makers = {"none": elementwise.gelu, "tanh": elementwise.gelu_tanh}
    approximate = site.text("approximate", "none")
    if approximate not in makers:
        raise site.refuse(f"approximate = {approximate!r} is neither 'none' nor 'tanh'")
    return (activation(site, _with_single_constants(site, makers[approximate]())),)


@rule("HardSwish", since=(14, 22))
def hard_swish(site: Site) -> tuple[Term, ...]:
    """x max(0, min(1, x/6 + 1/2)); slopes [-1/2, 3/2]."""
    return (activation(site, _with_single_constants(site, elementwise.hard_swish())),)


def _with_single_constants(site: Site, function: Elementwise) -> Elementwise:
    """`function` in double precision, where the standard expands it with single-precision constants.

    Rounding 1/6, √(2/π) or 0.044715 to single moves the value by less than 2^-24, since the function bends only
    where |x| is small; 2^-22 is granted.
    """
    if site.dtype != "float64":
        return function
    return replace(function, absolute_ulps=function.absolute_ulps + 2.0**31)


@rule("Swish", since=(24,), attributes=("alpha",))
def swish(site: Site) -> tuple[Term, ...]:
    """x sigmoid(alpha x); slopes within [-0.0999, 1.0999] for every alpha."""
    return (activation(site, elementwise.swish(site.number("alpha", 1.0))),)


@rule("Mish", since=(18, 22))
def mish(site: Site) -> tuple[Term, ...]:
    """x tanh(log(1 + e^x)); slopes within [-0.1126, 1.0885]."""
    return (activation(site, elementwise.mish()),)


@rule("Clip", since=(6,), attributes=("min", "max"))
def clip_by_attributes(site: Site) -> tuple[Term, ...]:
    """min(max, max(min, x)) with bounds as attributes; slopes [0, 1]."""
    largest = float(np.finfo(np.float32).max)
    return (activation(site, elementwise.clip(site.number("min", -largest), site.number("max", largest))),)


@rule("Clip", since=(11, 12, 13))
def clip(site: Site) -> tuple[Term, ...]:
    """min(max, max(min, x)) with constant scalar bounds, either of which may be missing; slopes [0, 1]."""
    site.live(0)
    lower, upper = _scalar(site, 1, "min", -np.inf), _scalar(site, 2, "max", np.inf)
    return (activation(site, elementwise.clip(lower, upper)),)


def _scalar(site: Site, index: int, role: str, missing: float) -> float:
    if not site.has(index):
        return missing
    value = np.asarray(site.constant(index, role), dtype=np.float64)
    if value.size != 1 or np.isnan(value).any():
        raise site.refuse(f"{role} must be one number, not {value.size} or NaN")
    return float(value.reshape(-1)[0])


@rule("Abs", since=(6, 13))
def absolute(site: Site) -> tuple[Term, ...]:
    """|x|; slopes [-1, 1]."""
    return (activation(site, elementwise.absolute()),)


@rule("Sin", since=(7, 22))
def sin(site: Site) -> tuple[Term, ...]:
    """sin x; slopes [-1, 1]."""
    return (activation(site, elementwise.sin()),)


@rule("Cos", since=(7, 22))
def cos(site: Site) -> tuple[Term, ...]:
    """cos x; slopes [-1, 1]."""
    return (activation(site, elementwise.cos()),)


@rule("Atan", since=(7, 22))
def atan(site: Site) -> tuple[Term, ...]:
    """atan x; slopes [0, 1]."""
    return (activation(site, elementwise.atan()),)


@rule("Asinh", since=(9, 22))
def asinh(site: Site) -> tuple[Term, ...]:
    """asinh x; slopes [0, 1]."""
    return (activation(site, elementwise.asinh()),)
