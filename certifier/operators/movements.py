"""Maps that only move numbers, and so round nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from certifier.operators.operator import Array, Operator


@dataclass(frozen=True, eq=False)
class Identity(Operator):
    """x -> x."""

    columns: int

    @property
    def rows(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.columns

    def forward(self, x: Array) -> Array:
        return x

    def adjoint(self, y: Array) -> Array:
        return y

    def absolute(self) -> Operator:
        return self

    fan_in = 0  # pyright: ignore[reportAssignmentType]
    fan_out = 0  # pyright: ignore[reportAssignmentType]
    weight_error = 0.0  # pyright: ignore[reportAssignmentType]

    def describe(self) -> str:
        return f"identity {self.columns}"

    def _fingerprint(self) -> Sequence[object]:
        return ()


class Rearrange(Operator):
    """y_i = x[indices_i], or 0 where indices_i = -1: slices, permutations, repeats and zero padding."""

    def __init__(self, indices: Array, *, columns: int) -> None:
        self.indices = np.asarray(indices).ravel()
        self.rows, self.columns = self.indices.size, columns

    def forward(self, x: Array) -> Array:
        if self._has_zeros:
            padded = np.concatenate([x, np.zeros((x.shape[0], 1), dtype=x.dtype)], axis=1)
            return padded[:, self.indices]
        return x[:, self.indices]

    def adjoint(self, y: Array) -> Array:
        out = np.zeros((y.shape[0], self.columns + 1), dtype=y.dtype)
        if self._is_injective:
            out[:, self.indices] = y
        else:
            for row in range(y.shape[0]):
                np.add.at(out[row], self.indices, y[row])
        return out[:, :-1]

    def absolute(self) -> Operator:
        return self

    @cached_property
    def counts(self) -> Array:
        """How often every input entry is read: A^T A = diag(counts), so ||A|| = sqrt(max counts)."""
        return np.bincount(self.indices[self.indices >= 0], minlength=self.columns)

    @cached_property
    def _has_zeros(self) -> bool:
        return bool((self.indices < 0).any())

    @cached_property
    def _is_injective(self) -> bool:
        return int(self.counts.max(initial=0)) <= 1

    @cached_property
    def is_permutation(self) -> bool:
        """Every entry is read exactly once, so A is orthogonal."""
        return not self._has_zeros and self.rows == self.columns and self._is_injective

    fan_in = 0  # pyright: ignore[reportAssignmentType]

    @cached_property
    def fan_out(self) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        most = int(self.counts.max(initial=0))
        return most if most > 1 else 0

    weight_error = 0.0  # pyright: ignore[reportAssignmentType]

    def describe(self) -> str:
        return f"rearrangement {self.columns}->{self.rows}"

    def _fingerprint(self) -> Sequence[object]:
        return (self.indices.astype(np.int64),)


class Placed(Operator):
    """x, laid into a larger tensor of zeros along the middle of three axes: an isometry, as parts of a Concat are.

    Shapes: [before, own, after] -> [before, total, after], from position `start` on.
    """

    def __init__(self, *, before: int, own: int, after: int, total: int, start: int) -> None:
        if not 0 <= start <= start + own <= total:
            raise ValueError("the part does not fit into the whole")
        self.before, self.own, self.after, self.total, self.start = before, own, after, total, start
        self.rows, self.columns = before * total * after, before * own * after

    @property
    def _span(self) -> slice:
        return slice(self.start, self.start + self.own)

    def forward(self, x: Array) -> Array:
        out = np.zeros((x.shape[0], self.before, self.total, self.after), dtype=x.dtype)
        out[:, :, self._span] = x.reshape(x.shape[0], self.before, self.own, self.after)
        return out.reshape(x.shape[0], -1)

    def adjoint(self, y: Array) -> Array:
        whole = y.reshape(y.shape[0], self.before, self.total, self.after)
        return np.ascontiguousarray(whole[:, :, self._span]).reshape(y.shape[0], -1)

    def absolute(self) -> Operator:
        return self

    fan_in = 0  # pyright: ignore[reportAssignmentType]
    fan_out = 0  # pyright: ignore[reportAssignmentType]
    weight_error = 0.0  # pyright: ignore[reportAssignmentType]

    def describe(self) -> str:
        return f"placement {self.columns}->{self.rows}"

    def _fingerprint(self) -> Sequence[object]:
        return (self.before, self.own, self.after, self.total, self.start)
