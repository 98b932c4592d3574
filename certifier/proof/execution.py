"""How far an execution in floating point may stray from the float64 evaluation of a network, entry by entry.

Running error analysis in two measures at once.  Entry by entry every term bounds how its sources' errors pass
through |A| and what its own rounding adds (`Term.stray`).  In the L2 norm the errors pass through ||A|| instead:

    ||e_out|| <= sum_i ||A_i|| ||e_i|| + ||own rounding||,

which grows far more slowly with depth; terms that stretch little near the values at hand, though much elsewhere or
without bound, say so themselves (`Term.stray_length`).  Either bounds every single entry, so each step keeps the
smaller.  With the precision of float64 the same recursion bounds the distance to the exact real network, which is the
execution that rounds nothing.

Reference: Higham 2002, section 3.3 (running error analysis); Murray 2026, arXiv 2603.13334.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from certifier.flow import Array, Network
from certifier.proof.rounding import norm_upper
from certifier.terms import Affine, Contraction, Precision, Term

SLACK = 1.0 + 2.0**-20
"""Covers the rounding of the bound's own formula: sums of non-negative terms, each of at most 2^32 summands."""
NEGLIGIBLE = 2.0**-480
"""More than everything that underflows in the root of a sum of up to 2^50 squares."""


@dataclass(frozen=True, kw_only=True)
class Gain:
    """Proved Lipschitz constants of one term with respect to each of its sources.

    `chain`: where the term ends a run of single-source affine terms, the norm of their composition, which is often
    far below the product of their norms.
    """

    sources: tuple[float, ...]
    chain: float | None


Gains = Mapping[str, Gain]
"""By output of a term."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What is to be measured on the way: values by name, and by their outputs affine terms whose gains are known.

    Of `values` the L2 norm; of `sums` that of what their own rounding is bounded by, which is at least count · unit
    times the magnitudes that are summed (`Affine.magnitudes`); of `entries` this bound entry by entry; of `rooms` how
    far what a vector function reads may move (`VectorFunction.room_lower`).
    """

    values: frozenset[str] = frozenset()
    sums: frozenset[str] = frozenset()
    entries: frozenset[str] = frozenset()
    rooms: frozenset[str] = frozenset()


NOTHING = Measured()


@dataclass(frozen=True, kw_only=True)
class Measures:
    """Upper bounds of what was measured, for every execution that is enclosed; not finite where it is not known.

    `stray` is how far the inputs may lie from those that were given.  Rooms are bounded from below, by 0 where they are
    not known.
    Shapes: [B, 1] each; entries [B, m].
    """

    stray: Array
    values: Mapping[str, Array]
    sums: Mapping[str, Array]
    entries: Mapping[str, Array]
    rooms: Mapping[str, Array]


@dataclass(frozen=True, kw_only=True)
class Enclosure:
    """|executed - centre| <= radius, entrywise.  Shapes: both [B, c]."""

    centre: Array
    radius: Array
    measures: Measures


@dataclass(frozen=True, kw_only=True)
class _Stray:
    """Errors of one value: entrywise [B, n] and in the L2 norm [B, 1].

    Along a run of affine terms the L2 error is `entered`, at the start of the run, times the norm of the run so far,
    plus `gathered`, which the run's own terms added.  `summing` is what the sums of an affine term add themselves,
    entry by entry and in the L2 norm; None where it is not told apart.
    """

    entries: Array
    length: Array
    entered: Array
    gathered: Array
    summing: tuple[Array, Array] | None = None


def _fresh(entries: Array, length: Array) -> _Stray:
    """The error of a value at which a run of affine terms may start."""
    return _Stray(entries=entries, length=length, entered=length, gathered=np.zeros_like(length))


