"""Affine maps of any number of sources, and those whose weights the engine computes itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from certifier.operators import Operator
from certifier.proof.rounding import gamma_upper
from certifier.terms.precision import REFERENCE, Precision
from certifier.terms.term import Array, Term

BLURRING = 1.0 + 2.0**-6
"""Enlarges what the products with `blurs` add for the rounding of these products themselves."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Affine(Term):
    """y = sum_i A_i x_i + b: every linear map, addition and concatenation.

    `arrangement` tells how the parts lie: "sum" anywhere, "stack" in disjoint rows, with the offset in yet others.
    `offset_magnitude` bounds entrywise what the engine adds up to form b; `roundings` counts the roundings an entry
    may suffer beyond the products of its fan-in.  `swelling` is how many times Σ |A_i||u_i| + |b| the engine's sum may
    come to on the way: more than 1 where weights are divided out last, as a mean's are.  `amplification` is how many
    times what is flushed to zero on the way may be multiplied afterwards: more than 1 where a factor comes last, as
    Gemm's alpha does.
    """

    name: str
    operator: str
    sources: tuple[str, ...]
    output: str
    shape: tuple[int, ...]
    dtype: str
    operators: tuple[Operator, ...]
    offset: Array | None
    offset_magnitude: Array | None
    arrangement: Literal["sum", "stack"]
    roundings: int
    swelling: float
    amplification: float

    def evaluate(self, *values: Array) -> Array:
        total = self.operators[0].forward(values[0])
        for operator, value in zip(self.operators[1:], values[1:], strict=True):
            total = total + operator.forward(value)
        return total if self.offset is None else total + self.offset

    def pullback(self, gradient: Array, *values: Array) -> tuple[Array, ...]:
        return tuple(operator.adjoint(gradient) for operator in self.operators)

    @property
    def blurs(self) -> tuple[Operator, ...]:
        """The engine's own map lies within the sum of these of the A of a single source, entrywise."""
        return ()

    @property
    def is_exact(self) -> bool:
        """The engine only moves numbers here, so nothing is rounded."""
        moves = all(operator.fan_in == 0 for operator in self.operators)
        meets = self.arrangement == "sum" and (len(self.operators) > 1 or self.offset is not None)
        return moves and not meets and self.roundings == 0

    def stray(self, values: Sequence[Array], radii: Sequence[Array], output: Array, at: Precision) -> Array:
        return self.carried(radii, output) + self.own_rounding(values, radii, output, at)

    def carried(self, radii: Sequence[Array], output: Array) -> Array:
        """The share of `stray` that comes with the sources: the sum of |A_i| radius_i."""
        carried = np.zeros_like(output)
        for operator, radius in zip(self.operators, radii, strict=True):
            if radius.any():
                carried = carried + operator.absolute().forward(radius)
        return carried

    @property
    def count(self) -> int:
        """How many roundings anything may suffer that is summed here."""
        return max(operator.fan_in for operator in self.operators) + self.roundings + len(self.operators)

    def flushed(self, at: Precision) -> float:
        """What all that underflows here may come to, per entry."""
        return 2 * self.count * self.amplification * at.tiny

    def magnitudes(self, values: Sequence[Array], radii: Sequence[Array]) -> Array:
        """sum_i |A_i| |x_i| + |b|, entrywise, for all x_i within `radii` of `values`: what sums here may come to."""
        size = np.zeros((len(values[0]), math.prod(self.shape)))
        for operator, value, radius in zip(self.operators, values, radii, strict=True):
            size = size + operator.absolute().forward(abs(value) + radius)
        return size if self.offset_magnitude is None else size + self.offset_magnitude

    def own_rounding(self, values: Sequence[Array], radii: Sequence[Array], output: Array, at: Precision) -> Array:
        if self.is_exact:
            return np.zeros_like(output)
        return self.rounding_of(self.magnitudes(values, radii), values, radii, at)

    def rounding_of(self, magnitudes: Array, values: Sequence[Array], radii: Sequence[Array], at: Precision) -> Array:
        """`own_rounding`, given `magnitudes` of the same values and radii."""
        if self.count * at.unit >= 0.25:
            # The error analysis of a sum needs few enough summands for the precision.
            return np.full_like(magnitudes, np.inf)
        with np.errstate(over="ignore", invalid="ignore"):
            # The reference multiplies by weights as they are.
            summed = magnitudes if at == REFERENCE else self.swelling * magnitudes
            bound = gamma_upper(self.count, at.unit) * magnitudes + self.flushed(at)
        return np.where(at.holds(summed), bound, np.inf)


@dataclass(frozen=True, kw_only=True, eq=False)
class Blurred(Affine):
    """y = A x + b, where the engine computes A itself: its own lies within the sum of `errors` of A, entrywise.

    Weights of an interpolation come of rounded coordinates, and those of a batch normalisation may underflow.
    """

    errors: tuple[Operator, ...]

    @property
    def blurs(self) -> tuple[Operator, ...]:
        return self.errors

    def rounding_of(self, magnitudes: Array, values: Sequence[Array], radii: Sequence[Array], at: Precision) -> Array:
        """That of A, plus E (|x| + radius), enlarged for the rounding of the products with E."""
        reach = abs(values[0]) + radii[0]
        moved_by = sum(error.forward(reach) for error in self.errors)
        return super().rounding_of(magnitudes, values, radii, at) + BLURRING * moved_by
