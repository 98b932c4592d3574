"""The primitive says yes only to matrices that exact arithmetic finds semidefinite, with room for the error."""

from fractions import Fraction

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from certifier.proof.semidefinite import is_proved_psd, proved_factor, rounding_factor


def each_proved(stack: np.ndarray, errors: ArrayLike) -> NDArray[np.bool_]:
    answer = is_proved_psd(stack, errors)
    assert isinstance(answer, np.ndarray) and answer.shape == stack.shape[:-2]
    return answer


def is_semidefinite(matrix: list[list[Fraction]]) -> bool:
    """Decided exactly, by symmetric elimination."""
    rows = [list(row) for row in matrix]
    for j in range(len(rows)):
        pivot = rows[j][j]
        if pivot < 0 or (pivot == 0 and any(rows[j][k] for k in range(j, len(rows)))):
            return False
        if pivot == 0:
            continue
        for i in range(j + 1, len(rows)):
            ratio = rows[i][j] / pivot
            for k in range(j, len(rows)):
                rows[i][k] -= ratio * rows[j][k]
    return True


def less(matrix: np.ndarray, error: float) -> list[list[Fraction]]:
    """matrix - error·I, Hermitian ones embedded as [[Re, -Im], [Im, Re]]."""
    re, im = np.real(matrix), np.imag(matrix)
    real = np.block([[re, -im], [im, re]]) if np.iscomplexobj(matrix) else matrix
    exact = [[Fraction(float(v)) for v in row] for row in real]
    for j, row in enumerate(exact):
        row[j] -= Fraction(error)
    return exact


def gram(rng: np.random.Generator, order: int, is_complex: bool) -> np.ndarray:
    x = rng.standard_normal((order, order + 2))
    x = x + 1j * rng.standard_normal(x.shape) if is_complex else x
    product = x @ np.conj(x.T)
    return np.tril(product, -1) + np.conj(np.tril(product, -1).T) + np.diag(np.diagonal(product).real)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.booleans(), st.integers(-60, 60))
