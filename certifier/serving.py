"""How the outputs of one row become a decision, for each kind of task."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certifier.certificates import Constants, Decision, decide, decide_binary
from certifier.documents import Task

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

    def decide(self, outputs: Floats, stray: Floats) -> Decision:
        """The class and radius of one row whose exact outputs are within `stray` of `outputs`."""
        if self.task == "classification":
            return decide(outputs, stray, self.constants)
        theta, theta_stray = self.threshold_logit
        return decide_binary(float(outputs[0]), float(stray[0]), theta, theta_stray, self.constants.upper)

    def margin_gradient(self, outputs: Floats, label: int) -> Floats:
        """The gradient of the label's margin over the best other class with respect to the outputs."""
        gradient = np.zeros_like(outputs)
        if self.task == "binary":
            gradient[0] = 1.0 if label else -1.0
            return gradient
        others = outputs.copy()
        others[label] = -np.inf
        gradient[label], gradient[int(np.argmax(others))] = 1.0, -1.0
        return gradient

    def surely_flipped(self, label: int, outputs: Floats, stray: Floats) -> bool:
        """Whether the exact class certainly differs from `label`."""
        if self.task == "binary":
            theta, theta_stray = self.threshold_logit
            gap = float(outputs[0]) - theta
            slack = float(stray[0]) + theta_stray
            return gap < -slack if label else gap > slack
        others = np.arange(outputs.size) != label
        lead = outputs[others] - stray[others] - (outputs[label] + stray[label])
        return bool((lead > 0).any())
