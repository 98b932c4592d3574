"""How the norm of an operator follows from norms of matrices and kernels that can be proved.

`decompose` turns an operator into a plan whose leaves carry a proof obligation each:

    Closed(upper)            the norm is known in closed form, rounded up
    Matrix(values, error)    ||A|| = norm of a matrix known up to an entrywise error
    Kernel(convolution)      ||A|| <= largest symbol on a padded torus
    Product(parts)           ||A|| <= product of the parts' norms
    Total(parts)             ||A|| <= sum of the parts' norms

Identities used: an isometry behind, or the transpose of one in front, changes no norm; I (x) W (x) I has the norm
of W; A and A^T have the same norm; a rearrangement that reads entry i c_i times has norm sqrt(max c_i); a
per-channel scaling commutes with the crop and the padding of a convolution, so it may be folded into the kernel's
output or input channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certifier.operators import (
    Adjoint,
    Composed,
    Convolution,
    Diagonal,
    Identity,
    Kronecker,
    Operator,
    Placed,
    Rearrange,
    Sum,
)
from certifier.proof.readout import rows_enclosure
from certifier.proof.rounding import FLOAT64, TINY, add_upper, gamma_upper, mul_upper, sqrt_upper

Floats = NDArray[np.float64]

SMALL_ORDER = 1024
"""A convolution whose smaller side is at most this is written out: exact, where the torus is an upper bound."""
LARGEST_ORDER = 4096
SAFE_FROM_UNDERFLOW = 2.0**-1000
LARGEST_MATRIX = 2**24
"""Entries of a composed map that is written out."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Closed:
    """||A|| <= upper, known without search."""

    upper: float
    proof: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Matrix:
    """||A|| is the norm of a matrix within `error` of `values` entrywise; None: exactly `values`."""

    values: Floats
    error: Floats | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Kernel:
    """||A|| is at most the norm of a convolution whose kernel is within `error` of the given one, entrywise."""

    convolution: Convolution
    error: Floats | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Product:
    """||A|| <= the product of the parts' norms."""

    parts: tuple[Plan, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Total:
    """||A|| <= the sum of the parts' norms."""

    parts: tuple[Plan, ...]


Plan = Closed | Matrix | Kernel | Product | Total
ONE = Closed(upper=1.0, proof="closed form")


def decompose(operator: Operator) -> Plan:
    """The plan by which `operator`'s spectral norm is to be proved."""
    operator = _without_isometries(operator)
    if isinstance(operator, Identity):
        return ONE
    if isinstance(operator, Adjoint):
        return decompose(operator.operator)
    if isinstance(operator, Rearrange):
        most = int(operator.counts.max(initial=0))
        return Closed(upper=float(sqrt_upper(float(most))) if most > 1 else float(most), proof="closed form")
    if isinstance(operator, Diagonal):
        return Closed(upper=_largest_entry(operator), proof="closed form")
    if isinstance(operator, Kronecker):
        return _kronecker(operator)
    if isinstance(operator, Convolution) and not _is_writable(operator, SMALL_ORDER):
        return Kernel(convolution=operator, error=_weight_errors(operator))
    if _is_writable(operator, SMALL_ORDER if _has_convolution(operator) else LARGEST_ORDER):
        return _written_out(operator)
    if isinstance(operator, Sum):
        return Total(parts=tuple(decompose(part) for part in operator.parts))
    if isinstance(operator, Composed):
        parts = _fold_diagonals(operator.parts)
        return Product(parts=tuple(decompose(part) for part in parts))
    return Closed(upper=schur_upper(operator), proof="schur test")


def schur_upper(operator: Operator) -> float:
    """||A|| <= sqrt(||A||_1 ||A||_inf), from the row and column sums of |A|; rounded up."""
    magnitude = operator.absolute()
    relative = 1.0
    for count in (operator.fan_in, operator.fan_out):
        relative = float(mul_upper(relative, 1.0 + 2.0 * gamma_upper(count + 4, FLOAT64)))
    relative = float(mul_upper(relative, mul_upper(1.0 + operator.weight_error, 1.0 + operator.weight_error)))
    rows = float(np.max(magnitude.forward(np.ones((1, operator.columns))), initial=0.0))
    columns = float(np.max(magnitude.adjoint(np.ones((1, operator.rows))), initial=0.0))
    lost = 8.0 * (operator.fan_in + operator.fan_out + 4) * TINY
    product = mul_upper(add_upper(rows, lost), add_upper(columns, lost))
    return float(sqrt_upper(mul_upper(relative, product)))


def _largest_entry(diagonal: Diagonal) -> float:
    largest = float(np.max(np.abs(diagonal.values), initial=0.0))
    return float(mul_upper(largest, 1.0 + diagonal.weight_error)) if diagonal.weight_error else largest


def _kronecker(operator: Kronecker) -> Plan:
    height, width = operator.core_shape
    if operator.is_sparse and (height * width > LARGEST_MATRIX or min(height, width) > SMALL_ORDER * 2):
        return Closed(upper=schur_upper(operator), proof="schur test")
    values = np.asarray(operator.dense(), dtype=np.float64)
    error = None if operator.weight_error == 0 else mul_upper(operator.weight_error, np.abs(values))
    return Matrix(values=values, error=error)


def _weight_errors(convolution: Convolution) -> Floats | None:
    if convolution.weight_error == 0:
        return None
    return mul_upper(convolution.weight_error, np.abs(convolution.kernel))


def _is_writable(operator: Operator, order: int) -> bool:
    smaller = min(operator.rows, operator.columns)
    return smaller <= order and operator.rows * operator.columns <= LARGEST_MATRIX


def _has_convolution(operator: Operator) -> bool:
    if isinstance(operator, (Composed, Sum)):
        return any(_has_convolution(part) for part in operator.parts)
    return isinstance(operator, Convolution) or (isinstance(operator, Adjoint) and _has_convolution(operator.operator))


def _written_out(operator: Operator) -> Plan:
    wide = operator if operator.rows <= operator.columns else Adjoint(operator)
    values, error = rows_enclosure(wide)
    if _moves_single_weights(operator):
        return Matrix(values=values, error=None)
    if not (np.isfinite(values).all() and np.isfinite(error).all()):
        return Closed(upper=np.inf, proof="overflow")
    return Matrix(values=values, error=error)


def _moves_single_weights(operator: Operator) -> bool:
    """Whether every entry of the written-out map is one stored weight, so that writing it out rounds nothing."""
    parts = operator.parts if isinstance(operator, Composed) else (operator,)
    arithmetic = 0
    for part in parts:
        if isinstance(part, Rearrange):
            if int(part.counts.max(initial=0)) > 1:
                return False
            continue
        if isinstance(part, Placed):
            continue
        inner = part.operator if isinstance(part, Adjoint) else part
        if not isinstance(inner, (Convolution, Kronecker, Diagonal)) or inner.weight_error != 0:
            return False
        arithmetic += 1
    return arithmetic <= 1


def _without_isometries(operator: Operator) -> Operator:
    """The operator without rearrangements at its ends that change no norm, adjacent ones merged."""
    if not isinstance(operator, Composed):
        return Identity(operator.columns) if _is_isometry(operator) else operator
    parts = _merged(operator.parts)
    while parts and _is_isometry(parts[-1]):
        parts = parts[:-1]
    while parts and isinstance(parts[0], Rearrange) and _selects(parts[0]):
        parts = parts[1:]
    if not parts:
        return Identity(operator.columns)
    return parts[0] if len(parts) == 1 else Composed(parts)


def _is_isometry(operator: Operator) -> bool:
    """A^T A = I: every input entry is laid down exactly once."""
    if isinstance(operator, Rearrange):
        return bool((operator.counts == 1).all())
    return isinstance(operator, Placed)


def _selects(rearrange: Rearrange) -> bool:
    """A A^T = I: every output entry reads an input entry of its own."""
    return bool((rearrange.indices >= 0).all()) and int(rearrange.counts.max(initial=0)) <= 1


def _merged(parts: Sequence[Operator]) -> list[Operator]:
    merged: list[Operator] = []
    for part in parts:
        if isinstance(part, Rearrange) and merged and isinstance(merged[-1], Rearrange):
            before = merged.pop()
            assert isinstance(before, Rearrange)
            indices = np.where(part.indices < 0, -1, before.indices[part.indices])
            part = Rearrange(indices, columns=before.columns)
        if isinstance(part, Rearrange) and part.is_permutation and bool((part.indices == np.arange(part.rows)).all()):
            continue
        merged.append(part)
    return merged


def _fold_diagonals(parts: Sequence[Operator]) -> list[Operator]:
    """Per-channel scalings next to a convolution, folded into its kernel; everything else is left as it is."""
    folded: list[Operator] = []
    for part in parts:
        previous = folded[-1] if folded else None
        if isinstance(part, Diagonal) and isinstance(previous, Convolution):
            scale = part.per_channel(previous.channels_out)
            if scale is not None and (scaled := _scaled_outputs(previous, scale, part.weight_error)) is not None:
                folded[-1] = scaled
                continue
        if isinstance(part, Convolution) and isinstance(previous, Diagonal):
            scale = previous.per_channel(part.channels_in)
            if scale is not None and (scaled := _scaled_inputs(part, scale, previous.weight_error)) is not None:
                folded[-1] = scaled
                continue
        folded.append(part)
    return folded


def _folded_error(convolution: Convolution, scale_error: float) -> float:
    # (1 + a)(1 + b)(1 + u) - 1, where the product itself rounds once; doubled to cover this very sum.
    return float(mul_upper(2.0, convolution.weight_error + scale_error + 2.0**-52))


def _scaled_outputs(convolution: Convolution, scale: Floats, scale_error: float) -> Convolution | None:
    factor = scale.reshape(-1, *([1] * (convolution.kernel.ndim - 1)))
    return _rescaled(convolution, factor, scale_error)


def _scaled_inputs(convolution: Convolution, scale: Floats, scale_error: float) -> Convolution | None:
    kernel = convolution.kernel
    per_group = scale.reshape(convolution.groups, 1, kernel.shape[1])
    per_output = np.repeat(per_group, convolution.channels_out // convolution.groups, axis=1)
    factor = per_output.reshape(kernel.shape[0], kernel.shape[1], *([1] * (kernel.ndim - 2)))
    return _rescaled(convolution, factor, scale_error)


def _rescaled(convolution: Convolution, factor: Floats, scale_error: float) -> Convolution | None:
    """The kernel times `factor`, or None where a product leaves the range in which its error is relative."""
    with np.errstate(over="ignore", under="ignore"):
        kernel = convolution.kernel * factor
    exact_zero = (convolution.kernel == 0) | (factor == 0)
    if not np.isfinite(kernel).all() or not (exact_zero | (np.abs(kernel) >= SAFE_FROM_UNDERFLOW)).all():
        return None
    return convolution.with_kernel(kernel, weight_error=_folded_error(convolution, scale_error))
