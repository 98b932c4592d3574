"""Random networks through the real `certify`: no stretch above a constant, no flip inside a radius.

The networks are evaluated in float64 by the reference implementation of the standard, which shares no code with the
library.
"""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings

from certifier import paths
from certifier.certification import CertifiedModel
from certifier.documents import CertifyOptions
from certifier.proof import readout, structure
from tests.building import REAL, Model, Reference, certify_model, predictor_of, single
from tests.random_networks import image_networks, vector_networks

NOISE = 1e-12
"""Relative rounding of the float64 reference; what is tested is larger by orders of magnitude."""
POINTS = 3
STEPS = (1e-3, 0.3, 3.0)


def _stretches_are_bounded(reference: Reference, certified: CertifiedModel, points: np.ndarray) -> None:
    """Secants along the steepest directions of the vector, of every output and of every pair."""
    certificate = certified.certificate
    assert certificate.pairs is not None and certificate.outputs is not None
    lipschitz = certificate.lipschitz
    assert 0 <= lipschitz.lower <= lipschitz.upper < np.inf
    pairs = list(combinations(range(certificate.classes), 2))
    for point in points:
        jacobian = reference.jacobian(point)
        directions = [np.linalg.svd(jacobian)[2][0], *jacobian, *(jacobian[t] - jacobian[j] for t, j in pairs)]
        unit = [v / np.linalg.norm(v) for v in directions if np.linalg.norm(v) > 0]
        ends = np.array([point + sign * step * v for v in unit for step in STEPS for sign in (1, -1)])
        if not len(ends):
            continue
        here, there = reference(point[None]), reference(ends)
        change, lengths = there - here, np.linalg.norm(ends - point, axis=1)
        slack = NOISE * (1 + np.abs(here).max() + np.abs(there).max())
        assert (np.linalg.norm(change, axis=1) <= lipschitz.upper * lengths * (1 + NOISE) + slack).all()
        for k, constant in enumerate(certificate.outputs):
            assert (np.abs(change[:, k]) <= constant * lengths * (1 + NOISE) + slack).all()
        for t, j in pairs:
            gap = np.abs(change[:, t] - change[:, j])
            assert (gap <= certificate.pairs[t][j] * lengths * (1 + NOISE) + slack).all()
            assert certificate.pairs[t][j] == certificate.pairs[j][t]


def _noise(model: Model) -> float:
    """The reference rounds 1/6 of HardSwish, √(2/π) of GELU and Erf itself to single precision."""
    return 1e-6 if {operator for operator, *_ in model.nodes} & {"HardSwish", "Gelu", "Erf"} else NOISE


def _radii_hold(model: Model, reference: Reference, certified: CertifiedModel, points: np.ndarray, seed: int) -> int:
    """Gradient steps and random points inside every certified radius; returns how many radii were attacked."""
    generator = np.random.default_rng(seed)
    predictor = predictor_of(certified)
    rows = predictor.predict(points.reshape(-1, *model.row_shape), epsilon=0.25, preprocessing=None)
    attacked = 0
    for point, row in zip(points, rows, strict=True):
        clean = reference(point[None])[0]
        assert row.radius is not None and row.label is not None and row.output_bounds is not None
        ball = generator.standard_normal((8, point.size))
        ball *= 0.25 / np.linalg.norm(ball, axis=1, keepdims=True)
        reached, slack = reference(point + ball), _noise(model) * (1 + np.abs(clean).max())
        lower = np.array([interval.lower for interval in row.output_bounds.intervals])
        upper = np.array([interval.upper for interval in row.output_bounds.intervals])
        assert (reached >= lower - slack).all() and (reached <= upper + slack).all()
        assert (np.linalg.norm(reached - clean, axis=1) <= row.output_bounds.l2 + slack).all()
        if not 0 < row.radius < 1e6:
            continue
        attacked += 1
        assert row.label == int(np.argmax(clean))
        for rival in set(range(clean.size)) - {row.label}:
            current = point
            for _ in range(4):
                jacobian = reference.jacobian(current)
                downhill = jacobian[rival] - jacobian[row.label]
                if np.linalg.norm(downhill) == 0:
                    break
                moved = current + row.radius * downhill / np.linalg.norm(downhill)
                offset = moved - point
                current = point + offset * min(1.0, row.radius / max(1e-300, float(np.linalg.norm(offset))))
            logits = reference(current[None])[0]
            assert logits[row.label] - logits[rival] >= -NOISE * (1 + np.abs(logits).max())
    return attacked


def _differences_hold(model: Model, reference: Reference, certified: CertifiedModel, points: np.ndarray) -> None:
    first, second = points[:-1], points[1:]
    shape = (-1, *model.row_shape)
    comparisons = predictor_of(certified).compare(first.reshape(shape), second.reshape(shape))
    truth = np.abs(reference(first) - reference(second))
    for comparison, difference, x, y in zip(comparisons, truth, first, second, strict=True):
        slack = NOISE * (1 + difference.max())
        assert comparison.input_difference >= np.linalg.norm(x - y) * (1 - 1e-15)
        assert np.linalg.norm(difference) <= comparison.output_difference_bound + slack
        for output, gap in zip(comparison.outputs, difference, strict=True):
            assert gap <= output.bound + slack


