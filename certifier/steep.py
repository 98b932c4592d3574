"""Scalar functions whose slope is bounded only on bounded intervals: exponential, logarithm, roots, powers, inverse.

Globally their slope interval is all numbers; `slopes_on` and `range_on` bound them between two ends, and give all
numbers where an end is infinite or outside of where the function is smooth.  Each derivative is monotone on every
interval of one sign, so that its extremes are at the ends (or at zero, for odd powers).  Values are widened by
`ROOM`, many times the error of their evaluation (A4).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certifier.proof.rounding import add_upper
from certifier.terms import Elementwise

Array = NDArray[Any]
Ends = tuple[Array, Array]
ROOM = 2.0**-44
TINY = 2.0**-900
LARGEST_POWER = 64
"""Powers beyond this are left out: their evaluation would need a wider room."""
GROWTH = 1.9
"""How much steeper a function may be where it is held: the steeper, the further what it reads may drift."""
CAP = 0.87
"""Times a power of two it is how far.  Neither of both is a ratio of round numbers, at which functions and ranges are
apt to end: last bits, which differ between machines, decide nothing."""
HALVINGS = 200


@dataclass(frozen=True, kw_only=True, eq=False)
class Steep(Elementwise):
    """A function without a global slope bound; `smooth_on` says in words where it has one.

    `within` are the ends of the arguments, entry by entry, for which its slopes hold; None before they are known.
    """

    ends: Callable[[Array, Array], tuple[Ends, Ends]]
    """(slopes, values) at lower and upper ends, unordered and as computed; NaN where the function is not smooth."""
    smooth_on: str
    exponent: float | None
    """p where the function is x^p: 2, ½ for the root, -1 for the inverse; None for others."""
    within: Ends | None

    def slopes_on(self, lower: Array, upper: Array) -> Ends:
        return _hull(self.ends, lower, upper, 0)

    def range_on(self, lower: Array, upper: Array) -> Ends:
        low, high = _hull(self.ends, lower, upper, 1)
        return np.maximum(low, self.image[0]), np.minimum(high, self.image[1])

    def inside(self, lower: Array, upper: Array) -> Steep:
        """The function on these arguments, with its slopes there.  Shapes: both [n]."""
        slopes = self.slopes_on(lower, upper)
        return replace(self, slope_lower=slopes[0], slope_upper=slopes[1], within=(lower, upper))

    def held(self) -> tuple[float, float] | None:
        """(cap, K), cap > 0: no secant between arguments that are at most cap from those `within` is steeper than K.

        K is little more than the steepest slope `within`; None where no such cap is found.
        """
        if self.within is None:
            return None
        lower, upper = self.within
        wanted = GROWTH * float(np.max(self.steepest, initial=0.0))
        largest = max(1.0, *(float(np.max(np.abs(end), initial=0.0)) for end in self.within))
        cap = math.ldexp(CAP, math.frexp(largest)[1])
        for _ in range(HALVINGS):
            slopes = self.slopes_on(-add_upper(-lower, cap), add_upper(upper, cap))
            steepest = float(np.max(np.abs(slopes), initial=0.0))
            if steepest <= wanted:
                return cap, steepest
            cap /= 2
        return None


def _hull(ends: Callable[[Array, Array], tuple[Ends, Ends]], lower: Array, upper: Array, which: int) -> Ends:
    with np.errstate(all="ignore"):
        found = ends(np.asarray(lower, dtype=np.float64), np.asarray(upper, dtype=np.float64))[which]
        # Each end has its own error: a small one keeps its sign beside a large one.
        rooms = [ROOM * np.abs(end) + 2.0**-1000 for end in found]
        low = np.minimum(*(end - room for end, room in zip(found, rooms, strict=True)))
        high = np.maximum(*(end + room for end, room in zip(found, rooms, strict=True)))
        known = np.isfinite(lower) & np.isfinite(upper) & np.isfinite(low) & np.isfinite(high)
        return np.where(known, low, -np.inf), np.where(known, high, np.inf)


def _made(
    name: str,
    value: Callable[[Array], Array],
    slope: Callable[[Array], Array],
    ends: Callable[[Array, Array], tuple[Ends, Ends]],
    *,
    smooth_on: str,
    ulps: float,
    absolute_ulps: float,
    image: tuple[float, float],
    exponent: float | None,
) -> Steep:
    return Steep(
        name=name,
        evaluate=_silent(value),
        derivative=_silent(slope),
        slope_lower=-math.inf,
        slope_upper=math.inf,
        ulps=ulps,
        absolute_ulps=absolute_ulps,
        image=image,
        ends=ends,
        smooth_on=smooth_on,
        exponent=exponent,
        within=None,
    )


def _silent(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    def evaluate(x: Array) -> Array:
        with np.errstate(all="ignore"):
            return function(x)

    return evaluate


def exponential() -> Steep:
    """e^x: slope and value rise with x."""
    return _made(
        "exp",
        np.exp,
        np.exp,
        lambda low, high: ((np.exp(low), np.exp(high)), (np.exp(low), np.exp(high))),
        smooth_on="bounded intervals",
        ulps=16.0,
        absolute_ulps=0.0,
        image=(0.0, math.inf),
        exponent=None,
    )


def logarithm() -> Steep:
    """log x for x > 0: the slope 1/x falls."""
    return _made(
        "log",
        np.log,
        lambda x: 1 / x,
        lambda low, high: ((1 / _positive(low), 1 / high), (np.log(_positive(low)), np.log(high))),
        smooth_on="intervals above zero",
        ulps=16.0,
        absolute_ulps=16.0,
        image=(-math.inf, math.inf),
        exponent=None,
    )


def square_root() -> Steep:
    """√x for x > 0: the slope 1/(2√x) falls."""
    return _made(
        "sqrt",
        np.sqrt,
        lambda x: 0.5 / np.sqrt(x),
        lambda low, high: (
            (0.5 / np.sqrt(_positive(low)), 0.5 / np.sqrt(high)),
            (np.sqrt(_positive(low)), np.sqrt(high)),
        ),
        smooth_on="intervals above zero",
        ulps=8.0,
        absolute_ulps=0.0,
        image=(0.0, math.inf),
        exponent=0.5,
    )


def reciprocal() -> Steep:
    """1/x on either side of zero: slope -1/x² and value are monotone there."""

    def ends(low: Array, high: Array) -> tuple[Ends, Ends]:
        one_sided = np.where((low > 0) | (high < 0), 1.0, np.nan)
        return (-one_sided / np.square(low), -one_sided / np.square(high)), (one_sided / low, one_sided / high)

    return _made(
        "reciprocal",
        lambda x: 1 / x,
        lambda x: -1 / np.square(x),
        ends,
        smooth_on="intervals that do not reach zero",
        ulps=8.0,
        absolute_ulps=0.0,
        image=(-math.inf, math.inf),
        exponent=-1.0,
    )


def power(exponent: float) -> Steep:
    """x^p: for an integer p of 2 to 64 anywhere, for any other p where x > 0.

    Raises: ValueError for an exponent that is not finite, is 0 or 1, or is beyond 64.
    """
    if not math.isfinite(exponent) or exponent in (0.0, 1.0):
        raise ValueError(f"an exponent of {exponent} makes no power function")
    whole = exponent == int(exponent) and exponent > 0
    if abs(exponent) > LARGEST_POWER:
        raise ValueError(f"exponents beyond {LARGEST_POWER} are not supported")
    even = whole and int(exponent) % 2 == 0

    def slope(x: Array) -> Array:
        # Subtracting 1 is exact for whole exponents; for others it could round, and a large x would magnify that.
        return exponent * np.power(x, exponent - 1) if whole else exponent * (np.power(x, exponent) / x)

    def divisible(x: Array) -> Array:
        # Where the power underflows, dividing it by a small x would magnify what that loses.
        return (x >= 1) | ((x > 0) & (np.power(x, exponent) >= TINY))

    def ends(low: Array, high: Array) -> tuple[Ends, Ends]:
        if not whole:
            low = np.where(divisible(low) & divisible(high), low, np.nan)
            return (slope(low), slope(high)), (np.power(low, exponent), np.power(high, exponent))
        within = (low < 0) & (high > 0)
        furthest = np.where(high >= -low, high, low)
        nearest = np.where(within, 0.0, np.where(high >= -low, low, high))
        near, far = np.power(nearest, exponent), np.power(furthest, exponent)
        if even:
            return (slope(low), slope(high)), (near, far)
        return (slope(nearest), slope(furthest)), (np.power(low, exponent), np.power(high, exponent))

    return _made(
        f"power {exponent:g}",
        lambda x: np.power(x, exponent),
        slope,
        ends,
        smooth_on="bounded intervals" if whole else "intervals above zero",
        ulps=8.0 if exponent == 2 else 16.0 + 2 * abs(exponent),
        absolute_ulps=0.0,
        image=(0.0, math.inf) if even or not whole else (-math.inf, math.inf),
        exponent=exponent,
    )


def _positive(x: Array) -> Array:
    return np.where(x > 0, x, np.nan)
