"""How much the frequency method gains, counted in steps of search and never in seconds."""

from __future__ import annotations

import numpy as np
import pytest

from certifier.bounds.product import ProductBound
from certifier.documents import CertifyOptions
from certifier.frequencies.method import arrays_of_part, check
from certifier.frequencies.plans import Planner
from certifier.limits import Budget
from certifier.search import frequency as descent
from certifier.tightening.frequency import search
from tests.building import Model, certify_model, single
from tests.certifier.dense_multipliers import dense_mean_pair
from tests.certifier.preparing import mean_pair, prepared

SECONDS = 120.0


def convolutions(seed: int, *, kind: str, size: int = 6, channels: int = 3) -> Model:
    """Three zero-padded 3×3 convolutions with activations, and a matrix."""
    generator = np.random.default_rng(seed)
    model = Model(2, size, size, opset=20)
    before, side = 2, size
    for layer in range(3):
        stride = 2 if kind == "strided" and layer == 1 else 1
        kernel = single(generator.standard_normal((channels, before, 3, 3)) / np.sqrt(9 * before))
        model.then("Conv", kernel, pads=[1, 1, 1, 1], strides=[stride, stride])
        model.then("Gelu" if kind == "gelu" else "Relu")
        before, side = channels, -(-side // stride)
    model.then("Flatten")
    model.linear(single(generator.standard_normal((3, channels * side**2)) / np.sqrt(channels) / side))
    return model


def close_to_the_dense_optimum(monkeypatch, kind: str, *, size: int, channels: int, steps: int) -> None:
    monkeypatch.setattr(descent, "ITERATIONS", 250)
    model = convolutions(1, kind=kind, size=size, channels=channels)
    network, norms = prepared(model.data())
    product = ProductBound(network, norms)
    planner = Planner(network, norms)
    witness = search(planner, product, budget=Budget.of(SECONDS)).witness
    ours = mean_pair(check(planner, witness))
    given, best = dense_mean_pair(network, arrays_of_part(witness, 0), steps=steps)
    assert given <= ours * (1 + 1e-9)
    assert best <= given * (1 + 1e-6)
    assert ours <= 1.15 * best
    assert ours <= 0.7 * mean_pair(product.constants())


@pytest.mark.parametrize("kind", ["plain", "gelu"])
def test_zero_padding_costs_little_against_the_dense_optimum(monkeypatch, kind):
    """With the same multipliers never below the dense network's, and within 15 % of the best per-channel ones."""
    close_to_the_dense_optimum(monkeypatch, kind, size=8, channels=3, steps=40)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("kind", "size", "channels"), [("strided", 12, 3), ("plain", 8, 8)])
def test_zero_padding_costs_little_on_larger_networks(monkeypatch, kind, size, channels):
    close_to_the_dense_optimum(monkeypatch, kind, size=size, channels=channels, steps=40)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "size"), [("plain", 6), ("gelu", 6), ("strided", 6), ("strided", 8)])
def test_certificates_of_small_maps_pass_the_best_multipliers_of_channels(kind, size):
    """On maps this small the mask costs frequencies 20-50 %; the dense method takes over, with one for every neuron."""
    model = convolutions(1, kind=kind, size=size, channels=3)
    network, norms = prepared(model.data())
    planner = Planner(network, norms)
    witness = search(planner, ProductBound(network, norms), budget=Budget.of(SECONDS)).witness
    ours = mean_pair(check(planner, witness))
    given, best = dense_mean_pair(network, arrays_of_part(witness, 0), steps=40)
    assert given <= ours * (1 + 1e-9) and ours <= 1.6 * best
    pairs = certify_model(model, options=CertifyOptions(seconds=20)).certificate.pairs
    assert pairs is not None
    assert np.mean(np.array(pairs)[np.triu_indices(3, 1)]) <= 0.95 * best


@pytest.mark.needs_shared
@pytest.mark.slow
def test_a_public_residual_network_reaches_its_target(shared, monkeypatch):
    """resnet_2b: mean pair constant at most 54 (product of norms 1.3e3)."""
    monkeypatch.setattr(descent, "ITERATIONS", 150)
    path = shared / "models/stanleybak/vnncomp2021/benchmarks/cifar10_resnet/onnx/resnet_2b.onnx"
    network, norms = prepared(path.read_bytes())
    planner = Planner(network, norms)
    witness = search(planner, ProductBound(network, norms), budget=Budget.of(SECONDS)).witness
    assert mean_pair(check(planner, witness)) <= 54.0
    assert witness.header["parts"] == [{"origin": "input.1", "end": network.output, "tori": [[36, 36]], "cuts": []}]
