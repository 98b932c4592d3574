"""Where slopes turn, and small steps that every maker of functions takes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certifier.terms import Bend

Array = NDArray[Any]


def bend(at: float | Array, least: float | Array, most: float | Array) -> Bend:
    """A bend known to nine digits at least."""
    return Bend(at=at, near=2.0**-30 * (1.0 + float(np.max(np.abs(at)))), least=least, most=most)


def turns(low: tuple[float, float], high: tuple[float, float]) -> tuple[Bend, Bend]:
    """Two bends (place, slope) of a derivative that is smooth there."""
    return bend(low[0], low[1], low[1]), bend(high[0], high[1], high[1])


def below(x: float) -> float:
    """The next number down; 0 stays."""
    return 0.0 if x == 0 else math.nextafter(x, -math.inf)


def above(x: float) -> float:
    """The next number up; 0 stays."""
    return 0.0 if x == 0 else math.nextafter(x, math.inf)


def shrunk(x: Array, alpha: float) -> Array:
    """x / alpha, which may overflow to infinity."""
    with np.errstate(over="ignore"):
        return x / alpha


def grown(alpha: float, x: Array) -> Array:
    """alpha x, which may overflow to infinity."""
    with np.errstate(over="ignore"):
        return alpha * x
