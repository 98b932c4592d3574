"""Proved norms of matrices lie above a 60-digit reference, and close to it."""

import tracemalloc
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certifier.proof import gram
from certifier.proof.dense import GramProof, fallback_norm_upper
from certifier.proof.gram import grams, magnitude_norm_upper


def reference(matrix: np.ndarray) -> Any:
    """‖matrix‖₂ from below, to far more digits than float64: the exact Rayleigh quotient of a singular vector.

    Its relative distance from the norm is the square of the vector's error (about 1e-13); the quotient itself is
    evaluated with 60 digits.
    """
    vector = np.linalg.svd(matrix)[2][0]
    with mpmath.workdps(60):
        v = [mpmath.mpf(float(x)) for x in vector]
        image = [mpmath.fdot(zip(map(float, row), v, strict=True)) for row in matrix]
        return mpmath.norm(image, 2) / mpmath.norm(v, 2)


def proved(matrix: np.ndarray, entry_error: np.ndarray | None) -> float:
    proof = GramProof(matrix, entry_error)
    if not proof.needs_search:
        return proof.fallback_upper
    mu = float(np.linalg.eigvalsh(proof.gram)[-1])
    if entry_error is not None:
        mu = (np.sqrt(mu) + proof.distance) ** 2
    assert proof.prove(mu * (1 + 1e-9))
    return proof.norm_upper_from_mu(mu * (1 + 1e-9))


SHAPES = [(1, 1), (1, 9), (9, 1), (2, 2), (3, 50), (50, 3), (31, 33), (33, 31), (64, 64), (64, 20)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("exponent", [0, -660, 900])
def test_bound_is_above_the_reference_and_close(shape: tuple[int, int], exponent: int) -> None:
    matrix = np.random.default_rng(shape[0]).standard_normal(shape)
    scaled = np.ldexp(matrix, exponent)
    bound = proved(scaled, None)
    with mpmath.workdps(60):
        exact = mpmath.ldexp(reference(matrix), exponent)
        assert exact <= mpmath.mpf(bound) <= exact * (1 + mpmath.mpf("1e-8"))
        assert mpmath.mpf(fallback_norm_upper(scaled, None)) >= exact


def test_reference_agrees_with_an_independent_singular_value_decomposition() -> None:
    matrix = np.random.default_rng(5).standard_normal((9, 7))
    with mpmath.workdps(60):
        largest = mpmath.svd_r(mpmath.matrix(matrix.tolist()), compute_uv=False)[0]
        assert abs(largest - reference(matrix)) < mpmath.mpf("1e-24") * largest
        assert largest <= mpmath.mpf(proved(matrix, None)) <= largest * (1 + mpmath.mpf("1e-8"))


@pytest.mark.parametrize("entries", [1, 7, 40, 2**22])
@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (1, 40), (40, 1), (3, 4, 6), (2, 6, 4)])
def test_norms_of_magnitudes_are_the_same_in_blocks_of_any_size(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], entries: int
) -> None:
    monkeypatch.setattr(gram, "_BLOCK_ENTRIES", entries)
    stack = np.random.default_rng(entries).standard_normal(shape)
    for found, matrix in zip(np.atleast_1d(magnitude_norm_upper(stack)), stack.reshape(-1, *shape[-2:]), strict=True):
        exact = [[abs(Fraction(float(entry))) for entry in row] for row in matrix]
        frobenius = sum(entry**2 for row in exact for entry in row)
        schur = max(map(sum, exact)) * max(map(sum, zip(*exact, strict=True)))
        squared = Fraction(float(found)) ** 2
        assert min(frobenius, schur) <= squared <= min(frobenius, schur) * (1 + Fraction(1, 10**12))


