"""The one primitive: A + E is positive semidefinite for every Hermitian E with ‖E‖₂ <= e.

Theorem (Demmel 1989; Rump 2006; `docs/proofs/semidefinite.md`). If Cholesky factorisation in floating
point, with the sums in any order, runs to completion on a symmetric B of order m, then

    λmin(B) >= -c·tr(B) - underflow,     c = γ_k / (1 - γ_k),  k = m + 3             (real)
                                         c = 1.5γ_k / (1 - 1.5γ_k),  k = 2m + 6      (complex Hermitian)

So with powers of two D that bring the diagonal of DAD into [1/2, 2), factor B = DAD - e·D² - shift·I with the
diagonal rounded down and shift >= c·tr(DAD) + underflow. If it completes with a finite factor, then
D(A + E)D >= DAD - e·D² >= B + shift·I >= 0. If it does not, nothing is claimed.

Arithmetic: `docs/proofs/arithmetic.md` M1, and M2 for LAPACK (reordered, blocked, fused multiply-add,
reciprocals of pivots; no Strassen, no 3M complex products, no block inverses, no emulated precision).
Reference: J. Demmel (1989) LAPACK Working Note 14; S. M. Rump (2006) BIT 46, 433-452; N. Higham (2002)
Theorem 10.3.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg.lapack import (
    dpotrf,  # pyright: ignore[reportAttributeAccessIssue]  (no stubs)
    dpotrs,  # pyright: ignore[reportAttributeAccessIssue]  (no stubs)
    zpotrf,  # pyright: ignore[reportAttributeAccessIssue]  (no stubs)
)

from certifier.proof.rounding import (
    FLOAT64,
    TINY,
    Float,
    add_lower,
    add_upper,
    exact_float64,
    float_upper,
    gamma,
    mul_upper,
    sum_upper,
)

_STACK_BYTES = 32 * 2**20  # working set of one batch of small matrices
_COLUMN_ORDER = 16  # up to here factoring a batch column by column beats one LAPACK call per matrix


@dataclass(frozen=True, kw_only=True)
class Factor:
    """L with L Lᵀ ≈ D(A - shift)D. A by-product of a proof that carries no claim of its own."""

    triangle: Float
    scale: Float

    def solve(self, vectors: Float) -> Float:
        """About (A - shift)^-1 · vectors, for inverse iteration. Shapes: (m,) or (m, n)."""
        scale = self.scale if vectors.ndim == 1 else self.scale[:, None]
        return scale * dpotrs(self.triangle, scale * vectors, lower=1)[0]


def is_proved_psd(matrix: NDArray, error_norm: ArrayLike) -> bool | NDArray[np.bool_]:
    """True only if A + E ⪰ 0 for every symmetric (Hermitian) E with ‖E‖₂ <= error_norm.

    False says nothing: it is also the answer to a matrix or error that is not finite, to a matrix that is
    not exactly symmetric, and to semidefinite matrices without slack (a zero on the diagonal, say). Order 0
    is proved.

    Shapes: matrix (..., m, m), float64 or complex128; error_norm broadcasts to (...). One bool for one
        matrix, an array of them for a stack.
    Raises: ValueError for another dtype or shape and for a negative error_norm.
    """
    matrix, error = _validated(matrix, error_norm)
    order, count = matrix.shape[-1], error.size
    stack, errors = matrix.reshape(count, order, order), error.reshape(count)
    proved = np.isfinite(errors)
    if order > 0:
        step = max(1, _STACK_BYTES // (order * order * matrix.itemsize))
        for start in range(0, count, step):
            part = slice(start, start + step)
            proved[part] = _prove_stack(stack[part], errors[part])
    return bool(proved[0]) if matrix.ndim == 2 else proved.reshape(error.shape)


def is_proved_below(stack: NDArray, errors: Float, bounds: Float) -> NDArray[np.bool_]:
    """True only where b·I - (G + E) ⪰ 0 for every Hermitian E with ‖E‖₂ <= error, for exactly Hermitian G.

    That G is Hermitian, as `grams` makes it, is taken on trust: one of its triangles is read. False says nothing.
    As `is_proved_psd` of b·I - G with D² = 2^-exponent·I, 2^exponent the power of two above b.

    Bounds outside 2^-900 … 2^900 are not proved.

    Shapes: stack (n, m, m), float64 or complex128, m >= 1; errors and bounds (n,).
    """
    order = stack.shape[-1]
    diagonal = np.real(np.diagonal(stack, axis1=1, axis2=2))
    good = np.isfinite(errors) & (errors >= 0) & (bounds >= 2.0**-900) & (bounds <= 2.0**900)
    good &= np.isfinite(diagonal).all(axis=1)
    bounds, errors = np.where(good, bounds, 1.0), np.where(good, errors, 0.0)
    scale = np.ldexp(1.0, -np.frexp(bounds)[1])
    unit = np.where(good[:, None], add_lower(bounds[:, None], -diagonal), 0.0) * scale[:, None]
    good &= (unit >= TINY).all(axis=1)
    underflow = mul_upper(np.maximum(scale, 1.0), (order + 3.0) ** 2 * 2.0**-1000)
    factor = rounding_factor(order, np.iscomplexobj(stack))
    shift = add_upper(mul_upper(sum_upper(np.maximum(unit, 0.0), axis=1), factor), underflow)
    lowered = add_lower(unit, -add_upper(mul_upper(scale, errors), shift)[:, None])
    good &= (lowered > 0).all(axis=1)
    with np.errstate(all="ignore"):
        shifted = stack * -scale[:, None, None]
    shifted[:, np.arange(order), np.arange(order)] = lowered
    if order <= _COLUMN_ORDER and len(stack) > 4:
        return good & _columns_complete(shifted, good)
    for item in np.flatnonzero(good):
        good[item] = _completed_cholesky(shifted[item]) is not None
    return good


def proved_factor(matrix: Float, error_norm: float) -> Factor | None:
    """The factor of the completed proof that A + E ⪰ 0 for all ‖E‖₂ <= error_norm, or None.

    Shapes: (m, m), float64, m >= 1. Raises: as `is_proved_psd`, and ValueError for complex matrices or m = 0.
    """
    matrix, error = _validated(matrix, error_norm)
    if matrix.ndim != 2 or matrix.dtype != np.float64 or matrix.shape[0] == 0:
        raise ValueError("proved_factor takes one real matrix of order >= 1")
    good, shifted, scale = _shifted(matrix[None], error.reshape(1))
    if not good[0]:
        return None
    triangle = _completed_cholesky(shifted[0])
    return None if triangle is None else Factor(triangle=triangle, scale=scale[0])


def _validated(matrix: NDArray, error_norm: ArrayLike) -> tuple[NDArray, Float]:
    matrix = np.asarray(matrix)
    if matrix.dtype not in (np.float64, np.complex128):
        raise ValueError(f"expected float64 or complex128, got {matrix.dtype}")
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
        raise ValueError(f"expected square matrices, got shape {matrix.shape}")
    error = np.broadcast_to(exact_float64(error_norm), matrix.shape[:-2])
    if np.any(error < 0):
        raise ValueError("error_norm is a norm and cannot be negative")
    return matrix, error


def _prove_stack(stack: NDArray, errors: Float) -> NDArray[np.bool_]:
    good, shifted, _ = _shifted(stack, errors)
    if stack.shape[-1] <= _COLUMN_ORDER and len(stack) > 4:
        return good & _columns_complete(shifted, good)
    for item in np.flatnonzero(good):
        good[item] = _completed_cholesky(shifted[item]) is not None
    return good


def rounding_factor(order: int, is_complex: bool) -> float:
    """c of the theorem above, rounded up: c·tr(B) bounds what completed Cholesky hides.

    |ΔB| <= a·|L||Lᴴ| with a = γ_(m+3), or 1.5·γ_(2m+6) >= √2·γ_(2m+6), gives ‖ΔB‖₂ <= a/(1-a)·tr(B).
    """
    backward = Fraction(3, 2) * gamma(2 * order + 6, FLOAT64) if is_complex else gamma(order + 3, FLOAT64)
    if backward >= Fraction(1, 2):
        raise ValueError(f"order {order} exceeds the error analysis")
    return float_upper(backward / (1 - backward))


def _shifted(stack: NDArray, errors: Float) -> tuple[NDArray[np.bool_], NDArray, Float]:
    """(good, B, d): where good, completed Cholesky of B = DAD - e·D² - shift proves the claim, D = diag(d).

    Scaling by powers of two is exact but for underflow: at most 2·TINY·max(1, max d²) an entry, also where a
    subnormal entry is read as zero. Together with what underflow costs the factorisation itself that is below
    (m+3)²·2^-1000·max(1, max d²) in norm.
    """
    order = stack.shape[-1]
    good = np.isfinite(errors) & np.isfinite(stack).all(axis=(1, 2)) & _is_hermitian(stack)
    diagonal = np.real(np.diagonal(stack, axis1=1, axis2=2))
    good &= (diagonal >= TINY).all(axis=1)
    diagonal = np.where(good[:, None], diagonal, 1.0)
    errors = np.where(good, errors, 0.0)
    scale = np.ldexp(1.0, -(np.frexp(diagonal)[1] >> 1))
    square = scale * scale  # at most 2^1022, exact
    unit = diagonal * square  # in [1/2, 2), exact

    underflow = mul_upper(np.maximum(square.max(axis=1), 1.0), (order + 3.0) ** 2 * 2.0**-1000)
    factor = rounding_factor(order, np.iscomplexobj(stack))
    shift = add_upper(mul_upper(sum_upper(unit, axis=1), factor), underflow)
    lowered = add_lower(unit, -add_upper(mul_upper(square, errors[:, None]), shift[:, None]))
    good &= (lowered > 0).all(axis=1)

    with np.errstate(all="ignore"):
        parts = np.ascontiguousarray(stack).view(np.float64).reshape(*stack.shape, -1)
        shifted = parts * scale[:, :, None, None]
        shifted *= scale[:, None, :, None]
    shifted = shifted.reshape(len(stack), order, -1).view(stack.dtype)
    shifted[:, np.arange(order), np.arange(order)] = lowered
    good &= np.isfinite(shifted).all(axis=(1, 2))
    return good, shifted, scale


def _is_hermitian(stack: NDArray) -> NDArray[np.bool_]:
    """Exactly, in tiles: the transpose of a large matrix read as a whole misses the cache at every entry."""
    order, tile = stack.shape[-1], 256
    equal = np.ones(len(stack), dtype=bool)
    for row in range(0, order, tile):
        for column in range(0, row + 1, tile):
            lower = stack[:, row : row + tile, column : column + tile]
            upper = stack[:, column : column + tile, row : row + tile]
            equal &= (lower == np.conj(np.swapaxes(upper, 1, 2))).all(axis=(1, 2))
    return equal


def _completed_cholesky(shifted: NDArray) -> NDArray | None:
    """The lower factor that LAPACK completed, finite throughout, or None. Overwrites its argument.

    The transpose is the conjugate of a Hermitian matrix, definite if and only if the matrix is; as a view
    it has the column order that LAPACK works on in place.
    """
    factorise = zpotrf if np.iscomplexobj(shifted) else dpotrf
    triangle, info = factorise(shifted.T, lower=1, clean=0, overwrite_a=1)
    pivots = np.real(np.diagonal(triangle))
    if info != 0 or not (pivots > 0).all() or not np.isfinite(triangle).all():
        return None
    return triangle


def _columns_complete(shifted: NDArray, good: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where Cholesky, column by column for the whole stack at once, completes with a finite factor."""
    columns = np.ascontiguousarray(np.moveaxis(shifted, 0, -1))
    complete = good.copy()
    with np.errstate(all="ignore"):
        for j in range(columns.shape[0]):
            column = columns[j:, j]
            for k in range(j):
                column -= columns[j:, k] * np.conj(columns[j, k])
            pivot = np.real(column[0])
            complete &= pivot > 0
            root = np.sqrt(np.where(complete, pivot, 1.0))
            column[0] = root
            column[1:] *= 1.0 / root
    return complete & np.isfinite(columns).all(axis=(0, 1))
