"""What kernels do on the way that their formulas do not show: sums divided last, inexact weights, scaled arguments."""

from __future__ import annotations

import numpy as np
import pytest

from certifier.errors import UnsupportedModel
from tests.building import Model, certify_model
from tests.certifier.proof.test_drifts import Case


@pytest.mark.parametrize("behind", ["nothing", "a matrix", "an activation"])
def test_coordinates_that_are_rounded_are_charged(behind):
    """Interpolated entries that alternate move by as much as the coordinates that single precision computes."""
    model = Model(1, 700, 1)
    scales = np.array([1.0, 1.0, 1.37, 1.0])
    asymmetric = {"mode": "linear", "coordinate_transformation_mode": "asymmetric"}
    model.add("Resize", "x", np.array([]), scales, **asymmetric)
    if behind == "a matrix":
        model.then("Flatten")
        model.linear(np.eye(959)[900:940])
    if behind == "an activation":
        model.then("Relu")
    case = Case(model, "float32")
    rows = np.where(np.arange(700) % 2, 1.0, -1.0)[None]
    around = case.at(rows)
    error = np.abs(case.engine.run(rows) - case.exact(rows)[0])
    whole, _ = around.whole()
    # More than sums and products of weights that are given could ever err by.
    assert error.max() > 20 * 2.0**-24
    assert (error <= around.outputs()[0]).all() and np.linalg.norm(error) <= whole[0]


def _divided(kind: str) -> Model:
    model = Model(1, 32, 32) if kind not in ("Mean", "Swish") else Model(2)
    if kind == "GlobalAveragePool":
        model.add(kind, "x")
    elif kind == "AveragePool":
        model.add(kind, "x", kernel_shape=[32, 32])
    elif kind == "ReduceMean":
        model.add(kind, "x", np.array([2, 3]))
    elif kind == "Mean":
        model.add(kind, *["x"] * 40)
    elif kind == "Gemm":
        model.add("Flatten", "x")
        model.then("Gemm", np.full((1024, 2), 2.0**60), np.zeros(2), alpha=2.0**-60)
    else:  # (64 x / 64) sigmoid(x)
        gate = model.add("Sigmoid", "x")
        model.add("Mul", "x", np.array(64.0))
        model.add("Mul", model.then("Div", np.array(64.0)), gate)
    return model


@pytest.mark.parametrize("kind", ["GlobalAveragePool", "AveragePool", "ReduceMean", "Mean", "Gemm", "Swish"])
def test_what_is_divided_last_has_no_room_to_overflow(kind):
    """The engine sums, or multiplies, before it makes small what it has: all of that has to stay finite."""
    case = Case(_divided(kind), "float32")
    size = case.network.input_size
    start = np.ones((1, size))
    room = float(case.at(start).room[0])
    ends = [np.full((1, size), 1.0 / np.sqrt(size)), np.eye(1, size)]
    assert room > 1e15
    for end in ends:
        assert np.isfinite(case.engine.run(start + 0.999 * room * end)).all()


def test_an_activation_spelled_with_large_numbers_on_the_way_is_none():
    """1024 x / 1024 overflows where x does not."""
    model = Model(3)
    large = model.add("Mul", "x", np.array(1024.0))
    small = model.add("Div", large, np.array(1024.0))
    gate = model.add("Sigmoid", "x")
    model.add("Mul", small, gate)
    with pytest.raises(UnsupportedModel):
        certify_model(model)
