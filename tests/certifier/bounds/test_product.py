"""The product bound over graphs: paths are added up, branches counted, readouts never above the whole."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from certifier.documents import CertifyOptions
from certifier.errors import NotProved
from tests.building import Model, certify_model, single


def _generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _matrix(generator: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    return single(generator.standard_normal((rows, columns)))


@pytest.mark.parametrize("seed", range(3))
def test_linear_branches_are_added_up_before_the_norm(seed):
    """x A + x B - x C is one linear map, however the graph writes it."""
    generator = _generator(seed)
    matrices = [_matrix(generator, 4, 5) for _ in range(3)]
    model = Model(5)
    ways = [model.add("MatMul", "x", matrix.T) for matrix in matrices]
    model.add("Sub", model.add("Add", ways[0], ways[1]), ways[2])
    truth = np.linalg.norm(matrices[0] + matrices[1] - matrices[2], 2)
    assert truth * (1 - 1e-13) <= certify_model(model).certificate.lipschitz.upper <= truth * (1 + 1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_concatenated_branches_are_stacked(seed):
    """[A; B] x, at most the root of the sum of squares of the norms."""
    generator = _generator(seed)
    first, second = _matrix(generator, 3, 5), _matrix(generator, 4, 5)
    model = Model(5)
    parts = [model.add("MatMul", "x", first.T), model.add("MatMul", "x", second.T)]
    model.add("Concat", *parts, axis=1)
    truth = np.linalg.norm(np.concatenate([first, second]), 2)
    upper = certify_model(model).certificate.lipschitz.upper
    apart = np.hypot(np.linalg.norm(first, 2), np.linalg.norm(second, 2))
    assert truth * (1 - 1e-13) <= upper <= apart * (1 + 1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_a_sum_of_nonlinear_branches_is_at_most_the_sum_of_their_constants(seed):
    """And at least what one branch reaches alone."""
    generator = _generator(seed)
    first, second = _matrix(generator, 4, 5), _matrix(generator, 4, 5)
    model = Model(5)
    ways = [
        model.add("Relu", model.add("MatMul", "x", first.T)),
        model.add("Neg", model.add("Relu", model.add("MatMul", "x", second.T))),
    ]
    model.add("Add", *ways)
    upper = certify_model(model).certificate.lipschitz.upper
    assert upper <= (np.linalg.norm(first, 2) + np.linalg.norm(second, 2)) * (1 + 1e-8)
    # Where the first branch is active and the second dead the network is the first, and where both are, the difference.
    assert upper >= np.linalg.norm(first - second, 2) * (1 - 1e-12)


def test_adding_a_value_to_itself_doubles_its_constant():
    model = Model(3)
    hidden = model.then("Relu")
    model.add("Add", hidden, hidden)
    assert 2.0 <= certify_model(model).certificate.lipschitz.upper <= 2.0 * (1 + 1e-9)


def test_many_paths_fall_back_to_the_stepwise_bound():
    """2^7 paths double the input seven times."""
    model = Model(2)
    value = model.then("Relu")
    for _ in range(7):
        value = model.add("Add", value, value)
    assert 128.0 <= certify_model(model).certificate.lipschitz.upper <= 128.0 * (1 + 1e-9)


def test_a_product_that_overflows_is_refused():
    """An infinite bound is none."""
    model = Model(2)
    value = model.then("Relu")
    for _ in range(1100):
        value = model.add("Add", value, value)
    with pytest.raises(NotProved):
        certify_model(model, options=CertifyOptions(task="regression"))


@pytest.mark.parametrize("last", ["Relu", "Abs", "LeakyRelu"])
def test_pairs_behind_an_activation_add_both_outputs(last):
    """h_t - h_j is bounded by s L_t + s L_j, not by the constant of y_t - y_j: ReLU may cut one of them off."""
    model = Model(2)
    model.linear([[1.0, 0.0], [1.0, 0.25], [0.0, 1.0]])
    model.then(last)
    certificate = certify_model(model).certificate
    reference = model.reference()
    assert certificate.pairs is not None
    points = np.random.default_rng(0).standard_normal((200, 2)) * 0.5
    values = reference(points)
    for t, j in combinations(range(3), 2):
        gaps = values[:, t] - values[:, j]
        for first, second in combinations(range(0, 200, 7), 2):
            moved = np.linalg.norm(points[first] - points[second])
            assert abs(gaps[first] - gaps[second]) <= certificate.pairs[t][j] * moved * (1 + 1e-12)


def test_readouts_never_exceed_what_the_whole_vector_allows():
    generator = _generator(0)
    model = Model(6)
    model.linear(_matrix(generator, 8, 6))
    model.then("Relu")
    model.linear(_matrix(generator, 5, 8))
    certificate = certify_model(model).certificate
    upper = certificate.lipschitz.upper
    assert certificate.outputs is not None and certificate.pairs is not None
    assert max(certificate.outputs) <= upper
    assert np.max(certificate.pairs) <= upper * np.sqrt(2) * (1 + 1e-12)
    assert np.all(np.diag(certificate.pairs) == 0)


@pytest.mark.parametrize("classes", [64, 65, 150])
def test_pairs_of_many_classes_agree_with_the_rows_differences(classes):
    """Beyond 64 classes they are linked, not inlined; beyond 128 they come from a Gram matrix."""
    from certifier.packing import unpack_constants

    weights = _matrix(_generator(0), classes, 4)
    model = Model(4)
    model.linear(weights)
    certified = certify_model(model)
    assert (certified.certificate.pairs is None) == (classes > 64)
    pairs = unpack_constants(certified.constants)[0].pairs
    assert pairs is not None
    truth = np.linalg.norm(weights[:, None] - weights[None], axis=2)
    assert (pairs >= truth * (1 - 1e-13)).all() and (pairs <= truth * (1 + 1e-5) + 1e-6).all()


def test_nearly_equal_rows_of_many_classes_keep_a_positive_pair_constant():
    """Where d² = G_tt + G_jj - 2 G_tj cancels altogether."""
    from certifier.packing import unpack_constants

    weights = np.ones((150, 4)) * 1.5
    weights[1, 0] += 2.0**-23
    model = Model(4)
    model.linear(weights)
    pairs = unpack_constants(certify_model(model).constants)[0].pairs
    assert pairs is not None and pairs[0, 1] >= 2.0**-23 and pairs[2, 3] >= 0
