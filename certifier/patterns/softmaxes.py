"""Softmax and its logarithm, spelled by exponentials, sums and quotients, with or without the maximum subtracted.

    e^(x - m) / Σ e^(x - m)      and      x - m - log Σ e^(x - m),      m the largest entry, or no m at all.

Without m the engine's exponentials overflow and underflow early; what it computes is bounded for small entries only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from certifier.operators import Kronecker
from certifier.patterns.matching import PRECISIONS
from certifier.patterns.tracing import Array, Groups, Trace, moves
from certifier.products import Bilinear, EntrywiseForm
from certifier.terms import REFERENCE, Affine, Contraction, Precision, Rounding, Term
from certifier.vector_functions.pooling import WindowLogSumExp, WindowMaximum
from certifier.vector_functions.softmaxes import AlongAxis, LogSoftmax, Softmax

MODERATE = 64.0
"""e^64 times any number of entries, and e^-64, are far from overflow and underflow in single precision."""


def match(root: Term, trace: Trace) -> list[Term] | None:
    """The softmax, or the logarithm of one, that ends in `root`."""
    if root.dtype not in PRECISIONS:
        return None
    if isinstance(root, Bilinear) and isinstance(root.form, EntrywiseForm):
        form = root.form
        for own, other in (0, 1), (1, 0):
            operand = (form.first, form.second)[other]
            if (form.first, form.second)[own] == root.shape:
                found = _softmax(root, root.sources[own], root.sources[other], operand, trace)
                if found is not None:
                    return [found]
    return _log_softmax(root, trace) if isinstance(root, Affine) and len(root.sources) > 1 else None


def _softmax(root: Bilinear, power: str, inverse: str, shape: tuple[int, ...], trace: Trace) -> Term | None:
    argument = trace.steep(power, "exp")
    expanded = trace.expand(inverse, math.prod(shape), ())
    if argument is None or expanded is None or len(expanded[0]) != 1:
        return None
    (value, operators), between = next(iter(expanded[0].items())), expanded[1]
    total = trace.power(value, -1.0)
    read = moves(operators[0], factor=1.0) if len(operators) == 1 else None
    if total is None or read is None or not trace.is_plain(between, root.dtype):
        return None
    summed = _totalled(total, trace)
    if summed is None or summed[0] != power:
        return None
    groups = summed[1]
    # Where each entry of the product finds its divisor.
    places = np.broadcast_to(read.reshape(shape), root.shape).reshape(-1)
    if not np.array_equal(places, groups.spread()) or not _same_type(root, (power, value, total), trace):
        return None
    source, shifted = _unshifted(argument, groups, trace)
    return _term(root, source, _made(Softmax if shifted else SmallSoftmax, "softmax", groups))


def _log_softmax(root: Affine, trace: Trace) -> list[Term] | None:
    if root.offset is not None:
        return None
    size = math.prod(root.shape)
    for name in _anchors(root, trace):
        if (found := _less_log_sum_exp(root, name, size, trace)) is not None:
            return [found]
        total = trace.steep(name, "log")
        summed = None if total is None else _totalled(total, trace)
        if total is None or summed is None:
            continue
        power, groups = summed
        argument = trace.steep(power, "exp")
        if argument is None or len(groups.spread()) != size or not _same_type(root, (name, total, power), trace):
            continue
        source, shifted = _unshifted(argument, groups, trace)
        maximum = _maximum(argument, trace) if shifted else None
        expanded = trace.expand(root.output, size, (source, name) if maximum is None else (source, name, maximum))
        if expanded is None:
            continue
        paths, between = expanded
        if set(paths) != {source, name} | ({maximum} if maximum else set()):
            continue
        if not trace.is_plain(between, root.dtype) or any(len(operators) != 1 for operators in paths.values()):
            continue
        reads = {each: moves(paths[each][0], factor=1.0 if each == source else -1.0) for each in paths}
        if all(
            read is not None and np.array_equal(read, np.arange(size) if each == source else groups.spread())
            for each, read in reads.items()
        ):
            return [_term(root, source, _made(LogSoftmax if shifted else SmallLogSoftmax, "log softmax", groups))]
    return None


def _less_log_sum_exp(root: Affine, name: str, size: int, trace: Trace) -> Term | None:
    """x less the logarithm of the sum of the exponentials of x, which one term computes."""
    term = trace.producers.get(name)
    if not isinstance(term, Contraction) or not isinstance(term.function, WindowLogSumExp) or term.dtype != root.dtype:
        return None
    windows, source = term.function.windows, term.sources[0]
    groups = Groups(windows.before, windows.width, windows.after)
    expanded = trace.expand(root.output, size, (source, name))
    if expanded is None or set(expanded[0]) != {source, name} or not trace.is_plain(expanded[1], root.dtype):
        return None
    (own, *more), (other, *others) = expanded[0][source], expanded[0][name]
    same, spread = moves(own, factor=1.0), moves(other, factor=-1.0)
    if more or others or same is None or spread is None or len(groups.spread()) != size:
        return None
    if not np.array_equal(windows.indices, np.arange(groups.count)[None, :]):
        return None
    if np.array_equal(same, np.arange(size)) and np.array_equal(spread, groups.spread()):
        return _term(root, source, _made(LogSoftmax, "log softmax", groups))
    return None


def _anchors(root: Affine, trace: Trace) -> list[str]:
    expanded = trace.expand(root.output, math.prod(root.shape), ())
    return [] if expanded is None else list(expanded[0])


def _totalled(total: str, trace: Trace) -> tuple[str, Groups] | None:
    """The value whose entries `total` sums in groups, each entry once and in order."""
    term = trace.producers.get(total)
    expanded = None if term is None else trace.expand(total, math.prod(term.shape), ())
    if term is None or expanded is None or len(expanded[0]) != 1 or not trace.is_plain(expanded[1], term.dtype):
        return None
    (power, operators), *_ = expanded[0].items()
    operator = operators[0]
    if len(operators) != 1 or not isinstance(operator, Kronecker):
        return None
    if operator.core_shape[0] != 1 or operator.weight_error != 0:
        return None
    if not bool((operator.dense() == 1).all()):
        return None
    return power, Groups(operator.before, operator.core_shape[1], operator.after)


def _unshifted(argument: str, groups: Groups, trace: Trace) -> tuple[str, bool]:
    """(x, True) where `argument` is x less the largest entry of x in each group; else (argument, False)."""
    term, maximum = trace.affine(argument), _maximum(argument, trace)
    if term is None or maximum is None or term.offset is not None or len(term.sources) != 2:
        return argument, False
    largest = trace.producers[maximum]
    assert isinstance(largest, Contraction) and isinstance(largest.function, WindowMaximum)
    windows, source = largest.function.windows, largest.sources[0]
    maps = dict(zip(term.sources, term.operators, strict=True))
    own, other = maps.get(source), _only_other(maps, source)
    if own is None or other is None or largest.function.smallest:
        return argument, False
    expanded = trace.expand(other, maps[other].columns, ())
    if expanded is None or set(expanded[0]) != {maximum} or not trace.is_plain(expanded[1], term.dtype):
        return argument, False
    steps = moves(expanded[0][maximum][0], factor=1.0)
    spread, same = moves(maps[other], factor=-1.0), moves(own, factor=1.0)
    size = groups.before * groups.count * groups.after
    is_own = (
        steps is not None
        and spread is not None
        and same is not None
        and np.array_equal(same, np.arange(size))
        and np.array_equal(steps[spread], groups.spread())
        and (windows.before, windows.width, windows.after) == (groups.before, groups.count, groups.after)
        and np.array_equal(windows.indices, np.arange(groups.count)[None, :])
        and _same_type(term, (maximum,), trace)
    )
    return (source, True) if is_own else (argument, False)


def _only_other(maps: Mapping[str, object], source: str) -> str | None:
    others = [name for name in maps if name != source]
    return others[0] if len(others) == 1 else None


def _maximum(argument: str, trace: Trace) -> str | None:
    """The maximum over windows that `argument` is a difference with."""
    term = trace.affine(argument)
    if term is None:
        return None
    for name in _anchors(term, trace):
        found = trace.producers.get(name)
        if isinstance(found, Contraction) and isinstance(found.function, WindowMaximum):
            if found.sources[0] in term.sources:
                return name
    return None


def _same_type(root: Term, values: tuple[str, ...], trace: Trace) -> bool:
    return all(trace.producers[value].dtype == root.dtype for value in values)


def _made(kind: type[AlongAxis], name: str, groups: Groups) -> AlongAxis:
    return kind(name=name, before=groups.before, count=groups.count, after=groups.after)


def _term(root: Term, source: str, function: AlongAxis) -> Contraction:
    return Contraction(
        name=root.name,
        operator=root.operator,
        sources=(source,),
        output=root.output,
        shape=root.shape,
        dtype=root.dtype,
        function=function,
    )


def _within(cube: Array, radius: Array, bound: Array, at: Precision) -> Array:
    """`bound` where an engine's exponentials neither overflow nor underflow, elsewhere infinity.

    The reference evaluation subtracts the maximum, and the exact network rounds nothing: they need no such limit.
    """
    if at == REFERENCE:
        return bound
    return np.where((abs(cube) + radius).max(axis=2, keepdims=True) <= MODERATE, bound, np.inf)


def _of_moderate(rounding: Rounding | None) -> Rounding | None:
    """The same where no entry of the input is beyond `MODERATE`, as none is if its length is not."""
    return None if rounding is None else replace(rounding, largest_input=MODERATE)


class SmallSoftmax(Softmax):
    """Softmax of an engine that does not subtract the maximum: the same function, bounded for moderate entries only."""

    def _kernel(self, cube: Array, largest: Array, output: Array, moved: Array, at: Precision) -> Array:
        return _within(cube, largest, super()._kernel(cube, largest, output, moved, at), at)

    def rounding(self, at: Precision) -> Rounding | None:
        return _of_moderate(super().rounding(at))


class SmallLogSoftmax(LogSoftmax):
    """The logarithm of `SmallSoftmax`."""

    def _along_stray(self, cube: Array, radius: Array, output: Array, at: Precision) -> Array:
        return _within(cube, radius, super()._along_stray(cube, radius, output, at), at)

    def rounding(self, at: Precision) -> Rounding | None:
        return _of_moderate(super().rounding(at))
