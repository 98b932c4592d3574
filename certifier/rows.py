"""Rows of inputs as callers give them -> flat rows of float64 numbers, exactly the same, or a refusal."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from certifier.errors import InvalidInput
from certifier.proof.rounding import exact_float64

Floats = NDArray[np.float64]


def validated(values: NDArray[Any], field: str, row_shape: tuple[int, ...], *, first: int = 0) -> Floats:
    """The same numbers as flat rows; errors call the rows by their numbers from `first` on.

    Shapes: [B, *row_shape] -> [B, n].
    Raises: InvalidInput (another shape, no rows, numbers that double precision would round, NaN or infinite values).
    """
    if values.dtype.kind not in "fiub":
        raise InvalidInput(field, "must hold numbers")
    if values.shape[1:] != row_shape or values.ndim != len(row_shape) + 1:
        expected = ["batch", *row_shape]
        raise InvalidInput(field, f"has shape {list(values.shape)}, but the model takes {expected}")
    if len(values) == 0:
        raise InvalidInput(field, "holds no rows")
    try:
        rows = exact_float64(values).reshape(len(values), -1)
    except ValueError as error:
        raise InvalidInput(field, f"holds numbers that double precision would round: {error}") from error
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        raise InvalidInput(field, f"row {first + int(np.argmax(bad))} holds NaN or infinite values")
    return rows
