"""MaxMin and GroupSort by their ends: the largest and the smallest of the same entries, read from one sorted vector.

Apart, max and min of n entries are two contractions of the same vector, and stacking them costs √2.  As the first and
the last entry of the sorted vector they cost 1, wherever in the graph the two are put together, and in which order.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from certifier.operators import Composed, Placed, Rearrange
from certifier.patterns.tracing import Trace
from certifier.terms import Affine, Contraction, Term
from certifier.vector_functions.extremes import EntrywiseExtreme
from certifier.vector_functions.pooling import WindowMaximum, Windows
from certifier.vector_functions.sorting import Sorted


def joined(terms: Sequence[Term]) -> list[Term]:
    """The terms, with each largest and smallest of the same entries read from one sorted vector."""
    trace = Trace(terms)
    groups: dict[Hashable, list[Contraction]] = {}
    for term in terms:
        if isinstance(term, Contraction) and (key := _entries_of(term, trace)) is not None:
            groups.setdefault(key, []).append(term)
    replaced: dict[str, list[Term]] = {}
    for members in groups.values():
        if len({_takes_largest(term) for term in members}) == 2:
            replaced.update(_sorted_ends(members, trace))
    return [each for term in terms for each in replaced.get(term.output, [term])]


def _takes_largest(term: Contraction) -> bool:
    function = term.function
    return function.largest if isinstance(function, EntrywiseExtreme) else not _windowed(term).smallest


def _windowed(term: Contraction) -> WindowMaximum:
    assert isinstance(term.function, WindowMaximum)
    return term.function


def _entries_of(term: Contraction, trace: Trace) -> Hashable:
    """What the extreme is taken of, equal for equal entries in any order; None for other functions."""
    if isinstance(term.function, EntrywiseExtreme):
        stack = trace.affine(term.sources[0])
        if stack is None or stack.offset is not None or len(stack.sources) != term.function.count:
            return None
        operands = []
        for source, operator in zip(stack.sources, stack.operators, strict=True):
            parts = operator.parts if isinstance(operator, Composed) else (operator,)
            if not isinstance(parts[-1], Placed):
                return None
            operands.append((source, *(part.digest for part in parts[:-1])))
        return ("entrywise", term.function.count, term.shape, *sorted(operands))
    if isinstance(term.function, WindowMaximum):
        windows = term.function.windows
        if windows.overlap != 1 or bool((windows.indices < 0).any()) or windows.indices.shape[1] < 2:
            return None
        return ("windows", term.sources[0], windows.before, windows.width, windows.after, windows.indices.tobytes())
    return None


def _sorted_ends(members: list[Contraction], trace: Trace) -> dict[str, list[Term]]:
    first = members[0]
    sorting, source, gather = Trace.fresh(trace, f"{first.output}/sorted"), first.sources[0], list[Term]()
    if isinstance(first.function, EntrywiseExtreme):
        before, count, after = 1, first.function.count, int(np.prod(first.shape))
    else:
        windows = _windowed(first).windows
        before, count, after = windows.before * len(windows.indices), windows.indices.shape[1], windows.after
        source = trace.fresh(f"{first.output}/gathered")
        gather.append(_moving(first, first.sources[0], source, _gathering(windows), columns=windows.columns))
    function = Sorted(name="sorted", before=before, count=count, after=after, kept=count, largest=True)
    whole = Contraction(
        name=first.name,
        operator=first.operator,
        sources=(source,),
        output=sorting,
        shape=(before, count, after),
        dtype=first.dtype,
        function=function,
    )
    places = np.arange(before * count * after).reshape(before, count, after)
    result: dict[str, list[Term]] = {}
    for term in members:
        end = places[:, 0 if _takes_largest(term) else -1]
        result[term.output] = [_moving(term, sorting, term.output, end, columns=places.size)]
    result[first.output] = [*gather, whole, *result[first.output]]
    return result


def _gathering(windows: Windows) -> np.ndarray:
    """The places that the windows read, in order [before, window, tap, after]."""
    cube = np.arange(windows.columns).reshape(windows.before, windows.width, windows.after)
    return cube[:, windows.indices]


def _moving(term: Term, source: str, output: str, read: np.ndarray, *, columns: int) -> Affine:
    return Affine(
        name=term.name,
        operator=term.operator,
        sources=(source,),
        output=output,
        shape=term.shape if output == term.output else read.shape,
        dtype=term.dtype,
        operators=(Rearrange(read.reshape(-1), columns=columns),),
        offset=None,
        offset_magnitude=None,
        arrangement="sum",
        roundings=0,
        swelling=1.0,
        amplification=1.0,
    )
