"""Logit enclosures and proved constants -> label, radius and difference bounds.

With margin_j = f_t(x) - f_j(x) > L_tj * r for every j != t, no x' with ||x' - x|| <= r gets another class: so the
radius is min_j margin_j / L_tj, rounded strictly down.  L_tj is the constant of f_t - f_j, never that of the whole
logit vector.  For an engine that rounds, the margin loses what rounding can take from it anywhere in the ball,
fixed_tj + growth_tj r, so that (margin_j - fixed_tj) / (L_tj + growth_tj) takes its place (`certifier.proof.drifts`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certifier.proof.drifts import DriftsAt
from certifier.proof.rounding import add_upper, mul_upper

Floats = NDArray[np.float64]

LARGEST = float(np.finfo(np.float64).max)
"""Stands for an infinite radius: no other class can ever be reached."""


@dataclass(frozen=True, kw_only=True)
class Constants:
    """The proved constants of one network.

    Shapes: outputs [c] or None; pairs [c, c] or None, symmetric with a zero diagonal.
    """

    upper: float
    outputs: Floats | None
    pairs: Floats | None


def tighter(first: Constants, second: Constants) -> Constants:
    """The smaller of two sound constants, one by one; what only one of them knows is taken over."""
    upper = min(first.upper, second.upper)
    outputs = _smaller(first.outputs, second.outputs)
    return Constants(
        upper=upper,
        outputs=None if outputs is None else np.minimum(outputs, upper),
        pairs=_smaller(first.pairs, second.pairs),
    )


def _smaller(first: Floats | None, second: Floats | None) -> Floats | None:
    if first is None or second is None:
        return second if first is None else first
    return np.minimum(first, second)


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Per row the class of the largest logit, the second, and how far they are apart as computed.  Shapes: all [B]."""

    label: NDArray[np.intp]
    runner_up: NDArray[np.intp]
    margin: Floats


@dataclass(frozen=True, kw_only=True)
class Decisions(Ranking):
    """Per row a label and how far the input may move without changing it; `because` says why a radius is 0.

    Shapes: all [B]; `because` holds None where the radius is positive.
    """

    radius: Floats
    because: list[str | None]


NOT_FINITE = "the logits are not finite"
AT_THRESHOLD = "the logit is at the threshold"
TIED = "the two largest logits are tied"
WITHIN_ROUNDING = "the margin is within the rounding error of computing it"
WITHIN_DRIFT = "the margin is within the rounding error of the engine"
NO_ROOM = (
    "inside of the engine a number could overflow, a normalisation lose to rounding what it keeps, "
    "or rounding lead out of a range on which a constant holds"
)
TOO_SMALL = "the margin is too small for a positive radius"
NO_CLASS = "a regressor has no class, so there is no radius"


