"""Graph -> network: names stay apart, constants fold, heads are cut, rows stay rows."""

from __future__ import annotations

import numpy as np
import pytest

from certifier.documents import CertifyOptions
from certifier.errors import CertifierError, MalformedModel, UnsupportedModel
from certifier.limits import Limits
from certifier.network import build_network
from certifier.reading.onnx import read_onnx
from tests.building import Model, certify_model, predictor_of, single


def _network(model: Model, *, cut_head: bool = False):
    return build_network(read_onnx(model.data(), limits=Limits()), limits=Limits(), cut_head=cut_head)


def _colliding(name: str, operator: str) -> Model:
    """A tensor of the model's own bears the name of a value that a rule invents; far from 0 the two differ."""
    model = Model(3)
    far = model.add("Relu", model.add("Sub", "x", np.array([50.0])))
    near = model.add("Abs", "x")
    model.add("Relu", model.add("Add", near, model.add("Mul", far, np.array([1000.0]))), outputs=[name])
    if operator == "ReduceL1":
        model.add("ReduceL1", "x", np.array([1]), outputs=["s"], keepdims=1)
    else:
        shifted = model.add("Neg", "x")
        model.add(operator, "x", shifted, np.zeros(3), outputs=["s"])
    model.add("Add", "s", name)
    return model


@pytest.mark.parametrize("operator", ["ReduceL1", "Max", "Min"])
@pytest.mark.parametrize("suffix", ["absolute", "live", "stack"])
def test_names_that_rules_invent_never_shadow_the_models_own(operator, suffix):
    """A shadowed name would bound one network and serve another."""
    model = _colliding(f"s/{suffix}", operator)
    try:
        certified = certify_model(model)
    except CertifierError:
        return
    points = np.array([[60.0, 60.0, 60.0], [61.0, 60.0, 60.0]])
    first, second = model.reference()(points)
    assert certified.certificate.lipschitz.upper >= np.linalg.norm(first - second)


def test_invented_names_never_shadow_constants():
    model = Model(3)
    model.constant(np.array([7.0, 8.0, 9.0]), name="s/absolute")
    model.add("ReduceL1", "x", np.array([1]), outputs=["s"], keepdims=1)
    model.add("Add", "s", "s/absolute")
    try:
        certified = certify_model(model)
    except CertifierError:
        return
    row = predictor_of(certified).predict(np.array([[1.0, -2.0, 0.0]]), epsilon=None, preprocessing=None)[0]
    assert row.logits == [10.0, 11.0, 12.0]


def test_constants_fold_before_they_are_bounded():
    """A weight that is computed from constants is a weight like any other."""
    model = Model(2)
    weight = model.add("Mul", np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([2.0]))
    model.add("MatMul", "x", model.add("Transpose", weight))
    network = _network(model)
    assert len(network.terms) == 1
    truth = np.linalg.norm(2 * np.array([[1.0, 2.0], [3.0, 4.0]]), 2)
    upper = certify_model(model).certificate.lipschitz.upper
    assert truth * (1 - 1e-14) <= upper <= truth * (1 + 1e-8)


def test_the_shape_of_a_live_value_folds():
    """Flattening by Shape, Gather and Concat, as exporters write it."""
    model = Model(2, 3)
    shape = model.add("Shape", "x")
    rows = model.add("Gather", shape, np.array([0]), axis=0)
    target = model.add("Concat", rows, np.array([-1]), axis=0)
    model.add("Reshape", "x", target)
    model.linear(np.ones((2, 6)))
    assert _network(model).output_shape == (1, 2)


@pytest.mark.parametrize(("operator", "head"), [("Softmax", "softmax"), ("LogSoftmax", "softmax"), ("Relu", None)])
def test_only_a_monotone_head_is_cut_off(operator, head):
    model = Model(3)
    model.linear(np.eye(3))
    model.then(operator)
    network = _network(model, cut_head=True)
    assert network.head == head and len(network.terms) == (1 if head else 2)
    assert _network(model, cut_head=False).head is None


def test_only_the_last_of_two_softmaxes_is_cut_off():
    model = Model(3)
    model.then("Softmax", axis=1)
    model.then("Softmax", axis=1)
    certified = certify_model(model)
    assert certified.certificate.lipschitz.upper == pytest.approx(0.5)
    row = predictor_of(certified).predict(np.array([[3.0, 2.0, 0.0]]), epsilon=None, preprocessing=None)[0]
    assert sum(row.logits) == pytest.approx(1.0)


def test_a_sigmoid_over_several_outputs_is_not_cut_off():
    """It is no head of one binary classifier."""
    model = Model(3)
    model.then("Sigmoid")
    assert _network(model, cut_head=True).head is None


@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.01])
def test_a_binary_classifier_certifies_the_distance_to_its_threshold(threshold):
    """|f - log(p/(1-p))| / L on the logit."""
    model = Model(2)
    model.linear([[3.0, 4.0]])
    model.then("Sigmoid")
    options = CertifyOptions(threshold=threshold, arithmetic="real")
    predictor = predictor_of(certify_model(model, options=options))
    theta = np.log(threshold / (1 - threshold))
    for point in ([1.0, 1.0], [-2.0, 0.5], [0.3, 0.4]):
        row = predictor.predict(np.array([point]), epsilon=None, preprocessing=None)[0]
        logit = np.array(point) @ [3.0, 4.0]
        assert row.label == int(logit > theta)
        assert row.radius is not None
        assert abs(logit - theta) / 5 * (1 - 1e-7) <= row.radius < abs(logit - theta) / 5


def test_rows_of_a_batch_never_depend_on_each_other():
    """The batch axis holds one row whatever the model does across it: softmax over rows is a constant there."""
    model = Model(3)
    model.then("Softmax", axis=0)
    predictor = predictor_of(certify_model(model, options=CertifyOptions(task="regression")))
    rows = predictor.predict(np.arange(6.0).reshape(2, 3), epsilon=None, preprocessing=None)
    assert [row.logits for row in rows] == [[1.0, 1.0, 1.0]] * 2


def test_an_output_that_ignores_the_input_is_refused():
    model = Model(3)
    model.add("Add", np.ones(3), np.ones(3))
    with pytest.raises((UnsupportedModel, MalformedModel)):
        certify_model(model)


def test_the_pullback_is_the_transposed_jacobian():
    """The searches' gradient against secants of the reference."""
    generator = np.random.default_rng(0)
    model = Model(4)
    start = model.then("Tanh")
    model.linear(single(generator.standard_normal((4, 4))))
    model.add("Add", start, model.then("Sigmoid"))
    model.add("Concat", model.output, start, axis=1)
    point = generator.standard_normal(4)
    jacobian = model.reference().jacobian(point)
    direction = generator.standard_normal(8)
    gradient = _network(model).linearised(point[None]).pullback(direction[None])
    assert np.allclose(gradient[0], jacobian.T @ direction, atol=1e-7)
