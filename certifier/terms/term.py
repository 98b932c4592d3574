"""What every kind of term answers for.

A term reads named values and writes one.  Values are flat row-major vectors of one input row; every method takes a
batch `[B, n]`.  A term answers for its facets, none of which has a default: what it computes (`evaluate`), how a
gradient passes through it (`pullback`, used by searches only), what bounds its Lipschitz constant, and how far a
floating-point execution may stray (`stray`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from certifier.terms.precision import Precision

Array = NDArray[Any]


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
