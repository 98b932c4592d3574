"""The few operations that numpy and torch spell differently, for a search that runs on either."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import (
    dpotrf,  # pyright: ignore[reportAttributeAccessIssue]  (no stubs)
    dpotri,  # pyright: ignore[reportAttributeAccessIssue]  (no stubs)
)

Array = Any


class NumpyArrays:
    """On the processor."""

    exp = staticmethod(np.exp)
    diag = staticmethod(np.diag)
    diagonal = staticmethod(np.diagonal)
    trace = staticmethod(np.trace)
    eye = staticmethod(np.eye)

    def put(self, values: NDArray[np.float64]) -> Array:
        return np.asarray(values, dtype=np.float64)

    def get(self, values: Array) -> NDArray[np.float64]:
        return np.array(values, dtype=np.float64)

    def zeros(self, *shape: int) -> Array:
        return np.zeros(shape)

    def unit(self, size: int) -> Array:
        """The first unit vector."""
        return np.eye(1, size)[0]

    def inverse(self, matrix: Array) -> Array | None:
        """Of a symmetric positive definite matrix; None for any other."""
        factor, failed = dpotrf(matrix, lower=1)
        if failed == 0:
            result, failed = dpotri(factor, lower=1, overwrite_c=1)
        if failed:
            return None
        return np.tril(result) + np.tril(result, -1).T

    def block(self, first: Array, cross: Array, second: Array) -> Array:
        return np.block([[first, cross], [cross.T, second]])

    def embedded(self, block: Array, positions: NDArray[np.intp], size: int) -> Array:
        """`block` on the rows and columns `positions` of a zero matrix."""
        whole = np.zeros((size, size))
        whole[np.ix_(positions, positions)] = block
        return whole

    def spread(self, rows: Array, positions: NDArray[np.intp], size: int) -> Array:
        """`rows` as the rows `positions` of a zero matrix."""
        whole = np.zeros((size, rows.shape[1]))
        whole[positions] = rows
        return whole


class TorchArrays:
    """On a device of torch, in double precision."""

    def __init__(self, torch: Any, device: str) -> None:
        self._torch, self._device = torch, device
        self.exp, self.diag, self.diagonal, self.trace = torch.exp, torch.diag, torch.diagonal, torch.trace

    def put(self, values: NDArray[np.float64]) -> Array:
        return self._torch.as_tensor(np.array(values, dtype=np.float64), device=self._device)

    def get(self, values: Array) -> NDArray[np.float64]:
        return values.cpu().numpy().astype(np.float64)

    def eye(self, size: int) -> Array:
        return self._torch.eye(size, dtype=self._torch.float64, device=self._device)

    def zeros(self, *shape: int) -> Array:
        return self._torch.zeros(*shape, dtype=self._torch.float64, device=self._device)

    def unit(self, size: int) -> Array:
        """The first unit vector."""
        return self.eye(size)[0]

    def inverse(self, matrix: Array) -> Array | None:
        """Of a symmetric positive definite matrix; None for any other."""
        factor, failed = self._torch.linalg.cholesky_ex(matrix)
        if int(failed):
            return None
        return self._torch.cholesky_inverse(factor)

    def block(self, first: Array, cross: Array, second: Array) -> Array:
        upper, lower = self._torch.cat([first, cross], 1), self._torch.cat([cross.T, second], 1)
        return self._torch.cat([upper, lower], 0)

    def embedded(self, block: Array, positions: NDArray[np.intp], size: int) -> Array:
        """`block` on the rows and columns `positions` of a zero matrix."""
        whole = self.zeros(size, size)
        index = self._torch.as_tensor(positions, device=self._device)
        whole[index[:, None], index[None, :]] = block
        return whole

    def spread(self, rows: Array, positions: NDArray[np.intp], size: int) -> Array:
        """`rows` as the rows `positions` of a zero matrix."""
        whole = self.zeros(size, rows.shape[1])
        whole[self._torch.as_tensor(positions, device=self._device)] = rows
        return whole


def best_arrays() -> NumpyArrays | TorchArrays:
    """Those of a CUDA device where torch finds one, else numpy's.

    torch takes seconds and gigabytes of address space to import, so it is asked only where there is a driver.
    """
    if not Path("/dev/nvidiactl").exists():
        return NumpyArrays()
    try:
        torch = importlib.import_module("torch")
        return TorchArrays(torch, "cuda") if torch.cuda.is_available() else NumpyArrays()
    except (ImportError, RuntimeError, MemoryError):
        return NumpyArrays()
