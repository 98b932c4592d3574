"""Which lines to draw through a function and where to look closer, in analyses of balls.  Untrusted.

Lines of least area first; then, for functionals that matter, slopes found by ascent of their own bound.

Reference: Zhang et al. 2018, arXiv 1811.00866 (CROWN: lines of least area, followed backwards); Xu et al. 2021,
arXiv 2011.13824 (slopes optimised for the bound).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certifier.proof.local.analysis import Analysis, Sides
from certifier.proof.local.backward import Step, Units
from certifier.proof.local.relaxations import Lines, enclosing_lines
from certifier.proof.local.spans import Centre, Span
from certifier.terms import Activation, Affine, Elementwise

Array = NDArray[Any]

STEP_SIZE, STEP_DECAY = 0.5, 0.8
FEW = 64
"""Rectifiers of one value that get slopes of their own; where more are undecided, the ball is too large for that."""
FLAT = 1e-9
"""Lines that differ by less need no sharper span."""


@dataclass(kw_only=True)
class LeastArea:
    """Lines whose mean over the span is nearest to the function; functionals where bends or curves make them differ."""

    deadline: float
    budget: float
    """Multiplications that one analysis may spend on functionals of inner values."""
    steps: int
    """Of the ascents for slopes of inner values' own; 0 for none."""
    spent: float = field(default=0.0)

    def slopes(self, function: Elementwise, span: Span) -> tuple[Array, Array]:
        """Slopes of the lines below and above."""
        lower, upper = np.nan_to_num(span.lower), np.nan_to_num(span.upper)
        with np.errstate(all="ignore"):
            width = upper - lower
            chord = (function.evaluate(upper) - function.evaluate(lower)) / np.where(width > 0, width, 1.0)
            least, most = function.secants_on(lower, upper)
            chord = np.clip(np.where(width > 0, chord, least), least, most)
            if function.name == "relu":
                return np.clip(np.where(upper > -lower, 1.0, 0.0), least, most), chord
            middle = lower / 2 + upper / 2
            tangent = np.clip(function.derivative(middle), least, most)
            candidates = (chord, tangent, least, most)
            best_low, best_high = np.full(lower.shape, -np.inf), np.full(lower.shape, np.inf)
            low, high = chord, chord
            for slope in candidates:
                lines = enclosing_lines(function, span.lower, span.upper, lower_slope=slope, upper_slope=slope)
                below, above = slope * middle + lines.lower_intercept, slope * middle + lines.upper_intercept
                low, high = np.where(below > best_low, slope, low), np.where(above < best_high, slope, high)
                best_low, best_high = np.fmax(best_low, below), np.fmin(best_high, above)
        return low, high

    def wanted(self, function: Elementwise, span: Span, centre: Centre, *, cost: int, again: bool) -> Sides | None:
        """Ends that decide on which side of a bend a row's value stays, and all ends of what is curved."""
        if time.monotonic() > self.deadline:
            return None
        width = span.upper - span.lower
        if function.is_straight:
            assert function.bends is not None
            low, high = np.zeros(width.shape, dtype=bool), np.zeros(width.shape, dtype=bool)
            for bend in function.bends:
                undecided = (span.lower < bend.at) & (span.upper > bend.at)
                above = centre.value > bend.at
                low |= undecided & (above != again)
                high |= undecided & (above == again)
        elif again:
            return None
        else:
            least, most = function.secants_on(span.lower, span.upper)
            with np.errstate(invalid="ignore"):
                low = high = ~((most - least) * width <= FLAT)
        return self._afforded(low, high, width, cost)

    def unsettled(self, function: Elementwise, span: Span, *, cost: int) -> NDArray[np.bool_] | None:
        """Rectifiers that may still be on either side."""
        if self.steps == 0 or function.name != "relu" or time.monotonic() > self.deadline:
            return None
        undecided = (span.lower < 0) & (span.upper > 0)
        undecided &= undecided.sum(axis=1, keepdims=True) <= FEW
        if not undecided.any():
            return None
        afforded = self._afforded(undecided, undecided, span.upper - span.lower, cost * (2 * self.steps + 1))
        return None if afforded is None else afforded[0]

    def own_slopes(
        self, analysis: Analysis, start: str, coefficients: Array | Units, rows: NDArray[np.intp]
    ) -> Mapping[str, tuple[Array, Array]]:
        """A few steps of ascent from the lines of least area."""
        return optimised_slopes(analysis, start, coefficients, rows, steps=self.steps)

    def _afforded(self, low: Array, high: Array, width: Array, cost: int) -> Sides | None:
        """As many as the budget allows, the widest first."""
        count, left = int(low.sum() + high.sum()), self.budget - self.spent
        if count == 0:
            return None
        if count * cost > left:
            keep = int(left // (2 * cost))
            if keep <= 0:
                return None
            open_ = np.where(low | high, np.nan_to_num(width), -1.0)
            least = np.partition(open_.ravel(), -keep)[-keep] if keep < open_.size else 0.0
            low, high = low & (open_ >= least), high & (open_ >= least)
        self.spent += float(low.sum() + high.sum()) * cost
        return low, high


def optimised_slopes(
    analysis: Analysis, start: str, coefficients: Array | Units, rows: NDArray[np.intp], *, steps: int
) -> dict[str, tuple[Array, Array]]:
    """Slopes of the lines below every undecided rectifier, by ascent of each functional's bound over the ball.

    With x' the worst point of the ball, the derivative by a slope is a y(x') where a > 0: the line's own argument.
    """
    lower, fixed, undecided = dict[str, Array](), dict[str, Lines](), dict[str, Array]()
    for term in analysis.network.terms:
        if isinstance(term, Activation) and term.function.name == "relu" and term.output in analysis.lines:
            span = analysis.spans[term.sources[0]]
            straddles = ((span.lower < 0) & (span.upper > 0))[rows]
            if straddles.any():
                undecided[term.output], fixed[term.output] = straddles, analysis.lines[term.output]
                lower[term.output] = fixed[term.output].lower_slope[rows]
    best, best_slopes = np.full(len(rows), -np.inf), {name: slope.copy() for name, slope in lower.items()}
    for step in range(steps + 1 if lower else 0):
        own = {name: _relu_step(lower[name], fixed[name], rows) for name in lower}
        seen: dict[str, Array] = {}
        found = analysis.backward.below(start, coefficients, rows, own=own, seen=seen, budgets=False)
        reached = found.at(analysis.balls.radii[rows])
        better = reached > best
        best = np.where(better, reached, best)
        for name in lower:
            best_slopes[name] = np.where(better[:, None], lower[name], best_slopes[name])
        if step < steps:
            size = STEP_SIZE * STEP_DECAY**step
            for name, argument in _worst_arguments(analysis, rows, seen, lower).items():
                ascent = np.where(seen[name] > 0, np.sign(argument), 0.0)
                lower[name] = np.where(undecided[name], np.clip(lower[name] + size * ascent, 0.0, 1.0), lower[name])
    return {name: (best_slopes[name], fixed[name].upper_slope[rows]) for name in lower}


def tangent_slopes(analysis: Analysis, rows: NDArray[np.intp]) -> dict[str, tuple[Array, Array]]:
    """Slopes at the centres, for both lines of every activation: short of nothing where the ball moves little."""
    slopes = {}
    for term in analysis.network.terms:
        if isinstance(term, Activation) and term.output in analysis.lines:
            span, at = analysis.spans[term.sources[0]], analysis.balls.centres[term.sources[0]].value
            least, most = term.function.secants_on(span.lower, span.upper)
            slope = np.clip(term.function.derivative(at), least, most)[rows]
            slopes[term.output] = slope, slope
    return slopes


def _relu_step(lower: Array, lines: Lines, rows: NDArray[np.intp]) -> Step:
    """An unproved step, for estimates."""
    upper, above = lines.upper_slope[rows], lines.upper_intercept[rows] / 2
    return Step(
        middle=(lower + upper) / 2, half=(lower - upper) / 2, winners=None, at=above, spread=-above, budget=None
    )


def _worst_arguments(
    analysis: Analysis, rows: NDArray[np.intp], seen: Mapping[str, Array], wanted: Mapping[str, Array]
) -> dict[str, Array]:
    """What every wanted rectifier reads where each functional's own linear lower bound is least."""
    network, balls = analysis.network, analysis.balls
    name = network.input.name
    if name not in seen:
        return {}
    with np.errstate(all="ignore"):
        direction = np.nan_to_num(seen[name] / np.linalg.norm(seen[name], axis=1, keepdims=True))
        values = {name: balls.x[rows] - balls.radii[rows, None] * direction}
    arguments: dict[str, Array] = {}
    last = max((position for position, term in enumerate(network.terms) if term.output in seen), default=-1)
    for position, term in enumerate(network.terms[: last + 1]):
        sources = [values[source] for source in term.sources]
        if term.output in wanted and term.output in seen:
            arguments[term.output] = sources[0]
        if isinstance(term, Affine):
            values[term.output] = term.evaluate(*sources)
        elif term.output in analysis.lines and term.output in seen:
            lines = analysis.lines[term.output]
            low = wanted.get(term.output, lines.lower_slope[rows]) * sources[0] + lines.lower_intercept[rows]
            high = lines.upper_slope[rows] * sources[0] + lines.upper_intercept[rows]
            values[term.output] = np.where(seen[term.output] > 0, low, high)
        else:
            values[term.output] = term.evaluate(*sources)
        for source in term.sources:
            if network.last_reader[source] == position:
                values.pop(source, None)
    return arguments
