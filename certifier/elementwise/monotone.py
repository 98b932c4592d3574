"""Smooth functions that rise everywhere: sigmoids, softplus, inverse functions."""

from __future__ import annotations

import numpy as np
from scipy import special

from certifier.elementwise.bends import bend
from certifier.terms import Elementwise

ERF_SLOPE = 1.1283791670955128
"""2/sqrt(pi) <= ERF_SLOPE."""


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
