"""Newton-like steps on the multipliers themselves, from a point that descent found; untrusted.

With D = e^-t free, Q is smooth wherever D dominates what it has to, and grows without bound where it ceases to, so that
its exact gradient leads to the optimum in a few dozen steps.  Far from it the same steps stall; that part is descent's.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from certifier.limits import Budget
from certifier.search.multipliers.descent import Found
from certifier.search.multipliers.objectives import Objective
from certifier.search.multipliers.recursion import Array, Recursion

Floats = NDArray[np.float64]

ROUNDS = 2
"""Starts of the quasi-Newton method, each from the best point and without memory of the steps before."""
STEPS, EVALUATIONS, MEMORY = 60, 150, 20
"""Of each start."""
ENOUGH = 1e-7
OUTSIDE = 10.0
"""How much worse than the best a point counts at which there is no value."""


class _Direct(Recursion):
    """The recursion with D = e^-t, which need not dominate."""

    def _smooth(self, weighted: Array) -> tuple[Array, Array]:
        return 1.0, 0.0 * weighted

    def _sharp(self, position: int, weighted: Array, power: Array) -> Array:
        return 1.0


class _Spent(Exception):
    """The budget is."""


class Polishing:
    """Polishes points of one recursion for any objective."""

    def __init__(self, recursion: Recursion) -> None:
        self._recursion = _Direct(recursion.chain, recursion.xp)
        stages = recursion.chain.stages
        self._uniform = [stage.middle is None for stage in stages]
        self._counts = [
            1 if uniform else len(stage.matrix) for uniform, stage in zip(self._uniform, stages, strict=True)
        ]
        self._exact = [recursion.xp.put(np.array(np.inf))] * len(stages)
        self._best: tuple[float, list[Floats]] = (np.inf, [])
        self._iterations = 0

    def polish(self, found: Found, objective: Objective, *, budget: Budget, evaluations: int | None) -> Found:
        """The best multipliers seen from those of `found` on within the budget; with the parameters of `found`.

        With a number of `evaluations` there is one start, which takes no more than those.
        """
        start = self._start(found.multipliers)
        self._best, self._iterations = (np.inf, []), found.iterations
        try:
            for _ in range(ROUNDS if evaluations is None else 1):
                before = self._best[0]
                minimize(
                    self._value,
                    start,
                    args=(objective, budget),
                    jac=True,
                    method="L-BFGS-B",
                    options={
                        "maxiter": STEPS,
                        "maxfun": EVALUATIONS if evaluations is None else evaluations,
                        "maxcor": MEMORY,
                        "ftol": ENOUGH,
                    },
                )
                if not self._best[0] < before - ENOUGH:
                    break
                start = self._start(self._best[1])
        except _Spent:
            pass
        value, multipliers = self._best
        if not np.isfinite(value):
            return found
        return replace(found, multipliers=multipliers, value=value, iterations=self._iterations)

    def _start(self, multipliers: list[Floats]) -> Floats:
        halves = [stage.half for stage in self._recursion.chain.stages]
        with np.errstate(all="ignore"):
            points = [
                np.log(np.ravel(half)[:1] ** 2 * values if uniform else half**2 * values)
                for half, values, uniform in zip(halves, multipliers, self._uniform, strict=True)
            ]
        return np.concatenate([*points, np.zeros(0)])

    def _value(self, point: Floats, objective: Objective, budget: Budget) -> tuple[float, Floats]:
        if budget.left() <= 0:
            raise _Spent
        self._iterations += 1
        best = self._best[0]
        nowhere = (best if np.isfinite(best) else 0.0) + OUTSIDE, np.zeros_like(point)
        recursion, xp = self._recursion, self._recursion.xp
        parts = np.split(point, np.cumsum(self._counts)[:-1]) if self._counts else []
        stages = recursion.chain.stages
        t = [np.broadcast_to(part, len(stage.matrix)) for part, stage in zip(parts, stages, strict=True)]
        with np.errstate(all="ignore"):
            try:
                matrix = xp.get(recursion.forward([xp.put(each) for each in t], self._exact))
                if not np.isfinite(matrix).all():
                    return nowhere
                value, of_matrix = objective((matrix + matrix.T) / 2)
                if not np.isfinite(value):
                    return nowhere
                if value < self._best[0]:
                    self._best = value, recursion.multipliers()
                by_t, _ = recursion.backward(xp.put(of_matrix))
            except (ArithmeticError, np.linalg.LinAlgError):
                return nowhere
        pieces = [xp.get(each) for each in by_t]
        pieces = [
            each.sum(keepdims=True) if uniform else each for each, uniform in zip(pieces, self._uniform, strict=True)
        ]
        gradient = np.concatenate([*pieces, np.zeros(0)])
        return (value, gradient) if np.isfinite(gradient).all() else nowhere
