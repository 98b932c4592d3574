"""Inverse roots of mean squares, as normalisations divide by them, read backwards from their last value."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from certifier.operators import Composed, Diagonal, Kronecker, Operator, Rearrange, compose
from certifier.patterns.tracing import Array, Groups, Trace, moves

SMALLEST_EPSILON = 2.0**-100
"""Far above what squares in single precision may lose to underflow."""
LEAST_FACTOR, MOST_PER_ENTRY = 2.0**-5, 2.0**5
"""What means may be multiplied by, and sums of squares, without overflowing or underflowing where a mean does not."""


@dataclass(frozen=True)
class Inverse:
    """w_k = scale_k / √(factor · mean z² + epsilon), the mean over the `read_k`-th of the groups of z."""

    scale: Array
    read: Array
    groups: Groups
    squared: str
    factor: float
    epsilon: float


def inverse_root(value: str, dtype: str, trace: Trace) -> Inverse | None:
    """What `value` is, as constants times inverse roots of mean squares."""
    term = trace.producers.get(value)
    expanded = None if term is None else trace.expand(value, math.prod(term.shape), ())
    if expanded is None or len(expanded[0]) != 1 or not trace.is_plain(expanded[1], dtype):
        return None
    (anchor, operators), *_ = expanded[0].items()
    scaled = _scaled_moves(operators[0]) if len(operators) == 1 else None
    under = _under_inverse_root(anchor, dtype, trace)
    found = None if under is None else _mean_square(under[0], dtype, trace)
    if scaled is None or under is None or found is None:
        return None
    groups, read, factor, squared, epsilon = found
    return Inverse(scaled[0], read[under[1][scaled[1]]], groups, squared, factor, epsilon)


def _under_inverse_root(value: str, dtype: str, trace: Trace) -> tuple[str, Array] | None:
    """(v, read) where entry k of `value` is 1/√v[read_k]."""
    term = trace.producers.get(value)
    if term is None or term.dtype != dtype:
        return None
    size = math.prod(term.shape)
    power, root = trace.power(value, -0.5), trace.power(value, -1.0)
    if power is not None or root is None:
        return None if power is None else (power, np.arange(size))
    expanded = trace.expand(root, size, ())
    if expanded is None or len(expanded[0]) != 1 or not trace.is_plain(expanded[1], dtype):
        return None
    (anchor, operators), *_ = expanded[0].items()
    read, power = moves(operators[0], factor=1.0), trace.power(anchor, 0.5)
    if len(operators) != 1 or read is None or power is None or trace.producers[anchor].dtype != dtype:
        return None
    return power, read


def _mean_square(value: str, dtype: str, trace: Trace) -> tuple[Groups, Array, float, str, float] | None:
    """(groups, read, c, z, ε) where entry k of `value` is c times the mean of z² over group read_k, plus ε."""
    term = trace.producers.get(value)
    expanded = None if term is None else trace.expand(value, math.prod(term.shape), ())
    if expanded is None or len(expanded[0]) != 1 or any(each.dtype != dtype for each in expanded[1]):
        return None
    (anchor, operators), *_ = expanded[0].items()
    squared = trace.power(anchor, 2.0)
    total = _total(operators[0]) if len(operators) == 1 else None
    # It is added last, so that nothing scales it: movements alone may follow.
    adding = [each for each in expanded[1] if each.offset is not None]
    if squared is None or total is None or len(adding) != 1 or trace.producers[anchor].dtype != dtype:
        return None
    after = trace.expand(value, math.prod(term.shape), (adding[0].output,)) if term is not None else None
    offset = adding[0].offset
    if after is None or set(after[0]) != {adding[0].output} or offset is None:
        return None
    if moves(after[0][adding[0].output][0], factor=1.0) is None:
        return None
    epsilon = float(offset[0])
    if not epsilon > SMALLEST_EPSILON or bool(np.any(offset != epsilon)):
        return None
    return (*total, squared, epsilon)


def _total(operator: Operator) -> tuple[Groups, Array, float] | None:
    """(groups, read, c) where the operator is y_k = c times the mean over group read_k, c > 0 to a few roundings."""
    parts = operator.parts if isinstance(operator, Composed) else (operator,)
    first = parts[0]
    if not isinstance(first, Kronecker) or first.core_shape[0] != 1 or first.weight_error > 2.0**-52:
        return None
    groups, weights = Groups(first.before, first.core_shape[1], first.after), first.dense().reshape(-1)
    factor, read = float(weights[0]) * groups.count, np.arange(first.rows)
    for part in parts[1:]:
        if isinstance(part, Diagonal) and part.weight_error <= 2.0**-52 and bool((part.values == part.values[0]).all()):
            factor *= float(part.values[0])
        elif (moved := moves(part, factor=1.0)) is not None:
            read = read[moved]
        else:
            return None
    if bool((weights == 1.0 / groups.count).all()) and len(parts) == 1:
        factor = 1.0
    is_uniform = bool((weights == weights[0]).all())
    return (groups, read, factor) if is_uniform and LEAST_FACTOR <= factor <= MOST_PER_ENTRY * groups.count else None


def mean_of_groups(operator: Operator, *, factor: float) -> tuple[Groups, Array] | None:
    """(groups, read) where the operator is y_k = factor times the mean over group read_k."""
    parts = operator.parts if isinstance(operator, Composed) else (operator,)
    first, rest = parts[0], parts[1:]
    if not isinstance(first, Kronecker) or first.core_shape[0] != 1 or first.weight_error > 2.0**-52:
        return None
    groups = Groups(first.before, first.core_shape[1], first.after)
    if not bool((first.dense() == 1.0 / groups.count).all()):
        return None
    if not rest:
        return (groups, np.arange(first.rows)) if factor == 1.0 else None
    read = moves(compose(rest), factor=factor)
    return None if read is None else (groups, read)


def _scaled_moves(operator: Operator) -> tuple[Array, Array] | None:
    """(scale, read) where the operator is y_k = scale_k x[read_k] exactly; at most one scaling, so none is rounded."""
    scale, read, is_scaled = np.ones(operator.columns), np.arange(operator.columns), False
    for part in operator.parts if isinstance(operator, Composed) else (operator,):
        if isinstance(part, Rearrange) and bool((part.indices >= 0).all()):
            scale, read = scale[part.indices], read[part.indices]
        elif (
            isinstance(part, Diagonal) and part.weight_error == 0 and (not is_scaled or bool((part.values == 1).all()))
        ):
            scale, is_scaled = scale * part.values, bool(np.any(part.values != 1)) or is_scaled
        elif part.fan_in != 0 or part.rows != part.columns or moves(part, factor=1.0) is None:
            return None
    return scale, read
