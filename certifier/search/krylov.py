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
    """A Rayleigh quotient with its unit vector and the matrix-vector products that it took.

    `error` is a guess of how far the largest eigenvalue may lie above, relatively: residual^2 / gap, with the gap
    between the two largest Ritz values.
    """

    value: float
    vector: Floats
    iterations: int
    error: float


def largest_eigenvalue(
    multiply: Callable[[Floats], Floats], start: Floats, *, tolerance: float, steps: int
) -> Estimate:
    """Iterate from `start` until the Rayleigh quotient is guessed to be within `tolerance` of its limit, relatively.

    Shapes: start [m]; `multiply` maps [m] -> [m].
    """
    steps = min(steps, start.size)
    basis = np.empty((steps, start.size))
    basis[0] = start / np.linalg.norm(start)
    diagonal: list[float] = []
    beside: list[float] = []
    best, error = 0.0, 0.0
    coefficients = np.ones(1)
    for step in range(1, steps + 1):
        product = multiply(basis[step - 1])
        diagonal.append(float(basis[step - 1] @ product))
        values, vectors = np.linalg.eigh(_tridiagonal(diagonal, beside))
        best, coefficients = float(values[-1]), vectors[:, -1]
        known = basis[:step]
        rest = product - known.T @ (known @ product)
        rest -= known.T @ (known @ rest)
        length = float(np.linalg.norm(rest))
        residual = length * abs(float(coefficients[-1]))
        gap = best - float(values[-2]) if step > 1 else abs(best)
        error = min(residual, residual**2 / max(gap, 1e-300)) / max(abs(best), 1e-300)
        if error <= tolerance or length <= 1e-13 * abs(best) or step == steps:
            break
        beside.append(length)
        basis[step] = rest / length
    vector = basis[: len(coefficients)].T @ coefficients
    return Estimate(value=best, vector=vector / np.linalg.norm(vector), iterations=len(diagonal), error=error)


def _tridiagonal(diagonal: list[float], beside: list[float]) -> Floats:
    size = len(diagonal)
    matrix = np.diag(np.array(diagonal))
    if size > 1:
        off = np.array(beside[: size - 1])
        matrix += np.diag(off, 1) + np.diag(off, -1)
    return matrix
