"""The constants of a network's outputs: L_a for a = e_k (every output) and a = e_t - e_j (every pair).

With f = sum_z A_z z + b and ||z(x) - z(y)|| <= c_z ||x - y||,

    |a^T (f(x) - f(y))| <= sum_z c_z ||A_z^T a|| ||x - y||        for every vector a.

The rows of A_z are materialised with an entrywise enclosure of their rounding; nothing is searched.
Arithmetic: rounded up throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certifier.operators import Composed, Diagonal, Kronecker, Operator, Sum, compose
from certifier.proof.rounding import (
    FLOAT64,
    TINY,
    add_upper,
    gamma_upper,
    mul_upper,
    norm_upper,
    sqrt_upper,
    times_power_of_two,
)
from certifier.terms import Elementwise

Floats = NDArray[np.float64]

MAXIMAL_ENTRIES = 2**24
"""Entries of a readout matrix that is materialised; larger ones are split."""
MAXIMAL_OUTPUTS = 4096
MAXIMAL_PAIR_OUTPUTS = 2048
DIRECT_DIFFERENCES = 128


@dataclass(frozen=True, kw_only=True)
class Readout:
    """Shapes: outputs [c]; pairs [c, c], symmetric with a zero diagonal, or None for too many outputs."""

    outputs: Floats
    pairs: Floats | None


def direct_readout(parts: Sequence[tuple[float, Operator]], norm_of: Callable[[Operator], float]) -> Readout | None:
    """L_a <= sum_z c_z ||A_z^T a|| for every output and every pair; None if there are too many outputs.

    `norm_of` gives a proved norm for the part of an operator that is too large to be materialised.
    """
    count = parts[0][1].rows
    if count > MAXIMAL_OUTPUTS:
        return None
    outputs = np.zeros(count)
    pairs = np.zeros((count, count)) if count <= MAXIMAL_PAIR_OUTPUTS else None
    for constant, operator in parts:
        tail, factor = _materialisable_tail(operator, constant, norm_of)
        if tail is None:
            return None
        rows, error = rows_enclosure(tail)
        strays = norm_upper(error, 1)
        outputs = add_upper(outputs, mul_upper(factor, add_upper(norm_upper(rows, 1), strays)))
        if pairs is not None:
            pairs = add_upper(pairs, mul_upper(factor, _difference_norms(rows, strays)))
    if pairs is not None:
        np.fill_diagonal(pairs, 0.0)
    return Readout(outputs=outputs, pairs=pairs)


def _materialisable_tail(
    operator: Operator, constant: float, norm_of: Callable[[Operator], float]
) -> tuple[Operator | None, float]:
    """(T, c ||H||) with operator = T H and T small enough to be written out: ||(T H)^T a|| <= ||H|| ||T^T a||."""
    count = operator.rows
    if count * operator.columns <= MAXIMAL_ENTRIES:
        return operator, constant
    if isinstance(operator, Composed):
        for start in range(1, len(operator.parts)):
            tail = compose(operator.parts[start:])
            if count * tail.columns <= MAXIMAL_ENTRIES:
                head = norm_of(compose(operator.parts[:start]))
                return tail, float(mul_upper(constant, head))
    return None, np.inf


def rows_enclosure(operator: Operator) -> tuple[Floats, Floats]:
    """(M, E) with |A - M| <= E entrywise, for the exact map A.  Shapes: both [rows, columns].

    E covers rounding, relative to |A|, and what underflows in one part and is amplified by the next.  Its entries may
    be infinite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        rows, lost = _unit_rows(operator)
        magnitude, lost_magnitude = _unit_rows(operator.absolute())
    count = operator.fan_out + 4
    # |A|^T e is itself rounded by at most gamma(count) relatively, which the doubled gamma covers.
    relative = add_upper(mul_upper(2.0, gamma_upper(count, FLOAT64)), mul_upper(2.0, operator.weight_error))
    magnitude = np.where(np.isnan(magnitude), np.inf, magnitude)
    error = add_upper(mul_upper(relative, add_upper(magnitude, lost_magnitude)), lost)
    return np.ascontiguousarray(rows, dtype=np.float64), error


