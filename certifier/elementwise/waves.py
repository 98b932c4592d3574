"""Sine and cosine."""

from __future__ import annotations

import numpy as np

from certifier.terms import Elementwise


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