def keeps_its_promises(model: Model, seed: int, *, options: CertifyOptions | None = None) -> int:
    """Every claim of the certificate and of the predictions, tried; returns how many radii were attacked."""
    certified = certify_model(model, options=options or REAL)
    reference = model.reference(batched=True)
    points = single(np.random.default_rng(seed).standard_normal((POINTS, int(np.prod(model.row_shape)))))
    _stretches_are_bounded(reference, certified, points)
    _differences_hold(model, reference, certified, points)
    return _radii_hold(model, reference, certified, points, seed)


@settings(max_examples=100)
@given(vector_networks(layers=6))
def test_vector_networks_keep_their_promises(example):
    model, seed = example
    keeps_its_promises(model, seed)


@settings(max_examples=55)
@given(image_networks(layers=5))
def test_image_networks_keep_their_promises(example):
    model, seed = example
    keeps_its_promises(model, seed)


@pytest.mark.slow
@settings(max_examples=600)
@given(vector_networks(layers=12))
def test_many_vector_networks_keep_their_promises(example):
    model, seed = example
    keeps_its_promises(model, seed)


@pytest.mark.slow
@settings(max_examples=400)
@given(image_networks(layers=9))
def test_many_image_networks_keep_their_promises(example):
    model, seed = example
    keeps_its_promises(model, seed)


def _plain(widths: list[int], seed: int) -> tuple[Model, list[np.ndarray]]:
    generator = np.random.default_rng(seed)
    model, weights = Model(widths[0]), []
    for fan_in, fan_out in pairwise(widths):
        weights.append(single(generator.standard_normal((fan_out, fan_in)) / np.sqrt(fan_in)))
        if len(weights) > 1:
            model.then("Relu")
        model.linear(weights[-1], single(generator.standard_normal(fan_out)))
    return model, weights


def test_radii_are_attacked_at_all():
    """The soundness tests above would pass if every radius were 0: here none is."""
    model, _ = _plain([4, 8, 3], seed=1)
    assert keeps_its_promises(model, 5) == POINTS


@pytest.mark.parametrize("seed", range(4))
def test_a_single_linear_layer_is_bounded_to_eight_digits(seed):
    """Vector, outputs and pairs; so no bound can pass by being infinite."""
    model, (weights,) = _plain([6, 4], seed)
    certificate = certify_model(model).certificate
    truth = np.linalg.norm(weights, 2)
    assert truth * (1 - 1e-14) <= certificate.lipschitz.upper <= truth * (1 + 1e-8)
    assert certificate.lipschitz.lower >= truth * (1 - 1e-6)
    assert certificate.outputs is not None and certificate.pairs is not None
    for k in range(4):
        length = np.linalg.norm(weights[k])
        assert length * (1 - 1e-14) <= certificate.outputs[k] <= length * (1 + 1e-8)
        for j in range(4):
            apart = np.linalg.norm(weights[k] - weights[j])
            assert apart * (1 - 1e-14) <= certificate.pairs[k][j] <= apart * (1 + 1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_a_plain_network_is_bounded_by_the_product_of_its_norms(seed):
    """And its pairs by the product of the norms before the last layer and the rows' difference."""
    model, weights = _plain([5, 7, 6, 4], seed)
    certificate = certify_model(model).certificate
    before = float(np.prod([np.linalg.norm(matrix, 2) for matrix in weights[:-1]]))
    assert certificate.lipschitz.upper <= before * np.linalg.norm(weights[-1], 2) * (1 + 1e-7)
    assert certificate.pairs is not None
    for t, j in combinations(range(4), 2):
        assert certificate.pairs[t][j] <= before * np.linalg.norm(weights[-1][t] - weights[-1][j]) * (1 + 1e-7)


def test_two_orthogonal_layers_keep_the_constant_one():
    """And the radius is the exact distance to the decision boundary, to eight digits."""
    generator = np.random.default_rng(0)
    model = Model(6, dtype=np.float64)
    for _ in range(2):
        orthogonal, _ = np.linalg.qr(generator.standard_normal((6, 6)))
        model.linear(orthogonal)
        model.then("Abs")
    certificate = certify_model(model).certificate
    assert 1 - 1e-14 <= certificate.lipschitz.upper <= 1 + 1e-8


def test_consecutive_linear_layers_are_bounded_as_one():
    """The product of the norms of A and A^-1 is large, their composition the identity."""
    matrix = np.array([[1.0, 64.0], [0.0, 1.0]])
    model = Model(2)
    model.linear(matrix)
    model.linear(np.array([[1.0, -64.0], [0.0, 1.0]]))
    assert 1.0 <= certify_model(model).certificate.lipschitz.upper <= 1 + 1e-8


FORCED = {
    "torus and products": {"SMALL_ORDER": 1, "LARGEST_ORDER": 1},
    "row and column sums": {"SMALL_ORDER": 1, "LARGEST_ORDER": 1, "LARGEST_MATRIX": 4},
}


@pytest.mark.parametrize("way", FORCED)
@settings(max_examples=15)
@given(example=image_networks(layers=5))
def test_the_ways_of_large_networks_hold_on_small_ones(way, example):
    """Convolutions on the torus, products of norms, Gram differences: what small maps never need, checked on them."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in FORCED[way].items():
            patch.setattr(structure, name, value)
        patch.setattr(readout, "DIRECT_DIFFERENCES", 1)
        patch.setattr(paths, "MAXIMAL_PATHS", 1)
        model, seed = example
        keeps_its_promises(model, seed)
