"""Hostile ONNX files: whatever the bytes are, the answer is a typed refusal or a certificate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from certifier.errors import (
    CertifierError,
    MalformedModel,
    ResourceLimitExceeded,
    UnknownFormat,
    UnsupportedModel,
    UnsupportedNode,
)
from certifier.limits import Limits
from certifier.reading.formats import read_model
from tests.building import Model, certify_bytes
from tests.hostile.onnx_making import ADD, RELU, model_of, refusal_of, tensor_of


@pytest.mark.parametrize(
    "data",
    [b"", b"\x08", b"\x00" * 100, b"PK\x03\x04rest", b"\x80\x04K\x01.", b"\x89HDF\r\n", b"GIF89a", b"\x1f\x8b\x08"],
)
def test_bytes_that_are_no_onnx_model_are_refused(data):
    with pytest.raises(MalformedModel):
        read_model(data, limits=Limits(), input_shape=None)


def test_other_known_formats_are_named():
    with pytest.raises(UnknownFormat, match="HDF5"):
        read_model(b"\x89HDF\r\n", limits=Limits(), input_shape=None)


def test_every_truncation_is_refused_or_certified():
    """Cut anywhere, a file is malformed, or what is left is a model of its own."""
    model = Model(3)
    model.linear(np.eye(3))
    data = model.data()
    for length in range(len(data)):
        try:
            certify_bytes(data[:length])
        except CertifierError:
            pass


def test_external_data_is_refused_without_touching_the_file_system(tmp_path):
    """CVE-2022-25882 and its successors: a tensor that names another file."""
    target = tmp_path / "weights.bin"
    target.write_bytes(b"\x00" * 12)
    for location in (str(target), "../../../etc/passwd", "weights.bin", "a/../../b"):
        model = model_of(ADD, constants=[tensor_of("c", np.ones(3))])
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        assert "external data" in str(refusal_of(model, UnsupportedModel))


def test_external_data_in_an_attribute_is_refused():
    tensor = tensor_of("", np.ones(3))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    assert "external data" in str(refusal_of(model_of(node, ADD), UnsupportedModel))


@pytest.mark.parametrize(
    ("dims", "kind"),
    [
        ([5], MalformedModel),
        ([-1], MalformedModel),
        ([2**40, 2**40], ResourceLimitExceeded),
        ([2**62, 2**62, 0], CertifierError),
        ([2**63 - 1], ResourceLimitExceeded),
        ([], MalformedModel),
    ],
)
def test_dimensions_that_contradict_the_data_are_refused(dims, kind):
    model = model_of(ADD, constants=[tensor_of("c", np.ones(3))])
    model.graph.initializer[0].dims[:] = dims
    refusal_of(model, kind)


@pytest.mark.parametrize("data_type", [0, 8, 77])
def test_tensors_of_unknown_type_are_refused(data_type):
    model = model_of(ADD, constants=[tensor_of("c", np.ones(3))])
    model.graph.initializer[0].data_type = data_type
    refusal_of(model, CertifierError)


@pytest.mark.parametrize("element_type", [0, 6, 7, 8, 9, 14, 16, 17, 99])
def test_inputs_that_are_not_floating_are_refused(element_type):
    """Integers, strings, booleans, complex numbers, and types that do not exist."""
    model = model_of(RELU)
    model.graph.input[0].type.tensor_type.elem_type = element_type
    refusal_of(model, CertifierError)


@pytest.mark.parametrize("size", [2**26, 2**31, 2**62])
def test_huge_inputs_are_refused(size):
    assert "value_elements" in str(refusal_of(model_of(RELU, shape=(None, size)), ResourceLimitExceeded))


@pytest.mark.parametrize("dim", [None, "W", -3, 0])
def test_dynamic_axes_other_than_the_batch_are_refused(dim):
    assert "fixed size" in str(refusal_of(model_of(RELU, shape=(None, dim)), UnsupportedModel))


@pytest.mark.parametrize("opset", [1, 6, 99])
def test_operator_sets_outside_the_range_are_refused(opset):
    assert "operator set" in str(refusal_of(model_of(RELU, opsets=[("", opset)]), UnsupportedModel))


def test_a_model_without_the_standard_operators_is_refused():
    refusal_of(model_of(RELU, opsets=[("custom", 1)]), UnsupportedModel)


def test_an_operator_of_an_unknown_domain_is_refused_by_name():
    node = helper.make_node("Relu", ["x"], ["y"], domain="elsewhere", name="odd")
    refused = refusal_of(model_of(node, opsets=[("", 18), ("elsewhere", 1)]), UnsupportedNode)
    assert refused.details()["operator"] == "Relu" and "elsewhere" in str(refused)


def test_control_flow_is_refused():
    """A Loop may never end; an If is discontinuous."""
    body = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["z"])],
        "branch",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
    )
    choose = helper.make_node("If", ["b"], ["y"], then_branch=body, else_branch=body)
    refusal_of(model_of(choose, constants=[numpy_helper.from_array(np.array(True), "b")]), CertifierError)
    loop_body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Relu", ["s"], ["t"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("t", TensorProto.FLOAT, None),
        ],
    )
    loop = helper.make_node("Loop", ["", "b", "x"], ["y"], body=loop_body)
    refusal_of(model_of(loop, constants=[numpy_helper.from_array(np.array(True), "b")]), CertifierError)


def test_a_cycle_is_refused():
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    refusal_of(model_of(*nodes), MalformedModel)


def test_a_name_written_twice_is_refused():
    refusal_of(model_of(RELU, helper.make_node("Abs", ["x"], ["y"])), MalformedModel)
    twice = [tensor_of("c", np.ones(3)), tensor_of("c", 5 * np.ones(3))]
    refusal_of(model_of(ADD, constants=twice), MalformedModel)
    refusal_of(model_of(RELU, helper.make_node("Abs", ["x"], ["c"]), constants=[twice[0]]), MalformedModel)


def test_recursive_functions_are_refused():
    call = helper.make_node("F", ["x"], ["y"], domain="local")
    function = helper.make_function("local", "F", ["x"], ["y"], [call], [helper.make_opsetid("local", 1)])
    refusal_of(model_of(call, functions=[function], opsets=[("", 18), ("local", 1)]), MalformedModel)


def test_a_function_is_bounded_by_its_body():
    """Even where it takes the name of a standard operator: what is bounded is what is served."""
    body = [helper.make_node("Mul", ["x", "x3"], ["y"])]
    three = helper.make_node("Constant", [], ["x3"], value=tensor_of("", np.array([3.0])))
    imports = [helper.make_opsetid("", 18)]
    function = helper.make_function("local", "Triple", ["x"], ["y"], [three, *body], imports)
    node = helper.make_node("Triple", ["x"], ["y"], domain="local")
    model = model_of(node, functions=[function], opsets=[("", 18), ("local", 1)])
    assert 3.0 <= certify_bytes(model.SerializeToString()).certificate.lipschitz.upper < 3.0001


def _attribute_reference() -> onnx.ModelProto:
    model = model_of(helper.make_node("LeakyRelu", ["x"], ["y"], alpha=0.5))
    model.graph.node[0].attribute[0].ref_attr_name = "elsewhere"
    return model


def _mistyped_attribute() -> onnx.ModelProto:
    model = model_of(helper.make_node("LeakyRelu", ["x"], ["y"], alpha=0.5))
    model.graph.node[0].attribute[0].type = onnx.AttributeProto.INT
    return model


def _repeated_attribute() -> onnx.ModelProto:
    model = model_of(helper.make_node("LeakyRelu", ["x"], ["y"], alpha=0.5))
    model.graph.node[0].attribute.add().CopyFrom(model.graph.node[0].attribute[0])
    model.graph.node[0].attribute[1].f = 7.0
    return model


def _sparse_weights() -> onnx.ModelProto:
    model = model_of(RELU)
    model.graph.sparse_initializer.add()
    return model


def _constant_output() -> onnx.ModelProto:
    return model_of(helper.make_node("Identity", ["c"], ["y"]), constants=[tensor_of("c", np.ones((1, 3)))])


def _missing_value() -> onnx.ModelProto:
    return model_of(helper.make_node("Add", ["x", "nowhere"], ["y"]))


@pytest.mark.parametrize(
    "build",
    [
        _attribute_reference, _mistyped_attribute, _repeated_attribute, _sparse_weights, _constant_output,
        _missing_value,
    ],
)  # fmt: skip
def test_odd_graphs_are_refused(build: Callable[[], onnx.ModelProto]):
    refusal_of(build(), CertifierError)
