"""Quadratic forms over joint states: what is proved holds for sampled differences, what is false is refused."""

from __future__ import annotations

import numpy as np
import pytest

from certifier.proof.multipliers import (
    LinearMap,
    implies,
    output_uppers,
    pair_uppers,
    readout_holds,
    through_norm,
    through_slopes,
    whole_upper_holds,
)

INTERVALS = [(0.0, 1.0), (-0.2, 1.1), (0.25, 1.0), (-1.0, 1.0), (-1.0, -0.5), (0.5, 2.0)]


def _map(generator: np.random.Generator, rows: int, columns: int, distance: float = 0.0) -> LinearMap:
    return LinearMap(matrix=generator.normal(size=(rows, columns)) / np.sqrt(columns), distance=distance)


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("seed", range(4))
def test_what_the_slopes_allow_never_exceeds_the_form_before(interval: tuple[float, float], seed: int) -> None:
    """Δ(s, h)ᵀ X Δ(s, h) <= Δsᵀ N Δs for every Δh whose slopes lie in the interval: the multipliers' term is >= 0."""
    generator = np.random.default_rng(seed)
    read = _map(generator, 5, 4)
    lower, upper = np.full(5, interval[0]), np.full(5, interval[1])
    multipliers = generator.uniform(0.0, 2.0, size=5)
    form = through_slopes(np.eye(4), read, lower=lower, upper=upper, multipliers=multipliers)
    state = generator.normal(size=(4000, 4))
    slopes = generator.choice([0.0, 1.0, 0.5], size=(4000, 5)) * (upper - lower) + lower
    joint = np.concatenate([state, slopes * (state @ read.matrix.T)], axis=1)
    reached = np.einsum("bi,ij,bj->b", joint, form.values, joint)
    before = (state**2).sum(axis=1)
    assert (reached <= before + form.error * (joint**2).sum(axis=1) + 1e-12).all()
    # At the ends of the interval the term vanishes, so that nothing is given away.
    ends = np.concatenate([state, upper * (state @ read.matrix.T)], axis=1)
    np.testing.assert_allclose(np.einsum("bi,ij,bj->b", ends, form.values, ends), before, atol=1e-11)


def test_a_stretch_is_bounded_by_its_constant() -> None:
    generator = np.random.default_rng(0)
    read = _map(generator, 5, 4)
    form = through_norm(np.eye(4), read, constant=1.5, multiplier=0.3, size=3)
    state, moves = generator.normal(size=(1000, 4)), generator.normal(size=(1000, 3))
    moves *= (1.5 * np.linalg.norm(state @ read.matrix.T, axis=1) / np.linalg.norm(moves, axis=1))[:, None]
    joint = np.concatenate([state, moves], axis=1)
    np.testing.assert_allclose(np.einsum("bi,ij,bj->b", joint, form.values, joint), (state**2).sum(axis=1), atol=1e-11)


@pytest.mark.parametrize("family", ["slopes", "relu", "norm"])
def test_the_error_covers_exact_maps_within_the_distance(family: str) -> None:
    """The form of any C with ‖C - M‖ <= distance differs from the computed one by at most the error."""
    generator = np.random.default_rng(1)
    distance = 1e-3
    near = _map(generator, 6, 5, distance)
    exact = _form(family, LinearMap(matrix=near.matrix, distance=0.0))
    assert 0.0 < exact.error < 1e-12
    computed = _form(family, near)
    for _ in range(50):
        move = generator.normal(size=(6, 5))
        move *= distance / np.linalg.norm(move, 2)
        other = _form(family, LinearMap(matrix=near.matrix + move, distance=0.0))
        assert np.linalg.norm(other.values - computed.values, 2) <= computed.error
    assert computed.error <= 20 * distance


def _form(family: str, read: LinearMap):
    if family == "norm":
        return through_norm(np.eye(5), read, constant=1.2, multiplier=0.4, size=3)
    lower, upper = (0.0, 1.0) if family == "relu" else (-0.2, 1.1)
    slopes = {"lower": np.full(6, lower), "upper": np.full(6, upper), "multipliers": np.linspace(0.1, 0.6, 6)}
    return through_slopes(np.eye(5), read, **slopes)


