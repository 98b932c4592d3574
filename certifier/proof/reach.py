"""Where the values of a network can lie, over all inputs of a box (or over all inputs at all).

A `Reach` holds two measures of one value at once: an interval per entry, and bounds of the L2 norm of groups of
entries (the tokens of a sequence, the rows of a softmax).  Each step keeps the smaller of what the two imply.

    any term      entries: value at the middle ± `stray` over the interval, which encloses the exact network
    activation    entries: its range over the interval;  groups: ‖f(y)‖ <= max|slope| ‖y‖ + ‖f(0)‖
    affine        groups: ‖A y + b‖ <= ‖A‖ ‖y‖ + ‖b‖, group by group where A maps each into one of its own
    softmax       entries in [0, 1];  ‖row‖ <= 1, since p_i >= 0 and Σ p_i = 1 make Σ p_i² <= 1
    normalisation ‖scale z/√(mean z² + ε) + shift‖ <= max|scale| √n + ‖shift‖, since ‖z‖² <= n (mean z² + ε)
    contraction   ‖F(y)‖ <= K ‖y‖ + ‖F(0)‖
    product       ‖B(u, v)‖ <= sup ‖B(u, .)‖ ‖v‖;  entries of v ∘ v: those of a power of 2

Arithmetic: everything is rounded outward; what overflows or is not a number becomes unbounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certifier.operators import Composed, Diagonal, Identity, Kronecker, Operator, Placed, Rearrange
from certifier.products import Bilinear, EntrywiseForm, MatrixForm
from certifier.proof.execution import SLACK
from certifier.proof.forms import total_of
from certifier.proof.rounding import add_upper, float_upper, gamma, mul_upper, norm_upper, row_sum_upper, sqrt_upper
from certifier.steep import power
from certifier.terms import REFERENCE, Activation, Affine, Contraction, Term
from certifier.vector_functions.normalising import Normalisation
from certifier.vector_functions.softmaxes import Softmax

Floats = NDArray[np.float64]
Groups = tuple[NDArray[np.intp], Floats]
"""(group of each entry, bound of each group's L2 norm)."""
NormOf = Callable[[Operator, str], float]
SQUARE = power(2.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Reach:
    """lower <= v <= upper entrywise, and the entries with group g have L2 norm <= lengths[g].

    Shapes: lower, upper and group [n], lengths [g].
    """

    lower: Floats
    upper: Floats
    group: NDArray[np.intp]
    lengths: Floats

    @staticmethod
    def of(lower: Floats, upper: Floats, groups: Groups) -> Reach:
        """The two measures, each tightened by the other."""
        group, lengths = groups
        lengths = np.minimum(lengths, _grouped_norms(_largest(lower, upper), group, len(lengths)))
        caps = lengths[group]
        return Reach(lower=np.maximum(lower, -caps), upper=np.minimum(upper, caps), group=group, lengths=lengths)

    @staticmethod
    def box(lower: Floats, upper: Floats) -> Reach:
        """All values of a box; an end may be infinite."""
        return Reach.of(lower, upper, (np.zeros(lower.size, dtype=np.intp), np.array([np.inf])))

    @property
    def magnitude(self) -> Floats:
        """sup |v_i|, entrywise."""
        return _largest(self.lower, self.upper)

    @property
    def length_upper(self) -> float:
        """sup ‖v‖."""
        return float(norm_upper(self.lengths, None))


def _largest(lower: Floats, upper: Floats) -> Floats:
    return np.maximum(np.abs(lower), np.abs(upper))


def _grouped_norms(magnitude: Floats, group: NDArray[np.intp], count: int) -> Floats:
    """The L2 norm of the magnitudes of each group."""
    with np.errstate(over="ignore"):
        squares = np.bincount(group, weights=np.asarray(mul_upper(magnitude, magnitude)), minlength=count)
    return np.asarray(sqrt_upper(mul_upper(squares, float_upper(1 + gamma(max(magnitude.size, 1), REFERENCE.unit)))))


def reach_of(term: Term, sources: Sequence[Reach], norm_of: NormOf) -> Reach:
    """The reach of a term's output from those of its sources; `norm_of` proves spectral norms.

    A product must know its factors (`factors_of`).
    """
    with np.errstate(all="ignore"):
        lower, upper = _entries(term, sources)
        groups = _groups(term, sources, norm_of)
    lower, upper = np.where(np.isnan(lower), -np.inf, lower), np.where(np.isnan(upper), np.inf, upper)
    group, lengths = groups
    return Reach.of(lower, upper, (group, np.where(np.isnan(lengths), np.inf, lengths)))


def _entries(term: Term, sources: Sequence[Reach]) -> tuple[Floats, Floats]:
    if isinstance(term, Activation):
        return term.function.range_on(sources[0].lower, sources[0].upper)
    if isinstance(term, Bilinear) and isinstance(term.form, EntrywiseForm) and len(set(term.sources)) == 1:
        return SQUARE.range_on(sources[0].lower, sources[0].upper)
    if not any(np.isfinite(source.magnitude).any() for source in sources) and not isinstance(term, Contraction):
        size = int(np.prod(term.shape))
        return np.full(size, -np.inf), np.full(size, np.inf)
    middles, radii = zip(*(_middle_and_radius(source) for source in sources), strict=True)
    value = term.evaluate(*(middle[None] for middle in middles))
    stray = term.stray([m[None] for m in middles], [r[None] for r in radii], value, REFERENCE) * _slack(term)
    stray = np.where(np.isfinite(stray) & np.isfinite(value), stray, np.inf)
    lower = np.where(np.isfinite(stray), np.nextafter(value - stray, -np.inf), -np.inf)[0]
    upper = np.where(np.isfinite(stray), np.nextafter(value + stray, np.inf), np.inf)[0]
    if isinstance(term, Contraction) and isinstance(term.function, Softmax):
        return np.maximum(lower, 0.0), np.minimum(upper, 1.0)
    return lower, upper


def _slack(term: Term) -> float:
    """Covers the rounding of `stray`'s formula; nearer to 1 than `SLACK`, so that what is above zero stays there."""
    if isinstance(term, Affine):
        count = sum(operator.fan_in for operator in term.operators) + len(term.operators) + term.roundings
        error = max(operator.weight_error for operator in term.operators)
    elif isinstance(term, Bilinear):
        count, error = term.form.fan_in, 0.0
    else:
        return SLACK
    return min(SLACK, 1.0 + 8 * (count + 16) * REFERENCE.unit + 2 * error)


def _middle_and_radius(reach: Reach) -> tuple[Floats, Floats]:
    """A point and a distance that covers the interval from it; an unbounded interval has the point 0."""
    bounded = np.isfinite(reach.lower) & np.isfinite(reach.upper)
    middle = np.where(bounded, reach.lower / 2 + reach.upper / 2, 0.0)
    ends = np.maximum(add_upper(reach.upper, -middle), add_upper(middle, -reach.lower))
    return middle, np.where(bounded, ends, np.inf)


def _groups(term: Term, sources: Sequence[Reach], norm_of: NormOf) -> Groups:
    if isinstance(term, Affine):
        return _affine_groups(term, sources, norm_of)
    first = sources[0]
    if isinstance(term, Activation):
        at_zero = term.function.range_on(np.zeros(first.lower.size), np.zeros(first.lower.size))
        offset = _grouped_norms(_largest(*at_zero), first.group, len(first.lengths))
        # A secant from zero: slopes that hold on the interval alone say nothing about it.
        slopes = term.function.slopes_on(np.minimum(first.lower, 0.0), np.maximum(first.upper, 0.0))
        steepest = _largest(*slopes)
        per_group = np.zeros(len(first.lengths))
        np.maximum.at(per_group, first.group, steepest)
        return first.group, np.asarray(add_upper(mul_upper(per_group, first.lengths), offset))
    if isinstance(term, Contraction):
        return _contraction_groups(term, first)
    if isinstance(term, Bilinear):
        assert term.factors is not None
        by_first, by_second = term.factors
        by_held_first = float(mul_upper(by_second, sources[1].length_upper))
        by_held_second = float(mul_upper(by_first, sources[0].length_upper))
        return _one_group(term, min(by_held_first, by_held_second))
    raise TypeError(f"no reach for terms of kind {type(term).__name__}")


def _one_group(term: Term, length: float) -> Groups:
    return np.zeros(int(np.prod(term.shape)), dtype=np.intp), np.array([length])


def _contraction_groups(term: Contraction, source: Reach) -> Groups:
    function = term.function
    if isinstance(function, Softmax):
        rows = np.arange(function.before)[:, None, None] * function.after + np.arange(function.after)
        group = np.broadcast_to(rows, (function.before, function.count, function.after)).reshape(-1)
        return group, np.ones(function.before * function.after)
    if isinstance(function, Normalisation):
        size = source.lower.size // function.groups
        group = np.repeat(np.arange(function.groups), size)
        steepest = np.zeros(function.groups)
        np.maximum.at(steepest, group, np.broadcast_to(np.abs(function.scale), group.shape))
        shift = _grouped_norms(np.broadcast_to(np.abs(function.shift), group.shape), group, function.groups)
        return group, np.asarray(add_upper(mul_upper(steepest, sqrt_upper(float(size))), shift))
    zero = np.zeros((1, source.lower.size))
    value = function.evaluate(zero)
    offset = np.abs(value) + function.stray(zero, zero, value, REFERENCE) * SLACK
    length = add_upper(mul_upper(function.constant_upper, source.length_upper), norm_upper(offset, None))
    return _one_group(term, float(length))


def _affine_groups(term: Affine, sources: Sequence[Reach], norm_of: NormOf) -> Groups:
    parts = [
        _through(operator, (source.group, source.lengths), lambda each: norm_of(each, term.name))
        for operator, source in zip(term.operators, sources, strict=True)
    ]
    group, lengths = parts[0] if len(parts) == 1 else _joined(parts, stacked=term.arrangement == "stack")
    if term.offset is not None:
        lengths = np.asarray(add_upper(lengths, _grouped_norms(np.abs(term.offset), group, len(lengths))))
    return group, lengths


def _through(operator: Operator, groups: Groups, norm_of: Callable[[Operator], float]) -> Groups:
    """The groups of A y from those of y, where A keeps them apart; else one group for all of A y."""
    group, lengths = groups
    if isinstance(operator, Composed):
        for part in operator.parts:
            group, lengths = _through(part, (group, lengths), norm_of)
        return group, lengths
    if isinstance(operator, Identity):
        return group, lengths
    if isinstance(operator, (Rearrange, Placed)):
        return _moved(operator, group, lengths)
    if isinstance(operator, Diagonal):
        largest = np.zeros(len(lengths))
        np.maximum.at(largest, group, np.abs(operator.values))
        return group, np.asarray(mul_upper(mul_upper(largest, add_upper(1.0, operator.weight_error)), lengths))
    if isinstance(operator, Kronecker):
        rows, columns = operator.core_shape
        cube = group.reshape(operator.before, columns, operator.after)
        if (cube == cube[:, :1, :]).all():
            kept = np.repeat(cube[:, :1, :], rows, axis=1).reshape(-1)
            return kept, _stretched(lengths, operator, norm_of)
    total = np.array([float(norm_upper(lengths, None))])
    return np.zeros(operator.rows, dtype=np.intp), _stretched(total, operator, norm_of)


def _stretched(lengths: Floats, operator: Operator, norm_of: Callable[[Operator], float]) -> Floats:
    if not np.isfinite(lengths).any():
        return lengths
    return np.asarray(mul_upper(norm_of(operator), lengths))


def _moved(operator: Rearrange | Placed, group: NDArray[np.intp], lengths: Floats) -> Groups:
    """Entries keep their groups wherever they go; zeros form a group of their own; repeats count √times."""
    places = np.rint(operator.forward(np.arange(1.0, operator.columns + 1)[None])[0]).astype(np.intp)
    read = np.where(places > 0, group[places - 1], len(lengths))
    times = np.ones(len(lengths))
    np.maximum.at(times, group, np.bincount(places[places > 0] - 1, minlength=operator.columns).astype(np.float64))
    return read, np.append(mul_upper(np.where(times > 1, sqrt_upper(times), 1.0), lengths), 0.0)


def _joined(parts: Sequence[Groups], *, stacked: bool) -> Groups:
    """The groups of a sum, or of a stack in which every entry comes from one part."""
    first = parts[0][0]
    if all(np.array_equal(group, first) and len(lengths) == len(parts[0][1]) for group, lengths in parts):
        total = parts[0][1]
        for _, lengths in parts[1:]:
            total = np.asarray(add_upper(total, lengths))
        return first, total
    present = [lengths[group] > 0 for group, lengths in parts]
    if stacked and np.sum(present, axis=0).max(initial=0) <= 1:
        joined, base = np.zeros(first.size, dtype=np.intp), 1
        for (group, lengths), here in zip(parts, present, strict=True):
            joined = np.where(here, group + base, joined)
            base += len(lengths)
        return joined, np.concatenate([[0.0], *(lengths for _, lengths in parts)])
    length = total_of([float(norm_upper(lengths, None)) for _, lengths in parts])
    return np.zeros(first.size, dtype=np.intp), np.array([length])


def factors_of(term: Bilinear, first: Reach, second: Reach) -> tuple[float, float]:
    """(sup ‖B(., v)‖, sup ‖B(u, .)‖): the spectral norms of the maps that differences of u and of v pass through."""
    form = term.form
    if isinstance(form, EntrywiseForm):
        return _entrywise_norm(form, second, form.second, form.first), _entrywise_norm(
            form, first, form.first, form.second
        )
    return _matrix_norm(form, second, form.second, form.first), _matrix_norm(form, first, form.first, form.second)


def _entrywise_norm(form: EntrywiseForm, held: Reach, own: tuple[int, ...], other: tuple[int, ...]) -> float:
    """Of d -> held d: each entry of d, in `other`'s shape, is read wherever it is broadcast to."""
    magnitude = np.broadcast_to(held.magnitude.reshape(own), form.shape)
    padded = (1,) * (len(form.shape) - len(other)) + other
    axes = tuple(axis for axis, extent in enumerate(padded) if extent != form.shape[axis])
    norms = norm_upper(magnitude, axes) if axes else magnitude
    return float(np.max(norms, initial=0.0))


def _matrix_norm(form: MatrixForm, held: Reach, own: tuple[int, ...], other: tuple[int, ...]) -> float:
    """Of D -> U D (or D V): the largest spectral norm in the batch, √r times if D is broadcast r-fold.

    ‖U‖₂ is at most the Frobenius norm, by entries or by groups, and at most √(‖U‖_1 ‖U‖_∞).
    """
    rows, columns = own[-2:]
    count = int(np.prod(own[:-2]))
    magnitude = held.magnitude.reshape(count, rows, columns)
    by_entries = np.asarray(norm_upper(magnitude, (1, 2)))
    by_sums = np.array([_schur(block) for block in magnitude])
    block = np.repeat(np.arange(count), rows * columns)
    pairs = np.unique(block * len(held.lengths) + held.group)
    by_groups = _grouped_norms(held.lengths[pairs % len(held.lengths)], pairs // len(held.lengths), count)
    norm = float(np.max(np.minimum(np.minimum(by_entries, by_groups), by_sums), initial=0.0))
    batch = int(np.prod(form.shape[:-2]))
    repeats = batch // max(1, int(np.prod(other[:-2])))
    return float(mul_upper(norm, sqrt_upper(float(repeats)))) if repeats > 1 else norm


def _schur(block: Floats) -> float:
    if not np.isfinite(block).all():
        return np.inf
    return float(sqrt_upper(mul_upper(row_sum_upper(block), row_sum_upper(block.T))))
