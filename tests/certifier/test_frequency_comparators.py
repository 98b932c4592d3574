"""MaxMin over channels on frequencies: seen through in every spelling, sound, and far below the product of norms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from certifier.frequencies.plans import Planner
from certifier.search import frequency as descent
from tests.building import Model, single
from tests.certifier.preparing import prepared
from tests.certifier.test_frequency_method import NOISE, no_secant_exceeds, proved

CHANNELS, SIDE = 8, 6


def halves(model: Model) -> None:
    value = model.output
    model.add("Split", value, np.array([CHANNELS // 2] * 2), outputs=(f"{value}a", f"{value}b"), axis=1)
    ends = model.add("Max", f"{value}a", f"{value}b"), model.add("Min", f"{value}a", f"{value}b")
    model.add("Concat", *ends, axis=1)


def neighbours(model: Model) -> None:
    pairs = model.add("Reshape", model.output, np.array([-1, CHANNELS // 2, 2, SIDE, SIDE]))
    axes = np.array([2])
    ends = (
        model.add("ReduceMax", pairs, axes, keepdims=1),
        model.add("ReduceMin", pairs, axes, keepdims=1),
    )
    model.add("Concat", *ends, axis=2)
    model.then("Reshape", np.array([-1, CHANNELS, SIDE, SIDE]))


def groups_of_four(model: Model) -> None:
    model.then("Reshape", np.array([-1, CHANNELS // 4, 4, SIDE, SIDE]))
    model.add("TopK", model.output, np.array([4]), axis=2, outputs=(f"{model.output}v", f"{model.output}i"))
    model.then("Reshape", np.array([-1, CHANNELS, SIDE, SIDE]))


def _network(activation: Callable[[Model], None]) -> Model:
    generator = np.random.default_rng(0)
    model = Model(3, SIDE, SIDE)
    for channels in (3, CHANNELS, CHANNELS):
        kernel = generator.standard_normal((CHANNELS, channels, 3, 3)) / np.sqrt(9 * channels)
        model.then("Conv", single(kernel), pads=[1, 1, 1, 1])
        activation(model)
    model.then("Flatten")
    model.linear(single(generator.standard_normal((3, CHANNELS * SIDE * SIDE)) / 16))
    return model


@pytest.mark.parametrize(("activation", "limit"), [(halves, 0.75), (neighbours, 0.75), (groups_of_four, 1.5)])
def test_networks_of_maxmin_are_bounded_through_their_comparators(
    activation: Callable[[Model], None], limit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descent, "ITERATIONS", 60)
    model = _network(activation)
    product, constants, _ = proved(model)
    points = np.random.default_rng(1).standard_normal((2, 3 * SIDE * SIDE))
    no_secant_exceeds(model.reference(), constants, points, NOISE)
    assert constants.upper < limit * product.upper
    network, norms = prepared(model.data())
    plan = Planner(network, norms).plan(network.input.name, network.output)
    assert not plan.lowered.cuts
