"""One input row of a network, and the named inputs of the model that it is made of, one after another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certifier.documents import TensorDescription
from certifier.errors import InvalidInput

Array = NDArray[Any]
Given = Array | Mapping[str, Array]
"""Rows as callers give them: [batch, *row_shape], or for each input by name [batch, *its row shape]."""


@dataclass(frozen=True, kw_only=True)
class InputParts:
    """The perturbed inputs of a model: their names and the shapes of their rows, in the order of a joint row."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, described: Sequence[TensorDescription]) -> InputParts:
        """The parts that a certificate describes; an axis without a size is that of the batch."""
        shapes = [tuple(size for size in tensor.shape if size is not None) for tensor in described]
        return cls(names=tuple(tensor.name for tensor in described), shapes=tuple(shapes))

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one row: that of the only input, or flat for several."""
        return self.shapes[0] if len(self.shapes) == 1 else (sum(map(math.prod, self.shapes)),)

    @property
    def size(self) -> int:
        """Entries of one row."""
        return math.prod(self.row_shape)

    def rows(self, given: Given, field: str) -> Array:
        """Rows given by name as one array of joint rows; those of an only input, or given as one array, as they are.

        Raises: InvalidInput for names that are missing or unknown, and for several arrays that do not fit.
        """
        if not isinstance(given, Mapping):
            return np.asarray(given)
        self._demand_names(given, field)
        if len(self.names) == 1:
            return np.asarray(given[self.names[0]])
        arrays = [np.asarray(given[name]) for name in self.names]
        counts = {array.shape[:1] for array in arrays}
        for name, shape, array in zip(self.names, self.shapes, arrays, strict=True):
            if array.ndim != len(shape) + 1 or array.shape[1:] != shape:
                expected = ", ".join(["batch", *map(str, shape)])
                raise InvalidInput(
                    f"{field}.{name}", f"has shape {list(array.shape)}, but the model takes [{expected}]"
                )
            if array.dtype.kind not in "fiub":
                raise InvalidInput(f"{field}.{name}", "must hold numbers")
        if len(counts) > 1:
            told = ", ".join(f"{name} has {len(array)}" for name, array in zip(self.names, arrays, strict=True))
            raise InvalidInput(field, f"differ in their number of rows: {told}")
        return np.concatenate([array.reshape(len(array), -1) for array in arrays], axis=1)

    def spread(self, values: object, field: str) -> NDArray[np.float64]:
        """Numbers for every entry of one row, flat: one number or an array that broadcasts, for all inputs or by name.

        Raises: InvalidInput, also for NaN and infinite numbers.
        """
        if not isinstance(values, Mapping):
            return _broadcast(values, self.row_shape, field)
        self._demand_names(values, field)
        parts = zip(self.names, self.shapes, strict=True)
        return np.concatenate([_broadcast(values[name], shape, f"{field}.{name}") for name, shape in parts])

    def _demand_names(self, given: Mapping[str, Any], field: str) -> None:
        for name in given:
            if name not in self.names:
                raise InvalidInput(f"{field}.{name}", f"is none of the perturbed inputs {', '.join(self.names)}")
        for name in self.names:
            if name not in given:
                raise InvalidInput(f"{field}.{name}", "is missing")


def _broadcast(values: object, shape: tuple[int, ...], field: str) -> NDArray[np.float64]:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (ValueError, TypeError):
        raise InvalidInput(field, "is neither a number nor a regular array of numbers") from None
    if not np.isfinite(array).all():
        raise InvalidInput(field, "holds NaN or infinite entries")
    try:
        return np.array(np.broadcast_to(array, shape), dtype=np.float64).reshape(-1)
    except ValueError:
        raise InvalidInput(field, f"has shape {list(array.shape)}, which does not broadcast to {list(shape)}") from None


def as_rows(array: Array, row_shape: tuple[int, ...], *, field: str) -> Array:
    """`array` as rows of `row_shape`: [N, *row_shape], [N, n] flat, axes of extent 1 more or less, or a single row.

    Axes are never reordered: two shapes that differ in more than axes of extent 1 and flatness are refused, because
    an image with its channels last would otherwise be taken for one with its channels first.
    Raises: InvalidInput.
    """
    size = math.prod(row_shape)
    if array.ndim and math.prod(array.shape[1:]) == size:
        own = array.shape[1:]
        wide, wanted = _wide(own), _wide(row_shape)
        if own == row_shape or wide == wanted or len(wide) <= 1 or len(wanted) <= 1:
            return array.reshape(len(array), *row_shape)
        raise InvalidInput(
            field,
            f"rows of shape {list(own)} are not in the order of the model's {list(row_shape)}; "
            "declare it (preprocessing.layout, or --layout), or transpose them",
        )
    if array.shape == row_shape:
        return array.reshape(1, *row_shape)
    expected = f"[{', '.join(['N', *map(str, row_shape)])}]"
    raise InvalidInput(field, f"has shape {list(array.shape)}, but the model takes {expected}")


def _wide(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(extent for extent in shape if extent != 1)
