"""What the frequency method proves is never below what a network does, and close to what multipliers can reach."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings

from certifier.bounds.product import ProductBound
from certifier.certificates import Constants
from certifier.errors import NotProved
from certifier.frequencies.method import check
from certifier.frequencies.plans import Planner
from certifier.limits import Budget
from certifier.search import frequency as descent
from certifier.tightening.frequency import covers, search
from certifier.witness import JSON, Witness
from tests.building import Model, Reference, single
from tests.certifier.preparing import mean_pair, prepared
from tests.random_networks import image_networks

NOISE = 1e-9
"""Relative; of the float64 reference, of which some functions round constants to single precision."""
SECONDS = 120.0
"""Never reached: steps are counted, so that nothing here depends on the clock."""


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descent, "ITERATIONS", 60)


def part_of(witness: Witness) -> dict[str, JSON]:
    """What the witness says of its last part."""
    parts = witness.header["parts"]
    assert isinstance(parts, list) and isinstance(parts[-1], dict)
    return dict(parts[-1])


def proved(model: Model) -> tuple[Constants, Constants, Witness]:
    """By the product of norms, by this method, and the witness."""
    network, norms = prepared(model.data())
    product = ProductBound(network, norms)
    assert covers(network) is None
    planner = Planner(network, norms)
    witness = search(planner, product, budget=Budget.of(SECONDS)).witness
    return product.constants(), check(planner, witness), witness


def no_secant_exceeds(reference: Reference, constants: Constants, points: np.ndarray, noise: float) -> float:
    """Along the steepest directions of the vector, of outputs and of pairs; returns the steepest of the vector."""
    assert constants.outputs is not None and constants.pairs is not None
    steepest, pairs = 0.0, list(combinations(range(len(constants.outputs)), 2))
    for point in points:
        jacobian = reference.jacobian(point)
        directions = [np.linalg.svd(jacobian)[2][0], *jacobian, *(jacobian[t] - jacobian[j] for t, j in pairs)]
        unit = [v / np.linalg.norm(v) for v in directions if np.linalg.norm(v) > 0]
        ends = np.array([point + step * v for v in unit for step in (1e-2, -1e-2, 1.0, -1.0)])
        if not len(ends):
            continue
        here, there = reference(point[None]), reference(ends)
        change, lengths = there - here, np.linalg.norm(ends - point, axis=1)
        slack = noise * (1 + np.abs(here).max() + np.abs(there).max())
        steepest = max(steepest, float((np.linalg.norm(change, axis=1) / lengths).max()))
        assert (np.linalg.norm(change, axis=1) <= constants.upper * lengths + slack).all()
        for k, constant in enumerate(constants.outputs):
            assert (np.abs(change[:, k]) <= constant * lengths + slack).all()
        for t, j in pairs:
            assert (np.abs(change[:, t] - change[:, j]) <= constants.pairs[t, j] * lengths + slack).all()
    return steepest


@settings(max_examples=20)
@given(drawn=image_networks(layers=5))
def test_no_secant_of_a_random_network_exceeds_its_constants(drawn):
    model, seed = drawn
    network, norms = prepared(model.data())
    planner = Planner(network, norms)
    try:
        witness = search(planner, ProductBound(network, norms), budget=Budget.of(SECONDS)).witness
    except NotProved:
        return
    constants = check(planner, witness)
    rough = {operator for operator, *_ in model.nodes} & {"HardSwish", "Gelu", "Erf"}
    points = np.random.default_rng(seed).standard_normal((2, network.input_size))
    no_secant_exceeds(model.reference(), constants, points, 1e-6 if rough else NOISE)


def residual(seed: int, *, activation: str = "Relu") -> Model:
    """A stem, an identity block, a strided block with a projection, average pooling and a matrix."""
    generator = np.random.default_rng(seed)

    def kernel(rows, columns, taps):
        return single(generator.standard_normal((rows, columns, taps, taps)) / taps / np.sqrt(columns))

    model = Model(2, 8, 8, opset=20)
    model.then("Conv", kernel(4, 2, 3), pads=[1, 1, 1, 1])
    start = model.then(activation)
    model.then("Conv", kernel(4, 4, 3), pads=[1, 1, 1, 1])
    scale, shift, mean = single(generator.standard_normal((3, 4)))
    model.then("BatchNormalization", scale, shift, mean, single(0.5 + generator.random(4)), epsilon=0.125)
    model.then(activation)
    branch = model.then("Conv", kernel(4, 4, 3), pads=[1, 1, 1, 1])
    model.add("Add", start, branch)
    start = model.then(activation)
    model.then("Conv", kernel(5, 4, 3), pads=[1, 1, 1, 1], strides=[2, 2])
    model.then(activation)
    branch = model.then("Conv", kernel(5, 5, 3), pads=[1, 1, 1, 1])
    shortcut = model.add("Conv", start, kernel(5, 4, 1), strides=[2, 2])
    model.add("Add", branch, shortcut)
    model.then(activation)
    model.then("AveragePool", kernel_shape=[2, 2], strides=[2, 2])
    model.then("Flatten")
    model.linear(single(generator.standard_normal((3, 20)) / 4))
    return model


@pytest.mark.parametrize(("activation", "share"), [("Relu", 0.25), ("Gelu", 0.6), ("Tanh", 0.25)])
def test_residual_networks_gain_much_and_stay_above_their_secants(activation, share):
    model = residual(3, activation=activation)
    known, constants, witness = proved(model)
    assert part_of(witness)["cuts"] == []
    points = np.random.default_rng(0).standard_normal((2, 128))
    steepest = no_secant_exceeds(model.reference(), constants, points, 1e-6 if activation == "Gelu" else NOISE)
    assert constants.upper <= 40 * steepest
    assert mean_pair(constants) <= share * mean_pair(known)


def test_a_linear_network_is_bounded_by_its_norm():
    """Without activations, and where nothing outside of the box is read, the torus is exact."""
    generator = np.random.default_rng(4)
    model = Model(2, 5, 5)
    model.then("Conv", single(generator.standard_normal((3, 2, 1, 1))))
    network, norms = prepared(model.data())
    planner = Planner(network, norms)
    constants = check(planner, search(planner, ProductBound(network, norms), budget=Budget.of(SECONDS)).witness)
    truth = np.linalg.norm(model.constants["c0"].reshape(3, 2), 2)
    assert truth <= constants.upper <= truth * (1 + 1e-9)


def test_a_convolution_behind_a_convolution_reads_zeros_outside():
    """Symbols multiplied across the padding in between would give less than the truth (mathematics: 1 became 0)."""
    model = Model(1, 1, 3)
    model.then("Conv", np.array([[[[1.0, -1.0, 0.0]]]]), pads=[0, 1, 0, 1])
    model.then("Conv", np.array([[[[1.0, 1.0, 1.0]]]]), pads=[0, 1, 0, 1])
    truth = np.linalg.norm(model.reference().jacobian(np.zeros(3)), 2)
    _, constants, _ = proved(model)
    assert truth * (1 - 1e-6) <= constants.upper <= 2.5 * truth


@pytest.mark.parametrize(("pad", "square"), [(1, 1.0), (2, 2.0)])
def test_what_lies_around_a_point_that_was_cropped_is_zero(pad, square):
    """On a torus of one point all taps meet in the point itself: these would add up to nothing."""
    kernel = np.zeros((1, 1, 3, 3))
    kernel[0, 0, 1] = [-1.0, 1.0, 0.0]
    model = Model(1, 3, 3, opset=20)
    model.then("Slice", np.array([1, 1]), np.array([2, 2]), np.array([2, 3]))
    model.then("Conv", kernel, pads=[pad] * 4)
    _, constants, _ = proved(model)
    assert square <= constants.upper**2 <= square * (1 + 1e-9)


def test_an_output_that_is_given_twice_counts_twice():
    model = Model(1, 1, 4)
    model.then("Conv", np.array([[[[1.0, 0.0]]]]), pads=[0, 0, 0, 1])
    model.then("Flatten")
    model.then("Gather", np.array([1, 1, 2]), axis=1)
    _, constants, _ = proved(model)
    assert np.sqrt(2) <= constants.upper <= np.sqrt(2) * (1 + 1e-9)


def test_what_lies_before_the_origin_multiplies():
    """Means that are added to every point: the region starts behind them, with the constant of the product of norms."""
    generator = np.random.default_rng(5)
    model = Model(2, 4, 4)
    model.add("Add", model.then("Mul", np.float64(30.0)), model.then("GlobalAveragePool"))
    model.then("Relu")
    model.then("Conv", single(generator.standard_normal((3, 2, 3, 3)) / 4), pads=[1, 1, 1, 1])
    model.then("Relu")
    model.then("Flatten")
    model.linear(single(generator.standard_normal((3, 48)) / 7))
    _, constants, witness = proved(model)
    assert part_of(witness)["origin"] != "x"
    points = generator.standard_normal((3, 32))
    steepest = no_secant_exceeds(model.reference(), constants, points, NOISE)
    assert constants.upper <= 10 * steepest


def test_a_network_without_convolutions_is_not_covered():
    model = Model(4)
    model.linear(np.eye(4))
    reason = covers(prepared(model.data())[0])
    assert reason is not None and "no convolution" in reason
    network, norms = prepared(model.data())
    with pytest.raises(NotProved):
        search(Planner(network, norms), ProductBound(network, norms), budget=Budget.of(SECONDS))


def test_an_altered_witness_proves_nothing_below_the_truth():
    """Any one number changed: refused, or another bound that holds too."""
    model = residual(6)
    network, norms = prepared(model.data())
    planner = Planner(network, norms)
    witness = search(planner, ProductBound(network, norms), budget=Budget.of(SECONDS)).witness
    reference, generator = model.reference(), np.random.default_rng(0)
    points = generator.standard_normal((1, 128))
    refused = 0
    for name, array in witness.arrays.items():
        for factor in (0.5, 3.0):
            changed = array.copy()
            changed[generator.integers(len(changed))] *= factor
            other = Witness(method="frequency", header=witness.header, arrays={**witness.arrays, name: changed})
            try:
                constants = check(planner, other)
            except NotProved:
                refused += 1
                continue
            no_secant_exceeds(reference, constants, points, NOISE)
    assert refused >= len(witness.arrays) // 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("origin", "nobody"),
        ("origin", 3),
        ("origin", None),
        ("end", "x"),
        ("end", None),
        ("tori", [[64, 64]]),
        ("tori", None),
        ("more", 1),
        ("method", "dense"),
    ],
)
def test_a_header_for_another_network_is_refused(field, value):
    model = residual(6)
    network, norms = prepared(model.data())
    planner = Planner(network, norms)
    witness = search(planner, ProductBound(network, norms), budget=Budget.of(SECONDS)).witness
    check(planner, witness)
    header, method = part_of(witness), witness.method
    if field == "method":
        method = value
    else:
        header[field] = value
    with pytest.raises(NotProved):
        check(planner, Witness(method=method, header={"parts": [header]}, arrays=witness.arrays))


def test_a_witness_of_one_network_does_not_lower_the_bound_of_another():
    first, second = residual(6), residual(7)
    network, norms = prepared(first.data())
    witness = search(Planner(network, norms), ProductBound(network, norms), budget=Budget.of(SECONDS)).witness
    try:
        constants = check(Planner(*prepared(second.data())), witness)
    except NotProved:
        return
    points = np.random.default_rng(0).standard_normal((2, 128))
    no_secant_exceeds(second.reference(), constants, points, NOISE)
