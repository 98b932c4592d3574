"""Scalar functions with their slope intervals, each derived at high precision and rounded outward.

Every maker returns an `Elementwise`.  A differentiable function's secant slopes are means of its derivative,
so the derivative's range bounds them; finitely many kinks change nothing, piece by piece.  The ranges without
a closed form (GELU by tanh, SiLU, Mish) lie between the values at the roots of the second derivative; the
tests recompute them with 50 digits.  `ulps` and `absolute_ulps` are at least four times the error measured of
the float32 kernels (assumption A5).  `evaluate` neither overflows nor cancels for any finite float64.

The file is longer than most because every scalar function of the project lives here, each in about ten lines.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from certifier.terms import Bend, Elementwise

Array = NDArray[Any]

# Extremes of the derivative, rounded outward; each pair sums to 1 where f(x) - x/2 is even.
GELU_SLOPES = (-0.1289041451851548, 1.128904145185155)
GELU_TANH_SLOPES = (-0.12899306865877178, 1.128993068658772)
SILU_SLOPES = (-0.09983932012886693, 1.099839320128867)
MISH_SLOPES = (-0.11252612238946257, 1.088498161251728)
ERF_SLOPE = 1.1283791670955128
"""2/sqrt(pi) <= ERF_SLOPE."""

GELU_BEND, GELU_TANH_BEND, SILU_BEND = math.sqrt(2.0), 1.4185040087908284, 2.3993572805154677
MISH_BENDS = (-2.2563763963607931, 1.4905711794854285)
"""Where those derivatives turn, to the last digits; `bend` widens them."""

_ROOT_TWO_OVER_PI = math.sqrt(2 / math.pi)
_GELU_CUBIC = 0.044715


def bend(at: float | Array, least: float | Array, most: float | Array) -> Bend:
    """A bend known to nine digits at least."""
    return Bend(at=at, near=2.0**-30 * (1.0 + float(np.max(np.abs(at)))), least=least, most=most)


def turns(low: tuple[float, float], high: tuple[float, float]) -> tuple[Bend, Bend]:
    """Two bends (place, slope) of a derivative that is smooth there."""
    return bend(low[0], low[1], low[1]), bend(high[0], high[1], high[1])


def relu() -> Elementwise:
    """max(0, x): slopes [0, 1]; the kernel is exact."""
    return Elementwise(
        name="relu",
        evaluate=lambda x: np.maximum(x, 0.0),
        derivative=lambda x: np.where(x >= 0, 1.0, 0.0),
        slope_lower=0.0,
        slope_upper=1.0,
        ulps=0.0,
        absolute_ulps=0.0,
        image=(0.0, np.inf),
        bends=(bend(0.0, 0.0, 1.0),),
    )


def leaky_relu(alpha: float) -> Elementwise:
    """x above 0, alpha x below: slopes [min(1, alpha), max(1, alpha)]; one rounding."""
    return prelu(np.float64(alpha), name="leaky relu")


def prelu(slopes: float | Array, *, name: str = "prelu") -> Elementwise:
    """x above 0, a x below, entry by entry: slopes [min(1, a), max(1, a)] for `slopes` of any sign."""
    lower, upper = np.minimum(1.0, slopes), np.maximum(1.0, slopes)
    return Elementwise(
        name=name,
        evaluate=lambda x: np.where(x >= 0, x, slopes * x),
        derivative=lambda x: np.where(x >= 0, 1.0, slopes),
        slope_lower=float(lower) if np.ndim(lower) == 0 else lower,
        slope_upper=float(upper) if np.ndim(upper) == 0 else upper,
        ulps=2.0,
        absolute_ulps=0.0,
        bends=(bend(0.0, lower, upper),),
    )


def elu(alpha: float) -> Elementwise:
    """x above 0, alpha (e^x - 1) below, whose slope alpha e^x lies between 0 and alpha."""
    return selu(alpha, 1.0, name="elu")


def selu(alpha: float, gamma: float, *, name: str = "selu") -> Elementwise:
    """gamma (x above 0, alpha (e^x - 1) below): the slopes are gamma times [min(0, alpha), max(1, alpha)].

    A negative gamma swaps the ends.  The kernel subtracts 1 from a rounded exponential: an absolute error.
    """
    ends = (gamma * min(0.0, alpha), gamma * max(1.0, alpha))
    exact = gamma == 1.0
    return Elementwise(
        name=name,
        evaluate=lambda x: gamma * np.where(x >= 0, x, alpha * np.expm1(np.minimum(x, 0.0))),
        derivative=lambda x: gamma * np.where(x >= 0, 1.0, alpha * np.exp(np.minimum(x, 0.0))),
        slope_lower=min(ends) if exact else _below(min(ends)),
        slope_upper=max(ends) if exact else _above(max(ends)),
        ulps=16.0,
        absolute_ulps=8.0 * abs(alpha * gamma),
        bends=(bend(0.0, _below(min(gamma, gamma * alpha)), _above(max(gamma, gamma * alpha))),),
    )


def celu(alpha: float) -> Elementwise:
    """max(0, x) + min(0, alpha (e^(x/alpha) - 1)) for alpha > 0: the slope e^(x/alpha) below 0 is in [0, 1].

    Raises: ValueError for alpha <= 0, where the slope is unbounded or the function undefined.
    """
    if not alpha > 0:
        raise ValueError("celu needs alpha > 0")
    return Elementwise(
        name="celu",
        evaluate=lambda x: np.where(x >= 0, x, alpha * np.expm1(_shrunk(np.minimum(x, 0.0), alpha))),
        derivative=lambda x: np.where(x >= 0, 1.0, np.exp(_shrunk(np.minimum(x, 0.0), alpha))),
        slope_lower=0.0,
        slope_upper=1.0,
        ulps=16.0,
        absolute_ulps=8.0 * alpha,
        bends=(bend(0.0, 1.0, 1.0),),
    )


def sigmoid() -> Elementwise:
    """1/(1 + e^-x): the slope s(1 - s) is within [0, 1/4]."""
    return Elementwise(
        name="sigmoid",
        evaluate=special.expit,
        derivative=lambda x: special.expit(x) * special.expit(-x),
        slope_lower=0.0,
        slope_upper=0.25,
        ulps=16.0,
        absolute_ulps=16.0,
        image=(0.0, 1.0),
        bends=(bend(0.0, 0.25, 0.25),),
    )


def hard_sigmoid(alpha: float, beta: float) -> Elementwise:
    """max(0, min(1, alpha x + beta)): slopes [min(0, alpha), max(0, alpha)].

    Where it is not clipped, |alpha x| <= 1 + |beta|, which bounds the rounding of the product.
    """
    # Where the derivative is computed to jump, for an alpha of any size.
    near = math.inf if alpha == 0 else 2.0**-30 * (1.0 + abs(beta)) / abs(alpha) + 2.0**-1000
    places = () if alpha == 0 else (-beta / alpha, (1.0 - beta) / alpha)
    return Elementwise(
        name="hard sigmoid",
        evaluate=lambda x: np.clip(_without_overflow(alpha, x) + beta, 0.0, 1.0),
        derivative=lambda x: np.where(abs(_without_overflow(alpha, x) + beta - 0.5) < 0.5, alpha, 0.0),
        slope_lower=min(0.0, alpha),
        slope_upper=max(0.0, alpha),
        ulps=4.0,
        absolute_ulps=4.0 * (1.0 + abs(beta)),
        image=(0.0, 1.0),
        bends=tuple(Bend(at=at, near=near, least=min(0.0, alpha), most=max(0.0, alpha)) for at in places),
    )


def tanh() -> Elementwise:
    """tanh x: the slope 1 - tanh² is within [0, 1]."""
    return Elementwise(
        name="tanh",
        evaluate=np.tanh,
        derivative=lambda x: 1.0 - np.square(np.tanh(x)),
        slope_lower=0.0,
        slope_upper=1.0,
        ulps=24.0,
        absolute_ulps=8.0,
        image=(-1.0, 1.0),
        bends=(bend(0.0, 1.0, 1.0),),
    )


def softplus() -> Elementwise:
    """log(1 + e^x): the slope, a sigmoid, is within [0, 1]."""
    return Elementwise(
        name="softplus",
        evaluate=lambda x: np.maximum(x, 0.0) + np.log1p(np.exp(-abs(x))),
        derivative=special.expit,
        slope_lower=0.0,
        slope_upper=1.0,
        ulps=24.0,
        absolute_ulps=8.0,
        image=(0.0, np.inf),
        bends=(),
    )


def softsign() -> Elementwise:
    """x/(1 + |x|): the slope 1/(1 + |x|)² is within [0, 1]."""
    return Elementwise(
        name="softsign",
        evaluate=lambda x: x / (1.0 + abs(x)),
        derivative=lambda x: 1.0 / (1.0 + abs(x)) / (1.0 + abs(x)),
        slope_lower=0.0,
        slope_upper=1.0,
        ulps=16.0,
        absolute_ulps=0.0,
        image=(-1.0, 1.0),
        bends=(bend(0.0, 1.0, 1.0),),
    )


def erf() -> Elementwise:
    """erf x: the slope 2/sqrt(pi) e^(-x²) is within [0, 2/sqrt(pi)]."""
    return Elementwise(
        name="erf",
        evaluate=special.erf,
        derivative=lambda x: ERF_SLOPE * np.exp(-np.square(np.clip(x, -30.0, 30.0))),
        slope_lower=0.0,
        slope_upper=ERF_SLOPE,
        ulps=8.0,
        absolute_ulps=8.0,
        image=(-1.0, 1.0),
        bends=(bend(0.0, ERF_SLOPE, ERF_SLOPE),),
    )


def gelu() -> Elementwise:
    """x Φ(x): the slope Φ + xφ is extreme at x = ±√2, where its derivative (2 - x²)φ changes sign."""
    return Elementwise(
        name="gelu",
        evaluate=lambda x: x * special.ndtr(x),
        derivative=_gelu_derivative,
        slope_lower=GELU_SLOPES[0],
        slope_upper=GELU_SLOPES[1],
        ulps=16.0,
        absolute_ulps=32.0,
        bends=turns((-GELU_BEND, GELU_SLOPES[0]), (GELU_BEND, GELU_SLOPES[1])),
    )


def _gelu_derivative(x: Array) -> Array:
    near = np.clip(x, -30.0, 30.0)
    return special.ndtr(near) + near * np.exp(-np.square(near) / 2) / math.sqrt(2 * math.pi)


def gelu_tanh() -> Elementwise:
    """x/2 (1 + tanh(√(2/π)(x + 0.044715 x³))); the slopes are extreme near x = ±1.4185."""
    return Elementwise(
        name="gelu (tanh)",
        evaluate=lambda x: x * special.expit(_gelu_argument(x)),
        derivative=_gelu_tanh_derivative,
        slope_lower=GELU_TANH_SLOPES[0],
        slope_upper=GELU_TANH_SLOPES[1],
        ulps=32.0,
        absolute_ulps=80.0,
        bends=turns((-GELU_TANH_BEND, GELU_TANH_SLOPES[0]), (GELU_TANH_BEND, GELU_TANH_SLOPES[1])),
    )


def _gelu_argument(x: Array) -> Array:
    # (1 + tanh t)/2 = sigmoid(2t); beyond 50 the sigmoid is 0 or 1 to the last bit, and cubes may overflow.
    near = np.clip(x, -50.0, 50.0)
    return 2 * _ROOT_TWO_OVER_PI * (near + _GELU_CUBIC * near**3)


def _gelu_tanh_derivative(x: Array) -> Array:
    near = np.clip(x, -50.0, 50.0)
    argument = _gelu_argument(near)
    inner = 2 * _ROOT_TWO_OVER_PI * (1 + 3 * _GELU_CUBIC * near**2)
    return special.expit(argument) + near * inner * special.expit(argument) * special.expit(-argument)


def hard_swish() -> Elementwise:
    """x max(0, min(1, x/6 + 1/2)): the slope x/3 + 1/2 on (-3, 3) is within [-1/2, 3/2]."""
    return Elementwise(
        name="hard swish",
        evaluate=lambda x: x * np.clip(x / 6 + 0.5, 0.0, 1.0),
        derivative=lambda x: np.where(x <= -3, 0.0, np.where(x >= 3, 1.0, x / 3 + 0.5)),
        slope_lower=-0.5,
        slope_upper=1.5,
        ulps=16.0,
        absolute_ulps=8.0,
        bends=(bend(-3.0, -0.5, 0.0), bend(3.0, 1.0, 1.5)),
    )


def swish(alpha: float) -> Elementwise:
    """x sigmoid(alpha x) = silu(alpha x)/alpha: its slopes are those of silu for every alpha but 0, then 1/2.

    The kernel's sigmoid errs by a few units absolutely where |alpha x| is below about 18, hence the division.
    """
    if alpha == 0.0:
        return Elementwise(
            name="half",
            evaluate=lambda x: x / 2,
            derivative=lambda x: np.full_like(x, 0.5),
            slope_lower=0.5,
            slope_upper=0.5,
            ulps=16.0,
            absolute_ulps=0.0,
            bends=(),
        )
    return Elementwise(
        name="swish",
        evaluate=lambda x: x * special.expit(_without_overflow(alpha, x)),
        derivative=lambda x: _silu_derivative(_without_overflow(alpha, x)),
        slope_lower=SILU_SLOPES[0],
        slope_upper=SILU_SLOPES[1],
        ulps=32.0,
        absolute_ulps=_above(192.0 / abs(alpha)),
        bends=turns((-SILU_BEND / alpha, SILU_SLOPES[0]), (SILU_BEND / alpha, SILU_SLOPES[1])),
    )


def silu() -> Elementwise:
    """x sigmoid(x): the slopes are extreme near x = ±2.3994."""
    return swish(1.0)


def _silu_derivative(x: Array) -> Array:
    near = np.clip(x, -800.0, 800.0)
    return special.expit(near) * (1.0 + near * special.expit(-near))


def mish() -> Elementwise:
    """x tanh(softplus x): the slopes are extreme near x = -2.2564 and x = 1.4906."""
    return Elementwise(
        name="mish",
        evaluate=lambda x: x * _tanh_of_softplus(x),
        derivative=_mish_derivative,
        slope_lower=MISH_SLOPES[0],
        slope_upper=MISH_SLOPES[1],
        ulps=40.0,
        absolute_ulps=16.0,
        bends=turns((MISH_BENDS[0], MISH_SLOPES[0]), (MISH_BENDS[1], MISH_SLOPES[1])),
    )


def _tanh_of_softplus(x: Array) -> Array:
    """((1 + e^x)² - 1)/((1 + e^x)² + 1), divided by e^(2x) for x >= 0: no overflow, no cancellation."""
    e = np.exp(-abs(x))
    return np.where(x >= 0, (1 + 2 * e) / (1 + 2 * e + 2 * e * e), e * (e + 2) / (e * (e + 2) + 2))


def _mish_derivative(x: Array) -> Array:
    near = np.clip(x, -800.0, 800.0)
    t = _tanh_of_softplus(near)
    return t + near * (1.0 - t * t) * special.expit(near)


def clip(lower: float, upper: float) -> Elementwise:
    """min(upper, max(lower, x)), which is `upper` everywhere if lower > upper: slopes [0, 1]; exact."""
    return Elementwise(
        name="clip",
        evaluate=lambda x: np.minimum(upper, np.maximum(lower, x)),
        derivative=lambda x: np.where((x >= lower) & (x <= upper), 1.0, 0.0),
        slope_lower=0.0,
        slope_upper=1.0,
        ulps=0.0,
        absolute_ulps=0.0,
        image=(min(lower, upper), upper),
        bends=(bend(lower, 0.0, 1.0), bend(upper, 0.0, 1.0)),
    )


def maximum(floor: float | Array) -> Elementwise:
    """max(x, floor) for a constant floor: slopes [0, 1]; exact."""
    return Elementwise(
        name="maximum",
        evaluate=lambda x: np.maximum(x, floor),
        derivative=lambda x: np.where(x >= floor, 1.0, 0.0),
        slope_lower=0.0,
        slope_upper=1.0,
        ulps=0.0,
        absolute_ulps=0.0,
        bends=(bend(floor, 0.0, 1.0),),
    )


def minimum(ceiling: float | Array) -> Elementwise:
    """min(x, ceiling) for a constant ceiling: slopes [0, 1]; exact."""
    return Elementwise(
        name="minimum",
        evaluate=lambda x: np.minimum(x, ceiling),
        derivative=lambda x: np.where(x <= ceiling, 1.0, 0.0),
        slope_lower=0.0,
        slope_upper=1.0,
        ulps=0.0,
        absolute_ulps=0.0,
        bends=(bend(ceiling, 0.0, 1.0),),
    )


def absolute() -> Elementwise:
    """|x|: slopes [-1, 1]; exact."""
    return Elementwise(
        name="absolute",
        evaluate=np.abs,
        derivative=np.sign,
        slope_lower=-1.0,
        slope_upper=1.0,
        ulps=0.0,
        absolute_ulps=0.0,
        image=(0.0, np.inf),
        bends=(bend(0.0, -1.0, 1.0),),
    )


def sin() -> Elementwise:
    """sin x: the slope cos x is within [-1, 1]."""
    return Elementwise(
        name="sin",
        evaluate=np.sin,
        derivative=np.cos,
        slope_lower=-1.0,
        slope_upper=1.0,
        ulps=16.0,
        absolute_ulps=32.0,
        image=(-1.0, 1.0),
        curvature=1.0,
    )


def cos() -> Elementwise:
    """cos x: the slope -sin x is within [-1, 1]."""
    return Elementwise(
        name="cos",
        evaluate=np.cos,
        derivative=lambda x: -np.sin(x),
        slope_lower=-1.0,
        slope_upper=1.0,
        ulps=16.0,
        absolute_ulps=32.0,
        image=(-1.0, 1.0),
        curvature=1.0,
    )


def atan() -> Elementwise:
    """atan x: the slope 1/(1 + x²) is within [0, 1]."""
    return Elementwise(
        name="atan",
        evaluate=np.arctan,
        derivative=lambda x: 1.0 / (1.0 + np.square(np.clip(x, -1e150, 1e150))),
        slope_lower=0.0,
        slope_upper=1.0,
        ulps=16.0,
        absolute_ulps=0.0,
        image=(-1.5707963267948968, 1.5707963267948968),
        bends=(bend(0.0, 1.0, 1.0),),
    )


def asinh() -> Elementwise:
    """asinh x: the slope 1/sqrt(1 + x²) is within [0, 1]."""
    return Elementwise(
        name="asinh",
        evaluate=np.arcsinh,
        derivative=lambda x: 1.0 / np.hypot(1.0, x),
        slope_lower=0.0,
        slope_upper=1.0,
        ulps=16.0,
        absolute_ulps=0.0,
        bends=(bend(0.0, 1.0, 1.0),),
    )


def _below(x: float) -> float:
    return 0.0 if x == 0 else math.nextafter(x, -math.inf)


def _above(x: float) -> float:
    return 0.0 if x == 0 else math.nextafter(x, math.inf)


def _without_overflow(alpha: float, x: Array) -> Array:
    with np.errstate(over="ignore"):
        return alpha * x


def _shrunk(x: Array, alpha: float) -> Array:
    with np.errstate(over="ignore"):
        return x / alpha
