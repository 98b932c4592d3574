"""Lines below and above a scalar function on an interval, for slopes that anybody may choose.

    lower_slope y + lower_intercept <= f(y) <= upper_slope y + upper_intercept     for all y in [lower, upper]

On a piece [p, q] let g(y) = f(y) - s y have secant slopes in [a, b].  Then g(y) >= g(p) + a (y - p) and
g(y) >= g(q) - b (q - y), so that g is nowhere below where those two lines meet:

    theta g(p) + (1 - theta) g(q) + a theta (q - p),   theta = b/(b - a),   if a < 0 < b;  else g(p) or g(q).

The intercept is the least of that over all pieces; more pieces make it sharper, never wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certifier.terms import Elementwise

Array = NDArray[Any]

CURVED_PIECES = 6
ROOM = 2.0**-46
"""Of the magnitudes that an intercept is computed from: some sixty roundings, of which fewer than twenty happen."""
UNDERFLOW = 2.0**-900


@dataclass(frozen=True, kw_only=True, eq=False)
class Lines:
    """Lines that enclose a function on an interval, entry by entry.  Shapes: all [B, n]."""

    lower_slope: Array
    lower_intercept: Array
    upper_slope: Array
    upper_intercept: Array


def enclosing_lines(
    function: Elementwise, lower: Array, upper: Array, *, lower_slope: Array, upper_slope: Array
) -> Lines:
    """Intercepts that are proved for the given slopes; where that cannot be, as at infinite ends, both slopes become 0.

    Shapes: all [B, n].
    Arithmetic: the lower intercept is rounded down, the upper one up; infinite where nothing is known.
    """
    bounded = np.isfinite(lower) & np.isfinite(upper) & np.isfinite(lower_slope) & np.isfinite(upper_slope)
    with np.errstate(all="ignore"):
        points = _points(function, lower, upper)
        if function.is_straight:
            # Extremes are at ends and bends, where values are exact.
            values = function.evaluate(points)
            below = np.min(straight_floor(values, lower_slope * points), axis=0)
            above = -np.min(straight_floor(-values, -upper_slope * points), axis=0)
        else:
            low, high = function.range_on(points, points)
            slopes = function.secants_on(points[:-1], points[1:])
            below = _floor(points, low, slopes, lower_slope)
            # The upper line of f is the lower line of -f, turned over.
            above = -_floor(points, -high, (-slopes[1], -slopes[0]), -upper_slope)
    known = bounded & np.isfinite(below) & np.isfinite(above)
    if known.all():
        return Lines(lower_slope=lower_slope, lower_intercept=below, upper_slope=upper_slope, upper_intercept=above)
    least, most = function.range_on(lower, upper)
    return Lines(
        lower_slope=np.where(known, lower_slope, 0.0),
        lower_intercept=np.where(known, below, least),
        upper_slope=np.where(known, upper_slope, 0.0),
        upper_intercept=np.where(known, above, most),
    )


def straight_floor(values: Array, along: Array) -> Array:
    """values - along, from below."""
    return values - along - ROOM * (np.abs(values) + np.abs(along)) - UNDERFLOW


def _points(function: Elementwise, lower: Array, upper: Array) -> Array:
    """Where the pieces meet, in order, from `lower` to `upper`.  Shapes: [B, n] -> [K, B, n]."""
    pieces = 1 if function.is_straight else CURVED_PIECES
    inner = [lower + (upper - lower) * (step / pieces) for step in range(1, pieces)]
    inner += [np.broadcast_to(bend.at, lower.shape) for bend in function.bends or ()]
    if not inner:
        return np.stack([lower, upper])
    between = np.sort(np.clip(np.stack(inner), lower, upper), axis=0)
    return np.concatenate([lower[None], between, upper[None]])


def _floor(points: Array, values: Array, slopes: tuple[Array, Array], slope: Array) -> Array:
    """A lower bound of f(y) - slope y over all pieces, where f >= values at the points; [K, B, n] -> [B, n]."""
    heights = values - slope * points
    left, right = heights[:-1], heights[1:]
    width = np.nextafter(points[1:] - points[:-1], np.inf)
    a, b = np.nextafter(slopes[0] - slope, -np.inf), np.nextafter(slopes[1] - slope, np.inf)
    theta = b / (b - a)
    drop = np.abs(a) * width
    meeting = theta * left + (1.0 - theta) * right - theta * drop
    lowest = np.where(a >= 0, left, np.where(b <= 0, right, meeting))
    size = np.abs(values) + np.abs(slope * points)
    room = ROOM * (size[:-1] + size[1:] + np.where((a < 0) & (b > 0), drop, 0.0)) + UNDERFLOW
    return np.min(lowest - room, axis=0)
