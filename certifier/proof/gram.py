"""Gram matrices with a bound on their rounding error, and the scaling that keeps them clear of underflow.

Argued in `docs/proofs/gram.md`.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import dsyrk, zherk  # pyright: ignore[reportAttributeAccessIssue]  (no stubs)

from certifier.proof.rounding import (
    FLOAT64,
    TINY,
    Float,
    add_upper,
    div_upper,
    exact_float64,
    float_lower,
    float_upper,
    gamma,
    mul_upper,
    norm_upper,
    raised,
    sqrt_upper,
    sum_upper,
    times_power_of_two,
)

_BLOCK_ENTRIES = 2**22
_BLAS_ORDER = 32  # from here one symmetric product per matrix beats a batched full product


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """|exact·2^-exponent - values| <= error + loss entrywise, exact: any matrix within the entry error."""

    values: Float
    exponent: int
    error: Float | None
    loss: float
    is_zero: bool


def scaled(values: NDArray, entry_error: NDArray | None) -> Scaled:
    """Multiply by a power of two so that the largest entry lies in [1/2, 1).

    `loss` is what underflow may take: 8·TINY·max(1, 2^-exponent), also where subnormal entries are read as
    zero. `is_zero`: every entry is exactly zero and so is its error.
    Raises: ValueError for entries that are not finite, an error that is negative, not finite or of another
        shape.
    """
    values = exact_float64(values)
    error = None if entry_error is None else exact_float64(entry_error)
    if error is not None and error.shape != values.shape:
        raise ValueError(f"entry_error has shape {error.shape}, the matrix {values.shape}")
    if not np.isfinite(values).all() or (error is not None and not (np.isfinite(error) & (error >= 0)).all()):
        raise ValueError("entries and their errors must be finite, errors non-negative")
    largest = _largest(values)
    largest = largest if largest > 0 or error is None else _largest(error)
    is_zero = largest == 0
    exponent = int(np.frexp(largest)[1])
    if error is not None:
        error = times_power_of_two(raised(error), -exponent)
    return Scaled(
        values=times_power_of_two(values, -exponent),
        exponent=exponent,
        error=error,
        loss=0.0 if is_zero else 8.0 * TINY * max(1.0, float(np.ldexp(1.0, -exponent))),
        is_zero=is_zero,
    )


def _largest(values: Float) -> float:
    # Of a matrix of millions of entries no copy is made: its magnitudes are never all there at once.
    largest = max(float(np.max(values, initial=0.0)), -float(np.min(values, initial=0.0)))
    return largest if largest >= TINY else float(np.max(raised(np.abs(values)), initial=0.0))


def magnitude_norm_upper(bound: Float) -> Float:
    """‖A‖₂ <= result for every A with |A| <= |bound|: the lesser of ‖·‖_F and sqrt(‖·‖_1 ‖·‖_∞).

    Block by block of rows and of columns, so that what is formed on the way is small beside a large matrix.
    Shapes: (..., m, n) -> (...). An empty matrix has norm 0.
    """
    if bound.shape[-1] == 0 or bound.shape[-2] == 0:
        return np.zeros(bound.shape[:-2])
    lengths = np.concatenate([norm_upper(block, axis=-1) for block in _blocks(bound, -2)], axis=-1)
    rows = [sum_upper(np.abs(block), axis=-1).max(axis=-1) for block in _blocks(bound, -2)]
    columns = [sum_upper(np.abs(block), axis=-2).max(axis=-1) for block in _blocks(bound, -1)]
    schur = mul_upper(sqrt_upper(np.max(rows, axis=0)), sqrt_upper(np.max(columns, axis=0)))
    return np.minimum(norm_upper(lengths, axis=-1), schur)


def _blocks(stack: Float, axis: int) -> list[Float]:
    """The stack in slices along one axis, views all of them."""
    count = -(-stack.size // _BLOCK_ENTRIES)
    return np.array_split(stack, min(count, stack.shape[axis]), axis=axis)


def gram_norm_upper(stack: Float, *, squarings: int) -> Float:
    """‖A‖₂ <= result, by ‖A‖₂² <= ‖G‖₂ + e for the Gram matrix G as computed, `squarings` times over.

    At most m^(2^-squarings / 2) times the norm, m the smaller side, but for rounding.
    Shapes: (n, p, q) -> (n,).
    """
    bound = magnitude_norm_upper(stack)
    if squarings == 0 or 0 in stack.shape:
        return bound
    # By a power of two to a norm of at most 1; what underflows is below 2^-1074 an entry.
    exponent = np.frexp(np.where(np.isfinite(bound), bound, 1.0))[1]
    gram, error = grams(np.ldexp(stack, -exponent[:, None, None]))
    squared = np.where(np.isfinite(error), add_upper(gram_norm_upper(gram, squarings=squarings - 1), error), np.inf)
    norm = add_upper(sqrt_upper(squared), 2.0**-1000)
    with np.errstate(over="ignore"):
        return np.minimum(bound, mul_upper(norm, np.ldexp(1.0, exponent)))


def grams(stack: NDArray) -> tuple[NDArray, Float]:
    """(G, e) with ‖G - A Aᴴ‖₂ <= e, or ‖G - Aᴴ A‖₂ <= e where A has fewer columns than rows.

    G is exactly Hermitian. e = a·‖A‖_F² + underflow with a = γ_k (real) or 1.5γ_2k (complex), k the length of
    the contraction, and ‖A‖_F² <= (tr G + underflow)/(1 - γ_2k). e is +inf where entries are too large
    (tr G > 2^40).

    Shapes: (n, p, q), float64 or complex128 -> (n, m, m), (n,) with m = min(p, q).
    """
    rows, columns = stack.shape[1:]
    order, length = min(rows, columns), max(rows, columns)
    by_rows = rows <= columns
    if order < _BLAS_ORDER:
        adjoint = np.conj(np.swapaxes(stack, 1, 2))
        result = np.matmul(stack, adjoint) if by_rows else np.matmul(adjoint, stack)
    else:
        result = np.empty((len(stack), order, order), dtype=stack.dtype)
        for item, matrix in enumerate(stack):
            result[item] = _lower_product(matrix, by_rows)
    diagonal = _mirror_lower(result)

    is_complex = np.iscomplexobj(stack)
    relative = Fraction(3, 2) * gamma(2 * length, FLOAT64) if is_complex else gamma(length, FLOAT64)
    underflow = float(order * length) * 2.0**-960
    trace = sum_upper(np.maximum(diagonal, 0.0), axis=1)
    square = div_upper(add_upper(trace, underflow), float_lower(1 - gamma(2 * length, FLOAT64)))
    error = add_upper(mul_upper(square, float_upper(relative)), underflow)
    return result, np.where(trace <= 2.0**40, error, np.inf)


def _lower_product(matrix: NDArray, by_rows: bool) -> NDArray:
    """A Aᴴ or Aᴴ A, right on and below the diagonal, without copying a row-major A.

    With a = Aᵀ column-major, BLAS forms conj(A Aᴴ) = aᴴ a or conj(Aᴴ A) = a aᴴ above the diagonal; its
    transpose is the matrix wanted.
    """
    transposed = np.ascontiguousarray(matrix).T
    if np.iscomplexobj(matrix):
        return zherk(1.0, transposed, trans=2 if by_rows else 0).T
    return dsyrk(1.0, transposed, trans=1 if by_rows else 0).T


def _mirror_lower(stack: NDArray) -> Float:
    """Make the matrices Hermitian, in place, from their lower triangles; returns the real diagonals."""
    order, tile = stack.shape[-1], 256
    every = np.arange(order)
    diagonal = np.real(stack[:, every, every]).copy()
    for row in range(0, order, tile):
        for column in range(0, row + 1, tile):
            lower = stack[:, row : row + tile, column : column + tile]
            if row == column:
                lower = np.tril(lower, -1)
                lower += np.conj(np.swapaxes(lower, 1, 2))
                stack[:, row : row + tile, column : column + tile] = lower
            else:
                stack[:, column : column + tile, row : row + tile] = np.conj(np.swapaxes(lower, 1, 2))
    stack[:, every, every] = diagonal
    return diagonal
