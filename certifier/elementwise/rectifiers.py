"""Piecewise linear functions and rectifiers with an exponential tail."""

from __future__ import annotations

import math

import numpy as np

from certifier.elementwise.bends import Array, above, below, bend, grown, shrunk
from certifier.terms import Bend, Elementwise


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

    A negative gamma swaps the ends.  The kernel subtracts 1 from a rounded exponential: an absolute error; and what it
    flushes to zero before it multiplies by gamma is at most 1/8 unit in every precision.
    """
    ends = (gamma * min(0.0, alpha), gamma * max(1.0, alpha))
    exact = gamma == 1.0
    return Elementwise(
        name=name,
        evaluate=lambda x: gamma * np.where(x >= 0, x, alpha * np.expm1(np.minimum(x, 0.0))),
        derivative=lambda x: gamma * np.where(x >= 0, 1.0, alpha * np.exp(np.minimum(x, 0.0))),
        slope_lower=min(ends) if exact else below(min(ends)),
        slope_upper=max(ends) if exact else above(max(ends)),
        ulps=16.0,
        absolute_ulps=8.0 * abs(alpha * gamma) + 0.5 * abs(gamma),
        bends=(bend(0.0, below(min(gamma, gamma * alpha)), above(max(gamma, gamma * alpha))),),
    )


def celu(alpha: float) -> Elementwise:
    """max(0, x) + min(0, alpha (e^(x/alpha) - 1)) for alpha > 0: the slope e^(x/alpha) below 0 is in [0, 1].

    Raises: ValueError for alpha <= 0, where the slope is unbounded or the function undefined.
    """
    if not alpha > 0:
        raise ValueError("celu needs alpha > 0")
    return Elementwise(
        name="celu",
        evaluate=lambda x: np.where(x >= 0, x, alpha * np.expm1(shrunk(np.minimum(x, 0.0), alpha))),
        derivative=lambda x: np.where(x >= 0, 1.0, np.exp(shrunk(np.minimum(x, 0.0), alpha))),
        slope_lower=0.0,
        slope_upper=1.0,
        ulps=16.0,
        absolute_ulps=8.0 * alpha,
        bends=(bend(0.0, 1.0, 1.0),),
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
        evaluate=lambda x: np.clip(grown(alpha, x) + beta, 0.0, 1.0),
        derivative=lambda x: np.where(abs(grown(alpha, x) + beta - 0.5) < 0.5, alpha, 0.0),
        slope_lower=min(0.0, alpha),
        slope_upper=max(0.0, alpha),
        ulps=4.0,
        absolute_ulps=4.0 * (1.0 + abs(beta)),
        image=(0.0, 1.0),
        bends=tuple(Bend(at=at, near=near, least=min(0.0, alpha), most=max(0.0, alpha)) for at in places),
    )


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
