"""Scalar functions with what is proved of them: slopes, bends, images and the errors of their kernels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from certifier.terms.precision import REFERENCE
from certifier.terms.term import Array

DERIVATIVE_ROOM = 2.0**-36
"""Many times the error of a derivative (A4) relative to the steepest slope or 1; those of exact kernels have none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Bend:
    """A place within `near` of `at` where a derivative may turn or jump; its limits there lie in [least, most]."""

    at: float | Array
    near: float
    least: float | Array
    most: float | Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Elementwise:
    """A scalar function with its slope interval: lower (y-x) <= f(y)-f(x) <= upper (y-x) for all x <= y.

    Slopes are rounded outward; they are scalars or arrays that match the flat value.  `ulps` bounds the relative
    error of the engine's kernel in units of roundoff, `absolute_ulps` its absolute error in the same units
    (assumption A5).  `image` holds every value of the exact function; all numbers is always safe.

    Between neighbouring `bends` the derivative is monotone, or else its own slopes are at most `curvature` everywhere;
    None, for either, promises nothing and is always safe.
    """

    name: str
    evaluate: Callable[[Array], Array]
    derivative: Callable[[Array], Array]
    slope_lower: float | Array
    slope_upper: float | Array
    ulps: float
    absolute_ulps: float
    image: tuple[float, float] = (-math.inf, math.inf)
    bends: tuple[Bend, ...] | None = None
    curvature: float | None = None

    @property
    def steepest(self) -> Array:
        """max |slope|, per entry or for all."""
        return np.maximum(np.abs(self.slope_lower), np.abs(self.slope_upper))

    @property
    def is_straight(self) -> bool:
        """Straight between neighbouring bends: what rounds nothing only moves, compares and negates numbers."""
        return self.ulps == 0 and self.absolute_ulps == 0 and self.bends is not None

    def slopes_on(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        """Slopes of secants between arguments in [lower, upper], entry by entry."""
        shape = np.shape(lower)
        return np.broadcast_to(self.slope_lower, shape), np.broadcast_to(self.slope_upper, shape)

    def secants_on(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        """The same as `slopes_on`, as sharp as the ends, `bends` and `curvature` allow; costs evaluations.

        A secant's slope is a mean of the derivative, which is monotone between bends: the extremes are at the ends or
        at a bend between them.
        """
        general = self.slopes_on(lower, upper)
        if self.bends is None and self.curvature is None:
            return general
        room = 0.0 if self.is_straight else DERIVATIVE_ROOM * np.maximum(1.0, self.steepest)
        with np.errstate(all="ignore"):
            if self.bends is None:
                middle = self.derivative(lower / 2 + upper / 2)
                reach = room + float(self.curvature or 0.0) * (upper - lower)
                least, most = middle - reach, middle + reach
            else:
                ends = self.derivative(lower), self.derivative(upper)
                least, most = np.minimum(*ends) - room, np.maximum(*ends) + room
                for bend in self.bends:
                    inside = (lower <= bend.at + bend.near) & (upper >= bend.at - bend.near)
                    least = np.where(inside, np.minimum(least, bend.least), least)
                    most = np.where(inside, np.maximum(most, bend.most), most)
        known = np.isfinite(lower) & np.isfinite(upper) & np.isfinite(least) & np.isfinite(most)
        return (
            np.where(known, np.maximum(least, general[0]), general[0]),
            np.where(known, np.minimum(most, general[1]), general[1]),
        )

    def range_on(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        """Where the exact values over [lower, upper] lie, entry by entry; ends may be infinite.

        A rising function is enclosed by its values at the ends, any other by its slopes around the middle.
        """
        with np.errstate(all="ignore"):
            rising = (self._value_lower(lower), self._value_upper(upper))
            middle = np.where(np.isfinite(lower) & np.isfinite(upper), lower / 2 + upper / 2, 0.0)
            reach = np.maximum(upper - middle, middle - lower) * np.broadcast_to(self.steepest, np.shape(lower))
            reach = np.nextafter(np.nextafter(reach, np.inf), np.inf)
            around = (
                np.nextafter(self._value_lower(middle) - reach, -np.inf),
                np.nextafter(self._value_upper(middle) + reach, np.inf),
            )
            rises = np.broadcast_to(self.slope_lower, np.shape(lower)) >= 0
            low = np.where(rises, rising[0], around[0])
            high = np.where(rises, rising[1], around[1])
        low = np.where(np.isnan(low), -np.inf, low)
        high = np.where(np.isnan(high), np.inf, high)
        return np.maximum(low, self.image[0]), np.minimum(high, self.image[1])

    def _value_lower(self, x: Array) -> Array:
        value = self.evaluate(x)
        return np.where(np.isfinite(x), value - self._error(value), -np.inf)

    def _value_upper(self, x: Array) -> Array:
        value = self.evaluate(x)
        return np.where(np.isfinite(x), value + self._error(value), np.inf)

    def _error(self, value: Array) -> Array:
        """Of the float64 evaluation (A4), with room for relating it to the computed value and for adding it."""
        if self.ulps == 0 and self.absolute_ulps == 0:
            return np.zeros_like(value)
        return REFERENCE.unit * (2 * (self.ulps + 2) * abs(value) + 2 * self.absolute_ulps) + 8 * REFERENCE.tiny
