"""Rows, their labels and a time -> radii that were proved around each row, where the global constants give less.

The goals of a row are its margins, less what the engine's rounding can take from them anywhere in the ball.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from certifier.box import Box
from certifier.flow import Network
from certifier.proof.drifts import DriftsAt
from certifier.proof.execution import Gains
from certifier.proof.local.analysis import Balls, Guide, Local
from certifier.proof.local.ledger import Goals, Ledger
from certifier.search.lines import LeastArea
from certifier.search.refinement import INNER_STEPS, search_radii
from certifier.serving import Decider

Floats = NDArray[np.float64]
Labels = NDArray[np.intp]

ROWS_TOGETHER = 64
ENTRIES_TOGETHER = 2**22
"""Of all values, and of the goals' coefficients."""
LEAST_SECONDS = 0.01
"""A block of rows is not begun with less."""
MULTIPLICATIONS_PER_SECOND = 5e9
SHARE_OF_ONE_ANALYSIS = 0.25
"""Of a row's time, for functionals of inner values; searches take several analyses."""

NO_TIME = "the time for refinement was over"
NOTHING_LARGER = "no larger radius could be proved around this input"


class Refiner:
    """Refines radii of one network; what it learns of where to begin makes later rows faster, never wrong."""

    def __init__(self, network: Network, *, gains: Gains, box: Box) -> None:
        self._network = network
        self._local = Local(network, gains, lower=box.lower, upper=box.upper)
        self._first: float | None = None
        crude = [f"{term.name!r} ({term.operator})" for term in self._local.anchored]
        self._nothing = NOTHING_LARGER
        if crude:
            more = f" and {len(crude) - 1} more" if len(crude) > 1 else ""
            self._nothing += f"; node {crude[0]}{more} has no local form and is followed by intervals and its constant"

    def refine(self, x: Floats, goals: Goals, *, seconds: float) -> tuple[Floats, list[str]]:
        """Radii in which every goal of each row stays positive, and why a radius may be no larger than before.

        Rows share `seconds`; 0 where nothing was proved.  Shapes: x [B, n], exact -> [B].
        """
        radii, because = np.zeros(len(x)), [NO_TIME] * len(x)
        entries = max(sum(self._network.sizes.values()), goals.coefficients[0].size)
        step = max(1, min(ROWS_TOGETHER, ENTRIES_TOGETHER // entries))
        ending = time.monotonic() + seconds
        for start in range(0, len(x), step):
            rows = np.arange(start, min(start + step, len(x)))
            left = ending - time.monotonic()
            share = left * len(rows) / (len(x) - start)
            if left < LEAST_SECONDS:
                break
            found = search_radii(
                self._local,
                x[rows],
                goals.some(rows),
                first=self._first,
                deadline=time.monotonic() + share,
                budget=MULTIPLICATIONS_PER_SECOND * SHARE_OF_ONE_ANALYSIS * share / len(rows),
            ).radii
            radii[rows] = found
            because[rows[0] : rows[-1] + 1] = [self._nothing] * len(rows)
            if (found > 0).any():
                self._first = float(np.median(found[found > 0]))
        return radii, because


def margin_goals(decider: Decider, label: Labels, classes: int, around: DriftsAt | None) -> Goals:
    """What has to stay positive for each label to stay: its margins less the drifts of which `around` speaks.

    Shapes: label [B].
    """
    each = np.arange(len(label))
    if decider.task == "binary":
        theta, theta_stray = decider.threshold_logit
        side = np.where(label > 0, 1.0, -1.0)
        fixed, growth = np.zeros((2, len(label), 1)) if around is None else around.outputs()
        constants = np.nextafter(-side * theta - theta_stray, -np.inf)[:, None]
        return Goals(coefficients=side[:, None, None], constants=_less(constants, fixed), growth=growth)
    others = np.array([[j for j in range(classes) if j != t] for t in range(classes)])[label]
    coefficients = np.zeros((len(label), classes - 1, classes))
    coefficients[each, :, label] = 1.0
    np.put_along_axis(coefficients, others[:, :, None], -1.0, axis=2)
    if around is None:
        zeros = np.zeros(others.shape)
        return Goals(coefficients=coefficients, constants=zeros, growth=zeros)
    fixed, growth = (np.take_along_axis(part, others, axis=1) for part in around.pairs(label))
    return Goals(coefficients=coefficients, constants=_less(np.zeros(others.shape), fixed), growth=growth)


def _less(constants: Floats, fixed: Floats) -> Floats:
    """constants - fixed, rounded down; exactly the constants where nothing is fixed."""
    with np.errstate(invalid="ignore"):
        return np.where(fixed == 0, constants, np.nextafter(constants - fixed, -np.inf))


def local_margins(network: Network, x: Floats, radii: Floats, target: Labels, *, gains: Gains, box: Box) -> Floats:
    """f_target - f_j is at least result_j at every x' of the box with ||x' - x|| <= radius; +inf for j = target.

    Shapes: x [B, n], exact; radii and target [B] -> [B, c].
    Arithmetic: real, of the network; rounded down.
    """
    local = Local(network, gains, lower=box.lower, upper=box.upper)
    balls: Balls = local.balls(x, radii)
    guide: Guide = LeastArea(deadline=np.inf, budget=np.inf, steps=INNER_STEPS)
    classes = network.output_size
    zeros = np.zeros((len(x), classes))
    coefficients = np.repeat(-np.eye(classes)[None], len(x), axis=0)
    coefficients[np.arange(len(x)), :, target] += 1.0
    goals = Goals(coefficients=coefficients, constants=zeros, growth=zeros)
    below = Ledger(x, goals).judge(local.analyse(balls, guide, known=None), np.arange(len(x))).below
    margins = below.at(radii[:, None])
    margins[np.arange(len(x)), target] = np.inf
    return margins
