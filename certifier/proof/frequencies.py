"""The frequencies of a torus: one of each pair {k, -k}, and which ones a coarser torus cannot tell apart.

For real signals and kernels whatever holds at ω holds, complex conjugated, at -ω (`docs/proofs/torus.md`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import lcm, prod

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def grid(sizes: Sequence[int]) -> Indices:
    """All index tuples, last axis fastest. Shapes: (∏ sizes, axes)."""
    every = np.unravel_index(np.arange(prod(sizes)), tuple(sizes))
    return np.stack(every, axis=1).astype(np.int64).reshape(prod(sizes), len(sizes))


@dataclass(frozen=True)
class Torus:
    """ℤ_N1 × ℤ_N2 × …; a frequency is a tuple of integers k, for the angles ω = 2πk/N."""

    sizes: tuple[int, ...]

    @property
    def points(self) -> int:
        """How many points, and how many frequencies, there are."""
        return prod(self.sizes)

    @property
    def denominator(self) -> int:
        """Every angle is 2π times an integer over this."""
        return lcm(*self.sizes)

    @cached_property
    def frequencies(self) -> Indices:
        """The first of each pair {k, -k}, in order. Shapes: (F, axes)."""
        every = grid(self.sizes)
        return every[np.arange(self.points) <= self._flat(-every)]

    @cached_property
    def multiplicities(self) -> Indices:
        """How many frequencies each of these stands for: 1 where k = -k, else 2. Shapes: (F,)."""
        return np.where(self._flat(self.frequencies) == self._flat(-self.frequencies), 1, 2)

    def _flat(self, every: Indices) -> Indices:
        reduced = every % np.asarray(self.sizes)
        return np.asarray(np.ravel_multi_index(tuple(np.moveaxis(reduced, -1, 0)), self.sizes), dtype=np.int64)

    def places(self, every: Indices) -> tuple[Indices, NDArray[np.bool_]]:
        """Which of `frequencies` each frequency or its opposite is, and whether it is the opposite.

        Shapes: (…, axes) -> (…), (…).
        """
        flat, opposite = self._flat(every), self._flat(-every)
        first = self._flat(self.frequencies)
        return np.searchsorted(first, np.minimum(flat, opposite)).astype(np.int64), flat > opposite

    def coarse(self, strides: Sequence[int]) -> "Torus":
        """The torus of every strides-th point.

        Raises: ValueError for strides that do not divide the sizes.
        """
        if any(size % stride for size, stride in zip(self.sizes, strides, strict=True)):
            raise ValueError(f"strides {tuple(strides)} do not divide the torus {self.sizes}")
        return Torus(tuple(size // stride for size, stride in zip(self.sizes, strides, strict=True)))

    def aliases(self, strides: Sequence[int]) -> Indices:
        """The frequencies here that each one of the coarse torus stands for. Shapes: (F', S, axes)."""
        steps = np.asarray(self.sizes) // np.asarray(strides)
        return self.coarse(strides).frequencies[:, None, :] + grid(strides) * steps

    def turns(self, frequencies: Indices, offsets: Indices) -> Indices:
        """ω·δ as multiples of 2π/denominator, reduced; nothing overflows below a denominator of 2^50.

        Shapes: (F, axes), (T, axes) -> (F, T).
        """
        sizes = np.asarray(self.sizes)
        angles = (frequencies[:, None, :] * (offsets % sizes)) % sizes * (self.denominator // sizes)
        return np.sum(angles, axis=-1) % self.denominator
