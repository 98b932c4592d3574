"""A scalar function of proved slopes, applied to every entry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from certifier.proof.rounding import norm_upper
from certifier.terms.elementwise import Elementwise
from certifier.terms.precision import Precision
from certifier.terms.term import Array, Term

INNER = 128.0
"""How many times its argument any number inside of an activation may be, unless the result stays finite regardless:
spelled in several nodes, it multiplies by 64 at most (`certifier.patterns.forms`) and by 2 where 1 is added."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Activation(Term):
    """h_i = f(y_i) for a slope-restricted scalar function f."""

    name: str
    operator: str
    sources: tuple[str, ...]
    output: str
    shape: tuple[int, ...]
    dtype: str
    function: Elementwise

    def evaluate(self, *values: Array) -> Array:
        return self.function.evaluate(values[0])

    def pullback(self, gradient: Array, *values: Array) -> tuple[Array, ...]:
        return (gradient * self.function.derivative(values[0]),)

    @property
    def steepest(self) -> Array:
        """max |slope|, per entry or for all."""
        return self.function.steepest

    def _moved(self, value: Array, radius: Array) -> Array:
        """How far the output may be moved by moving the source within its radius."""
        with np.errstate(over="ignore", invalid="ignore"):
            # The ends of an interval of arguments are one rounding away from its exact ends.
            ends = np.nextafter(value - radius, -np.inf), np.nextafter(value + radius, np.inf)
            lower, upper = self.function.slopes_on(*ends)
            return np.where(radius == 0, 0.0, np.maximum(np.abs(lower), np.abs(upper)) * radius)

    def stray(self, values: Sequence[Array], radii: Sequence[Array], output: Array, at: Precision) -> Array:
        return self._moved(values[0], radii[0]) + self.own_rounding(values, radii, output, at)

    def own_rounding(self, values: Sequence[Array], radii: Sequence[Array], output: Array, at: Precision) -> Array:
        if self.function.ulps == 0 and self.function.absolute_ulps == 0:
            return np.zeros_like(output)
        with np.errstate(over="ignore", invalid="ignore"):
            reach = abs(output) + self._moved(values[0], radii[0])
            entering = abs(values[0]) + radii[0]
            bound = at.unit * (self.function.ulps * reach + self.function.absolute_ulps) + 4 * at.tiny
        return np.where(at.holds(reach) & at.holds(INNER * entering), bound, np.inf)

    def stray_length(
        self,
        values: Sequence[Array],
        radii: Sequence[Array],
        lengths: Sequence[Array],
        output: Array,
        at: Precision,
    ) -> Array | None:
        """The steepest slope within reach times the source's error, and the kernel's own error."""
        ends = np.nextafter(values[0] - radii[0], -np.inf), np.nextafter(values[0] + radii[0], np.inf)
        with np.errstate(over="ignore", invalid="ignore"):
            lower, upper = self.function.slopes_on(*ends)
            steepest = np.maximum(np.abs(lower), np.abs(upper)).max(axis=1, keepdims=True)
            moved = np.where(lengths[0] == 0, 0.0, steepest * lengths[0])
            return moved + norm_upper(self.own_rounding(values, radii, output, at), 1)[:, None]
