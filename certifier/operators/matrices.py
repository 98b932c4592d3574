"""Maps given by numbers of their own: matrices on one of three axes, and diagonals."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse

from certifier.operators.operator import KEPT_WEIGHTS, Array, Operator


class Kronecker(Operator):
    """I_before (x) W (x) I_after for a dense or sparse matrix W: W acts on the middle of three axes."""

    def __init__(self, matrix: Array | sparse.csr_array, *, before: int, after: int, weight_error: float) -> None:
        self.matrix, self.before, self.after = matrix, before, after
        self._weight_error = float(weight_error)
        height, width = int(matrix.shape[0]), int(matrix.shape[1])  # pyright: ignore[reportOptionalSubscript]
        self.rows, self.columns = before * height * after, before * width * after

    def _apply(self, matrix: Any, x: Array) -> Array:
        batch = x.shape[0]
        if self.after == 1:
            flat = x.reshape(batch * self.before, matrix.shape[1])
            return np.asarray((matrix @ flat.T).T if self.is_sparse else flat @ matrix.T).reshape(batch, -1)
        cube = np.moveaxis(x.reshape(batch * self.before, matrix.shape[1], self.after), 1, 0)
        out = matrix @ cube.reshape(matrix.shape[1], -1)
        out = np.asarray(out).reshape(matrix.shape[0], batch * self.before, self.after)
        return np.moveaxis(out, 0, 1).reshape(batch, -1)

    def forward(self, x: Array) -> Array:
        return self._apply(self.matrix, x)

    def adjoint(self, y: Array) -> Array:
        return self._apply(self.matrix.T, y)

    def absolute(self) -> Operator:
        return self._kept_absolute if self.matrix.size <= KEPT_WEIGHTS else self._formed_absolute()

    @cached_property
    def _kept_absolute(self) -> Operator:
        return self._formed_absolute()

    def _formed_absolute(self) -> Operator:
        return Kronecker(abs(self.matrix), before=self.before, after=self.after, weight_error=self._weight_error)

    @property
    def is_sparse(self) -> bool:
        """Whether W is stored as a sparse matrix."""
        return not isinstance(self.matrix, np.ndarray)

    @property
    def core_shape(self) -> tuple[int, int]:
        """The shape of W."""
        shape = self.matrix.shape
        return int(shape[0]), int(shape[1])  # pyright: ignore[reportOptionalSubscript]

    def dense(self) -> Array:
        """W as a dense array."""
        return self.matrix if isinstance(self.matrix, np.ndarray) else self.matrix.toarray()

    @cached_property
    def fan_in(self) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        if isinstance(self.matrix, np.ndarray):
            return self.matrix.shape[1]
        return int(np.diff(self.matrix.tocsr().indptr).max(initial=0))

    @cached_property
    def fan_out(self) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        if isinstance(self.matrix, np.ndarray):
            return self.matrix.shape[0]
        return int(np.diff(self.matrix.tocsc().indptr).max(initial=0))

    @property
    def weight_error(self) -> float:
        return self._weight_error

    def describe(self) -> str:
        height, width = self.core_shape
        return f"{'sparse' if self.is_sparse else 'dense'} {height}x{width}"

    def _fingerprint(self) -> Sequence[object]:
        parts: list[object] = [self.before, self.after, self._weight_error, self.matrix.shape]
        if isinstance(self.matrix, np.ndarray):
            return [*parts, self.matrix]
        csr = self.matrix.tocsr()
        return [*parts, csr.indptr, csr.indices, csr.data]


def dense(matrix: Array) -> Kronecker:
    """x -> W x for an exact dense matrix W [rows, columns]."""
    return Kronecker(matrix, before=1, after=1, weight_error=0.0)


class Diagonal(Operator):
    """x -> d * x entrywise; `channels = (before, count, after)` if d is constant over all axes but one."""

    def __init__(self, values: Array, *, weight_error: float) -> None:
        self.values = values
        self._weight_error = float(weight_error)
        self.rows = self.columns = values.size

    def forward(self, x: Array) -> Array:
        return x * self.values

    def adjoint(self, y: Array) -> Array:
        return y * self.values

    def absolute(self) -> Operator:
        return Diagonal(abs(self.values), weight_error=self._weight_error)

    fan_in = 1  # pyright: ignore[reportAssignmentType]
    fan_out = 1  # pyright: ignore[reportAssignmentType]

    @property
    def weight_error(self) -> float:
        return self._weight_error

    def per_channel(self, channels: int) -> Array | None:
        """The `channels` values if d is constant within each of `channels` equal consecutive blocks, else None."""
        if channels == 0 or self.values.size % channels:
            return None
        blocks = self.values.reshape(channels, -1)
        return blocks[:, 0] if bool(np.all(blocks == blocks[:, :1])) else None

    def describe(self) -> str:
        return f"diagonal {self.values.size}"

    def _fingerprint(self) -> Sequence[object]:
        return (self.values, self._weight_error)