def strictly_below(margin_lower: Floats, constant_upper: Floats) -> Floats:
    """The largest float64 r with r * constant < margin that one division and two steps down can promise; >= 0.

    A zero constant means that the pair's difference never changes: its radius is `LARGEST`.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        quotient = margin_lower / constant_upper
    # The quotient is within half an ulp; two steps down are strictly below the real quotient.
    below = np.nextafter(np.nextafter(quotient, -np.inf), -np.inf)
    below = np.where(np.isnan(below), 0.0, np.where(quotient == np.inf, LARGEST, below))
    return np.asarray(np.where((margin_lower > 0) & (below > 0), np.minimum(below, LARGEST), 0.0))


def rank(logits: Floats) -> Ranking:
    """What the logits of every row say by themselves.  Shapes: [B, c], c >= 2, all finite."""
    count = np.arange(len(logits))
    label = np.asarray(np.argmax(logits, axis=1))
    others = logits.copy()
    others[count, label] = -np.inf
    runner_up = np.asarray(np.argmax(others, axis=1))
    return Ranking(label=label, runner_up=runner_up, margin=logits[count, label] - logits[count, runner_up])


def rank_binary(logits: Floats, threshold: float) -> Ranking:
    """The same of a single logit and the threshold between its two classes.  Shapes: [B], all finite."""
    gap = logits - threshold
    label = (gap > 0).astype(np.intp)
    return Ranking(label=label, runner_up=1 - label, margin=np.abs(gap))


def decide(logits: Floats, stray: Floats, pairs: Floats, drifts: DriftsAt | None) -> Decisions:
    """The class of every row and its certified radius: in exact arithmetic, or in that of which `drifts` speak.

    `logits` are computed values and |exact - logits| <= stray entrywise.  Ties, NaN, infinite logits and margins that
    rounding could hide get radius 0.
    Shapes: logits and stray [B, c], c >= 2; pairs [c, c].
    """
    count = np.arange(len(logits))
    finite = np.asarray(np.isfinite(logits).all(axis=1))
    usable = np.where(finite[:, None], logits, 0.0)
    ranking = rank(usable)
    label, margin = ranking.label, ranking.margin
    with np.errstate(over="ignore", invalid="ignore"):
        # Each difference is within one step of the real one, as is each subtraction of what rounding may hide.
        gaps = np.nextafter(usable[count, label][:, None] - usable, -np.inf)
        allowance = add_upper(stray, stray[count, label][:, None])
        margin_lower = np.nextafter(gaps - allowance, -np.inf)
    margin_lower = np.where(np.isfinite(margin_lower), margin_lower, -np.inf)
    fixed, growth, room = (0.0, 0.0, np.inf) if drifts is None else (*drifts.pairs(label), drifts.room)
    left, radii = _radii(margin_lower, pairs[label], fixed, growth)
    radii[count, label] = LARGEST
    margin_lower[count, label] = left[count, label] = np.inf
    radius = np.where(finite, np.minimum(radii.min(axis=1), room), 0.0)
    lowest, left = margin_lower.min(axis=1), left.min(axis=1)
    reasons = _reasons(finite, lowest, left, radius, room, ties=[(margin == 0.0, TIED)])
    return Decisions(label=label, runner_up=ranking.runner_up, margin=margin, radius=radius, because=reasons)


def _radii(margin_lower: Floats, constants: Floats, fixed: Floats | float, growth: Floats | float) -> tuple:
    """What drifting leaves of the margins, and the radii it leaves: r with constant r < margin - fixed - growth r."""
    if np.ndim(fixed) == 0:
        return margin_lower.copy(), strictly_below(margin_lower, constants)
    # No margin is +inf and no drift NaN, so that the difference is a number or -inf.
    with np.errstate(over="ignore"):
        left = np.nextafter(margin_lower - fixed, -np.inf)
    # Neither is negative, and the sum of two such numbers rounds once.
    return left, strictly_below(left, np.nextafter(constants + growth, np.inf))


def _reasons(
    finite: NDArray[np.bool_],
    lowest: Floats,
    left: Floats,
    radius: Floats,
    room: Floats | float,
    *,
    ties: list[tuple[NDArray[np.bool_], str]],
) -> list[str | None]:
    """Why each radius is 0; None where it is not."""
    if radius.all():
        return [None] * len(radius)
    known = [(~finite, NOT_FINITE), *ties, (lowest <= 0, WITHIN_ROUNDING)]
    known += [(np.asarray(room <= 0) & finite, NO_ROOM), (left <= 0, WITHIN_DRIFT), (radius == 0.0, TOO_SMALL)]
    chosen = np.select([where for where, _ in known], [text for _, text in known], default="")
    return [str(text) or None for text in chosen]


def decide_binary(
    logits: Floats, stray: Floats, threshold: tuple[float, float], upper: float, drifts: DriftsAt | None
) -> Decisions:
    """The side of the threshold that every row's logit is on, and its certified radius |f - theta| / L.

    `threshold` is theta as computed with a bound of its own rounding error.  Shapes: logits and stray [B].
    """
    theta, theta_stray = threshold
    finite = np.isfinite(logits)
    ranking = rank_binary(np.where(finite, logits, theta), theta)
    label, margin = ranking.label, ranking.margin
    with np.errstate(over="ignore", invalid="ignore"):
        margin_lower = np.nextafter(np.nextafter(margin, -np.inf) - add_upper(stray, theta_stray), -np.inf)
    margin_lower = np.where(np.isfinite(margin_lower), margin_lower, -np.inf)
    fixed, growth, room = 0.0, 0.0, np.inf
    if drifts is not None:
        (fixed, growth), room = (each[:, 0] for each in drifts.outputs()), drifts.room
    left, radii = _radii(margin_lower, np.full_like(margin_lower, upper), fixed, growth)
    radius = np.where(finite, np.minimum(radii, room), 0.0)
    reasons = _reasons(finite, margin_lower, left, radius, room, ties=[(margin == 0.0, AT_THRESHOLD)])
    return Decisions(label=label, runner_up=ranking.runner_up, margin=margin, radius=radius, because=reasons)


def output_reach(constants: Constants, distance_upper: float, count: int) -> Floats:
    """Per output, an upper bound of |f_k(x') - f_k(x)| for ||x' - x|| <= distance_upper.  Shapes: [c]."""
    per_output = constants.outputs if constants.outputs is not None else np.full(count, constants.upper)
    return mul_upper(per_output, distance_upper)
