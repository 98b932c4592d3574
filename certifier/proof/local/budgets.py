"""A ball moves few values far: what lines are short of where all that they are over moves by one length together.

With d_i = |y_i(x') - y_i(x)|, a line through the value at x is short at x' by at most loss_i(d_i), and ||d|| <= length:

    loss_i(d) = min(cap_i, rate_i max(0, d - free_i)),    cap_i: what the line is short of anywhere

    sum_i w_i loss_i(d_i) <= sum_i max_d (w_i loss_i(d) - price d²/2) + price length²/2        for every price >= 0

Lines charge w_i cap_i for every entry; the difference is regained (docs/proofs/local-refinement.md, Lemma 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certifier.proof.execution import SLACK
from certifier.proof.local.relaxations import ROOM, UNDERFLOW, Lines
from certifier.proof.local.spans import Centre, Span
from certifier.terms import Elementwise

Array = NDArray[Any]

SHORTEST, LONGEST = 2.0**-400, 2.0**60
"""Lengths whose squares neither vanish nor carry what underflows beyond what is taken off for it; others regain 0."""
PRICES = 12
"""Halvings of the interval of prices; any price proves a bound, a better one a better bound."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Budget:
    """Caps and rates of the lines below and above, how far every entry moves freely, and all together.

    Shapes: caps and rates (below, above) of [B, n] each, free alike; length [B, 1].
    """

    caps: tuple[Array, Array]
    rates: tuple[Array, Array]
    free: tuple[Array, Array]
    length: Array

    def some(self, rows: NDArray[np.intp] | int) -> Budget:
        """Those of these rows, or of the one row of all functionals."""
        part = slice(rows, rows + 1) if isinstance(rows, int) else rows
        caps, rates, free = ((pair[0][part], pair[1][part]) for pair in (self.caps, self.rates, self.free))
        return Budget(caps=caps, rates=rates, free=free, length=self.length[part])


def budget_of(function: Elementwise, lines: Lines, source: Span, at: Centre, centre: Centre) -> Budget:
    """The budget of lines over the values of `source`, which lie at `at`; the function's value there is `centre`."""
    with np.errstate(all="ignore"):
        least, most = function.secants_on(source.lower, source.upper)
        here = function.secants_on(at.value - at.error, at.value + at.error)
        piece = _distance_to_bends(function, at)
        caps, rates, free = [], [], []
        sides = ((lines.lower_slope, lines.lower_intercept, 1.0), (lines.upper_slope, lines.upper_intercept, -1.0))
        for slope, intercept, sign in sides:
            product = slope * at.value
            room = ROOM * (np.abs(centre.value) + np.abs(product) + np.abs(intercept)) + UNDERFLOW
            short = sign * (centre.value - product - intercept) - (centre.error + np.abs(slope) * at.error) * SLACK
            short = short - room
            caps.append(np.where(short > 0, short, 0.0))
            rates.append(np.nextafter(np.maximum(np.maximum(most - slope, slope - least), 0.0), np.inf))
            free.append(np.where((here[0] == slope) & (here[1] == slope), piece, 0.0))
    return Budget(caps=(caps[0], caps[1]), rates=(rates[0], rates[1]), free=(free[0], free[1]), length=source.length)


def _distance_to_bends(function: Elementwise, at: Centre) -> Array:
    """How far an exact argument near `at` may move on its straight piece; 0 for what is curved.  Rounded down."""
    if not function.is_straight or function.bends is None:
        return np.zeros_like(at.value)
    nearest = np.full(at.value.shape, np.inf)
    for bend in function.bends:
        apart = np.abs(at.value - bend.at)
        nearest = np.minimum(nearest, apart - (at.error + bend.near) - ROOM * (apart + at.error))
    return np.maximum(nearest - UNDERFLOW, 0.0)


def regained(a: Array, budget: Budget, kappa: float) -> Array:
    """How much less than sum_i |a_i| cap_i the lines are short of, for every functional; rounded down, at least 0.

    Shapes: a [Q, n], and the budget of [Q, …] or [1, …] -> [Q].
    """
    with np.errstate(all="ignore"):
        below, open_ = a > 0, np.maximum(*budget.caps)
        used = np.flatnonzero(((open_ > 0) & (a != 0)).any(axis=0))
        length = budget.length[:, 0]
        is_usual = (length >= SHORTEST) & (length <= LONGEST)
        if len(used) == 0 or not is_usual.any():
            return np.zeros(len(a))
        below, weight = below[:, used], np.abs(a[:, used])
        cap, rate, free = (
            np.where(below, pair[0][:, used], pair[1][:, used]) for pair in (budget.caps, budget.rates, budget.free)
        )
        farthest, pull, whole = free + cap / rate, weight * rate, weight * cap
        room = (ROOM + kappa) * np.sum(pull * free + whole, axis=1) * SLACK + UNDERFLOW
        best = np.zeros(len(a))
        low, high = np.zeros(len(a)), np.linalg.norm(pull, axis=1) / length
        price = high / 8
        for _ in range(PRICES):
            reach = np.minimum(pull / price[:, None], farthest)
            loss = np.clip(pull * (reach - free) - price[:, None] / 2 * np.square(reach), 0.0, whole)
            gain = np.sum(whole - loss, axis=1) * (2.0 - SLACK) - price / 2 * np.square(length) * SLACK - room
            best = np.fmax(best, gain)
            spent = np.einsum("qn,qn->q", reach, reach * (loss > 0))
            cheap = spent > np.square(length)
            low, high = np.where(cheap, price, low), np.where(cheap, high, price)
            price = np.where(low > 0, np.sqrt(low * high), high / 8)
    return np.where(is_usual & np.isfinite(best), best, 0.0)
