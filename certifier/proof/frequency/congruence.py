"""Products A Σ Aᴴ, inverses and largest eigenvalues of stacks of Hermitian matrices, each proved to be large enough."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from certifier.errors import NotProved
from certifier.proof.rounding import (
    FLOAT64,
    Float,
    add_lower,
    add_upper,
    gamma_upper,
    mul_upper,
    norm_upper,
    sum_upper,
)
from certifier.proof.semidefinite import is_proved_psd

LARGEST = 2.0**200
"""Of a norm, so that nothing overflows and what underflows can be told in advance."""
SLACKS = (1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
CHUNK_BYTES = 64 * 2**20


def congruence(factor: NDArray, matrix: NDArray, stray: float) -> tuple[NDArray, Float]:
    """(X, e) with ‖X - A Σ Aᴴ‖₂ <= e for every A within `stray` of the factor in norm; X exactly Hermitian.

    Each of the two products, of length k, errs by at most 1.5γ_2k of the product of magnitudes, so both together by at
    most 4γ_(2k+2)·|A||Σ||A|ᴴ entrywise, of norm at most 4γ_(2k+2)·‖A‖_F²‖Σ‖_F.
    Underflow: below rows·k²·2^-600 for norms up to 2^200.

    Shapes: factor (n, m, k), matrix (n, k, k), exactly Hermitian -> (n, m, m), (n,).
    Raises: NotProved for norms beyond that.
    """
    length = matrix.shape[-1]
    size, inner = sized(factor), sized(matrix)
    product = hermitian(factor @ matrix @ np.conj(np.swapaxes(factor, -1, -2)))
    rounding = mul_upper(4.0 * gamma_upper(2 * length + 2, FLOAT64), mul_upper(size, size))
    strayed = mul_upper(stray, add_upper(mul_upper(2.0, size), stray))
    underflow = float(factor.shape[-2] * length**2) * 2.0**-600
    return product, add_upper(mul_upper(add_upper(rounding, strayed), inner), underflow)


def inverse_upper(gap: NDArray) -> NDArray:
    """G ⪰ P⁻¹ for every P of the stack, with P ≻ 0; exactly Hermitian.

    Proved by the Schur complement of [[G, I], [I, P]] ⪰ 0. The guess is the computed inverse, a little enlarged.
    Raises: NotProved if some P is not positive definite, or only just.
    """
    refusal = "a multiplier is not proved to dominate the covariance that it has to"
    try:
        with np.errstate(all="ignore"):
            guess = hermitian(np.linalg.inv(gap))
    except np.linalg.LinAlgError as error:
        raise NotProved(refusal) from error
    if not np.isfinite(guess).all():
        raise NotProved(refusal)
    result = np.empty_like(guess)
    pending = np.arange(len(gap))
    for slack in SLACKS:
        result[pending] = guess[pending] * (1.0 + slack)
        proved = [_is_inverse_below(result[part], gap[part]) for part in _parts(pending, gap)]
        pending = pending[~np.concatenate(proved)]
        if not len(pending):
            return result
    raise NotProved(refusal)


def _is_inverse_below(inverse: NDArray, gap: NDArray) -> NDArray[np.bool_]:
    order = gap.shape[-1]
    whole = np.zeros((len(gap), 2 * order, 2 * order), dtype=gap.dtype)
    whole[:, :order, :order], whole[:, order:, order:] = inverse, gap
    every = np.arange(order)
    whole[:, every, order + every] = whole[:, order + every, every] = 1.0
    return np.asarray(is_proved_psd(whole, 0.0))


def largest_eigenvalue_upper(matrices: NDArray) -> float:
    """λmax <= result for every matrix of the stack: a guess that is proved, at worst the largest trace.

    Raises: NotProved for norms beyond 2^200.
    """
    sized(matrices)
    guess = float(np.max(np.linalg.eigvalsh(matrices)))
    for slack in SLACKS:
        bound = np.full(matrices.shape[-1], guess * (1.0 + slack))
        if guess > 0 and is_dominated(matrices, bound):
            return float(bound[0])
    diagonal = np.maximum(np.real(np.diagonal(matrices, axis1=1, axis2=2)), 0.0)
    return float(np.max(sum_upper(diagonal, axis=1)))


def is_dominated(matrices: NDArray, variances: Float) -> bool:
    """Whether Σ ⪯ diag(variances) is proved for the whole stack."""
    return bool(np.all(is_proved_psd(dominance_gap(matrices, variances), 0.0)))


def dominance_gap(matrices: NDArray, variances: Float) -> NDArray:
    """diag(variances) - Σ, the diagonal rounded down."""
    result = -matrices
    every = np.arange(matrices.shape[-1])
    result[:, every, every] = add_lower(np.real(result[:, every, every]), variances)
    return result


def raised_diagonal(matrices: NDArray, added: Float) -> NDArray:
    """matrices + diag(added), the diagonal rounded up. Shapes: added (channels,) or (n, 1)."""
    result = matrices.copy()
    every = np.arange(matrices.shape[-1])
    result[:, every, every] = add_upper(np.real(result[:, every, every]), added)
    return result


def hermitian(matrices: NDArray) -> NDArray:
    """The lower triangles, mirrored, with real diagonals.

    Where the errors of the entries (i, j) and (j, i) have one bound, as above, they keep it.
    """
    lower = np.tril(matrices, -1)
    result = lower + np.conj(np.swapaxes(lower, -1, -2))
    every = np.arange(matrices.shape[-1])
    result[:, every, every] = np.real(matrices[:, every, every])
    return result


def frobenius_upper(matrices: NDArray) -> Float:
    """‖·‖_F <= result of each matrix of the stack; +inf where anything is not finite."""
    parts = np.ascontiguousarray(matrices).view(np.float64)
    return np.asarray(norm_upper(parts, axis=(-2, -1)))


def sized(matrices: NDArray) -> Float:
    """`frobenius_upper`, at most 2^200.

    Raises: NotProved beyond that, and for what is not finite.
    """
    sizes = frobenius_upper(matrices)
    if not np.max(sizes, initial=0.0) <= LARGEST:
        raise NotProved("a covariance is too large for its error analysis")
    return sizes


def chunks(count: int, bytes_each: int) -> Iterator[slice]:
    """Slices of a stack whose work fits into memory."""
    step = max(1, CHUNK_BYTES // bytes_each)
    for start in range(0, count, step):
        yield slice(start, min(count, start + step))


def _parts(pending: NDArray[np.intp], matrices: NDArray) -> Iterator[NDArray[np.intp]]:
    for part in chunks(len(pending), 64 * matrices.shape[-1] ** 2):
        yield pending[part]