def test_yes_is_always_true_near_the_boundary(seed: int, order: int, is_complex: bool, ulps: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = gram(rng, order, is_complex)
    smallest = float(np.linalg.eigvalsh(matrix)[0])
    error = max(smallest + ulps * 2.0**-53 * float(np.trace(matrix).real), 0.0)
    stack = np.stack([matrix] * 6)
    answers = [is_proved_psd(matrix, error), *each_proved(stack, error)]
    if any(answers):
        assert is_semidefinite(less(matrix, error))


@pytest.mark.parametrize("order", [1, 2, 5, 16, 17, 40, 100])
@pytest.mark.parametrize("is_complex", [False, True])
def test_boundary_is_met_within_the_stated_slack(order: int, is_complex: bool) -> None:
    matrix = gram(np.random.default_rng(order), order, is_complex)
    values = np.linalg.eigvalsh(matrix)
    slack = 3 * rounding_factor(order, is_complex) * values.sum()
    stack = np.stack([matrix] * 7)
    assert is_proved_psd(matrix, values[0] - slack) is True
    assert each_proved(stack, values[0] - slack).all()
    assert is_proved_psd(matrix, values[0] + slack) is False
    below = matrix - (values[0] + slack) * np.eye(order)
    assert not is_proved_psd(below, 0.0)
    assert not each_proved(np.stack([below] * 7), 0.0).any()


@pytest.mark.parametrize("order", [2, 6, 20])
def test_an_eigenvalue_just_below_zero_is_refused(order: int) -> None:
    """Hilbert-like integer matrices whose exact elimination has one negative pivot, the last, of size 2^-40."""
    rng = np.random.default_rng(order)
    lower = np.tril(rng.integers(-2, 3, (order, order)), -1) + np.eye(order)
    exact = lower @ lower.T
    exact[-1, -1] -= 1 + 2.0**-40
    assert not is_semidefinite(less(exact, 0.0))
    assert is_proved_psd(exact, 0.0) is False
    assert not each_proved(np.stack([exact] * 8), 0.0).any()


@pytest.mark.parametrize("order", [1, 3, 20])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_nothing_that_is_not_finite_passes(order: int, bad: float, dtype: type) -> None:
    for place in {(0, 0), (order - 1, 0), (order - 1, order - 1)}:
        matrix = np.eye(order, dtype=dtype) * 4
        matrix[place] = matrix[place[::-1]] = bad
        assert is_proved_psd(matrix, 0.0) is False
        batch = np.stack([np.eye(order, dtype=dtype)] * 6 + [matrix])
        assert each_proved(batch, 0.0).tolist() == [True] * 6 + [False]
    if bad != -np.inf:
        assert is_proved_psd(np.eye(order, dtype=dtype), bad) is False


def completes(matrix: np.ndarray) -> bool:
    try:
        scipy.linalg.cholesky(matrix, lower=True)
    except np.linalg.LinAlgError:
        return False
    return True


def test_completed_cholesky_alone_would_be_unsound() -> None:
    """Singular matrices, rounded: some are indefinite by a last bit, and plain Cholesky completes on them."""
    rng = np.random.default_rng(7)
    completed = 0
    for _ in range(300):
        x = rng.standard_normal((4, 3))
        matrix = x @ x.T
        matrix = np.tril(matrix) + np.tril(matrix, -1).T
        if is_semidefinite(less(matrix, 0.0)):
            continue
        assert not is_proved_psd(matrix, 0.0)
        assert not np.any(each_proved(np.stack([matrix] * 6), 0.0))
        completed += completes(matrix)
    assert completed > 10


def test_a_large_batch_with_one_failure_loses_only_that_one() -> None:
    for order in (3, 20):
        batch = np.stack([np.eye(order)] * 50)
        batch[17, 1, 0] = batch[17, 0, 1] = 1.5
        assert np.flatnonzero(~each_proved(batch, 0.0)).tolist() == [17]


def test_asymmetry_is_refused() -> None:
    for order in (2, 20, 300):
        matrix = np.eye(order)
        matrix[-1, 0] = 1e-30
        assert is_proved_psd(matrix, 0.0) is False
        assert is_proved_psd(matrix.T.copy(), 0.0) is False
    hermitian = np.array([[2, 1j], [1j, 2]])
    assert is_proved_psd(hermitian, 0.0) is False
    assert is_proved_psd(np.array([[2 + 1e-20j, 0], [0, 2]]), 0.0) is False


def test_an_entrywise_error_is_not_a_spectral_one() -> None:
    """A - I/5 has margin 1e-5 above an entrywise error of 1e-6, and the all-ones error of that size breaks it."""
    order, entry = 100, 1e-6
    matrix = (np.eye(order) * 1e-5).astype(np.float64)
    broken = matrix - entry * np.ones((order, order))
    assert np.linalg.eigvalsh(broken)[0] < 0
    assert is_proved_psd(matrix, entry)
    assert not is_proved_psd(matrix, entry * order)
    assert not is_proved_psd(broken, 0.0)


def test_zero_and_negative_diagonals_are_refused_and_order_zero_is_vacuous() -> None:
    assert is_proved_psd(np.zeros((1, 1)), 0.0) is False
    assert is_proved_psd(np.diag([1.0, 0.0]), 0.0) is False
    assert is_proved_psd(np.diag([1.0, -1.0]), 0.0) is False
    assert is_proved_psd(np.zeros((0, 0)), 3.0) is True
    assert is_proved_psd(np.zeros((0, 0)), np.nan) is False
    assert each_proved(np.zeros((4, 0, 0)), 0.0).tolist() == [True] * 4
    assert each_proved(np.zeros((0, 3, 3)), 0.0).shape == (0,)


def test_wild_scales_are_decided() -> None:
    scale = np.array([1e-10, 1e10, 1.0, 1e-140])
    matrix = (np.eye(4) + 0.2 * (1 - np.eye(4))) * np.outer(scale, scale)
    matrix = np.tril(matrix) + np.tril(matrix, -1).T
    assert is_proved_psd(matrix, 0.0)
    assert each_proved(np.stack([matrix] * 6), 1e-290).all()
    assert not is_proved_psd(matrix, 1e-270)
    assert not is_proved_psd(np.diag([1e-310, 1.0]), 0.0)


def test_batches_keep_their_shape_and_broadcast_their_errors() -> None:
    batch = np.broadcast_to(np.eye(3), (2, 5, 3, 3))
    errors = np.linspace(0.0, 1.5, 5)
    answer = each_proved(batch, errors)
    assert answer.shape == (2, 5)
    assert answer.tolist() == [(errors < 1).tolist()] * 2


def test_misuse_is_an_error() -> None:
    for matrix, error in ((np.eye(2), -1.0), (np.eye(2, dtype=np.float32), 0.0), (np.ones((2, 3)), 0.0)):
        with pytest.raises(ValueError, match=r"negative|expected"):
            is_proved_psd(matrix, error)


def test_the_argument_is_left_alone() -> None:
    for order in (3, 30):
        matrix = np.eye(order) * 2
        before = matrix.copy()
        assert is_proved_psd(matrix, 0.5) and proved_factor(matrix, 0.5) is not None
        assert (matrix == before).all()


def test_the_factor_solves_and_is_withheld_without_a_proof() -> None:
    matrix = gram(np.random.default_rng(1), 30, False)
    factor = proved_factor(matrix, 0.0)
    assert factor is not None
    vector = np.arange(30.0)
    assert np.allclose(matrix @ factor.solve(vector), vector, rtol=1e-6, atol=1e-6)
    assert np.allclose(matrix @ factor.solve(np.eye(30)), np.eye(30), atol=1e-6)
    assert proved_factor(matrix - 100 * np.eye(30), 0.0) is None
