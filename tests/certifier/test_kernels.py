"""What is assumed of the engine's sums (A3), seen from outside: by numbers that any other kernel would lose."""

from __future__ import annotations

import numpy as np
import pytest

from certifier.engine import Engine
from certifier.limits import Limits
from certifier.network import build_network, served_model
from certifier.reading.onnx import read_onnx
from certifier.terms import Affine
from tests.building import Model


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
