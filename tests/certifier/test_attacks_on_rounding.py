"""The engine itself, attacked inside of the radii that are certified for it: rounding flips nothing there.

Reference: Murray 2026, arXiv 2603.13334, whose network with hostile biases flips inside of real-arithmetic radii.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from certifier.documents import AskedArithmetic, CertifyOptions
from tests.building import certify_bytes, predictor_of
from tests.certifier.rounding_attacks import SHARES, Target, flips, hostile_case, steps_along_the_gradient

HOSTILE = "models/tobycmurray/python-certifier/gloro_mnist_8x128_bias1e6end.onnx"
IMAGES = "data/mnist_test10000_x_u8.npz"


def _images(shared: Path, count: int) -> np.ndarray:
    with np.load(shared / IMAGES) as arrays:
        rows = arrays[arrays.files[0]][:count]
    return (rows.astype(np.float32) / np.float32(255)).astype(np.float64).reshape(count, -1)


def _answers(data: bytes, rows: np.ndarray, arithmetic: AskedArithmetic) -> tuple[np.ndarray, np.ndarray]:
    """Labels and radii as they are served."""
    certified = certify_bytes(data, options=CertifyOptions(method="product", arithmetic=arithmetic))
    predictor = predictor_of(certified)
    answers = predictor.predict(rows.reshape(-1, *predictor.row_shape), epsilon=None, preprocessing=None)
    return np.array([each.label for each in answers]), np.array([each.radius for each in answers])


def _with_biases(data: bytes, size: float) -> bytes:
    """Nearly the same function over the reals: b_7 is `size` everywhere, and b_8 takes off what W_8 makes of it."""
    model = onnx.load_model_from_string(data)
    arrays = {each.name: numpy_helper.to_array(each).astype(np.float64) for each in model.graph.initializer}
    last = arrays["b8"] + arrays["W8"] @ arrays["b7"] - arrays["W8"] @ np.full(arrays["b7"].shape, size)
    changed = {"b7": np.full(arrays["b7"].shape, size), "b8": last}
    for each in model.graph.initializer:
        if each.name in changed:
            each.CopyFrom(numpy_helper.from_array(changed[each.name].astype(np.float32), each.name))
    return model.SerializeToString()


@pytest.mark.needs_shared
def test_hostile_biases_flip_answers_inside_of_real_radii_and_none_inside_of_float32_radii(shared: Path):
    """More than 8 000 steps of 5 to 95 % of each radius."""
    data = (shared / HOSTILE).read_bytes()
    target, rows = Target.of(data), _images(shared, 8 * 1024 // len(SHARES) + 20)
    labels, real = _answers(data, rows, "real")
    tries, flipped = steps_along_the_gradient(target, rows, labels, real)
    assert tries >= 8000 and flipped > 0
    labels, executed = _answers(data, rows, "float32")
    assert steps_along_the_gradient(target, rows, labels, executed)[1] == 0
    assert (executed <= real).all()


@pytest.mark.needs_shared
@pytest.mark.parametrize("size", [0.0, 10.0, 1e3])
def test_smaller_biases_leave_radii_that_no_attack_breaks(shared: Path, size: float):
    """The same network with biases that single precision bears, attacked on the engine itself."""
    data = _with_biases((shared / HOSTILE).read_bytes(), size)
    rows = _images(shared, 24)
    labels, radii = _answers(data, rows, "float32")
    assert (radii > 0).mean() > 0.5
    tries, flipped = flips(Target.of(data), rows, labels, radii, seed=0)
    assert tries > 200 and flipped == 0


def _attacked(seeds: range) -> tuple[int, int, int]:
    """(tries inside of float32 radii, flips there, flips inside of real ones) over hostile networks."""
    tries = broken = beyond = 0
    for seed in seeds:
        model, rows = hostile_case(np.random.default_rng(seed))
        data = model.data()
        target = Target.of(data)
        labels, radii = _answers(data, rows, "float32")
        found = flips(target, rows, labels, radii, seed=seed)
        tries, broken = tries + found[0], broken + found[1]
        labels, radii = _answers(data, rows, "real")
        beyond += flips(target, rows, labels, radii, seed=seed)[1]
    return tries, broken, beyond


def test_no_hostile_network_breaks_a_float32_certificate():
    tries, broken, beyond = _attacked(range(20))
    assert tries > 300 and broken == 0
    # The same attacks break certificates over the reals, so they bite.
    assert beyond > 0


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_hundred_thousand_tries_break_no_float32_certificate():
    tries, broken, beyond = 0, 0, 0
    for start in range(1000, 10_000, 100):
        found = _attacked(range(start, start + 100))
        tries, broken, beyond = tries + found[0], broken + found[1], beyond + found[2]
        if tries >= 100_000:
            break
    assert tries >= 100_000 and broken == 0 and beyond > 0
