"""How rows of outputs become decisions, for each kind of task."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certifier.certificates import Constants, Decisions, Ranking, decide, decide_binary, rank, rank_binary
from certifier.documents import Task
from certifier.proof.drifts import DriftsAt

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Decider:
    """The task, its proved constants and, for a binary classifier, the probability at which the class changes."""

    task: Task
    constants: Constants
    threshold: float

    @property
    def threshold_logit(self) -> tuple[float, float]:
        """log(p / (1 - p)) as computed, and a bound of its rounding error."""
        if self.threshold == 0.5:
            return 0.0, 0.0
        first, second = math.log(self.threshold), math.log1p(-self.threshold)
        # Two libm calls within two units of roundoff each and one subtraction.
        return first - second, 2.0**-50 * (abs(first) + abs(second))

    def decide(self, outputs: Floats, stray: Floats, drifts: DriftsAt | None) -> Decisions:
        """The class and radius of every row whose exact outputs are within `stray` of `outputs`.

        `drifts` bound how far the execution that is certified drifts from the exact outputs; None is no drift at all.
        Shapes: both [B, c].
        """
        if self.task == "classification":
            assert self.constants.pairs is not None
            return decide(outputs, stray, self.constants.pairs, drifts)
        return decide_binary(outputs[:, 0], stray[:, 0], self.threshold_logit, self.constants.upper, drifts)

    def rank(self, outputs: Floats) -> Ranking:
        """The class of every row of finite outputs by themselves, and by how much it leads.  Shapes: [B, c]."""
        if self.task == "classification":
            return rank(outputs)
        return rank_binary(outputs[:, 0], self.threshold_logit[0])

    def margin_gradient(self, outputs: Floats, label: NDArray[np.intp]) -> Floats:
        """The gradient of each label's margin over the best other class with respect to the outputs [B, c]."""
        gradient = np.zeros_like(outputs)
        count = np.arange(len(outputs))
        if self.task == "binary":
            gradient[:, 0] = np.where(label > 0, 1.0, -1.0)
            return gradient
        others = outputs.copy()
        others[count, label] = -np.inf
        gradient[count, label] = 1.0
        gradient[count, np.argmax(others, axis=1)] = -1.0
        return gradient

    def surely_flipped(self, label: NDArray[np.intp], outputs: Floats, stray: Floats) -> NDArray[np.bool_]:
        """Whether each row's exact class certainly differs from `label`.  Shapes: [B], [B, c], [B, c] -> [B]."""
        if self.task == "binary":
            theta, theta_stray = self.threshold_logit
            gap, slack = outputs[:, 0] - theta, stray[:, 0] + theta_stray
            return np.asarray(np.where(label > 0, gap < -slack, gap > slack), dtype=np.bool_)
        count = np.arange(len(outputs))
        lead = outputs - stray - (outputs[count, label] + stray[count, label])[:, None]
        lead[count, label] = -np.inf
        return np.asarray((lead > 0).any(axis=1))
