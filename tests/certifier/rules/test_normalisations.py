"""Normalisation rules mean what ONNX says, keep to constants and strays that cannot be passed, refuse by reason."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from certifier.errors import UnsupportedNode
from certifier.rules import registry
from certifier.terms import PRECISIONS, Affine, Contraction, VectorFunction
from certifier.vector_functions.normalising import Normalisation
from certifier.vector_functions.softmaxes import LogSoftmax, Softmax
from tests.certifier.rules.one_node import OneNode, of_one_value, single

RNG = np.random.default_rng(0)
SHAPE = (1, 6, 4, 5)


def positive(*shape: int) -> np.ndarray:
    return RNG.uniform(0.1, 3.0, size=shape)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape)


BATCH = [(opset, attributes) for opset in (7, 9, 14, 15) for attributes in ({}, {"epsilon": 0.1}, {"momentum": 0.3})]

OWN_STATISTICS = [
    ("LayerNormalization", 17, {}, (normal(5), normal(5))),
    ("LayerNormalization", 17, {"axis": 1, "epsilon": 0.01}, (normal(6, 4, 5),)),
    ("LayerNormalization", 17, {"axis": -2, "stash_type": 1}, (normal(4, 5), normal(4, 5))),
    ("RMSNormalization", 23, {}, (normal(5),)),
    ("RMSNormalization", 23, {"axis": 2, "epsilon": 0.5}, (normal(4, 5),)),
    ("InstanceNormalization", 7, {}, (normal(6), normal(6))),
    ("InstanceNormalization", 22, {"epsilon": 0.2}, (normal(6), normal(6))),
    ("GroupNormalization", 18, {"num_groups": 3}, (normal(3), normal(3))),
    ("GroupNormalization", 21, {"num_groups": 3, "epsilon": 0.02}, (normal(6), normal(6))),
    ("GroupNormalization", 21, {"num_groups": 1}, (normal(6), normal(6))),
    ("GroupNormalization", 21, {"num_groups": 6}, (normal(6), normal(6))),
]

SOFTMAXES = [
    (operator, opset, attributes, ())
    for operator in ("Softmax", "LogSoftmax")
    for opset, attributes in (
        (7, {}),
        (7, {"axis": 2}),
        (11, {}),
        (11, {"axis": -1}),
        (11, {"axis": 0}),
        (13, {}),
        (13, {"axis": 1}),
        (13, {"axis": -2}),
    )
]


def batch_node(opset: int, attributes: dict) -> OneNode:
    return of_one_value("BatchNormalization", opset, SHAPE, attributes, normal(6), normal(6), normal(6), positive(6))


def inputs(shape: tuple[int, ...]) -> list[dict[str, np.ndarray]]:
    """Ordinary, tiny, huge, constant, one-hot and far-from-zero rows (whose variance cancels)."""
    spread = RNG.normal(size=shape)
    far = 1000.0 + 1e-2 * RNG.normal(size=shape)
    hot = np.where(np.arange(spread.size).reshape(shape) % 5 == 0, 90.0, 0.0)
    rows = [spread, 30 * spread, 1e-6 * spread, 1e6 * spread, np.full(shape, 3.0), hot, far, far / 100, 0 * spread]
    return [{"x": single(row)} for row in rows]


def reference(node: OneNode, values: dict[str, np.ndarray]) -> np.ndarray:
    """The ONNX reference, where it implements the version; else the present version that means the same."""
    if node.operator == "BatchNormalization" and node.since < 14:
        return replace(node, opset=15).reference(values)
    if node.operator in ("Softmax", "LogSoftmax") and node.since < 13:
        (shape,), axis = node.shapes.values(), node.attributes.get("axis", 1)
        matrix = (math.prod(shape[:axis]), math.prod(shape[axis:]))
        folded = replace(node, opset=13, shapes={"x": matrix}, attributes={"axis": 1})
        return folded.reference({"x": values["x"].reshape(matrix)}).reshape(shape)
    return node.reference(values)


def check(node: OneNode, *, tolerance: float) -> int:
    """Value and stray; the number of inputs whose stray is finite."""
    finite = 0
    for values in inputs(node.shapes["x"]):
        value, stray = node.run(values)
        with np.errstate(divide="ignore", invalid="ignore"):  # the reference takes the logarithm of zero
            expected = reference(node, values)
        executed = node.engine(values).astype(np.float64)
        assert value.shape == expected.shape == executed.shape
        assert not np.isnan(stray).any()
        # An infinite stray says that single precision may lose the variance, as the reference then does too.
        known = np.isfinite(stray)
        size = tolerance * (1 + np.abs(expected) + np.abs(values["x"]).max())
        assert (np.abs(value - expected) <= size)[known].all()
        assert (np.abs(executed - value) <= stray)[known].all()
        finite += bool(np.isfinite(stray).all())
    return finite


@pytest.mark.parametrize(("opset", "attributes"), BATCH)
def test_batch_normalisation_is_linear_and_keeps_to_its_stray(opset, attributes):
    node = batch_node(opset, attributes)
    assert check(node, tolerance=1e-13) == len(inputs(SHAPE))
    (term,) = node.terms()
    assert isinstance(term, Affine) and term.operators[0].weight_error == 4 * 2.0**-53


def test_batch_normalisation_of_a_mean_far_from_zero_counts_its_cancellation():
    statistics = (positive(6), normal(6), 1e4 * normal(6), positive(6))
    check(of_one_value("BatchNormalization", 15, SHAPE, {}, *statistics), tolerance=1e-10)


def test_batch_normalisation_takes_a_batch_of_vectors():
    node = of_one_value("BatchNormalization", 15, (1, 6), {}, normal(6), normal(6), normal(6), positive(6))
    check(node, tolerance=1e-13)


@pytest.mark.parametrize(("operator", "opset", "attributes", "constants"), OWN_STATISTICS)
def test_normalisation_means_the_standard_and_strays_no_further_than_said(operator, opset, attributes, constants):
    # The reference computes GroupNormalization's statistics in single precision, as `stash_type` says.
    finite = check(of_one_value(operator, opset, SHAPE, attributes, *constants), tolerance=1e-6)
    assert finite >= 6  # all but the three whose variance single precision may lose


@pytest.mark.parametrize(("operator", "opset", "attributes", "constants"), SOFTMAXES)
def test_softmax_means_the_standard_and_strays_no_further_than_said(operator, opset, attributes, constants):
    node = of_one_value(operator, opset, SHAPE, attributes, *constants)
    assert check(node, tolerance=1e-13) == len(inputs(SHAPE))


def function_of(node: OneNode) -> VectorFunction:
    (term,) = node.terms()
    assert isinstance(term, Contraction)
    return term.function


FUNCTIONS = [
    of_one_value(operator, opset, SHAPE, attributes, *constants)
    for operator, opset, attributes, constants in (*OWN_STATISTICS, *SOFTMAXES)
]


@pytest.mark.parametrize("node", FUNCTIONS, ids=lambda node: f"{node.operator}-{node.opset}")
def test_the_constant_is_never_exceeded_and_the_pullback_is_the_derivative(node):
    function = function_of(node)
    size = int(np.prod(SHAPE))
    for scale in (1e-3, 0.1, 1.0, 30.0):
        x = RNG.normal(size=(200, size)) * scale
        y = x + RNG.normal(size=(200, size)) * scale * 10.0 ** RNG.uniform(-3, 0.5, size=(200, 1))
        ratio = np.linalg.norm(function.evaluate(x) - function.evaluate(y), axis=1) / np.linalg.norm(x - y, axis=1)
        assert ratio.max() <= function.constant_upper
        direction, gradient = RNG.normal(size=(200, size)), RNG.normal(size=(200, size))
        step = 1e-6 * scale
        change = (function.evaluate(x + step * direction) - function.evaluate(x - step * direction)) / (2 * step)
        expected = (gradient * change).sum(axis=1)
        found = (function.pullback(gradient, x) * direction).sum(axis=1)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("node", FUNCTIONS, ids=lambda node: f"{node.operator}-{node.opset}")
@pytest.mark.parametrize("reach", [1e-6, 1e-2, 1.0, 50.0])
def test_stray_covers_every_input_within_the_radius(node, reach):
    """Sources that moved: each sampled x' with |x' - x| <= radius, corners included, lands within the stray."""
    function, at = function_of(node), PRECISIONS["float32"]
    size = int(np.prod(SHAPE))
    for scale in (0.1, 3.0, 900.0):
        x = RNG.normal(size=(1, size)) * scale
        radius = RNG.uniform(0, reach, size=(1, size))
        centre = function.evaluate(x)
        bound = function.stray(x, radius, centre, at)
        signs = np.concatenate([RNG.choice([-1.0, 1.0], size=(100, size)), RNG.uniform(-1, 1, size=(100, size))])
        assert (np.abs(function.evaluate(x + signs * radius) - centre) <= bound).all()


@pytest.mark.parametrize(("depth", "reach", "grown"), [(800.0, 400.0, 0.5), (760.0, 350.0, math.exp(-60.1))])
def test_softmax_that_underflowed_may_grow_back(depth, reach, grown):
    """p = e^-depth is 0 in float64; within the radius it can become e^(2 reach - depth) or one half."""
    function = Softmax(name="softmax", before=1, count=2, after=1)
    x, radius = np.array([[0.0, -depth]]), np.full((1, 2), reach)
    assert function.evaluate(x)[0, 1] == 0.0
    bound = function.stray(x, radius, function.evaluate(x), PRECISIONS["float32"])
    assert (bound >= grown).all()


def test_the_constant_of_softmax_is_attained_in_the_limit():
    """Between the two halves of (½, ½): ratio ½ for two equal entries."""
    function = Softmax(name="softmax", before=1, count=2, after=1)
    step = 1e-4 * np.array([[1.0, -1.0]])
    ratio = np.linalg.norm(function.evaluate(step) - function.evaluate(-step)) / np.linalg.norm(2 * step)
    assert 0.5 - 1e-6 <= ratio <= function.constant_upper == 0.5


@pytest.mark.parametrize("count", [2, 3, 10, 100])
def test_the_constant_of_log_softmax_is_attained_in_the_limit(count):
    """At a corner p = e_1, along the singular vector (n-1, -1, …, -1), the ratio comes within 1e-6 of √n."""
    function = LogSoftmax(name="log softmax", before=1, count=count, after=1)
    x = np.zeros((1, count))
    x[0, 0] = 60.0
    direction = np.full((1, count), -1.0)
    direction[0, 0] = count - 1.0
    moved = function.evaluate(x + 1e-3 * direction) - function.evaluate(x)
    ratio = np.linalg.norm(moved) / np.linalg.norm(1e-3 * direction)
    assert math.sqrt(count) * (1 - 1e-6) <= ratio
    assert math.sqrt(count) <= function.constant_upper <= math.sqrt(count) * (1 + 1e-15)


@pytest.mark.parametrize("centred", [True, False])
def test_the_constant_of_normalisation_is_attained_at_zero(centred):
    """At x = 0 along a direction of mean zero, the ratio is scale/√ε."""
    function = Normalisation(
        name="n", groups=1, scale=np.full(4, 3.0), shift=np.zeros(4), epsilon=1e-2, centred=centred
    )
    step = 1e-7 * np.array([[1.0, -1.0, 1.0, -1.0]])
    ratio = np.linalg.norm(function.evaluate(step) - function.evaluate(-step)) / np.linalg.norm(2 * step)
    assert 30.0 * (1 - 1e-6) <= ratio <= function.constant_upper <= 30.0 * (1 + 1e-14)


def test_a_constant_row_far_from_zero_has_no_finite_stray():
    """E[x²] - E[x]² may come out negative in single precision, and the engine's root NaN."""
    node = of_one_value("LayerNormalization", 17, (1, 64), {}, np.ones(64))
    _, stray = node.run({"x": np.full((1, 64), 4097.0)})
    assert np.isinf(stray).all()


