"""How far every value of a network moves while its input moves in a ball: forwards, term by term.

A `Span` measures one value in three ways, and each step keeps the smallest of what they imply:

    lower <= v_i(x') <= upper,    |v_i(x') - v_i(x)| <= moved_i,    ||v(x') - v(x)|| <= length

    affine       moved <= min(|A| moved, ||A_i|| length), row by row;   length <= ||A|| length
    activation   the range on [lower, upper];   moved <= steepest secant there * moved
    any other    `Term.stray` and `Term.stray_length`, which bound how far any execution from nearby sources may lie

Arithmetic: sums of non-negative numbers are raised by `SLACK`, ends are moved outward; NaN becomes unbounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certifier.flow import Network
from certifier.operators import Convolution, Identity, Kronecker, Operator
from certifier.proof.execution import SLACK, Gains
from certifier.proof.rounding import norm_upper
from certifier.terms import REFERENCE, Activation, Affine, Contraction, Term

Array = NDArray[Any]
ROWS_AT_ONCE = 2**22
"""Entries of the unit vectors that are sent through an operator at once."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Centre:
    """|v(x) - value| <= error, entrywise: the float64 value of the exact network.  Shapes: [B, n]."""

    value: Array
    error: Array

    def some(self, rows: NDArray[np.intp]) -> Centre:
        """These rows of it."""
        return Centre(value=self.value[rows], error=self.error[rows])


@dataclass(frozen=True, kw_only=True, eq=False)
class Span:
    """Where one value lies while the input is in the ball.  Shapes: lower, upper and moved [B, n], length [B, 1]."""

    lower: Array
    upper: Array
    moved: Array
    length: Array

    def some(self, rows: NDArray[np.intp]) -> Span:
        """These rows of it."""
        return Span(lower=self.lower[rows], upper=self.upper[rows], moved=self.moved[rows], length=self.length[rows])

    def within(self, lower: Array, upper: Array, centre: Centre) -> Span:
        """The same, known to lie in [lower, upper] too."""
        lower, upper = np.fmax(self.lower, lower), np.fmin(self.upper, upper)
        with np.errstate(all="ignore"):
            apart = np.maximum(upper - centre.value, centre.value - lower) + centre.error
            moved = np.fmin(self.moved, np.maximum(apart, 0.0) * SLACK + REFERENCE.tiny)
        return Span(lower=lower, upper=upper, moved=moved, length=np.fmin(self.length, norm_upper(moved, 1)[:, None]))


def centres_of(network: Network, x: Array) -> dict[str, Centre]:
    """The centre of every value.  Shapes: x [B, n], taken as exact."""
    centres = {network.input.name: Centre(value=x, error=np.zeros_like(x))}
    with np.errstate(all="ignore"):
        for term in network.terms:
            sources = [centres[source] for source in term.sources]
            value = term.evaluate(*(source.value for source in sources))
            error = term.stray([s.value for s in sources], [s.error for s in sources], value, REFERENCE) * SLACK
            known = np.isfinite(error) & np.isfinite(value)
            centres[term.output] = Centre(value=value, error=np.where(known, error, np.inf))
    return centres


def ball_span(x: Array, radii: Array, lower: Array, upper: Array) -> Span:
    """The input itself: the ball cut with the box [lower, upper] of allowed inputs.  Shapes: x [B, n], radii [B].

    The centre is always inside, for it is what distances are measured from, even where the box leaves it out.
    """
    reach = np.broadcast_to(radii[:, None], x.shape)
    return Span(
        lower=np.minimum(np.maximum(np.nextafter(x - reach, -np.inf), lower), x),
        upper=np.maximum(np.minimum(np.nextafter(x + reach, np.inf), upper), x),
        moved=reach,
        length=radii[:, None],
    )


def next_span(
    term: Term, sources: Sequence[Span], at: Sequence[Centre], centre: Centre, gains: Gains, norms: Sequence[Array]
) -> Span:
    """The span of a term's output from those of its sources.

    `norms` bound the norms of each operator's rows, for affine terms.
    """
    with np.errstate(all="ignore"):
        if isinstance(term, Affine):
            moved, length = _affine(term, sources, gains, norms)
        elif isinstance(term, Activation):
            return _activation(term, sources[0], centre)
        else:
            moved, length = _other(term, sources, at, centre)
    moved, length = _known(moved), _known(length)
    moved = np.minimum(moved, length)
    length = np.minimum(length, norm_upper(moved, 1)[:, None])
    return Span(lower=_minus(centre, moved), upper=_plus(centre, moved), moved=moved, length=length)


