"""Searches are untrusted: lower bounds are attained, attacks stay inside their balls, proofs survive bad searches."""

from __future__ import annotations

import numpy as np
import pytest

from certifier.bounds.product import ProductBound
from certifier.box import Box
from certifier.limits import Limits
from certifier.network import build_network
from certifier.norms import Norms
from certifier.proof.dense import GramProof
from certifier.reading.onnx import read_onnx
from certifier.search import attack
from certifier.search.attack import affordable, attack_in_ball, probe_inputs, stretch_lower, stretch_search
from certifier.search.hints import CarriedVectors
from certifier.search.krylov import largest_eigenvalue
from certifier.search.matrices import prove_matrix_norm
from certifier.search.state import SearchState
from tests.building import SEAL, Model, single


def _prepared(model: Model):
    network = build_network(read_onnx(model.data(), limits=Limits()), limits=Limits(), cut_head=False)
    norms = Norms(state=SearchState(), seal=SEAL, carried=CarriedVectors({}), progress=lambda layer: None)
    return network, ProductBound(network, norms).gains()


def everything(size: int) -> Box:
    return Box(lower=np.full(size, -np.inf), upper=np.full(size, np.inf))


def _kinked() -> Model:
    """2x - relu(x) + relu(-x): slope 1 everywhere, though gradients at the kink may say 2."""
    model = Model(1)
    doubled = model.add("Mul", "x", np.array([2.0]))
    right = model.add("Relu", "x")
    left = model.add("Relu", model.add("Neg", "x"))
    model.add("Add", model.add("Sub", doubled, right), left)
    return model


@pytest.mark.parametrize("start", [0.0, 1e-9, -1e-9, 0.7])
def test_a_kink_never_raises_the_lower_bound(start):
    """Secants know no kinks; 2x - relu(x) + relu(-x) is x."""
    network, gains = _prepared(_kinked())
    starts = np.array([[start]])
    found = stretch_search(network, starts, gains, box=everything(1), iterations=5, steps=(1e-3, 1e-2, 1e-1), seed=0)
    assert found <= 1.0
    assert found >= 0.99


def test_a_lower_bound_takes_the_rounding_of_its_evaluations_off():
    """Two inputs whose difference drowns in rounding prove nothing."""
    model = Model(1, dtype=np.float64)
    model.add("Sub", model.add("Add", "x", np.array([2.0**60])), np.array([2.0**60]))
    network, gains = _prepared(model)
    assert stretch_lower(network, np.array([[127.9]]), [np.array([[128.1]])], gains) <= 1.0


def test_stretch_of_equal_inputs_is_zero():
    network, gains = _prepared(_kinked())
    assert stretch_lower(network, np.array([[1.0]]), [np.array([[1.0]])], gains) == 0.0


def test_attacks_stay_inside_their_balls():
    generator = np.random.default_rng(0)
    model = Model(5)
    model.linear(single(generator.standard_normal((8, 5))))
    model.then("Relu")
    model.linear(single(generator.standard_normal((3, 8))))
    network, _ = _prepared(model)
    x, radii = generator.standard_normal((4, 5)), np.array([1e-6, 0.1, 3.0, 1e5])
    gradient = np.tile([1.0, -1.0, 0.0], (4, 1))
    found = attack_in_ball(
        network, x, radii, lambda logits: gradient, box=everything(5), iterations=6, steps=(1.0, 0.3)
    )
    assert len(found) == 2
    for points in found:
        assert (np.linalg.norm(points - x, axis=1) <= radii).all()
        assert (np.linalg.norm(points - x, axis=1) >= 0.5 * radii).all()


def test_probes_are_exact_in_single_precision():
    probes = probe_inputs(everything(1), count=8, seed=1)
    assert probes.shape == (8, 1) and np.array_equal(single(probes), probes)