STATISTICS = (positive(6), normal(6), normal(6), positive(6))
LAYER = of_one_value("LayerNormalization", 17, SHAPE, {}, normal(5))
REFUSED = [
    (of_one_value("BatchNormalization", 15, SHAPE, {"training_mode": 1}, *STATISTICS), "training mode"),
    (of_one_value("BatchNormalization", 7, SHAPE, {"spatial": 0}, *STATISTICS), "spatial = 0"),
    (of_one_value("BatchNormalization", 15, SHAPE, {}, *STATISTICS[:3], -positive(6)), "not positive"),
    (of_one_value("BatchNormalization", 15, SHAPE, {"epsilon": 0.0}, *STATISTICS[:3], np.zeros(6)), "not positive"),
    (of_one_value("BatchNormalization", 15, SHAPE, {}, *STATISTICS[:3], np.full(6, np.nan)), "NaN"),
    (of_one_value("BatchNormalization", 15, SHAPE, {}, *STATISTICS[:3], positive(5)), "instead of"),
    (of_one_value("BatchNormalization", 15, (6,), {}, *STATISTICS), "channel axis"),
    (of_one_value("LayerNormalization", 17, SHAPE, {"epsilon": 0.0}, normal(5)), "without a positive one"),
    (of_one_value("LayerNormalization", 17, SHAPE, {"epsilon": -1.0}, normal(5)), "without a positive one"),
    (of_one_value("LayerNormalization", 17, SHAPE, {"stash_type": 11}, normal(5)), "stash_type"),
    (of_one_value("LayerNormalization", 17, SHAPE, {"axis": 4}, normal(5)), "outside"),
    (of_one_value("LayerNormalization", 17, SHAPE, {}, normal(4)), "does not broadcast"),
    (of_one_value("LayerNormalization", 17, SHAPE, {}), "needs the scale"),
    (of_one_value("RMSNormalization", 23, SHAPE, {"epsilon": 0.0}, normal(5)), "without a positive one"),
    (of_one_value("InstanceNormalization", 22, SHAPE, {"epsilon": 0.0}, normal(6), normal(6)), "positive one"),
    (of_one_value("InstanceNormalization", 22, (1, 6), {}, normal(6), normal(6)), "spatial axis"),
    (of_one_value("GroupNormalization", 21, SHAPE, {"num_groups": 4}, normal(6), normal(6)), "4 groups"),
    (of_one_value("GroupNormalization", 21, SHAPE, {"num_groups": 3}, normal(3), normal(3)), "instead of"),
    (of_one_value("Softmax", 13, SHAPE, {"axis": 7}), "outside"),
    (of_one_value("Softmax", 7, SHAPE, {"axis": -1}), "before version 11"),
    (of_one_value("LpNormalization", 22, SHAPE, {}), "without a floor"),
    (of_one_value("LRN", 13, SHAPE, {"size": 3}), "no rule bounds it"),
    (replace(LAYER, outputs=("y", "mean")), "more than one output"),
    (replace(batch_node(9, {}), outputs=("y", "mean", "var")), "more than one output"),
    (replace(LAYER, shapes={"x": SHAPE, "c0": (5,)}, constants={}), "must be constant"),
]


@pytest.mark.parametrize(("node", "reason"), REFUSED)
def test_refusals_name_the_node_and_the_reason(node, reason):
    with pytest.raises(UnsupportedNode, match=reason) as caught:
        node.terms()
    assert caught.value.node == "node" and caught.value.operator == node.operator


def test_every_version_in_the_support_table_has_a_case():
    cases = [("BatchNormalization", opset) for opset, _ in BATCH]
    cases += [(operator, opset) for operator, opset, _, _ in (*OWN_STATISTICS, *SOFTMAXES)]
    tested = {(operator, of_one_value(operator, opset, SHAPE, {}).since) for operator, opset in cases}
    operators = {operator for operator, _ in cases}
    listed = {
        (entry.operator, int(version))
        for entry in registry.support()
        if entry.operator in operators
        for version in entry.versions.split(", ")
    }
    assert listed == tested