def enclose(
    network: Network,
    x: Array,
    *,
    input_radius: Array,
    precisions: Mapping[str, Precision],
    gains: Gains,
    measured: Measured = NOTHING,
) -> Enclosure:
    """Where the outputs of an execution lie whose inputs are within `input_radius` of `x`.

    `precisions` gives the arithmetic of each value's dtype; a term without `gains` is bounded entrywise only.
    A radius may be infinite; it is never NaN.
    Shapes: x and input_radius [B, n].
    Arithmetic: the radius is rounded up.
    """
    input_radius = np.where(precisions[network.input.dtype].holds(abs(x) + input_radius), input_radius, np.inf)
    stray_of_input = _lengths(input_radius)
    strays = {network.input.name: _fresh(input_radius, stray_of_input)}
    centre, radius = x, input_radius
    lengths: dict[str, Array] = {}
    sums: dict[str, Array] = {}
    entries: dict[str, Array] = {}
    rooms: dict[str, Array] = {}
    with np.errstate(over="ignore", invalid="ignore"):
        if network.input.name in measured.values:
            lengths[network.input.name] = _reach(x, stray_of_input)
        for position, (term, values, value) in enumerate(network.walk(x)):
            sources = [strays[source] for source in term.sources]
            at, gain = precisions[term.dtype], gains.get(term.output)
            magnitudes = None
            if term.output in measured.rooms and isinstance(term, Contraction):
                rooms[term.output] = term.function.room_lower(values[0], sources[0].length)
            if isinstance(term, Affine) and gain is not None and not term.is_exact:
                magnitudes = term.magnitudes(values, [source.entries for source in sources])
            stray = _step(term, sources, values, value, magnitudes, at, gain)
            strays[term.output] = stray
            if term.output in measured.values:
                lengths[term.output] = _reach(value, stray.length)
            if stray.summing is not None and term.output in measured.sums:
                sums[term.output] = stray.summing[1]
            if stray.summing is not None and term.output in measured.entries:
                entries[term.output] = stray.summing[0]
            for source in term.sources:
                if network.last_reader[source] == position and source != network.output:
                    strays.pop(source, None)
            if term.output == network.output:
                centre, radius = value, stray.entries
    measures = Measures(stray=stray_of_input, values=lengths, sums=sums, entries=entries, rooms=rooms)
    return Enclosure(centre=centre, radius=radius, measures=measures)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One value of an execution beside what its term computes from the executed sources.

    Shapes: difference and allowed [n]; |executed - computed| and its proved bound, which may be infinite.
    """

    term: Term
    difference: Array
    allowed: Array


def steps(
    network: Network, x: Array, executed: Mapping[str, Array], *, precisions: Mapping[str, Precision]
) -> Iterator[Step]:
    """How far every executed value is from its own term, and how far the rounding of that term alone may take it.

    `executed` holds values of one execution on the row `x` by name; what it does not hold is enclosed from what it
    does.  Errors of earlier terms are in the executed sources already, so bounds stay small at any depth: an execution
    that keeps all of them is one of this network.
    Shapes: x [n]; every executed value flat.
    """
    values: dict[str, tuple[Array, Array]] = {network.input.name: (x[None], np.zeros_like(x[None]))}
    for position, term in enumerate(network.terms):
        centres, radii = zip(*(values[source] for source in term.sources), strict=True)
        with np.errstate(all="ignore"):
            value = term.evaluate(*centres)
            allowed = term.stray(centres, radii, value, precisions[term.dtype]) * SLACK
            allowed = np.where(np.isfinite(allowed) & np.isfinite(value), allowed, np.inf)
        values[term.output] = value, allowed
        if term.output in executed:
            seen = executed[term.output].astype(np.float64)[None]
            with np.errstate(invalid="ignore"):
                # What overflowed on one side only differs by infinity, and NaN from nothing but NaN.
                difference = np.where((seen == value) | (np.isnan(seen) & np.isnan(value)), 0.0, np.abs(seen - value))
            yield Step(term=term, difference=np.where(np.isnan(difference), np.inf, difference)[0], allowed=allowed[0])
            values[term.output] = seen, np.zeros_like(seen)
        for source in term.sources:
            if network.last_reader[source] == position:
                values.pop(source, None)


def _step(
    term: Term,
    sources: Sequence[_Stray],
    values: Sequence[Array],
    value: Array,
    magnitudes: Array | None,
    at: Precision,
    gain: Gain | None,
) -> _Stray:
    radii = [source.entries for source in sources]
    if isinstance(term, Affine) and magnitudes is not None:
        own = term.rounding_of(magnitudes, values, radii, at)
    else:
        own = None if gain is None else term.own_rounding(values, radii, value, at)
    # An affine term's stray is the sum of both, and forming |A| anew for each costs more than anything else here.
    whole = term.carried(radii, value) + own if isinstance(term, Affine) and own is not None else None
    entries = (term.stray(values, radii, value, at) if whole is None else whole) * SLACK
    entries = np.where(np.isfinite(entries) & np.isfinite(value), entries, np.inf)
    length = _lengths(entries)
    if gain is None or own is None:
        nearby = term.stray_length(values, radii, [source.length for source in sources], value, at)
        if nearby is not None:
            finite = np.isfinite(nearby) & np.isfinite(value).all(axis=1, keepdims=True)
            length = np.minimum(length, np.where(finite, nearby * SLACK, np.inf))
            entries = np.minimum(entries, length)
        fresh = _fresh(entries, length)
        # No run may lead through an affine term without norms: its composed norm would miss what happened here.
        return replace(fresh, entered=np.full_like(length, np.inf)) if isinstance(term, Affine) else fresh
    rounding = own * SLACK
    added = _lengths(rounding)
    summing = None
    if isinstance(term, Affine) and magnitudes is not None:
        summing = rounding, added
        if term.blurs:
            plain = Affine.rounding_of(term, magnitudes, values, radii, at) * SLACK
            summing = plain, _lengths(plain)
    carried = sum(norm * source.length for norm, source in zip(gain.sources, sources, strict=True)) + added
    is_run = isinstance(term, Affine) and len(sources) == 1
    gathered = gain.sources[0] * sources[0].gathered + added if is_run else np.zeros_like(length)
    if is_run and gain.chain is not None:
        carried = np.minimum(carried, gain.chain * sources[0].entered + gathered)
    finite = np.isfinite(carried) & np.isfinite(value).all(axis=1, keepdims=True)
    length = np.minimum(length, np.where(finite, carried * SLACK, np.inf))
    entries = np.minimum(entries, length)
    if not is_run:
        return replace(_fresh(entries, length), summing=summing)
    gathered = np.where(np.isfinite(gathered), gathered * SLACK, np.inf)
    entered = sources[0].entered
    return _Stray(entries=entries, length=length, entered=entered, gathered=gathered, summing=summing)


def _reach(value: Array, length: Array) -> Array:
    """sup ‖v‖ within `length` of the rows of `value`; not finite where it is not known.

    Squares that underflow take less than the last summand from the root.
    Shapes: [B, n], [B, 1] -> [B, 1].
    """
    return (np.sqrt(np.vecdot(value, value))[:, None] + length) * SLACK + NEGLIGIBLE


def _lengths(entries: Array) -> Array:
    # Infinite where anything is no number.
    return norm_upper(entries, 1)[:, None]
