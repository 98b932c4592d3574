"""Linear functionals of a value, followed backwards to the input: a.v(x') >= base - steepness ||x' - x||.

Each step replaces a.h by something never larger, linear in what the term reads (docs/proofs/local-refinement.md):

    affine       a.(A y + b)  = (A^T a).y + a.b
    lines        a.h >= (middle a + half |a|).y + a.at + |a|.spread      middle ± half and at ± spread: the lines
    other terms  a.h >= a.centre - |a|.reach

Arithmetic: the coefficients are what was computed; each step's own rounding is at most `kappa` |a|.size, with `size` a
bound of everything that the step multiplies, and is taken off its `spread` beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certifier.flow import Network
from certifier.operators import Identity, Kronecker, Operator
from certifier.proof.execution import SLACK
from certifier.proof.local.budgets import Budget, regained
from certifier.proof.local.relaxations import Lines
from certifier.proof.local.spans import Centre, Span
from certifier.proof.rounding import FLOAT64, TINY, gamma_upper
from certifier.terms import Affine, Term

Array = NDArray[Any]
Rows = NDArray[np.intp] | int
"""Which row's ball each functional speaks of, or the one row of all of them."""
UNDERFLOW = 2.0**-960
UNDERFLOW_STEP = 2.0**-900
"""For what underflow takes from a step's own numbers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """What one term does to a functional, for every row.  Shapes: [B, n] of the term's output.

    middle, half: None unless the term is passed through lines; winners: the entries of the source that those lines are
    over, None for entry by entry.  at: the constant part; spread <= 0 includes rounding.  budget: of the lines.
    """

    middle: Array | None
    half: Array | None
    winners: Array | None
    at: Array | None
    spread: Array
    budget: Budget | None


def kappa_of(network: Network) -> float:
    """Twice the relative rounding that any step can suffer; infinite where the error analysis does not reach.

    An entry is summed from at most fan_out products of each reader; a constant from one product per entry and step,
    and stored offsets were themselves rounded.
    """
    fan, roundings, error, readers = 1, 0, 0.0, dict.fromkeys(network.sizes, 0)
    for term in network.terms:
        for source in term.sources:
            readers[source] += 1
        if isinstance(term, Affine):
            fan = max([fan, *(operator.fan_out for operator in term.operators)])
            error = max([error, *(operator.weight_error for operator in term.operators)])
            roundings = max(roundings, term.roundings)
    count = fan + max(readers.values()) + max(network.sizes.values()) + len(network.terms) + roundings + 16
    return 2.0 * (gamma_upper(count, FLOAT64) + 2.0 * error)


def costs_of(network: Network) -> Mapping[str, int]:
    """By value: multiplications, roughly, that one functional of it takes on its way to the input."""
    work = {network.input.name: 0}
    for term in network.terms:
        own = sum(
            min(operator.fan_in, network.sizes[term.output]) * network.sizes[term.output]
            for operator in (term.operators if isinstance(term, Affine) else ())
        )
        # Branches that meet again are walked once, so this is too much for them.
        work[term.output] = own + 4 * network.sizes[term.output] + max(work[source] for source in term.sources)
    return work


def affine_step(term: Affine, sources: Sequence[Span], kappa: float) -> Step:
    """The constant of an affine term, and its rounding: |A| applied to the largest values that are read."""
    shape = (len(sources[0].lower), int(np.prod(term.shape)))
    size = np.zeros(shape)
    with np.errstate(all="ignore"):
        for operator, source in zip(term.operators, sources, strict=True):
            size = size + operator.absolute().forward(magnitude(source))
        if term.offset is not None:
            size = size + np.abs(term.offset)
        if term.offset_magnitude is not None:
            # What the offset was summed from may be far larger than the offset, and its error with it.
            size = size + term.offset_magnitude
    at = None if term.offset is None else np.broadcast_to(term.offset, shape)
    return Step(middle=None, half=None, winners=None, at=at, spread=-kappa * size * SLACK - UNDERFLOW_STEP, budget=None)


def lines_step(lines: Lines, source: Span, kappa: float, *, winners: Array | None, budget: Budget | None) -> Step:
    """Between two lines: their mean, and half of their difference in the direction that the sign of a asks for.

    `source` is the span of what the lines are over: the term's own source, or its entries `winners`.
    """
    with np.errstate(all="ignore"):
        middle, half = (lines.lower_slope + lines.upper_slope) / 2, (lines.lower_slope - lines.upper_slope) / 2
        at = lines.lower_intercept / 2 + lines.upper_intercept / 2
        spread = lines.lower_intercept / 2 - lines.upper_intercept / 2
        size = (np.abs(middle) + np.abs(half)) * magnitude(source) + np.abs(at) + np.abs(spread)
        spread = spread - kappa * size * SLACK - UNDERFLOW_STEP
        return Step(middle=middle, half=half, winners=winners, at=at, spread=spread, budget=budget)


def anchor_step(span: Span, kappa: float) -> Step:
    """The value's interval, as if it came from anywhere in it."""
    with np.errstate(all="ignore"):
        at = span.lower / 2 + span.upper / 2
        spread = span.lower / 2 - span.upper / 2
        spread = spread - kappa * (np.abs(at) + np.abs(spread)) * SLACK - UNDERFLOW_STEP
        return Step(middle=None, half=None, winners=None, at=at, spread=spread, budget=None)


