"""What is assumed of the engine's sums (A3), seen from outside: by numbers that any other kernel would lose."""

from __future__ import annotations

import numpy as np
import pytest

from certifier import kernels
from certifier.engine import Engine
from certifier.errors import SelfTestFailed
from certifier.flow import Network
from certifier.kernels import look_at_kernels
from certifier.limits import Limits
from certifier.network import build_network, served_model
from certifier.reading.onnx import read_onnx
from certifier.terms import Affine
from tests.building import Model, certify_model


def _served(model: Model, row: np.ndarray) -> tuple[Affine, np.ndarray]:
    network = build_network(read_onnx(model.data(), limits=Limits()), limits=Limits(), cut_head=False)
    (term,) = (term for term in network.terms if isinstance(term, Affine) and not term.is_exact)
    return term, Engine(served_model(network), network.input).run(row[None])[0]


@pytest.mark.parametrize("groups", [1, 16])
@pytest.mark.parametrize("taps", [3, 5])
def test_a_convolution_reads_its_own_window_only(taps, groups):
    """Winograd and Fourier kernels mix a tile before they multiply: beside 2^24, windows of ones would be off."""
    channels, size = 16, 16
    model = Model(channels, size, size)
    weights = np.ones((channels, channels // groups, taps, taps))
    model.then("Conv", weights, pads=[taps // 2] * 4, group=groups)
    image = np.ones((channels, size, size))
    image[:, 5, 5] = 2.0**24
    term, answers = _served(model, image.reshape(-1))
    exact = term.evaluate(image.reshape(1, -1))[0].reshape(channels, size, size)
    elsewhere = np.ones((size, size), dtype=bool)
    reach = taps // 2
    elsewhere[5 - reach : 6 + reach, 5 - reach : 6 + reach] = False
    assert np.array_equal(answers.reshape(channels, size, size)[:, elsewhere], exact[:, elsewhere])


@pytest.mark.parametrize("operator", ["Gemm", "Conv"])
def test_products_are_not_rounded_to_a_narrower_type(operator):
    """bfloat16 and TF32 units would lose the last bits of the factors."""
    fine = 1.0 + 2.0**-23
    if operator == "Gemm":
        model = Model(64)
        model.then("Gemm", np.eye(64))
        row = np.full(64, fine)
    else:
        model = Model(16, 6, 6)
        model.then("Conv", np.eye(16).reshape(16, 16, 1, 1))
        row = np.full(16 * 36, fine)
    assert np.array_equal(_served(model, row)[1], row)


def _convolutional() -> Network:
    generator = np.random.default_rng(5)
    model = Model(8, 10, 10)
    model.then("Conv", generator.standard_normal((8, 2, 3, 3)), generator.standard_normal(8), pads=[1] * 4, group=4)
    model.then("Relu")
    model.then("ConvTranspose", generator.standard_normal((8, 3, 2, 2)), strides=[2, 2], group=2)
    model.then("Conv", generator.standard_normal((8, 6, 3, 3)), dilations=[2, 2], strides=[2, 1])
    model.then("Flatten")
    model.then("Gemm", generator.standard_normal((8 * 8 * 16, 12)), generator.standard_normal(12), alpha=0.3)
    model.then("Gemm", generator.standard_normal((7, 12)), generator.standard_normal(7), transB=1)
    model.add("MatMul", model.output, generator.standard_normal((7, 5)))
    return build_network(read_onnx(model.data(), limits=Limits()), limits=Limits(), cut_head=False)


def test_the_installed_engine_has_classical_kernels_at_every_shape_of_a_network():
    found = look_at_kernels(_convolutional(), seed=1)
    assert found.failed is None and found.looked_at == 6


def test_large_layers_are_looked_at_in_part():
    model = Model(40_000)
    model.then("Gemm", np.zeros((40_000, 64)))
    network = build_network(read_onnx(model.data(), limits=Limits()), limits=Limits(), cut_head=False)
    found = look_at_kernels(network, seed=0)
    assert found.failed is None and found.looked_at == 1


@pytest.mark.parametrize("seed", range(5))
def test_weights_of_every_layer_select_one_input_per_output(seed):
    """Else a kernel could lose bits that nobody looks at: every answer is an input or what lies between strides."""
    for node, graph in kernels.selecting_layers(_convolutional(), np.random.default_rng(seed)):
        layer = build_network(graph, limits=Limits(), cut_head=False)
        row = np.random.default_rng(seed).standard_normal((1, layer.input_size))
        answers = layer.evaluate(row)
        assert set(answers.ravel()) <= {0.0, *row.ravel()}, node
        assert np.mean(answers != 0) > (0.1 if node.operator == "ConvTranspose" else 0.7), node


class Narrow(Engine):
    """Reduced-precision units: factors lose their last eight bits."""

    def run(self, rows):
        bits = rows.astype(np.float32).view(np.int32) & np.int32(-256)
        return super().run(bits.view(np.float32).astype(np.float64))


class Mixing(Engine):
    """Like Winograd's or Strassen's: neighbours are added, and taken away again behind the products."""

    def run(self, rows):
        mixed = (rows + np.roll(rows, 1)).astype(np.float32).astype(np.float64)
        return super().run((mixed - np.roll(rows, 1)).astype(np.float32).astype(np.float64))


@pytest.mark.parametrize("engine", [Narrow, Mixing])
def test_an_engine_with_other_kernels_is_found_out(monkeypatch, engine):
    monkeypatch.setattr(kernels, "Engine", engine)
    found = look_at_kernels(_convolutional(), seed=1)
    assert found.failed is not None and "no classical sum" in found.failed and "Conv" in found.failed


def test_nothing_is_certified_on_an_engine_with_other_kernels(monkeypatch):
    monkeypatch.setattr(kernels, "Engine", Narrow)
    model = Model(6)
    model.linear(np.eye(6)[:4])
    with pytest.raises(SelfTestFailed, match="sums are classical"):
        certify_model(model)
