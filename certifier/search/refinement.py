"""Searches the largest provable radius of each row.  Untrusted: every radius it returns is proved by an analysis.

An analysis of a ball of radius r bounds the margins over it; the least of them, as a share of what it is at the centre,
falls from 1 and is zero at the radius that is looked for.  That is found by false position between a radius that holds
and one that does not.  Some rows go first, and tell the others where to begin.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certifier.flow import Network
from certifier.proof.local.analysis import Known, Local
from certifier.proof.local.backward import Below
from certifier.proof.local.ledger import Goals, Ledger, Verdict
from certifier.search.lines import LeastArea, optimised_slopes

Array = NDArray[Any]

ROUNDS = 12
"""Analyses of every row at most."""
CLOSE = 0.99
"""A row is done when its radius is this share of one that failed."""
PILOTS = 3
BLIND_SHARE = 0.1
"""Of the linearised network's distance, where nothing better is known to begin with."""
SLOPE_STEPS = 6
DECIDING = 0.2
"""Goals whose distance exceeds the least by no more than this share of the radius get slopes of their own."""
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
    balls = local.balls(x[rows], np.zeros(len(rows)))
    outputs, goals = balls.centres[local.network.output].value, ledger.goals.some(rows)
    margins = np.einsum("bmc,bc->bm", goals.coefficients, outputs) + goals.constants
    brackets, radii, known = _Brackets.of(len(rows)), begin.copy(), None
    rounds, active = 0, np.arange(len(rows))
    while len(active) and rounds < ROUNDS and time.monotonic() < deadline:
        rounds += 1
        now = radii[active]
        guide = LeastArea(deadline=deadline, budget=budget * len(active))
        analysis = local.analyse(replace(balls.some(active), radii=now), guide, known=known)
        verdict = ledger.judge(analysis, rows[active])
        if time.monotonic() < deadline:
            _sharpen(verdict)
        best = ledger.radii[rows[active]]
        share = _margin_share(verdict.below, now, margins[active])
        radii[active] = brackets.next(active, now, share, best)
        fresh = Known.of(analysis)
        known = fresh if known is None else known.replaced(fresh, share < 0)
        keep = best < CLOSE * brackets.high[active]
        known, active = known.some(np.flatnonzero(keep)), active[keep]


@dataclass(kw_only=True)
class _Brackets:
    """Row by row a radius that holds and one that does not, with the shares of the margin that are left there."""

    low: Array
    low_share: Array
    high: Array
    high_share: Array

    @classmethod
    def of(cls, rows: int) -> _Brackets:
        zeros = np.zeros(rows)
        return cls(low=zeros.copy(), low_share=zeros + 1.0, high=zeros + np.inf, high_share=zeros - np.inf)

    def next(self, rows: NDArray[np.intp], now: Array, share: Array, best: Array) -> Array:
        """Where to try next, after `share` was found at `now`."""
        low, low_share, high, high_share = (
            each[rows] for each in (self.low, self.low_share, self.high, self.high_share)
        )
        holds = share >= 0
        with np.errstate(all="ignore"):
            # What is lost of the margin grows like an exponential, so its logarithm is nearly straight.
            loss, low_loss = np.log1p(-share), np.log1p(-low_share)
            beyond = now * np.clip(1.0 - loss / ((loss - low_loss) / (now - low) * now), 1.4, 2.5)
            low, high = np.where(holds, now, low), np.where(holds, high, now)
            low_share, high_share = np.where(holds, share, low_share), np.where(holds, high_share, share)
            ends = np.log1p(-low_share), np.log1p(-high_share)
            part = np.where(np.isfinite(ends[0]) & np.isfinite(ends[1]), ends[0] / (ends[0] - ends[1]), 0.5)
            between = low + np.clip(part, 0.1, 0.9) * (high - low)
        self.low[rows], self.low_share[rows] = low, low_share
        self.high[rows], self.high_share[rows] = high, high_share
        following = np.where(np.isfinite(high), between, beyond)
        return np.maximum(np.where(np.isfinite(following), following, 2.0 * now), best)


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


def _sharpen(verdict: Verdict) -> None:
    """The goals that decide a radius, through slopes of their own."""
    analysis, below = verdict.analysis, verdict.below
    with np.errstate(all="ignore"):
        distances = np.nan_to_num(below.base / below.steepness, nan=-np.inf)
        deciding = distances <= distances.min(axis=1, keepdims=True) + DECIDING * analysis.balls.radii[:, None]
    picked = np.flatnonzero((deciding & np.isfinite(below.base)).ravel())
    if len(picked) == 0:
        return
    coefficients, owners = verdict.coefficients[picked], verdict.owners[picked]
    slopes = optimised_slopes(analysis, analysis.network.output, coefficients, owners, steps=SLOPE_STEPS)
    if slopes:
        verdict.sharpen(picked, slopes)