def test_searches_stay_in_the_box():
    """|x| on [0, 1] is stretched by 1; outside, x² would be by more."""
    model = Model(2)
    model.add("Mul", "x", "x")
    box = Box(lower=np.array([-0.25, 0.0]), upper=np.array([0.5, 0.5]))
    network = build_network(read_onnx(model.data(), limits=Limits()), limits=Limits(), cut_head=False)
    probes = probe_inputs(box, count=8, seed=0)
    assert box.holds(probes, np.zeros_like(probes)).all()
    steps = (1e-3, 1.0, 10.0)
    found = stretch_search(network, 9 * probes, {}, box=box, iterations=5, steps=steps, seed=0)
    assert 0.5 < found <= 1.0
    gradient = np.ones((8, 2))
    balls = np.full(8, 5.0)
    for points in attack_in_ball(
        network, probes, balls, lambda logits: gradient, box=box, iterations=3, steps=(1.0, 0.1)
    ):
        assert box.holds(points, np.zeros_like(points)).all()


def test_a_large_network_is_searched_in_fewer_steps(monkeypatch):
    """Effort is counted in products, forth and back, and never ends a search before its second step."""
    model = Model(3)
    model.linear(np.ones((4, 3)))
    model.then("Relu")
    model.linear(np.ones((2, 4)))
    network, gains = _prepared(model)
    assert network.multiplications == 4 * 3 + 2 * 4
    assert affordable(network, 12, rows=5) == 12
    monkeypatch.setattr(attack, "LARGEST_EFFORT", 2 * 5 * 20 * 7)
    assert affordable(network, 12, rows=5) == 7
    assert affordable(network, 3, rows=5) == 3
    assert affordable(network, 12, rows=10**6) == 2
    monkeypatch.setattr(attack, "LARGEST_EFFORT", 0)
    starts, steps = np.ones((2, 3)), (1e-3, 1e-1)
    found = stretch_search(network, starts, gains, box=everything(3), iterations=12, steps=steps, seed=0)
    assert 0.999 * np.sqrt(2 * 4 * 4 * 3) <= found <= np.sqrt(2 * 4 * 4 * 3)


def test_a_rayleigh_quotient_never_exceeds_the_largest_eigenvalue():
    generator = np.random.default_rng(0)
    for _ in range(20):
        matrix = generator.standard_normal((30, 30))
        gram = matrix @ matrix.T
        truth = float(np.linalg.eigvalsh(gram)[-1])
        found = largest_eigenvalue(lambda v, g=gram: g @ v, generator.standard_normal(30), tolerance=1e-10, steps=60)
        assert found.value <= truth * (1 + 1e-12)
        assert found.value >= truth * (1 - 1e-6)


@pytest.mark.parametrize("gap", [0.0, 1e-12, 1e-6, 0.5])
@pytest.mark.parametrize("order", [2, 30, 200])
def test_proved_norms_are_close_however_close_the_eigenvalues_lie(order, gap):
    """A cluster at the top is where power iteration settles last."""
    generator = np.random.default_rng(order)
    left, _ = np.linalg.qr(generator.standard_normal((order, order)))
    right, _ = np.linalg.qr(generator.standard_normal((order, order)))
    values = np.linspace(1.0 - gap, 1.0, order)
    matrix = left @ np.diag(values) @ right
    truth = float(np.linalg.norm(matrix, 2))
    found = prove_matrix_norm(GramProof(matrix, None), None, seed=0)
    assert truth * (1 - 1e-13) <= found.upper <= truth * (1 + 1e-8)
    assert found.estimate is not None and found.estimate <= truth * (1 + 1e-12)


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1.0, 1e30, 1e150])
def test_proved_norms_scale_with_the_matrix(scale):
    """Squares of entries leave the range of float64; the scaled Gram matrix does not."""
    matrix = scale * np.random.default_rng(0).standard_normal((7, 9))
    truth = float(np.linalg.norm(matrix / scale, 2)) * scale
    found = prove_matrix_norm(GramProof(matrix, None), None, seed=0)
    assert truth * (1 - 1e-12) <= found.upper <= truth * (1 + 1e-8)


def test_entry_errors_are_part_of_the_proved_norm():
    """The norm of every matrix within the errors, the worst of them included."""
    matrix, error = np.ones((4, 5)), np.full((4, 5), 0.25)
    found = prove_matrix_norm(GramProof(matrix, error), None, seed=0)
    assert found.upper >= float(np.linalg.norm(matrix + error, 2)) * (1 - 1e-13)
