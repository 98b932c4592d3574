"""Sorting along an axis, as GroupSort, MaxMin and TopK do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certifier.terms import Precision, VectorFunction

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sorted(VectorFunction):
    """||F(x) - F(y)|| <= ||x - y|| for F the first `kept` of `count` entries in order, in every group.

    Let s sort a group.  It keeps norms, and <s(x), s(y)> >= <x, y> (the rearrangement inequality), hence
    ||s(x) - s(y)||² = ||x||² + ||y||² - 2 <s(x), s(y)> <= ||x - y||².  Leaving entries out shortens no difference
    into a longer one, and groups are disjoint.

    Shapes: [B, before count after] -> [B, before kept after].
    """

    name: str
    before: int
    count: int
    after: int
    kept: int
    largest: bool

    @property
    def constant_upper(self) -> float:
        return 1.0

    def _cube(self, x: Array) -> Array:
        return x.reshape(x.shape[0], self.before, self.count, self.after)

    def evaluate(self, x: Array) -> Array:
        ordered = np.sort(self._cube(x), axis=2)
        ordered = ordered[:, :, ::-1] if self.largest else ordered
        return ordered[:, :, : self.kept].reshape(x.shape[0], -1)

    def pullback(self, gradient: Array, x: Array) -> Array:
        cube = self._cube(x)
        places = np.argsort(-cube if self.largest else cube, axis=2, kind="stable")[:, :, : self.kept]
        back = np.zeros_like(cube, dtype=gradient.dtype)
        np.put_along_axis(back, places, gradient.reshape(places.shape), axis=2)
        return back.reshape(x.shape)

    def stray(self, x: Array, radius: Array, output: Array, at: Precision) -> Array:
        """The largest radius of the group: the i-th entry in order moves by no more, and moving rounds nothing."""
        largest = self._cube(radius).max(axis=2, keepdims=True)
        return np.repeat(largest, self.kept, axis=2).reshape(output.shape)

    @property
    def only_selects(self) -> bool:
        return True
