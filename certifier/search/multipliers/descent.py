"""Adam on the recursion's free parameters, remembering the best point; untrusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certifier.limits import Budget
from certifier.search.multipliers.objectives import Objective
from certifier.search.multipliers.recursion import Recursion, Stage

Floats = NDArray[np.float64]
Parameters = list[Floats]
"""(t, g) per stage in one array [n + 1]: where a search stands, and where the next one may start."""

PATIENCE = 15
"""Steps without an improvement after which the search goes back to its best point and halves its rate."""
SLOWEST = 1e-3
TIGHT = 5.0
"""The largest g to start from; the product of norms of a law without a preferred sign is the limit of large g."""
ENOUGH_A_DESCENT = 1e-4
"""How much it has to improve from one whole descent to the next for a search without haste to go on."""


@dataclass(frozen=True, kw_only=True)
class Haste:
    """When a descent ends early: at `most` steps, or when a round of steps gains less than `least` (of a logarithm)."""

    most: int | None
    round: int
    least: float


PATIENT = Haste(most=None, round=30, least=2e-5)


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """The best multipliers seen, per stage, what they are worth, and where they stand."""

    multipliers: list[Floats]
    parameters: Parameters
    value: float
    iterations: int


def search(
    recursion: Recursion,
    objective: Objective,
    *,
    budget: Budget,
    rate: float,
    warm: Parameters | None,
    haste: Haste | None,
) -> Found | None:
    """The best multipliers that gradient descent sees within the budget; None if there was no usable point at all.

    Without haste it descends again and again from its best point, at half the first rate, while that helps: deep
    networks need it.  In haste it ends with its first descent or earlier.
    """
    descent = _Descent(recursion, objective, rate, warm)
    marked, before = np.inf, np.inf
    while True:
        if descent.rate <= SLOWEST:
            if haste is not None or descent.best is None or descent.best.value > before - ENOUGH_A_DESCENT:
                break
            before = descent.best.value
            descent.restart(rate / 2)
        descent.step()
        if budget.left() <= 0:
            break
        if haste is None:
            continue
        if descent.iterations == haste.most:
            break
        if descent.iterations % haste.round == 0 and descent.best is not None:
            if descent.best.value > marked - haste.least:
                break
            marked = descent.best.value
    return descent.best


class _Descent:
    def __init__(self, recursion: Recursion, objective: Objective, rate: float, warm: Parameters | None) -> None:
        self.recursion, self.objective = recursion, objective
        stages = recursion.chain.stages
        cold = [_start(stage) for stage in stages]
        self.counts = np.array([len(each) for each in cold], dtype=np.intp)
        self.uniform = [stage.middle is None for stage in stages]
        fits = warm is not None and [len(each) for each in warm] == self.counts.tolist()
        start = warm if fits and warm is not None else cold
        self.point = np.concatenate([*start, np.zeros(0)])
        self.best: Found | None = None
        self.iterations = 0
        self.restart(rate)

    def restart(self, rate: float) -> None:
        """From the best point seen, with fresh momentum."""
        self.rate = rate
        if self.best is not None:
            self.point = np.concatenate(self.best.parameters)
        self.mean, self.square = np.zeros_like(self.point), np.zeros_like(self.point)
        self.since = self.age = 0

    def step(self) -> None:
        """One evaluation and one step; back to the best point at half the rate where it loses its way."""
        self.iterations, self.since, self.age = self.iterations + 1, self.since + 1, self.age + 1
        gradient = self._gradient()
        if gradient is None or self.since > PATIENCE:
            self.restart(self.rate / 2)
            return
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.99 * self.square + 0.01 * gradient**2
        mean, square = self.mean / (1 - 0.9**self.age), self.square / (1 - 0.99**self.age)
        self.point = self.point - self.rate * mean / (np.sqrt(square) + 1e-12)

    def _split(self) -> list[Floats]:
        return np.split(self.point, np.cumsum(self.counts)[:-1]) if len(self.counts) else []

    def _gradient(self) -> Floats | None:
        parts, xp = self._split(), self.recursion.xp
        t = [
            xp.put(np.zeros(len(stage.matrix)) if uniform else part[:-1])
            for part, uniform, stage in zip(parts, self.uniform, self.recursion.chain.stages, strict=True)
        ]
        with np.errstate(all="ignore"):
            try:
                matrix = xp.get(self.recursion.forward(t, [xp.put(part[-1]) for part in parts]))
                if not np.isfinite(matrix).all():
                    return None
                value, of_matrix = self.objective((matrix + matrix.T) / 2)
                if self.best is None or value < self.best.value:
                    self._remember(value, parts)
                by_t, by_g = self.recursion.backward(xp.put(of_matrix))
            except (ArithmeticError, np.linalg.LinAlgError):
                return None
        pieces = []
        for part, uniform, of_t, of_g in zip(parts, self.uniform, by_t, by_g, strict=True):
            steps = np.exp(-part[-1])
            pieces.append(np.zeros(1) if uniform else xp.get(of_t))
            pieces.append(np.atleast_1d(-xp.get(of_g) * steps / (1 + steps)))
        gradient = np.concatenate(pieces) if pieces else np.zeros(0)
        return gradient if np.isfinite(gradient).all() else None

    def _remember(self, value: float, parts: list[Floats]) -> None:
        self.since = 0
        self.best = Found(
            multipliers=self.recursion.multipliers(),
            parameters=[part.copy() for part in parts],
            value=value,
            iterations=self.iterations,
        )


def _start(stage: Stage) -> Floats:
    """(t, g) from which no bound is much looser than the product of norms: D = λ(R) max(|α|, |β|)/η."""
    if stage.middle is None:
        return np.array([0.0, TIGHT])
    share = stage.half / np.maximum(np.abs(stage.middle) + stage.half, 1e-300)
    largest = max(float(np.max(share, initial=0.0)), 1e-12)
    g = -np.log(max(1.0 / largest - 1.0, np.exp(-TIGHT)))
    return np.append(np.log(np.maximum(share / largest, 1e-12)), g)
