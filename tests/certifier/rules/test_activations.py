"""Activation rules mean what ONNX says, stay within their stray in onnxruntime, and refuse by reason."""

from __future__ import annotations

import numpy as np
import pytest

from certifier.errors import UnsupportedNode
from certifier.rules import registry
from certifier.terms import Activation
from tests.certifier.rules.one_node import OneNode, of_one_value, single

SHAPE = (1, 3, 4, 5)
SLOPES = np.array([-1.5, 0.25, 2.0]).reshape(3, 1, 1)

CASES = [
    ("Relu", 7, {}, ()),
    ("Relu", 13, {}, ()),
    ("Relu", 14, {}, ()),
    ("LeakyRelu", 7, {}, ()),
    ("LeakyRelu", 16, {"alpha": -0.7}, ()),
    ("LeakyRelu", 16, {"alpha": 1.7}, ()),
    ("PRelu", 7, {}, (SLOPES,)),
    ("PRelu", 9, {}, (np.array(0.3),)),
    ("PRelu", 16, {}, (np.linspace(-2, 2, 5),)),
    ("Elu", 7, {}, ()),
    ("Elu", 22, {"alpha": 2.5}, ()),
    ("Elu", 22, {"alpha": -1.5}, ()),
    ("Celu", 12, {}, ()),
    ("Celu", 12, {"alpha": 0.3}, ()),
    ("Selu", 7, {}, ()),
    ("Selu", 22, {"alpha": 0.4, "gamma": -1.3}, ()),
    ("Sigmoid", 7, {}, ()),
    ("Sigmoid", 13, {}, ()),
    ("HardSigmoid", 7, {}, ()),
    ("HardSigmoid", 22, {"alpha": -0.4, "beta": 0.7}, ()),
    ("Tanh", 7, {}, ()),
    ("Tanh", 13, {}, ()),
    ("Softplus", 7, {}, ()),
    ("Softplus", 22, {}, ()),
    ("Softsign", 7, {}, ()),
    ("Softsign", 22, {}, ()),
    ("Erf", 9, {}, ()),
    ("Erf", 13, {}, ()),
    ("Gelu", 20, {}, ()),
    ("Gelu", 20, {"approximate": "tanh"}, ()),
    ("HardSwish", 14, {}, ()),
    ("HardSwish", 22, {}, ()),
    ("Swish", 24, {}, ()),
    ("Swish", 24, {"alpha": -2.5}, ()),
    ("Mish", 18, {}, ()),
    ("Mish", 22, {}, ()),
    ("Clip", 7, {}, ()),
    ("Clip", 7, {"min": -0.5, "max": 0.75}, ()),
    ("Clip", 11, {}, (np.array(-0.5), np.array(0.75))),
    ("Clip", 12, {}, (np.array(-0.5),)),
    ("Clip", 13, {}, (np.array(0.75), np.array(-0.5))),
    ("Clip", 13, {}, ()),
    ("Abs", 7, {}, ()),
    ("Abs", 13, {}, ()),
    ("Sin", 7, {}, ()),
    ("Sin", 22, {}, ()),
    ("Cos", 7, {}, ()),
    ("Cos", 22, {}, ()),
    ("Atan", 7, {}, ()),
    ("Atan", 22, {}, ()),
    ("Asinh", 9, {}, ()),
    ("Asinh", 22, {}, ()),
]

REFERENCE_ERROR = {"Erf": 1e-6, "Gelu": 1e-6, "HardSwish": 1e-7}
"""The ONNX reference evaluates these in single precision, or with constants of single precision."""


def inputs() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    count = int(np.prod(SHAPE))
    drawn = [rng.normal(size=SHAPE) * scale for scale in (1e-6, 0.3, 3.0, 30.0, 1e4)]
    hostile = np.resize([0.0, -0.0, 1e-42, -1e-42, 88.8, -88.8, 104.0, -17.0, 1e9, -1e9, 3.0, -3.0], count)
    return [{"x": single(values).reshape(SHAPE)} for values in (*drawn, hostile)]


@pytest.mark.parametrize(("operator", "opset", "attributes", "constants"), CASES)
def test_value_is_that_of_the_standard_and_stray_covers_the_engine(operator, opset, attributes, constants):
    node = of_one_value(operator, opset, SHAPE, attributes, *constants)
    for values in inputs():
        value, stray = node.run(values)
        with np.errstate(all="ignore"):
            expected = node.reference(values)
        # Relative to the input as well: the reference's own formulas cancel (1 + erf, exp - 1) and overflow.
        size = np.where(np.isfinite(expected), REFERENCE_ERROR.get(operator, 1e-12), np.inf)
        np.testing.assert_array_less(np.abs(value - expected), size * (1 + np.abs(values["x"])))
        executed = node.engine(values).astype(np.float64)
        assert np.isfinite(stray).all()
        assert (np.abs(executed - value) <= stray).all()


