"""network, balls -> spans of every value and functionals of the output, by induction over the terms.

What is asked of the guide is how to look, never what is true: which lines, and which entries are worth a functional of
their own.  Whatever it answers, every span and every bound holds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from certifier.flow import Network
from certifier.proof.execution import Gains
from certifier.proof.local.backward import Backward, Below, Step, Units, affine_step, anchor_step, costs_of, lines_step
from certifier.proof.local.budgets import budget_of
from certifier.proof.local.relaxations import Lines, enclosing_lines
from certifier.proof.local.selections import Candidates, candidates_of, selection
from certifier.proof.local.spans import Centre, Span, ball_span, centres_of, direct_values, next_span, row_norms
from certifier.proof.rounding import exact_float64
from certifier.terms import Activation, Affine, Contraction, Elementwise, Term

Array = NDArray[Any]
Sides = tuple[NDArray[np.bool_], NDArray[np.bool_]]
CHUNK_ENTRIES = 2**21
"""Functionals go backwards together as long as no array of theirs has more entries."""

PLACES_TOGETHER = 96
"""The same for functionals of a value with spatial axes."""


class Guide(Protocol):
    """Chooses what is sound in any case."""

    def slopes(self, function: Elementwise, span: Span) -> tuple[Array, Array]:
        """Slopes of the lines below and above on the span.  Shapes: [B, n] each."""
        ...

    def wanted(self, function: Elementwise, span: Span, centre: Centre, *, cost: int, again: bool) -> Sides | None:
        """Whose lower and whose upper ends to look for by functionals, `cost` multiplications each; None for nobody's.

        Asked once more, `again`, with what was found.  Shapes: [B, n] each.
        """
        ...

    def unsettled(self, function: Elementwise, span: Span, *, cost: int) -> NDArray[np.bool_] | None:
        """For whose two ends to look once more, through lines of their own (`own_slopes`).  Shapes: [B, n]."""
        ...

    def own_slopes(
        self, analysis: Analysis, start: str, coefficients: Array | Units, rows: NDArray[np.intp]
    ) -> Mapping[str, tuple[Array, Array]]:
        """Slopes below and above at activations for each functional of the value `start`.

        Shapes: rows [Q] -> [Q, …] each.
        """
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Balls:
    """Rows, the float64 values at them, and how far their inputs move.  Shapes: x [B, n], radii [B]."""

    x: Array
    centres: Mapping[str, Centre]
    radii: Array

    def some(self, rows: NDArray[np.intp]) -> Balls:
        """These rows of them."""
        centres = {name: each.some(rows) for name, each in self.centres.items()}
        return Balls(x=self.x[rows], centres=centres, radii=self.radii[rows])


class Local:
    """Analyses one network; what depends on no input is computed once."""

    def __init__(self, network: Network, gains: Gains, *, lower: Array, upper: Array) -> None:
        """`gains` are proved constants of the terms; inputs are those of the box [lower, upper]."""
        self.network, self._gains, self._box = network, gains, (lower, upper)
        self._norms = row_norms(network)
        self._candidates: dict[str, Candidates | None] = {
            term.output: candidates_of(term.function, network.sizes[term.sources[0]])
            for term in network.terms
            if isinstance(term, Contraction)
        }
        self._costs = costs_of(network)
        self._places = {term.output: math.prod(term.shape[2:]) for term in network.terms}
        self._direct = direct_values(network)

    @property
    def anchored(self) -> list[Term]:
        """Terms through which no functional passes."""
        return [
            term
            for term in self.network.terms
            if not isinstance(term, (Affine, Activation)) and self._candidates.get(term.output) is None
        ]

    def balls(self, x: Array, radii: Array) -> Balls:
        """Balls around the rows of x, which are taken as exact.  Shapes: [B, n], [B].

        Raises: ValueError for rows that float64 does not hold.
        """
        x, radii = exact_float64(x), exact_float64(radii)
        return Balls(x=x, centres=centres_of(self.network, x), radii=radii)

    def analyse(self, balls: Balls, guide: Guide, *, known: Known | None) -> Analysis:
        """Spans and steps of every term over the balls.

        `known`: of the same rows; it is used wherever its radius is no smaller.
        """
        held = None if known is None else known.holding(balls)
        span = ball_span(balls.x, balls.radii, *self._box)
        spans = {self.network.input.name: span}
        backward = Backward(self.network, balls.x, span)
        lines: dict[str, Lines] = {}
        analysis = Analysis(network=self.network, balls=balls, spans=spans, lines=lines, backward=backward)
        for term in self.network.terms:
            sources = [spans[source] for source in term.sources]
            if isinstance(term, Activation):
                sources = [self._sharpened(term, sources[0], analysis, guide)]
                spans[term.sources[0]] = sources[0]
                lower_slope, upper_slope = guide.slopes(term.function, sources[0])
                lines[term.output] = enclosing_lines(
                    term.function, sources[0].lower, sources[0].upper, lower_slope=lower_slope, upper_slope=upper_slope
                )
            at = [balls.centres[source] for source in term.sources]
            centre = balls.centres[term.output]
            norms = self._norms.get(term.output, ())
            span = next_span(term, sources, at, centre, self._gains, norms)
            if known is not None and held is not None:
                lower, upper = known.ends[term.output]
                span = span.within(np.where(held, lower, -np.inf), np.where(held, upper, np.inf), centre)
            spans[term.output] = span
            self._add(term, sources, at, centre, span, lines.get(term.output), backward)
        return analysis

    def _add(
        self,
        term: Term,
        sources: list[Span],
        at: list[Centre],
        centre: Centre,
        span: Span,
        lines: Lines | None,
        backward: Backward,
    ) -> None:
        kappa = backward.kappa
        candidates = self._candidates.get(term.output)
        if isinstance(term, Affine):
            step = affine_step(term, sources, kappa)
        elif isinstance(term, Activation) and lines is not None:
            budget = budget_of(term.function, lines, sources[0], at[0], centre)
            step = lines_step(lines, sources[0], kappa, winners=None, budget=budget)
        elif candidates is not None:
            chosen = selection(candidates, at[0], sources[0])
            step = lines_step(chosen.lines, chosen.followed, kappa, winners=chosen.winners, budget=None)
        else:
            step = anchor_step(span, kappa)
        backward.add(term, step, centre, span)

    def _sharpened(self, term: Activation, span: Span, analysis: Analysis, guide: Guide) -> Span:
        """The span of an activation's source, with the ends that functionals find."""
        name = term.sources[0]
        if name in self._direct:
            return span
        centre, cost = analysis.balls.centres[name], self._costs[name]
        for again in (False, True):
            sides = guide.wanted(term.function, span, centre, cost=cost, again=again)
            if sides is not None:
                span = span.within(*self._ends(name, sides, analysis, None), centre)
        unsettled = guide.unsettled(term.function, span, cost=cost)
        if unsettled is not None:
            span = span.within(*self._ends(name, (unsettled, unsettled), analysis, guide), centre)
        return span

    def _ends(self, name: str, sides: Sides, analysis: Analysis, guide: Guide | None) -> tuple[Array, Array]:
        """Lower and upper ends of the chosen entries of a value; infinite elsewhere.  Shapes: [B, n] each."""
        shape = (len(analysis.balls.radii), self.network.sizes[name])
        ends = np.full((2, *shape), -np.inf)
        step = max(1, CHUNK_ENTRIES // max(self.network.sizes.values()))
        places = self._places[name]
        if places > 1:
            # Entries of all channels at few places see a small part of what lies before them (`Convolution.adjoint`).
            step = min(step, PLACES_TOGETHER)
        for end, sign, chosen in zip(ends, (1.0, -1.0), sides, strict=True):
            for row in range(shape[0]):
                entries = np.flatnonzero(chosen[row])
                entries = entries[np.argsort(entries % places, kind="stable")]
                for start in range(0, len(entries), step):
                    part = entries[start : start + step]
                    units, rows, own = Units(entries=part, sign=sign, size=shape[1]), np.full(len(part), row), {}
                    if guide is not None:
                        own = analysis.with_slopes(rows, guide.own_slopes(analysis, name, units, rows))
                    below = analysis.backward.below(name, units, row, own=own, seen=None, budgets=False)
                    end[row, part] = below.at(analysis.balls.radii[row])
        return ends[0], -ends[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Known:
    """Where values lie in balls that were analysed, for analyses of smaller ones.

    Shapes: x [B, n], radii [B]; by name of a value, lower and upper ends [B, n].
    """

    x: Array
    radii: Array
    ends: Mapping[str, tuple[Array, Array]]

    @classmethod
    def of(cls, analysis: Analysis) -> Known:
        """What an analysis found."""
        ends = {name: (span.lower, span.upper) for name, span in analysis.spans.items()}
        return cls(x=analysis.balls.x, radii=analysis.balls.radii, ends=ends)

    def holding(self, balls: Balls) -> Array:
        """On which balls this holds: those that are no larger.  Shapes: [B, 1].

        Raises: ValueError for other rows.
        """
        if not np.array_equal(self.x, balls.x):
            raise ValueError("what is known is of other rows")
        return (self.radii >= balls.radii)[:, None]

    def some(self, rows: NDArray[np.intp]) -> Known:
        """These rows of it."""
        ends = {name: (lower[rows], upper[rows]) for name, (lower, upper) in self.ends.items()}
        return Known(x=self.x[rows], radii=self.radii[rows], ends=ends)

    def replaced(self, rows: NDArray[np.intp], other: Known) -> Known:
        """The same, with these rows as `other` knows them.

        Raises: ValueError if it is of other rows.
        """
        if not np.array_equal(self.x[rows], other.x):
            raise ValueError("what is known is of other rows")
        ends = {name: (lower.copy(), upper.copy()) for name, (lower, upper) in self.ends.items()}
        radii = self.radii.copy()
        radii[rows] = other.radii
        for name, (lower, upper) in ends.items():
            lower[rows], upper[rows] = other.ends[name]
        return Known(x=self.x, radii=radii, ends=ends)


@dataclass(frozen=True, kw_only=True, eq=False)
class Analysis:
    """What holds for the inputs of the balls that were analysed, as far as the network has been walked."""

    network: Network
    balls: Balls
    spans: Mapping[str, Span]
    lines: Mapping[str, Lines]
    backward: Backward

    def with_slopes(self, rows: NDArray[np.intp], slopes: Mapping[str, tuple[Array, Array]]) -> Mapping[str, Step]:
        """Steps through lines of the given slopes, for functionals of `rows` (`below`).

        Shapes: rows [Q]; by output of an activation, slopes below and above [Q, n].
        """
        steps = {}
        for term in self.network.terms:
            if isinstance(term, Activation) and term.output in slopes:
                source = self.spans[term.sources[0]].some(rows)
                lower_slope, upper_slope = slopes[term.output]
                lines = enclosing_lines(
                    term.function, source.lower, source.upper, lower_slope=lower_slope, upper_slope=upper_slope
                )
                budget = budget_of(
                    term.function,
                    lines,
                    source,
                    self.balls.centres[term.sources[0]].some(rows),
                    self.balls.centres[term.output].some(rows),
                )
                steps[term.output] = lines_step(lines, source, self.backward.kappa, winners=None, budget=budget)
        return steps

    def below(
        self,
        coefficients: Array,
        constants: Array,
        rows: NDArray[np.intp],
        *,
        own: Mapping[str, Step],
        seen: dict[str, Array] | None,
    ) -> Below:
        """coefficients . f + constants from below, as `Backward.below`.  Shapes: [Q, c], [Q], [Q]."""
        found = self.backward.below(self.network.output, coefficients, rows, own=own, seen=seen, budgets=True)
        base = np.where(constants == 0, found.base, np.nextafter(found.base + constants, -np.inf))
        return Below(base=base, steepness=found.steepness)