def test_an_exact_schur_complement_is_the_edge_of_what_follows() -> None:
    generator = np.random.default_rng(2)
    read = _map(generator, 6, 5)
    form = through_slopes(np.eye(5), read, lower=np.zeros(6), upper=np.ones(6), multipliers=np.full(6, 0.5))
    x = form.values
    schur = x[5:, 5:] - x[5:, :5] @ np.linalg.solve(x[:5, :5], x[:5, 5:])
    schur = (schur + schur.T) / 2
    kept = np.arange(5, 11)
    assert implies(form, schur * (1 - 1e-9), kept)
    assert not implies(form, schur * (1 + 1e-9), kept)
    assert not implies(form, np.full((6, 6), np.nan), kept)
    lopsided = schur * 0.5
    lopsided[0, 1] += 1e-6
    assert not implies(form, lopsided, kept)


@pytest.mark.parametrize("kept", [[0, 0], [-1, 1], [4, 11]])
def test_positions_that_are_none_are_refused(kept: list[int]) -> None:
    form = through_slopes(
        np.eye(5), LinearMap(matrix=np.ones((6, 5)), distance=0.0), lower=np.zeros(6), upper=np.ones(6),
        multipliers=np.full(6, 0.01),
    )  # fmt: skip
    with pytest.raises(ValueError, match="positions"):
        implies(form, np.eye(2), np.array(kept))


@pytest.mark.parametrize("value", [-1e-9, np.nan, np.inf])
def test_multipliers_have_to_be_non_negative_numbers(value: float) -> None:
    read = LinearMap(matrix=np.ones((2, 2)), distance=0.0)
    with pytest.raises(ValueError, match="multipliers"):
        through_slopes(np.eye(2), read, lower=np.zeros(2), upper=np.ones(2), multipliers=np.array([0.1, value]))
    with pytest.raises(ValueError, match="multipliers"):
        through_norm(np.eye(2), read, constant=1.0, multiplier=value, size=2)


@pytest.mark.parametrize("matrix", [np.full((2, 2), value) for value in (2.0**101, 1e200, np.nan, np.inf)])
def test_numbers_out_of_range_prove_nothing(matrix: np.ndarray) -> None:
    form = through_slopes(
        np.eye(2), LinearMap(matrix=matrix, distance=0.0), lower=np.zeros(2), upper=np.ones(2),
        multipliers=np.full(2, 0.1),
    )  # fmt: skip
    assert not np.isfinite(form.error)
    assert not implies(form, np.full((1, 1), 1e-30), np.array([3]))
    far = LinearMap(matrix=np.eye(2), distance=np.inf)
    form = through_slopes(np.eye(2), far, lower=np.zeros(2), upper=np.ones(2), multipliers=np.full(2, 0.1))
    assert not implies(form, np.full((1, 1), 1e-30), np.array([3]))
    assert not readout_holds(np.eye(2), far, 10.0 * np.eye(2))


def test_a_readout_below_the_truth_is_refused() -> None:
    generator = np.random.default_rng(3)
    read = _map(generator, 3, 6)
    square = read.matrix @ read.matrix.T
    square = (square + square.T) / 2
    assert readout_holds(np.eye(6), read, square * (1 + 1e-9))
    assert not readout_holds(np.eye(6), read, square * (1 - 1e-9))
    apart = LinearMap(matrix=read.matrix, distance=1e-3)
    assert not readout_holds(np.eye(6), apart, square * (1 + 1e-9))
    assert readout_holds(np.eye(6), apart, square + 1e-2 * np.eye(3))


def test_constants_of_a_form_round_up_and_survive_cancellation() -> None:
    """Two outputs that move together: Q_tt + Q_jj - 2 Q_tj cancels to nothing in floating point."""
    tiny = 2.0**-52
    q = np.array([[1.0, 1.0, 0.5], [1.0, 1.0 + tiny, 0.5], [0.5, 0.5, 2.0]])
    pairs = pair_uppers(q)
    assert pairs[0, 1] ** 2 >= tiny
    assert pairs[0, 1] <= 1e-7
    assert np.diagonal(pairs).tolist() == [0.0, 0.0, 0.0]
    np.testing.assert_array_equal(pairs, pairs.T)
    assert pairs[0, 2] >= np.sqrt(2.0)
    np.testing.assert_allclose(pairs[0, 2], np.sqrt(2.0), rtol=1e-14)
    assert (output_uppers(q) ** 2 >= np.diagonal(q)).all()
    largest = np.linalg.eigvalsh(q)[-1]
    assert whole_upper_holds(q, largest * (1 + 1e-12))
    assert not whole_upper_holds(q, largest * (1 - 1e-12))
