"""Functions of whole vectors with proved Lipschitz constants: poolings, softmax, normalisations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from certifier.terms.precision import Precision
from certifier.terms.term import Array, Term


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