@pytest.mark.parametrize(("operator", "opset", "attributes", "constants"), CASES)
def test_secant_slopes_stay_within_the_interval(operator, opset, attributes, constants):
    node = of_one_value(operator, opset, SHAPE, attributes, *constants)
    (term,) = node.terms()
    assert isinstance(term, Activation)
    rng = np.random.default_rng(1)
    for scale in (0.1, 1.0, 5.0):
        x, step = rng.normal(size=(1, 60)) * scale, rng.uniform(0.01, 1.0, size=(1, 60))
        slope = (term.evaluate(x + step) - term.evaluate(x)) / step
        assert (slope >= np.asarray(term.function.slope_lower) - 1e-12).all()
        assert (slope <= np.asarray(term.function.slope_upper) + 1e-12).all()


def test_prelu_slopes_are_one_interval_per_entry():
    (term,) = of_one_value("PRelu", 16, SHAPE, {}, SLOPES).terms()
    assert isinstance(term, Activation)
    expected = np.broadcast_to(SLOPES, SHAPE).reshape(-1)
    np.testing.assert_array_equal(term.function.slope_lower, np.minimum(1.0, expected))
    np.testing.assert_array_equal(term.function.slope_upper, np.maximum(1.0, expected))


REFUSED = [
    (of_one_value("Celu", 12, SHAPE, {"alpha": -1.0}), "positive"),
    (of_one_value("Celu", 12, SHAPE, {"alpha": 0.0}), "positive"),
    (of_one_value("Elu", 22, SHAPE, {"alpha": float("nan")}), "alpha is nan"),
    (of_one_value("Gelu", 20, SHAPE, {"approximate": "sigmoid"}), "neither 'none' nor 'tanh'"),
    (of_one_value("PRelu", 16, SHAPE, {}, np.zeros((2, 3, 4, 5))), "does not broadcast"),
    (of_one_value("PRelu", 16, SHAPE, {}, np.array(np.inf)), "NaN or infinite"),
    (of_one_value("Clip", 13, SHAPE, {}, np.zeros(2)), "one number"),
    (of_one_value("Clip", 13, SHAPE, {}, np.array(np.nan)), "NaN"),
    (of_one_value("ThresholdedRelu", 22, SHAPE, {}), "discontinuous"),
    (of_one_value("Sign", 13, SHAPE, {}), "discontinuous"),
    (of_one_value("Tan", 22, SHAPE, {}), "unbounded slope"),
    (
        OneNode(
            operator="PRelu",
            opset=16,
            inputs=("x", "s"),
            shapes={"x": SHAPE, "s": SHAPE},
            constants={},
            attributes={},
        ),
        "must be constant",
    ),
    (
        OneNode(
            operator="Clip",
            opset=13,
            inputs=("x", "m"),
            shapes={"x": SHAPE, "m": ()},
            constants={},
            attributes={},
        ),
        "must be constant",
    ),
]


@pytest.mark.parametrize(("node", "reason"), REFUSED)
def test_refusals_name_the_node_and_the_reason(node, reason):
    with pytest.raises(UnsupportedNode, match=reason) as caught:
        node.terms()
    assert caught.value.node == "node" and caught.value.operator == node.operator


def test_infinite_clip_bounds_bound_nothing():
    node = of_one_value("Clip", 13, SHAPE, {}, np.array(-np.inf), np.array(np.inf))
    x = {"x": np.random.default_rng(2).normal(size=SHAPE)}
    np.testing.assert_array_equal(node.evaluate(x), x["x"])


def test_celu_of_version_28_is_that_of_version_12():
    newer, older = (of_one_value("Celu", opset, SHAPE, {"alpha": 0.4}) for opset in (28, 12))
    x = {"x": np.random.default_rng(3).normal(size=SHAPE)}
    np.testing.assert_array_equal(newer.evaluate(x), older.evaluate(x))
    np.testing.assert_allclose(newer.evaluate(x), newer.reference(x), rtol=1e-12)


def test_every_version_in_the_support_table_has_a_case():
    nodes = [of_one_value(operator, opset, SHAPE, {}) for operator, opset, _, _ in CASES]
    tested = {(node.operator, node.since) for node in nodes} | {("Celu", 28)}
    operators = {operator for operator, _, _, _ in CASES}
    listed = {
        (entry.operator, int(version))
        for entry in registry.support()
        if entry.operator in operators
        for version in entry.versions.split(", ")
    }
    assert listed == tested
