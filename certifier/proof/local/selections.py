"""Maxima and minima of several entries, as lines over the one entry that wins at the centre.

With w the winner at the centre, h = max_j y_j and m = max_{j≠w} sup y_j:   y_w <= h <= max(y_w, m), which is convex in
y_w and below its chord; where nobody can overtake w, h is y_w.  A minimum is the maximum of -y, turned over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certifier.proof.local.relaxations import Lines, straight_floor
from certifier.proof.local.spans import Centre, Span
from certifier.terms import VectorFunction
from certifier.vector_functions.extremes import EntrywiseExtreme
from certifier.vector_functions.pooling import WindowMaximum

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """Output i is the largest (or smallest) of the entries `places[i]`; -1 is none.  Shapes: [m, k]."""

    places: NDArray[np.intp]
    largest: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """The entry that each output follows, its span, and lines over it.  Shapes: winners [B, m]."""

    winners: NDArray[np.intp]
    followed: Span
    lines: Lines


def candidates_of(function: VectorFunction, columns: int) -> Candidates | None:
    """What the function selects from its `columns` entries; None for one that does more than select an extreme."""
    if isinstance(function, EntrywiseExtreme):
        places = np.arange(columns).reshape(function.count, -1).T
        return Candidates(places=places, largest=function.largest)
    if not isinstance(function, WindowMaximum):
        return None
    windows = function.windows
    before = np.arange(windows.before)[:, None, None, None] * windows.width
    places = (before + windows.indices[None, :, None, :]) * windows.after + np.arange(windows.after)[:, None]
    taken = np.broadcast_to(windows.indices[None, :, None, :] >= 0, places.shape)
    places = np.where(taken, places, -1).reshape(-1, windows.indices.shape[1])
    return Candidates(places=places, largest=not function.smallest)


def selection(candidates: Candidates, centre: Centre, span: Span) -> Selection:
    """The selection on a ball where the candidates' values have `centre` and `span`."""
    places, sign = candidates.places, 1.0 if candidates.largest else -1.0
    present = places >= 0
    lower, upper = (span.lower, span.upper) if candidates.largest else (-span.upper, -span.lower)
    # A window holds padding only in part, and no number is as small as padding: the winner is an entry.
    entries = np.where(present, np.nan_to_num(sign * centre.value)[:, places], -np.inf)
    taps = np.argmax(entries, axis=2)
    winners = np.take_along_axis(np.broadcast_to(places, entries.shape), taps[:, :, None], axis=2)[:, :, 0]
    reach = np.where(present, upper[:, places], -np.inf)
    np.put_along_axis(reach, taps[:, :, None], -np.inf, axis=2)
    others = reach.max(axis=2)
    least, top = np.take_along_axis(lower, winners, axis=1), np.take_along_axis(upper, winners, axis=1)
    slope, above = _chord(least, top, others)
    ones, zeros = np.ones_like(slope), np.zeros_like(slope)
    if candidates.largest:
        lines = Lines(lower_slope=ones, lower_intercept=zeros, upper_slope=slope, upper_intercept=above)
    else:
        lines = Lines(lower_slope=slope, lower_intercept=-above, upper_slope=ones, upper_intercept=zeros)
    followed = Span(
        lower=np.take_along_axis(span.lower, winners, axis=1),
        upper=np.take_along_axis(span.upper, winners, axis=1),
        moved=np.take_along_axis(span.moved, winners, axis=1),
        length=span.length,
    )
    return Selection(winners=winners, followed=followed, lines=lines)


def _chord(least: Array, top: Array, others: Array) -> tuple[Array, Array]:
    """Slope and intercept of a line that is nowhere below max(y, others) for y in [least, top]."""
    most = np.maximum(top, others)
    with np.errstate(all="ignore"):
        slope = np.clip((most - others) / (top - least), 0.0, 1.0)
        ends = np.stack([-straight_floor(-others, -slope * least), -straight_floor(-most, -slope * top)])
    above = ends.max(axis=0)
    known = np.isfinite(slope) & np.isfinite(above)
    slope, above = np.where(known, slope, 0.0), np.where(known, above, most)
    return np.where(others <= least, 1.0, slope), np.where(others <= least, 0.0, above)
