"""Roots of weighted sums of squares: L2 pooling, moduli, root mean squares, with or without a constant under the root.

    √(Σ_i A_mi x_i² + b_m),   A >= 0, b >= 0,

however squares, poolings, sums, factors and movements in between are spelled.
"""

from __future__ import annotations

import math

import numpy as np

from certifier.operators import Adjoint, Operator, Placed, Sum, compose
from certifier.patterns.matching import PRECISIONS
from certifier.patterns.tracing import Trace
from certifier.terms import Activation, Affine, Contraction, Term
from certifier.vector_functions.weighted_norms import WeightedNorms

MOST_OPERANDS = 8


def match(root: Term, trace: Trace) -> list[Term] | None:
    """The terms of the norm that ends in `root`."""
    if not isinstance(root, Activation) or root.dtype not in PRECISIONS or trace.power(root.output, 0.5) is None:
        return None
    inside, size = root.sources[0], math.prod(root.shape)
    expanded = trace.expand(inside, size, ())
    if expanded is None or len(expanded[0]) > MOST_OPERANDS:
        return None
    paths, between = expanded
    by_operand: dict[str, list[Operator]] = {}
    for value, operators in paths.items():
        operand = trace.power(value, 2.0)
        if operand is None or trace.producers[value].dtype != root.dtype:
            return None
        by_operand.setdefault(operand, []).extend(operators)
    if not all(_is_positive(term, root.dtype) for term in between):
        return None
    ordered = trace.between(paths, trace.producers[inside]) if between else []
    source, weights, extra = _stacked(root, by_operand, trace)
    function = WeightedNorms(
        name="weighted norm",
        weights=weights,
        offset=_run(ordered, paths, inside, size, start=0.0, plus=0.0)[0],
        # Of squares and root, then of every map: its stored weights, its sum, what it adds.
        roundings=8 + sum(term.roundings + 4 * len(term.operators) for term in between),
        growth=_run(ordered, paths, inside, size, start=1.0, plus=1.0)[1] * (1 + 2.0**-20),
    )
    norm = Contraction(
        name=root.name,
        operator=root.operator,
        sources=(source,),
        output=root.output,
        shape=root.shape,
        dtype=root.dtype,
        function=function,
    )
    return [*extra, norm]


def _is_positive(term: Affine, dtype: str) -> bool:
    """No weight and no offset is negative, and nothing is rounded to another type on the way."""
    if term.dtype != dtype or (term.offset is not None and bool(np.any(term.offset < 0))):
        return False
    return all(operator.digest == operator.absolute().digest for operator in term.operators)


def _run(
    terms: list[Term], paths: dict[str, list[Operator]], inside: str, size: int, *, start: float, plus: float
) -> tuple[np.ndarray, float]:
    """The value inside the root and the largest on the way, if every square is `start` and every term adds `plus`.

    With ones it bounds what values can grow to per square, and what a number lost in any term can grow to.
    """
    values: dict[str, np.ndarray] = {}
    for term in terms:
        assert isinstance(term, Affine)
        for source, operator in zip(term.sources, term.operators, strict=True):
            if source in paths and source not in values:
                values[source] = np.full((1, operator.columns), start)
        values[term.output] = term.evaluate(*(values[source] for source in term.sources)) + plus
    result = values.get(inside, np.full((1, size), start))
    return result.reshape(-1), max((float(value.max()) for value in values.values()), default=1.0)


def _stacked(root: Term, by_operand: dict[str, list[Operator]], trace: Trace) -> tuple[str, Operator, list[Term]]:
    """One vector of all operands, the map from their squares to what is under the root, and the terms that stack."""
    maps = {name: Sum(parts) if len(parts) > 1 else parts[0] for name, parts in by_operand.items()}
    if len(maps) == 1:
        return (*next(iter(maps.items())), [])
    total, start = sum(operator.columns for operator in maps.values()), 0
    laid: list[Operator] = []
    whole: list[Operator] = []
    for operator in maps.values():
        place = Placed(before=1, own=operator.columns, after=1, total=total, start=start)
        laid.append(place)
        whole.append(compose([Adjoint(place), operator]))
        start += operator.columns
    stack = Affine(
        name=root.name,
        operator=root.operator,
        sources=tuple(maps),
        output=trace.fresh(f"{root.output}/stack"),
        shape=(total,),
        dtype=root.dtype,
        operators=tuple(laid),
        offset=None,
        offset_magnitude=None,
        arrangement="stack",
        roundings=0,
        swelling=1.0,
        amplification=1.0,
    )
    return stack.output, Sum(whole), [stack]
