"""Power-iteration vectors that a model carries itself: the `weight_u`, `weight_v` buffers of spectral normalisation.

They are matched to layers by shape, in order.  A wrong match costs iterations and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from certifier.graph import Array

Floats = NDArray[np.float64]

_SUFFIXES = (("weight_u", "weight_v"), ("weight.0._u", "weight.0._v"))
"""Old-style `spectral_norm` and its parametrisation."""


class CarriedVectors:
    """Left and right singular-vector estimates found among a model's constants."""

    def __init__(self, constants: Mapping[str, Array]) -> None:
        self._pairs: list[tuple[Floats, Floats]] = []
        for name, value in constants.items():
            for left, right in _SUFFIXES:
                partner = constants.get(name.removesuffix(left) + right) if name.endswith(left) else None
                if partner is not None and value.ndim == partner.ndim == 1:
                    self._pairs.append((value.astype(np.float64), partner.astype(np.float64)))

    def take(self, rows: int, columns: int) -> Floats | None:
        """The vector on the smaller side of a [rows, columns] matrix, or None; each pair is given out once."""
        for position, (left, right) in enumerate(self._pairs):
            if {left.size, right.size} == {rows, columns}:
                del self._pairs[position]
                return left if left.size == min(rows, columns) else right
        return None
