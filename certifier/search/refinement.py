"""Searches the largest provable radius of each row.  Untrusted: every radius it returns is proved by an analysis.

An analysis of a ball of radius r bounds the margins over it; the least of them, as a share of what it is at the centre,
falls from 1 and is zero at the radius that is looked for.  That is found by false position between a radius that holds
and one that does not, with lines that cost nothing to choose, and improved by one or two analyses with better ones.
Some rows go first, and tell the others where to begin.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certifier.flow import Network
from certifier.proof.local.analysis import Analysis, Known, Local
from certifier.proof.local.backward import Below
from certifier.proof.local.ledger import Goals, Ledger, Verdict
from certifier.search.lines import LeastArea, optimised_slopes, tangent_slopes
from certifier.terms import Activation

Array = NDArray[Any]

ROUNDS = 8
"""Analyses of every row at most, with lines of least area."""
CLOSE = 0.95
"""A row is bracketed when its radius is this share of one that failed,"""
NEAR = 0.1
"""or when this share of a margin is left, or lacking, at a radius between two others."""
FINE_ROUNDS, INNER_STEPS = 2, 2
"""Analyses with slopes that are optimised, and the steps of each descent for inner values."""
FINE, FINER = 0.95, 0.99
"""Rows whose radius is a larger share of where it should end need no further analysis; where `MANY` values are
undecided, analyses have no slopes to optimise, and one more of them, so that little else is lost."""
PILOTS = 3
BLIND_SHARE = 0.1
"""Of the linearised network's distance, where nothing better is known to begin with."""
POWER = 2.5
"""Of the radius, with which what is lost of a margin grows, until two radii tell."""
POWERS, STRIDES, TINIEST_LOSS = (1.0, 20.0), (0.4, 2.5), 1e-9
"""Bounds of that power, of how far a radius may change in one step, and of what is lost."""
FIRST_STEPS, SLOPE_STEPS = 2, 4
"""Of descents for the goals, in the first analyses and in those with optimised slopes."""
DECIDING = 0.2
"""Goals whose distance exceeds the least by no more than this share of the radius get slopes of their own."""
MANY = 2000
"""Undecided values of a row, from which on descents take long and gain less than budgets do."""
ROWS_ENTRIES = 2**22
"""Entries of all values that are evaluated at once."""


def search_radii(
    local: Local, x: Array, goals: Goals, *, first: float | None, deadline: float, budget: float
) -> Ledger:
    """Radii up to which every goal stays positive, as large as can be found until `deadline`; 0 for none.

    `first`: where to begin, from earlier rows of the same network.  `budget`: multiplications that one row's analysis
    may spend on inner values.
    Shapes: x [B, n].
    """
    ledger = Ledger(x, goals)
    reach = _linear_distances(local.network, x, goals)
    able = np.flatnonzero(np.isfinite(reach) & (reach > 0))
    pilots, others = (able[:PILOTS], able[PILOTS:]) if first is None else (able[:0], able)
    for rows in (pilots, others):
        if len(rows):
            known = ledger.radii[pilots][ledger.radii[pilots] > 0]
            start = first if first is not None else float(np.median(known)) if len(known) else None
            begin = BLIND_SHARE * reach[rows] if start is None else np.minimum(start, reach[rows])
            _search(local, ledger, x, rows, begin=begin, deadline=deadline, budget=budget)
    return ledger


def _search(
    local: Local, ledger: Ledger, x: Array, rows: NDArray[np.intp], *, begin: Array, deadline: float, budget: float
) -> None:
    """Brackets every row's radius with lines of least area, and goes on from there with slopes that are optimised."""
    balls = local.balls(x[rows], np.zeros(len(rows)))
    outputs, goals = balls.centres[local.network.output].value, ledger.goals.some(rows)
    margins = np.einsum("bmc,bc->bm", goals.coefficients, outputs) + goals.constants
    brackets, radii, known, fine = _Brackets.of(len(rows)), begin.copy(), None, False
    active, every, many = np.arange(len(rows)), np.arange(len(rows)), np.zeros(len(rows), dtype=bool)
    for steps in [0] * ROUNDS + [INNER_STEPS] * FINE_ROUNDS + [0]:
        if time.monotonic() >= deadline:
            return
        if fine and not steps:
            active = active[many[active]]
        if steps and not fine:
            fine, active = True, every
            brackets = _Brackets.of(len(rows), power=brackets.power)
        if len(active) == 0:
            continue
        now = radii[active]
        guide = LeastArea(deadline=deadline, budget=budget * len(active), steps=steps)
        held = None if known is None else known.some(active)
        analysis = local.analyse(replace(balls.some(active), radii=now), guide, known=held)
        verdict = ledger.judge(analysis, rows[active])
        if time.monotonic() < deadline:
            _sharpen(verdict, steps=SLOPE_STEPS if fine else FIRST_STEPS)
        share = _margin_share(verdict.below, now, margins[active])
        best = ledger.radii[rows[active]]
        radii[active] = brackets.next(active, now, share, best)
        if fine:
            many[active] = _undecided(analysis) > MANY
            enough = np.where(many[active], FINER, FINE)
            active = active[best < enough * np.minimum(brackets.high, radii)[active]]
        else:
            fresh, failed = Known.of(analysis), np.flatnonzero(share < 0)
            known = fresh if known is None else known.replaced(active[failed], fresh.some(failed))
            active = active[~brackets.settled(active, share, best)]


