"""What multipliers are chosen for: functions of Q with their gradients, for searches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Objective = Callable[[Floats], tuple[float, Floats]]
"""Q [c, c] -> a number to make small and its gradient [c, c]; a constant's logarithm."""


def pairs(weights: Floats) -> Objective:
    """The mean log constant of f_t - f_j under symmetric weights of the pairs.  Shapes: [c, c]."""
    shares = np.triu(weights, 1)
    shares = (shares + shares.T) / (2.0 * shares.sum())

    def objective(matrix: Floats) -> tuple[float, Floats]:
        diagonal = np.diagonal(matrix)
        squares = diagonal[:, None] + diagonal[None, :] - 2.0 * matrix
        squares = np.where(shares > 0, np.maximum(squares, 1e-300), 1.0)
        slope = shares / squares
        return float(0.5 * (shares * np.log(squares)).sum()), np.diag(slope.sum(axis=1)) - slope

    return objective


def whole() -> Objective:
    """The log constant of the whole output vector."""

    def objective(matrix: Floats) -> tuple[float, Floats]:
        values, vectors = np.linalg.eigh(matrix)
        largest = max(float(values[-1]), 1e-300)
        return 0.5 * float(np.log(largest)), np.outer(vectors[:, -1], vectors[:, -1]) / (2.0 * largest)

    return objective


def outputs() -> Objective:
    """The mean log constant of the single outputs."""

    def objective(matrix: Floats) -> tuple[float, Floats]:
        squares = np.maximum(np.diagonal(matrix), 1e-300)
        return float(0.5 * np.log(squares).mean()), np.diag(0.5 / (squares * len(squares)))

    return objective
