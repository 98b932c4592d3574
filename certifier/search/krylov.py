"""The largest eigenvalue of a symmetric matrix from below, by power iteration over the whole Krylov space.

Untrusted: the value returned is a Rayleigh quotient, which never exceeds the largest eigenvalue but for rounding,
and may be far below it if the start was unlucky or hostile.  Only a proof turns it into a bound.

Reference: Lanczos 1950, with full reorthogonalisation; Kuczynski & Wozniakowski 1992 for the random start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MAXIMAL_STEPS = 60


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A Rayleigh quotient with its unit vector and the matrix-vector products that it took."""

    value: float
    vector: Floats
    iterations: int


def largest_eigenvalue(
    multiply: Callable[[Floats], Floats], start: Floats, *, tolerance: float, steps: int
) -> Estimate:
    """Iterate from `start` until one step raises the Rayleigh quotient by less than `tolerance`, relatively.

    Shapes: start [m]; `multiply` maps [m] -> [m].
    """
    basis = [start / np.linalg.norm(start)]
    diagonal: list[float] = []
    beside: list[float] = []
    best = 0.0
    coefficients = np.ones(1)
    for _ in range(min(steps, start.size)):
        product = multiply(basis[-1])
        diagonal.append(float(basis[-1] @ product))
        values, vectors = np.linalg.eigh(_tridiagonal(diagonal, beside))
        previous, best, coefficients = best, float(values[-1]), vectors[:, -1]
        if len(diagonal) > 1 and best - previous <= tolerance * abs(best):
            break
        stacked = np.array(basis)
        rest = product - stacked.T @ (stacked @ product)
        rest -= stacked.T @ (stacked @ rest)
        length = float(np.linalg.norm(rest))
        if length <= 1e-13 * abs(best) or len(diagonal) == min(steps, start.size):
            break
        beside.append(length)
        basis.append(rest / length)
    vector = np.array(basis[: len(coefficients)]).T @ coefficients
    return Estimate(value=best, vector=vector / np.linalg.norm(vector), iterations=len(diagonal))


def _tridiagonal(diagonal: list[float], beside: list[float]) -> Floats:
    size = len(diagonal)
    matrix = np.diag(np.array(diagonal))
    if size > 1:
        off = np.array(beside[: size - 1])
        matrix += np.diag(off, 1) + np.diag(off, -1)
    return matrix