@dataclass(kw_only=True)
class _Brackets:
    """Row by row a radius that holds and one that does not, with the logarithms of what is lost of the margin there.

    What is lost grows about like a power of the radius, so that its logarithm is nearly straight in the radius' own.
    """

    low: Array
    low_loss: Array
    high: Array
    high_loss: Array
    power: Array

    @classmethod
    def of(cls, rows: int, *, power: Array | float = POWER) -> _Brackets:
        zeros = np.zeros(rows)
        ends = {"low": zeros, "low_loss": zeros - np.inf, "high": zeros + np.inf, "high_loss": zeros + np.inf}
        return cls(**{name: end.copy() for name, end in ends.items()}, power=zeros + power)

    def settled(self, rows: NDArray[np.intp], share: Array, best: Array) -> NDArray[np.bool_]:
        """Whether the radius is known well enough, after `share` was found."""
        between = (self.low[rows] > 0) & np.isfinite(self.high[rows])
        close = np.where(between, NEAR, NEAR / 5)
        return (best >= CLOSE * self.high[rows]) | (np.abs(share) < close)

    def next(self, rows: NDArray[np.intp], now: Array, share: Array, best: Array) -> Array:
        """Where to try next, after `share` was found at `now`."""
        with np.errstate(all="ignore"):
            loss = np.log(np.maximum(1.0 - share, TINIEST_LOSS))
            holds = share >= 0
            # Two radii of the same kind tell the power as well.
            before = np.where(holds, self.low[rows], self.high[rows])
            trend = (loss - np.where(holds, self.low_loss[rows], self.high_loss[rows])) / np.log(now / before)
            told = np.where(np.isfinite(trend) & (before > 0) & np.isfinite(before), trend, self.power[rows])
            low, low_loss = np.where(holds, now, self.low[rows]), np.where(holds, loss, self.low_loss[rows])
            high, high_loss = np.where(holds, self.high[rows], now), np.where(holds, self.high_loss[rows], loss)
            between = (low > 0) & np.isfinite(high)
            power = (high_loss - low_loss) / np.log(high / low)
            power = np.where(between & np.isfinite(power), power, told)
            power = np.clip(power, *POWERS)
            following = now * np.clip(np.exp(-loss / power), *STRIDES)
            inside = np.clip(following, low * (high / low) ** 0.1, low * (high / low) ** 0.9)
            outside = np.where(holds, np.maximum(following, now * 1.02), np.minimum(following, now * 0.98))
            following = np.where(between, inside, outside)
        self.low[rows], self.low_loss[rows] = low, low_loss
        self.high[rows], self.high_loss[rows], self.power[rows] = high, high_loss, power
        return np.maximum(np.where(np.isfinite(following), following, now / 2), best)


def _margin_share(below: Below, radii: Array, margins: Array) -> Array:
    """The least goal over the ball as a share of what it is at the centre; -inf where nothing is known."""
    with np.errstate(all="ignore"):
        shares = below.at(radii[:, None]) / margins
    return np.nan_to_num(shares, nan=-np.inf).min(axis=1)


def _linear_distances(network: Network, x: Array, goals: Goals) -> Array:
    """How far the nearest goal's zero is from each row if the network is taken for its tangent; 0 at or below zero."""
    count, each = goals.constants.shape
    distances = np.zeros((count, each))
    step = max(1, ROWS_ENTRIES // sum(network.sizes.values()))
    for start in range(0, count, step):
        part = slice(start, start + step)
        with np.errstate(all="ignore"):
            here = network.linearised(x[part])
            values = np.einsum("bmc,bc->bm", goals.coefficients[part], here.value) + goals.constants[part]
            for goal in range(each):
                slopes = np.linalg.norm(here.pullback(goals.coefficients[part, goal]), axis=1)
                distances[part, goal] = values[:, goal] / slopes
    return np.maximum(np.nan_to_num(distances, nan=0.0).min(axis=1), 0.0)


def _sharpen(verdict: Verdict, *, steps: int) -> None:
    """The goals that decide a radius, through slopes of their own."""
    analysis, below = verdict.analysis, verdict.below
    with np.errstate(all="ignore"):
        distances = np.nan_to_num(below.base / below.steepness, nan=-np.inf)
        deciding = distances <= distances.min(axis=1, keepdims=True) + DECIDING * analysis.balls.radii[:, None]
    picked = np.flatnonzero((deciding & np.isfinite(below.base)).ravel())
    if len(picked) == 0:
        return
    coefficients, owners = verdict.coefficients[picked], verdict.owners[picked]
    verdict.sharpen(picked, tangent_slopes(analysis, owners))
    if _undecided(analysis).mean() > MANY:
        return
    slopes = optimised_slopes(analysis, analysis.network.output, coefficients, owners, steps=steps)
    if slopes:
        verdict.sharpen(picked, slopes)


def _undecided(analysis: Analysis) -> NDArray[np.intp]:
    """How many arguments of activations may be on either side of zero, in each row."""
    sources = {term.sources[0] for term in analysis.network.terms if isinstance(term, Activation)}
    spans = [analysis.spans[name] for name in sources]
    zero = np.zeros(len(analysis.balls.radii), dtype=np.intp)
    return sum((((span.lower < 0) & (span.upper > 0)).sum(axis=1) for span in spans), zero)
