"""The largest or the smallest of several vectors, entry by entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certifier.terms import Precision, VectorFunction

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class EntrywiseExtreme(VectorFunction):
    """||F(x) - F(y)|| <= ||x - y|| for F_i the largest (or smallest) of the i-th entries of `count` vectors.

    |max_k x_ki - max_k y_ki| <= max_k |x_ki - y_ki| <= (Σ_k |x_ki - y_ki|²)^(1/2); squares summed over i give
    the claim, because no entry is read twice.

    Shapes: [B, count n] (one vector after the other) -> [B, n].
    """

    name: str
    count: int
    largest: bool

    @property
    def constant_upper(self) -> float:
        return 1.0

    def _stacked(self, x: Array) -> Array:
        return x.reshape(x.shape[0], self.count, -1)

    @property
    def _choose(self) -> Callable[..., Any]:
        return np.argmax if self.largest else np.argmin

    def evaluate(self, x: Array) -> Array:
        stacked = self._stacked(x)
        return stacked.max(axis=1) if self.largest else stacked.min(axis=1)

    def pullback(self, gradient: Array, x: Array) -> Array:
        stacked = self._stacked(x)
        chosen = np.expand_dims(self._choose(stacked, axis=1), 1)
        back = np.zeros_like(stacked, dtype=gradient.dtype)
        np.put_along_axis(back, chosen, gradient[:, None, :], axis=1)
        return back.reshape(x.shape)

    def stray(self, x: Array, radius: Array, output: Array, at: Precision) -> Array:
        """max_k radius_k."""
        return self._stacked(radius).max(axis=1)

    @property
    def only_selects(self) -> bool:
        return True
