"""What a network is made of: affine maps, elementwise activations and contractions of vectors.

A term reads named values and writes one.  Values are flat row-major vectors of one input row; every method takes a
batch `[B, n]`.  A term answers for its facets, none of which has a default: what it computes (`evaluate`), how a
gradient passes through it (`pullback`, used by searches only), what bounds its Lipschitz constant, and how far a
floating-point execution may stray (`stray`).

The file has more lines than most because the kinds of terms stand beside the contract that they answer for.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from certifier.operators import Operator
from certifier.proof.rounding import gamma_upper, norm_upper

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Precision:
    """The unit roundoff of an execution, and the largest magnitude that may be flushed to zero.

    For an engine `unit` includes the float64 reference's own roundoff; underflow flushes to zero at worst (A2).
    """

    unit: float
    tiny: float


REFERENCE = Precision(unit=2.0**-53, tiny=2.0**-1022)
"""The float64 reference against the exact network, which is the execution that rounds nothing."""
PRECISIONS = {
    "float64": Precision(unit=2.0**-52, tiny=2.0**-1022),
    "float32": Precision(unit=2.0**-24 + 2.0**-52, tiny=2.0**-126),
    "float16": Precision(unit=2.0**-11 + 2.0**-52, tiny=2.0**-14),
    "bfloat16": Precision(unit=2.0**-8 + 2.0**-52, tiny=2.0**-126),
}


class Term(ABC):
    """One step of a network: reads `sources`, writes `output` of tensor shape `shape` in the engine's `dtype`."""

    name: str
    operator: str
    sources: tuple[str, ...]
    output: str
    shape: tuple[int, ...]
    dtype: str

    @abstractmethod
    def evaluate(self, *values: Array) -> Array:
        """The term's value in float64, each step rounded to nearest.  Shapes: [B, n_i] each -> [B, m]."""

    @abstractmethod
    def pullback(self, gradient: Array, *values: Array) -> tuple[Array, ...]:
        """The gradient with respect to each source, given that of the output (for searches, not proofs)."""

    @abstractmethod
    def stray(self, values: Sequence[Array], radii: Sequence[Array], output: Array, at: Precision) -> Array:
        """Entrywise bound of |executed - output| for any execution at precision `at`.

        `values` are the computed centres of the sources, the executed sources lie within `radii` of them, and
        `output` is `evaluate(*values)` as computed in float64 (its own rounding is covered: `at.unit` includes it).
        The exact network is the execution that rounds nothing, so float64's own bound covers it.  The caller widens
        the result for the rounding of this very formula (`certifier.proof.execution`).
        """

    @abstractmethod
    def own_rounding(
        self, values: Sequence[Array], radii: Sequence[Array], output: Array, at: Precision
    ) -> Array | None:
        """The share of `stray` that this term adds itself, at sources within `radii`; None if it is not told apart."""

    def stray_length(
        self,
        values: Sequence[Array],
        radii: Sequence[Array],
        lengths: Sequence[Array],
        output: Array,
        at: Precision,
    ) -> Array | None:
        """A bound of ||executed - output|| where the sources stray by at most `lengths` in the L2 norm as well.

        It holds at these values alone, where constants of the whole space may be far larger or infinite.  None, which
        is always safe, if the term knows no better than `stray` or its global constants.
        Shapes: lengths [B, 1] each -> [B, 1].
        """
        return None


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
        return gamma_upper(self.count, at.unit) * magnitudes + self.flushed(at)


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
        reach = abs(output) + self._moved(values[0], radii[0])
        return at.unit * (self.function.ulps * reach + self.function.absolute_ulps) + 4 * at.tiny

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


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """||executed F(x) - F(x)|| <= of_output ||F(x)|| + of_input ||x|| + absolute.

    It holds for all ||x|| <= largest_input, of which a local one takes those that `VectorFunction.room_lower` allows.
    """

    of_output: float
    of_input: float
    absolute: float
    largest_input: float
    is_local: bool


class VectorFunction(ABC):
    """A map of vectors with a proved Lipschitz constant in L2, independent of the input."""

    name: str

    @property
    @abstractmethod
    def constant_upper(self) -> float:
        """||F(x) - F(y)|| <= constant_upper ||x - y|| for all x, y; rounded up."""

    @abstractmethod
    def evaluate(self, x: Array) -> Array:
        """F in float64.  Shapes: [B, n] -> [B, m]."""

    @abstractmethod
    def pullback(self, gradient: Array, x: Array) -> Array:
        """J(x)^T gradient (for searches)."""

    @abstractmethod
    def stray(self, x: Array, radius: Array, output: Array, at: Precision) -> Array:
        """Entrywise bound of |executed F(x') - output| over |x'-x| <= radius, as `Term.stray` defines it."""

    def stray_length(self, x: Array, radius: Array, length: Array, output: Array, at: Precision) -> Array | None:
        """Bound of ||executed F(x') - output|| over those x' with ||x'-x|| <= length too, as `Term.stray_length` does.

        Shapes: length [B, 1] -> [B, 1].
        """
        return None

    def rounding(self, at: Precision) -> Rounding | None:
        """What the kernel adds itself at any input, `at` counting against the exact function; None, always safe, if
        that depends on where the input lies."""
        return None

    def room_lower(self, x: Array, length: Array) -> Array:
        """How far any input may lie from every x' with ||x' - x|| <= length so that a local `rounding` holds there.

        0, always safe, if nothing is known.  Shapes: x [B, n], length [B, 1] -> [B, 1].
        """
        return np.zeros((len(x), 1))

    @property
    def only_selects(self) -> bool:
        """Whether the kernel only picks entries, so that it rounds nothing; False is always safe."""
        return False


@dataclass(frozen=True, kw_only=True, eq=False)
class Contraction(Term):
    """h = F(y) for a vector function F of known constant: poolings, softmax, normalisations."""

    name: str
    operator: str
    sources: tuple[str, ...]
    output: str
    shape: tuple[int, ...]
    dtype: str
    function: VectorFunction

    def evaluate(self, *values: Array) -> Array:
        return self.function.evaluate(values[0])

    def pullback(self, gradient: Array, *values: Array) -> tuple[Array, ...]:
        return (self.function.pullback(gradient, values[0]),)

    def stray(self, values: Sequence[Array], radii: Sequence[Array], output: Array, at: Precision) -> Array:
        return self.function.stray(values[0], radii[0], output, at)

    def own_rounding(
        self, values: Sequence[Array], radii: Sequence[Array], output: Array, at: Precision
    ) -> Array | None:
        return np.zeros_like(output) if self.function.only_selects else None

    def stray_length(
        self,
        values: Sequence[Array],
        radii: Sequence[Array],
        lengths: Sequence[Array],
        output: Array,
        at: Precision,
    ) -> Array | None:
        return self.function.stray_length(values[0], radii[0], lengths[0], output, at)
