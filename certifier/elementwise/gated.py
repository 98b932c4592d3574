"""Functions x g(x) whose slope leaves [0, 1]: GELU, SiLU, HardSwish, Mish.

The ranges of slopes without a closed form (GELU by tanh, SiLU, Mish) lie between the values at the roots of the
second derivative; the tests recompute them with 50 digits.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from certifier.elementwise.bends import Array, above, bend, grown, turns
from certifier.terms import Elementwise

# Extremes of the derivative, rounded outward; each pair sums to 1 where f(x) - x/2 is even.
GELU_SLOPES = (-0.1289041451851548, 1.128904145185155)
GELU_TANH_SLOPES = (-0.12899306865877178, 1.128993068658772)
SILU_SLOPES = (-0.09983932012886693, 1.099839320128867)
MISH_SLOPES = (-0.11252612238946257, 1.088498161251728)

GELU_BEND, GELU_TANH_BEND, SILU_BEND = math.sqrt(2.0), 1.4185040087908284, 2.3993572805154677
MISH_BENDS = (-2.2563763963607931, 1.4905711794854285)
"""Where those derivatives turn, to the last digits; `bend` widens them."""

_ROOT_TWO_OVER_PI = math.sqrt(2 / math.pi)
_GELU_CUBIC = 0.044715


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
        evaluate=lambda x: x * special.expit(grown(alpha, x)),
        derivative=lambda x: _silu_derivative(grown(alpha, x)),
        slope_lower=SILU_SLOPES[0],
        slope_upper=SILU_SLOPES[1],
        ulps=32.0,
        absolute_ulps=above(192.0 / abs(alpha)),
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
