"""Logit enclosures and proved constants -> label, radius and difference bounds.

With margin_j = f_t(x) - f_j(x) > L_tj * r for every j != t, no x' with ||x' - x|| <= r gets another class: so the
radius is min_j margin_j / L_tj, rounded strictly down.  L_tj is the constant of f_t - f_j, never that of the whole
logit vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A label and how far the input may move without changing it; `because` says why a radius is 0."""

    label: int
    runner_up: int | None
    margin: float
    radius: float
    because: str | None


def strictly_below(margin_lower: Floats, constant_upper: Floats) -> Floats:
    """The largest float64 r with r * constant < margin that one division and two steps down can promise; >= 0.

    A zero constant means that the pair's difference never changes: its radius is `LARGEST`.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        quotient = margin_lower / constant_upper
    # The quotient is within half an ulp; two steps down are strictly below the real quotient.
    below = np.nextafter(np.nextafter(quotient, -np.inf), -np.inf)
    below = np.where(np.isfinite(below), below, np.where(quotient > 0, LARGEST, 0.0))
    return np.where((margin_lower > 0) & (below > 0), np.minimum(below, LARGEST), 0.0)


def decide(logits: Floats, stray: Floats, constants: Constants) -> Decision:
    """The class of one row and its certified radius.

    `logits` are computed values and |exact - logits| <= stray entrywise.  Shapes: both [c], c >= 2.
    Ties, NaN, infinite logits and margins that rounding could hide get radius 0.
    """
    if constants.pairs is None:
        raise ValueError("a classifier needs pair constants")
    count = logits.size
    if not np.isfinite(logits).all():
        return Decision(label=0, runner_up=None, margin=0.0, radius=0.0, because="the logits are not finite")
    order = np.argsort(-logits, kind="stable")
    label, runner_up = int(order[0]), int(order[1])
    margin = float(logits[label] - logits[runner_up])
    if margin == 0.0:
        return Decision(
            label=label,
            runner_up=runner_up,
            margin=0.0,
            radius=0.0,
            because="the two largest logits are tied",
        )
    others = np.arange(count) != label
    allowance = add_upper(stray[others], stray[label])
    exact_margin = np.nextafter(logits[label] - logits[others], -np.inf)
    margin_lower = np.nextafter(exact_margin - allowance, -np.inf)
    if not (margin_lower > 0).all():
        return Decision(
            label=label,
            runner_up=runner_up,
            margin=margin,
            radius=0.0,
            because="the margin is within the rounding error of computing it",
        )
    radius = float(strictly_below(margin_lower, constants.pairs[label][others]).min())
    because = "the margin is too small for a positive radius" if radius == 0.0 else None
    return Decision(label=label, runner_up=runner_up, margin=margin, radius=radius, because=because)


def decide_binary(logit: float, stray: float, threshold_logit: float, threshold_stray: float, upper: float) -> Decision:
    """The side of the threshold that one logit is on, and its certified radius |f - theta| / L."""
    gap = logit - threshold_logit
    if not np.isfinite(gap):
        return Decision(label=0, runner_up=1, margin=0.0, radius=0.0, because="the logit is not finite")
    label = int(gap > 0)
    margin = abs(gap)
    allowance = float(add_upper(np.float64(stray), np.float64(threshold_stray)))
    margin_lower = np.nextafter(np.nextafter(margin, -np.inf) - allowance, -np.inf)
    if margin_lower <= 0:
        return Decision(
            label=label,
            runner_up=1 - label,
            margin=margin,
            radius=0.0,
            because="the logit is at the threshold, within the rounding error of computing it",
        )
    radius = float(strictly_below(np.array([margin_lower]), np.array([upper]))[0])
    because = "the margin is too small for a positive radius" if radius == 0.0 else None
    return Decision(label=label, runner_up=1 - label, margin=margin, radius=radius, because=because)


def output_reach(constants: Constants, distance_upper: float, count: int) -> Floats:
    """Per output, an upper bound of |f_k(x') - f_k(x)| for ||x' - x|| <= distance_upper.  Shapes: [c]."""
    per_output = constants.outputs if constants.outputs is not None else np.full(count, constants.upper)
    return mul_upper(per_output, distance_upper)