def _affine(term: Affine, sources: Sequence[Span], gains: Gains, norms: Sequence[Array]) -> tuple[Array, Array]:
    entries: Any = 0.0
    rows: Any = 0.0
    for operator, norm, source in zip(term.operators, norms, sources, strict=True):
        entries = entries + operator.absolute().forward(source.moved) * (1.0 + operator.weight_error)
        rows = rows + norm * source.length
    gain = gains.get(term.output)
    length = np.full((len(sources[0].length), 1), np.inf)
    if gain is not None:
        length = sum((g * s.length for g, s in zip(gain.sources, sources, strict=True)), np.zeros_like(length))
    return np.fmin(entries, rows) * SLACK, length * SLACK


def _activation(term: Activation, source: Span, centre: Centre) -> Span:
    function = term.function
    least, most = function.secants_on(source.lower, source.upper)
    steepest = np.maximum(np.abs(least), np.abs(most))
    moved = _known(np.where(source.moved == 0, 0.0, steepest * source.moved * SLACK))
    length = _known(np.max(steepest, axis=1, keepdims=True) * source.length * SLACK)
    moved = np.minimum(moved, length)
    length = np.minimum(length, norm_upper(moved, 1)[:, None])
    lower, upper = function.range_on(source.lower, source.upper)
    span = Span(lower=_minus(centre, moved), upper=_plus(centre, moved), moved=moved, length=length)
    return span.within(lower, upper, centre)


def _other(term: Term, sources: Sequence[Span], at: Sequence[Centre], centre: Centre) -> tuple[Array, Array]:
    values = [each.value for each in at]
    radii = [(each.error + source.moved) * SLACK for each, source in zip(at, sources, strict=True)]
    # Both the moved and the unmoved exact value stray from the same computed one.
    moved = (term.stray(values, radii, centre.value, REFERENCE) + centre.error) * SLACK
    if isinstance(term, Contraction):
        return moved, term.function.constant_upper * sources[0].length * SLACK
    lengths = [
        (norm_upper(_known(each.error), 1)[:, None] + source.length) * SLACK
        for each, source in zip(at, sources, strict=True)
    ]
    length = term.stray_length(values, radii, lengths, centre.value, REFERENCE)
    if length is None:
        return moved, np.full((len(centre.value), 1), np.inf)
    return moved, (length + norm_upper(_known(centre.error), 1)[:, None]) * SLACK


def _known(size: Array) -> Array:
    return np.where(np.isnan(size), np.inf, size)


def _minus(centre: Centre, moved: Array) -> Array:
    with np.errstate(all="ignore"):
        end = centre.value - (centre.error + moved) * SLACK
    return np.where(np.isnan(end), -np.inf, np.nextafter(end, -np.inf))


def _plus(centre: Centre, moved: Array) -> Array:
    with np.errstate(all="ignore"):
        end = centre.value + (centre.error + moved) * SLACK
    return np.where(np.isnan(end), np.inf, np.nextafter(end, np.inf))


def direct_values(network: Network) -> frozenset[str]:
    """The input, moved about, and what one linear map makes of it: functionals know no more than norms of rows."""
    moved, direct = {network.input.name}, set[str]()
    for term in network.terms:
        if isinstance(term, Affine) and len(term.sources) == 1 and term.sources[0] in moved:
            only_moves = term.operators[0].fan_in == 0 and term.operators[0].fan_out == 0
            (moved if only_moves and term.offset is None else direct).add(term.output)
    return frozenset(moved | direct)


def row_norms(network: Network) -> Mapping[str, tuple[Array, ...]]:
    """By output of an affine term and source: ||row_i|| <= result_i.  Shapes: [rows] each."""
    known: dict[str, Array] = {}
    found = {}
    for term in network.terms:
        if isinstance(term, Affine):
            for operator in term.operators:
                if operator.digest not in known:
                    known[operator.digest] = _row_norms(operator)
            found[term.output] = tuple(known[operator.digest] for operator in term.operators)
    return found


def _row_norms(operator: Operator) -> Array:
    if isinstance(operator, Identity):
        return np.ones(operator.rows)
    if isinstance(operator, Kronecker) and not operator.is_sparse:
        each = norm_upper(operator.dense(), 1)
        norms = np.broadcast_to(each[None, :, None], (operator.before, each.size, operator.after)).reshape(-1)
    elif isinstance(operator, Convolution):
        squared = operator.with_kernel(np.square(operator.kernel.astype(np.float64)), weight_error=0.0)
        # Squares that underflow count in full.
        norms = np.sqrt(squared.forward(np.ones((1, operator.columns)))[0] + operator.fan_in * REFERENCE.tiny)
    else:
        norms = np.empty(operator.rows)
        step = max(1, ROWS_AT_ONCE // max(operator.columns, operator.rows))
        absolute = operator.absolute()
        for start in range(0, operator.rows, step):
            units = np.eye(min(step, operator.rows - start), operator.rows, start)
            norms[start : start + step] = norm_upper(absolute.adjoint(units), 1)
    return norms * (1.0 + operator.weight_error) * SLACK