def _unit_rows(operator: Operator) -> tuple[Floats, float]:
    """adjoint(identity) as computed, and a bound of what underflow took from any entry.

    A chain that ends in a plain matrix starts from that matrix instead of an identity.
    """
    if isinstance(operator, Kronecker) and operator.before == operator.after == 1:
        return np.asarray(operator.dense(), dtype=np.float64), 0.0
    if isinstance(operator, Composed):
        head, last = compose(operator.parts[:-1]), operator.parts[-1]
        if isinstance(last, Diagonal):
            rows, lost = _unit_rows(head)
            largest = float(np.max(np.abs(last.values), initial=0.0))
            return last.values[:, None] * rows, float(add_upper(mul_upper(largest, lost), 4.0 * TINY))
        rows, lost = _unit_rows(last)
        return head.adjoint(rows), underflow_upper(head, lost)
    if isinstance(operator, Sum):
        parts = [_unit_rows(part) for part in operator.parts]
        lost = 0.0
        for _, each in parts:
            lost = float(add_upper(lost, each))
        return sum((rows for rows, _ in parts[1:]), start=parts[0][0]), lost
    # Products with 0 and 1 lose nothing.
    return operator.adjoint(np.eye(operator.rows)), 0.0


def underflow_upper(operator: Operator, incoming: float) -> float:
    """A bound of what underflow takes from any entry of `adjoint`, if every given entry is off by `incoming`."""
    if isinstance(operator, Composed):
        for part in reversed(operator.parts):
            incoming = underflow_upper(part, incoming)
        return incoming
    if isinstance(operator, Sum):
        total = 0.0
        for part in operator.parts:
            total = float(add_upper(total, underflow_upper(part, incoming)))
        return total
    sums = operator.absolute().adjoint(np.ones((1, operator.rows)))
    amplified = mul_upper(float(np.max(sums, initial=0.0)), 1.0 + 2.0 * gamma_upper(operator.fan_out + 2, FLOAT64))
    return float(add_upper(mul_upper(amplified, incoming), 4.0 * (operator.fan_out + 2) * TINY))


def _difference_norms(rows: Floats, strays: Floats) -> Floats:
    """||A_t - A_j|| for all pairs of rows, rounded up."""
    count = len(rows)
    between = _direct_differences(rows) if count <= DIRECT_DIFFERENCES else _gram_differences(rows)
    return add_upper(between, add_upper(strays[:, None], strays[None, :]))


def _direct_differences(rows: Floats) -> Floats:
    count = len(rows)
    between = np.zeros((count, count))
    for label in range(count - 1):
        # fl(a - b) is within u |fl(a - b)| of a - b.
        apart = norm_upper(rows[label + 1 :] - rows[label], 1)
        between[label, label + 1 :] = between[label + 1 :, label] = mul_upper(apart, 1.0 + 2.0 * FLOAT64)
    return between


def _gram_differences(rows: Floats) -> Floats:
    """d^2 = G_tt + G_jj - 2 G_tj, whose rounding is at most gamma_{n+8} (||A_t|| + ||A_j||)^2."""
    largest = float(np.max(np.abs(rows), initial=0.0))
    if not np.isfinite(largest) or largest == 0.0:
        return np.full((len(rows), len(rows)), np.inf if largest else 0.0)
    exponent = int(np.frexp(largest)[1])
    scaled = times_power_of_two(rows, -exponent)
    # Scaling by a power of two is exact but for entries that underflow, at most 8 TINY each.
    lost = float(mul_upper(np.sqrt(rows.shape[1]) + 1.0, 8.0 * TINY))
    gram = scaled @ scaled.T
    diagonal = np.diagonal(gram)
    squared = np.maximum(diagonal[:, None] + diagonal[None, :] - 2.0 * gram, 0.0)
    lengths = norm_upper(scaled, 1)
    reach = add_upper(lengths[:, None], lengths[None, :])
    count = rows.shape[1] + 8
    slack = add_upper(mul_upper(gamma_upper(count, FLOAT64), mul_upper(reach, reach)), 8.0 * count * TINY)
    between = add_upper(sqrt_upper(add_upper(squared, slack)), 2.0 * lost)
    return np.maximum(times_power_of_two(between, exponent), TINY)


def scaled_readout(inner: Readout, function: Elementwise) -> Readout:
    """The readout behind an elementwise function: |f(y_t) - f(y_j)| moves by at most s_t L_t + s_j L_j."""
    steepest = np.broadcast_to(
        np.maximum(np.abs(function.slope_lower), np.abs(function.slope_upper)), inner.outputs.shape
    )
    outputs = mul_upper(steepest, inner.outputs)
    pairs = None
    if inner.pairs is not None:
        pairs = add_upper(outputs[:, None], outputs[None, :])
        np.fill_diagonal(pairs, 0.0)
    return Readout(outputs=outputs, pairs=pairs)


def smaller(first: Readout, second: Readout) -> Readout:
    """The smaller constant of two sound readouts, entry by entry."""
    pairs = first.pairs
    if pairs is not None and second.pairs is not None:
        pairs = np.minimum(pairs, second.pairs)
    return Readout(outputs=np.minimum(first.outputs, second.outputs), pairs=pairs)
