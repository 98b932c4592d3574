"""Roots of weighted sums of squares: L2 poolings, moduli and root mean squares, however their weights are spelled."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certifier.operators import Operator
from certifier.proof.rounding import add_upper, gamma_upper, mul_upper, sqrt_upper
from certifier.terms import Precision, Rounding, VectorFunction

Array = NDArray[Any]
_FLOAT64, _TINY = 2.0**-53, 2.0**-1022


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightedNorms(VectorFunction):
    """||F(x) - F(y)|| <= √(largest column sum of A) ||x - y|| for F_m(x) = √(Σ_i A_mi x_i² + b_m), A >= 0, b >= 0.

    F_m(x) is the norm of the vector (√A_mi x_i, √b_m), so |F_m(x) - F_m(y)|² <= Σ_i A_mi (x_i - y_i)²; summed over m,
    every (x_i - y_i)² counts Σ_m A_mi times.  It is attained from 0 along an axis where b = 0.

    `weights` is A, entrywise not negative, `offset` is b.  `roundings` bounds how many roundings the spelling suffers
    beyond the products that A sums; no value on the way exceeds `growth` times the largest of x² and 1.
    """

    name: str
    weights: Operator
    offset: Array
    roundings: int
    growth: float

    def __post_init__(self) -> None:
        if np.any(self.offset < 0) or self.weights.digest != self.weights.absolute().digest:
            raise ValueError("weights and offsets under a root must not be negative")

    @cached_property
    def constant_upper(self) -> float:  # pyright: ignore[reportIncompatibleMethodOverride]
        operator = self.weights
        sums = float(np.max(operator.adjoint(np.ones((1, operator.rows))), initial=0.0))
        relative = mul_upper(1.0 + 2.0 * gamma_upper(operator.fan_out + 4, _FLOAT64), 1.0 + operator.weight_error)
        return float(sqrt_upper(mul_upper(add_upper(sums, 8.0 * (operator.fan_out + 4) * _TINY), relative)))

    def evaluate(self, x: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            return np.sqrt(self.weights.forward(np.square(x)) + self.offset)

    def pullback(self, gradient: Array, x: Array) -> Array:
        value = self.evaluate(x)
        share = np.divide(gradient, value, out=np.zeros_like(value), where=value > 0)
        return x * self.weights.adjoint(share)

    def stray(self, x: Array, radius: Array, output: Array, at: Precision) -> Array:
        """The weighted norm of the radii, by the triangle inequality, then the rounding of squares, sums and root.

        No summand is negative, so the sum errs by at most gamma of all its roundings relative to itself, and its root
        by less.  What is flushed to zero on the way adds up to at most `flushed` in the sum, hence its root in the
        value.  Beyond 1/tiny something on the way could overflow: no bound.
        """
        count = self.roundings + self.weights.fan_in
        if count * at.unit >= 0.25:
            return np.full_like(output, np.inf)
        with np.errstate(over="ignore", invalid="ignore"):
            moved = np.sqrt(self.weights.forward(np.square(radius))) * (1 + gamma_upper(count, at.unit))
            reach = output + moved
            peak = self.growth * np.square(abs(x) + radius).max(axis=1, initial=1.0)
            flushed = math.sqrt(2.0 * count * self.growth * at.tiny)
            bound = moved + gamma_upper(count, at.unit) * reach + flushed
        return np.where((peak < 0.25 / at.tiny)[:, None] & np.isfinite(bound), bound, np.inf)

    def rounding(self, at: Precision) -> Rounding | None:
        """`stray` at radius 0."""
        count = self.roundings + self.weights.fan_in
        if count * at.unit >= 0.25:
            return None
        room = 1.0 + 2.0**-20
        flushed = math.sqrt(2.0 * count * self.growth * at.tiny)
        return Rounding(
            of_output=gamma_upper(count, at.unit) * room,
            of_input=0.0,
            absolute=flushed * math.sqrt(self.weights.rows) * room,
            largest_input=0.25 * math.sqrt(0.25 / at.tiny / self.growth),
            is_local=False,
        )