def test_a_proof_makes_one_copy_of_a_large_matrix() -> None:
    """The scaled one; masks and magnitudes on the way are formed block by block."""
    matrix = np.random.default_rng(0).standard_normal((256, 40_000))
    tracemalloc.start()
    try:
        GramProof(matrix, None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.6 * matrix.nbytes + 4 * 8 * 2**22


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(512, 512), (512, 300), (256, 2048)])
def test_bound_is_above_the_reference_and_close_for_large_matrices(shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(0).standard_normal(shape)
    bound = mpmath.mpf(proved(matrix, None))
    exact = reference(matrix)
    assert exact <= bound <= exact * (1 + mpmath.mpf("1e-8"))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 40), st.sampled_from([1e-3, 1e-9, 1e-12]))
def test_nothing_below_the_norm_is_proved(seed: int, rows: int, columns: int, gap: float) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((rows, columns)) * np.exp(3 * rng.standard_normal((rows, 1)))
    proof = GramProof(matrix, None)
    exact = reference(matrix)
    below = float(mpmath.ldexp(exact, -proof.exponent)) * (1 - gap)
    assert not proof.prove(below * below)
    assert proof.fallback_upper >= exact
    assert fallback_norm_upper(matrix, None) >= exact


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1e-14, 1e-7, 0.1]))
def test_bound_covers_the_worst_matrix_within_the_entry_error(seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((12, 17))
    error = size * rng.random(matrix.shape)
    left, _, right = np.linalg.svd(matrix)
    bounds = [proved(matrix, error), fallback_norm_upper(matrix, error), GramProof(matrix, error).fallback_upper]
    for other in (matrix + error * np.sign(np.outer(left[:, 0], right[0])), matrix - error, matrix + error):
        assert min(bounds) >= np.linalg.norm(other, 2)
    assert bounds[0] <= (np.linalg.norm(matrix, 2) + np.linalg.norm(error, "fro")) * (1 + 1e-8)


def test_an_entry_error_is_not_ignored() -> None:
    proof = GramProof(np.ones((4, 5)), np.full((4, 5), 0.1))
    top = float(np.linalg.eigvalsh(proof.gram)[-1])
    assert not proof.prove(1.09**2 * top)
    assert proof.prove(1.11**2 * top)


def test_rounding_of_the_gram_matrix_is_not_ignored() -> None:
    """1 + k·2^-54 in floating point loses summands, more than the slack of a factorisation of order one."""
    length = 2**20
    row = np.full((1, length), 2.0**-27)
    row[0, :64] = 1.0
    proof = GramProof(row, None)
    computed = Fraction(float(proof.gram[0, 0])) * Fraction(4) ** proof.exponent
    exact = 64 + (length - 64) * Fraction(1, 2**54)
    mu = float(proof.gram[0, 0]) * (1 + 2.0**-46)
    assert computed * (1 + Fraction(1, 2**46)) < exact
    assert not proof.prove(mu)


def test_flushed_weights_are_not_taken_for_zeros() -> None:
    torch = pytest.importorskip("torch")
    if not torch.set_flush_denormal(True):
        pytest.skip("the processor cannot flush to zero")
    try:
        matrix = np.full((4, 4), 1e-310)
        proof = GramProof(matrix, None)
        proved_small = proof.prove(1e-3)
        bounds = [proof.fallback_upper, fallback_norm_upper(matrix, None)]
    finally:
        torch.set_flush_denormal(False)
    assert not proved_small
    assert min(bounds) >= 4e-310


@pytest.mark.parametrize("value", [5e-324, 1e-310, 1e-300, 1e-200, 1e-160, 1e150, 1e300])
@pytest.mark.parametrize("shape", [(1, 3), (3, 1), (4, 4), (40, 35)])
def test_extreme_weights_have_a_positive_bound(value: float, shape: tuple[int, int]) -> None:
    matrix = np.full(shape, value)
    bound, fallback = proved_or_fallback(matrix), fallback_norm_upper(matrix, None)
    with mpmath.workdps(30):
        exact = mpmath.mpf(value) * mpmath.sqrt(matrix.size)
        assert mpmath.mpf(bound) >= exact
        assert mpmath.mpf(fallback) >= exact
        if 1e-290 < value:
            assert mpmath.mpf(bound) <= exact * (1 + mpmath.mpf("1e-8"))


def proved_or_fallback(matrix: np.ndarray) -> float:
    proof = GramProof(matrix, None)
    mu = float(np.linalg.eigvalsh(proof.gram)[-1]) * (1 + 1e-9)
    return proof.norm_upper_from_mu(mu) if proof.prove(mu) else proof.fallback_upper


def test_zero_and_empty_matrices() -> None:
    for shape in ((3, 4), (1, 2), (0, 4), (4, 0)):
        proof = GramProof(np.zeros(shape), None)
        assert proof.prove(0.0) and proof.norm_upper_from_mu(0.0) == proof.fallback_upper == 0
        assert fallback_norm_upper(np.zeros(shape), None) == 0
        assert not proof.needs_search
    error = np.full((3, 3), 1e-200)
    proof = GramProof(np.zeros((3, 3)), error)
    assert not proof.prove(0.0)
    assert proof.fallback_upper >= 3e-200
    assert fallback_norm_upper(np.zeros((3, 3)), error) >= 3e-200


@pytest.mark.parametrize("mu", [np.nan, np.inf, -1.0, 0.0])
def test_no_nonsense_is_proved(mu: float) -> None:
    assert not GramProof(np.eye(3), None).prove(mu)


def test_bad_input_is_refused() -> None:
    for matrix, error in (
        (np.array([[np.nan]]), None),
        (np.array([[np.inf]]), None),
        (np.ones(3), None),
        (np.ones((2, 2)), np.ones(2)),
        (np.ones((2, 2)), -np.ones((2, 2))),
        (np.ones((2, 2)), np.full((2, 2), np.nan)),
    ):
        for call in (GramProof, fallback_norm_upper):
            with pytest.raises(ValueError, match=r"finite|shape"):
                call(matrix, error)


def test_the_factor_serves_inverse_iteration() -> None:
    matrix = np.random.default_rng(3).standard_normal((40, 60))
    proof = GramProof(matrix, None)
    top = np.linalg.eigvalsh(proof.gram)[-1]
    factor = proof.proved_factor(top * (1 + 1e-6))
    assert factor is not None
    vector = factor.solve(factor.solve(np.ones(40)))
    vector /= np.linalg.norm(vector)
    assert abs(vector @ proof.gram @ vector - top) < 1e-10 * top


@pytest.mark.parametrize("order", [3, 31, 32, 40, 300])
@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("tall", [False, True])
def test_gram_matrices_are_within_their_error(order: int, is_complex: bool, tall: bool) -> None:
    rng = np.random.default_rng(order)
    shape = (2, order + 5, order) if tall else (2, order, order + 5)
    # Integers of ten bits: float64 products and sums of these are exact, so NumPy gives the truth to compare with.
    stack = rng.integers(-1000, 1000, shape).astype(np.float64)
    if is_complex:
        stack = stack + 1j * rng.integers(-1000, 1000, shape)
    adjoint = np.conj(np.swapaxes(stack, 1, 2))
    exact = adjoint @ stack if tall else stack @ adjoint
    result, errors = grams(stack)
    assert (result == np.conj(np.swapaxes(result, 1, 2))).all()
    assert (result == exact).all()
    assert (errors > 0).all() and (errors <= 1e-9 * np.linalg.norm(exact, axis=(1, 2))).all()


def test_gram_error_covers_the_rounding() -> None:
    stack = np.random.default_rng(0).standard_normal((1, 4, 1000)) + 1j
    result, errors = grams(stack)
    with mpmath.workdps(40):
        worst = mpmath.mpf(0)
        for i in range(4):
            for j in range(4):
                left, right = ([mpmath.mpc(complex(v)) for v in stack[0, k]] for k in (i, j))
                exact = mpmath.fdot(left, right, conjugate=True)
                worst += abs(exact - mpmath.mpc(complex(result[0, i, j]))) ** 2
        assert 0 < mpmath.sqrt(worst) <= mpmath.mpf(float(errors[0]))