def magnitude(span: Span) -> Array:
    """sup |v_i| over the ball."""
    return np.maximum(np.abs(span.lower), np.abs(span.upper))


@dataclass(frozen=True, kw_only=True, eq=False)
class Below:
    """a.v(x') >= base - steepness ||x' - x|| for every x' of the ball.  Shapes: both alike; base may be -inf."""

    base: Array
    steepness: Array

    def at(self, radii: Array) -> Array:
        """The lower bound over the ball of a radius no larger than that of the analysis; rounded down."""
        with np.errstate(all="ignore"):
            bound = np.nextafter(self.base - np.nextafter(self.steepness * radii, np.inf) - UNDERFLOW, -np.inf)
        return np.where(np.isnan(bound), -np.inf, bound)

    def radii(self, analysed: Array) -> Array:
        """How far x' may be with a.v(x') > 0, up to the analysed radius; rounded down, 0 where nothing is known."""
        with np.errstate(all="ignore"):
            # The quotient is within half a step of the real one: two steps below, the product is below the base.
            room = self.base - UNDERFLOW
            reached = np.nextafter(np.nextafter(room / self.steepness, 0.0), 0.0)
        reached = np.where(self.steepness == 0, np.inf, reached)
        return np.where(room > 0, np.maximum(np.minimum(reached, analysed), 0.0), 0.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Units:
    """`sign`, 1 or -1, times the unit vectors of `entries`.  Shapes: entries [Q]."""

    entries: NDArray[np.intp]
    sign: float
    size: int

    def vectors(self) -> Array:
        """The same as vectors [Q, size]."""
        vectors = np.zeros((len(self.entries), self.size))
        vectors[np.arange(len(self.entries)), self.entries] = self.sign
        return vectors


class Backward:
    """The steps of one network on a batch of balls, in order of evaluation; functionals go through them in reverse."""

    def __init__(self, network: Network, x: Array, span: Span) -> None:
        self._network, self.kappa = network, kappa_of(network)
        self._x, self._input = x, np.maximum(np.abs(x), magnitude(span))
        self._steps: dict[str, Step] = {}
        self._anchors: dict[str, tuple[Centre, Span]] = {}
        self._terms: list[Term] = []
        # What underflow loses is lost times a value: the sum of all magnitudes bounds it.
        self._lost = self._magnitudes(span)

    def add(self, term: Term, step: Step, centre: Centre, span: Span) -> None:
        """Append the step of the next term, whose output has `span`; a step without lines ends functionals here."""
        self._terms.append(term)
        self._steps[term.output] = step
        if step.middle is None and not isinstance(term, Affine):
            self._anchors[term.output] = centre, span
        self._lost = self._lost + self._magnitudes(span)

    def _magnitudes(self, span: Span) -> Array:
        """Infinite, so that nothing is claimed, where two proved ends contradict each other."""
        with np.errstate(all="ignore"):
            total = np.sum(magnitude(span), axis=1) * SLACK
        return np.where((span.lower > span.upper).any(axis=1), np.inf, total)

    def below(
        self,
        start: str,
        coefficients: Array | Units,
        rows: Rows,
        *,
        own: Mapping[str, Step],
        seen: dict[str, Array] | None,
        budgets: bool,
    ) -> Below:
        """Functionals of the value `start`, whose term has been added; `budgets` are sharper and take longer.

        `own` gives every functional lines of its own in place of its row's; `seen`, for searches, is filled with the
        coefficients at each activation's output and, last, at the input.
        Shapes: coefficients [Q, n]; rows [Q], or one row for all; own [Q, n].
        """
        units = coefficients if isinstance(coefficients, Units) else None
        if isinstance(coefficients, Units):
            coefficients = coefficients.vectors()
        everyone, asked = np.arange(len(coefficients)), rows
        pending: dict[str, Array] = {start: coefficients}
        base: Any = np.zeros(len(coefficients))
        with np.errstate(all="ignore"):
            for term in reversed(self._terms):
                a = pending.pop(term.output, None)
                if a is None:
                    continue
                step, size, rows = self._steps[term.output], np.abs(a), asked
                if term.output in own:
                    step, rows = own[term.output], everyone
                if seen is not None:
                    seen[term.output] = a
                if term.output in self._anchors:
                    base = base + self._anchored(term.output, step, a, size, rows)
                    continue
                base = base + _dots(size, _of(step.spread, rows))
                if step.at is not None:
                    base = base + _dots(a, _of(step.at, rows))
                if isinstance(term, Affine):
                    parts = [_adjoint(operator, a, units) for operator in term.operators]
                    units = units if _passes_on(term) else None
                else:
                    assert step.middle is not None and step.half is not None
                    part = a * _of(step.middle, rows) + size * _of(step.half, rows)
                    columns, units = self._network.sizes[term.sources[0]], None
                    if budgets and step.budget is not None:
                        base = base + regained(a, step.budget.some(rows), self.kappa)
                    parts = [part if step.winners is None else _scattered(part, _of(step.winners, rows), columns)]
                for source, part in zip(term.sources, parts, strict=True):
                    pending[source] = pending[source] + part if source in pending else part
            name, rows = self._network.input.name, asked
            steepness = np.zeros(len(coefficients))
            if name in pending:
                a = pending[name]
                if seen is not None:
                    seen[name] = a
                base = base + _dots(a, _of(self._x, rows)) - self.kappa * _dots(np.abs(a), _of(self._input, rows))
                steepness = _norms(a)
            sums = np.sum(np.abs(coefficients), axis=1)
            base = base - UNDERFLOW * (1.0 + _of(self._lost, rows) + sums)
        known = np.isfinite(base) & np.isfinite(steepness)
        return Below(base=np.where(known, base, -np.inf), steepness=np.where(known, steepness, 0.0))

    def _anchored(self, name: str, step: Step, a: Array, size: Array, rows: Rows) -> Array:
        """The better of two: every entry in its interval, and the whole vector no further than its length."""
        centre, span = self._anchors[name]
        assert step.at is not None
        entries = _dots(a, _of(step.at, rows)) + _dots(size, _of(step.spread, rows))
        room = centre.error + self.kappa * (np.abs(centre.value) + centre.error)
        length = _of(span.length, rows)[:, 0]
        moved = np.where(length == 0, 0.0, _norms(a) * length) * SLACK
        whole = _dots(a, _of(centre.value, rows)) - _dots(size, _of(room, rows)) * SLACK - moved
        return np.fmax(entries, whole)


def _passes_on(term: Affine) -> bool:
    """Whether coefficients stay what they are: a value that is read twice gets the sum of two."""
    return len(term.operators) == 1 and isinstance(term.operators[0], Identity)


def _of(array: Array, rows: Rows) -> Array:
    return array[rows : rows + 1] if isinstance(rows, int) else array[rows]


def _dots(a: Array, b: Array) -> Array:
    """Row by row.  Shapes: [Q, n], and [Q, n] or [1, n] -> [Q]."""
    return a @ b[0] if len(b) == 1 else np.einsum("qn,qn->q", a, b)


def _norms(a: Array) -> Array:
    """||a|| <= result, row by row; squares that underflow are counted."""
    return np.sqrt(np.einsum("qn,qn->q", a, a) + a.shape[1] * TINY) * SLACK


def _scattered(a: Array, places: Array, columns: int) -> Array:
    """Entry i of each functional added to its place.  Shapes: [Q, m], and [Q, m] or [1, m] -> [Q, columns]."""
    flat = np.arange(len(a))[:, None] * columns + places
    return np.bincount(flat.ravel(), weights=a.ravel(), minlength=len(a) * columns).reshape(len(a), columns)


def _adjoint(operator: Operator, a: Array, units: Units | None) -> Array:
    if isinstance(operator, Kronecker) and operator.before == operator.after == 1 and not operator.is_sparse:
        # The same sums as `adjoint`, without transposes; of unit vectors, the rows themselves.
        return a @ operator.matrix if units is None else units.sign * operator.dense()[units.entries]
    return operator.adjoint(a)
