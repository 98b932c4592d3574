"""Preprocessing declared with a single request: applied to its inputs, and taken off its radii.

x -> (scale * x - mean) / std stretches distances by at most max |scale / std|, so a radius behind it is divided by
that.  Preprocessing declared at upload is part of the network instead, which gives larger radii.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certifier.documents import Preprocessing
from certifier.errors import InvalidInput
from certifier.graph import Tensor
from certifier.proof.rounding import add_upper, div_upper, mul_upper
from certifier.reading.preprocessing import channel_values, input_permutation

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class InputTransform:
    """The map from a caller's rows to the network's flat rows.

    Shapes: `row_shape` is the caller's; `scale`, `mean` and `std` broadcast against the network's full input shape.
    """

    row_shape: tuple[int, ...]
    permutation: tuple[int, ...] | None
    scale: float
    mean: Floats
    std: Floats
    shape: tuple[int, ...]
    is_identity: bool

    @classmethod
    def of(cls, preprocessing: Preprocessing | None, source: Tensor, batch_axis: bool) -> InputTransform:
        """The transform that a request declares for a network with input `source`.

        Raises: InvalidInput if the declared values do not fit.
        """
        declared = preprocessing if preprocessing is not None else Preprocessing()
        permutation = input_permutation(source, declared.layout)
        shape = source.shape
        if permutation is not None:
            shape = tuple(source.shape[axis] for axis in np.argsort(permutation))
        mean = channel_values(source, declared.mean or [0.0], "preprocessing.mean")
        std = channel_values(source, declared.std or [1.0], "preprocessing.std")
        return cls(
            row_shape=shape[1:] if batch_axis else shape,
            permutation=permutation,
            scale=declared.scale,
            mean=mean,
            std=std,
            shape=source.shape,
            is_identity=declared.scale == 1.0 and not declared.mean and not declared.std,
        )

    @property
    def stretch_upper(self) -> float:
        """max |scale / std|, rounded up; exactly 1 for the identity."""
        if self.is_identity:
            return 1.0
        return float(np.max(div_upper(abs(self.scale), np.abs(self.std))))

    def apply(self, rows: Floats) -> tuple[Floats, Floats]:
        """The network's rows, and entrywise bounds of their rounding error.

        Shapes: [B, n] in the caller's order -> two arrays [B, n] in the network's.
        Raises: InvalidInput if a value overflows.
        """
        if self.permutation is not None:
            caller_shape = tuple(self.shape[axis] for axis in np.argsort(self.permutation))
            axes = (0, *(axis + 1 for axis in self.permutation))
            rows = np.ascontiguousarray(rows.reshape(len(rows), *caller_shape).transpose(axes)).reshape(len(rows), -1)
        if self.is_identity:
            return rows, np.zeros_like(rows)
        cube = rows.reshape(len(rows), *self.shape)
        scaled = self.scale * cube
        result = (scaled - self.mean) / self.std
        # Three roundings, of which the first two count in the size of what was subtracted.
        size = div_upper(add_upper(np.abs(scaled), np.abs(self.mean)), np.abs(self.std))
        strays = mul_upper(4.0 * 2.0**-52, add_upper(size, 2.0**-1000))
        if not np.isfinite(strays).all() or not np.isfinite(result).all():
            raise InvalidInput("inputs", "preprocessing makes these values overflow")
        return result.reshape(len(rows), -1), strays.reshape(len(rows), -1)
