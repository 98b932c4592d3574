"""Hostile ONNX files: whatever the bytes are, the answer is a certificate or a typed refusal, soon and in little memory."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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
from certifier.network import build_network
from certifier.reading.formats import read_model
from tests.building import Model, certify_bytes

RELU = helper.make_node("Relu", ["x"], ["y"])
ADD = helper.make_node("Add", ["x", "c"], ["y"])


def _tensor(name: str, value: Any) -> onnx.TensorProto:
    array = np.asarray(value)
    return numpy_helper.from_array(array.astype(np.int64 if array.dtype.kind in "iu" else np.float32), name)


def _model(
    *nodes: onnx.NodeProto,
    constants: Sequence[onnx.TensorProto] = (),
    shape: Sequence[int | None] = (None, 3),
    functions: Sequence[onnx.FunctionProto] = (),
    opsets: Sequence[tuple[str, int]] = (("", 18),),
) -> onnx.ModelProto:
    """A float32 model from `x` to `y`."""
    graph = helper.make_graph(
        list(nodes),
        "hostile",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * len(shape))],
        list(constants),
    )
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets]
    return helper.make_model(graph, opset_imports=imports, ir_version=10, functions=list(functions))


def _refused(model: onnx.ModelProto | bytes, kind: type[CertifierError], **settings_: Any) -> CertifierError:
    """The refusal, which took neither long nor much memory."""
    data = model if isinstance(model, bytes) else model.SerializeToString()
    tracemalloc.start()
    try:
        with pytest.raises(kind) as refused:
            certify_bytes(data, **settings_)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * 2**20
    return refused.value


@pytest.mark.parametrize(
    "data",
    [b"", b"\x08", b"\x00" * 100, b"PK\x03\x04rest", b"\x80\x04K\x01.", b"\x89HDF\r\n", b"GIF89a", b"\x1f\x8b\x08"],
)
def test_bytes_that_are_no_onnx_model_are_refused(data):
    with pytest.raises(MalformedModel):
        read_model(data, limits=Limits())


def test_other_known_formats_are_named():
    with pytest.raises(UnknownFormat, match="zip"):
        read_model(b"PK\x03\x04....", limits=Limits())


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
        model = _model(ADD, constants=[_tensor("c", np.ones(3))])
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        assert "external data" in str(_refused(model, UnsupportedModel))


def test_external_data_in_an_attribute_is_refused():
    tensor = _tensor("", np.ones(3))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    assert "external data" in str(_refused(_model(node, ADD), UnsupportedModel))


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
    model = _model(ADD, constants=[_tensor("c", np.ones(3))])
    model.graph.initializer[0].dims[:] = dims
    _refused(model, kind)


@pytest.mark.parametrize("data_type", [0, 8, 77])
def test_tensors_of_unknown_type_are_refused(data_type):
    model = _model(ADD, constants=[_tensor("c", np.ones(3))])
    model.graph.initializer[0].data_type = data_type
    _refused(model, CertifierError)


@pytest.mark.parametrize("element_type", [0, 6, 7, 8, 9, 14, 16, 17, 99])
def test_inputs_that_are_not_floating_are_refused(element_type):
    """Integers, strings, booleans, complex numbers, and types that do not exist."""
    model = _model(RELU)
    model.graph.input[0].type.tensor_type.elem_type = element_type
    _refused(model, CertifierError)


@pytest.mark.parametrize("size", [2**26, 2**31, 2**62])
def test_huge_inputs_are_refused(size):
    assert "value_elements" in str(_refused(_model(RELU, shape=(None, size)), ResourceLimitExceeded))


@pytest.mark.parametrize("dim", [None, "W", -3, 0])
def test_dynamic_axes_other_than_the_batch_are_refused(dim):
    assert "fixed size" in str(_refused(_model(RELU, shape=(None, dim)), UnsupportedModel))


@pytest.mark.parametrize("opset", [1, 6, 99])
def test_operator_sets_outside_the_range_are_refused(opset):
    assert "operator set" in str(_refused(_model(RELU, opsets=[("", opset)]), UnsupportedModel))


def test_a_model_without_the_standard_operators_is_refused():
    _refused(_model(RELU, opsets=[("custom", 1)]), UnsupportedModel)


def test_an_operator_of_an_unknown_domain_is_refused_by_name():
    node = helper.make_node("Relu", ["x"], ["y"], domain="elsewhere", name="odd")
    refused = _refused(_model(node, opsets=[("", 18), ("elsewhere", 1)]), UnsupportedNode)
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
    _refused(_model(choose, constants=[numpy_helper.from_array(np.array(True), "b")]), CertifierError)
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
    _refused(_model(loop, constants=[numpy_helper.from_array(np.array(True), "b")]), CertifierError)


def test_a_cycle_is_refused():
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    _refused(_model(*nodes), MalformedModel)


def test_a_name_written_twice_is_refused():
    _refused(_model(RELU, helper.make_node("Abs", ["x"], ["y"])), MalformedModel)
    twice = [_tensor("c", np.ones(3)), _tensor("c", 5 * np.ones(3))]
    _refused(_model(ADD, constants=twice), MalformedModel)
    _refused(_model(RELU, helper.make_node("Abs", ["x"], ["c"]), constants=[twice[0]]), MalformedModel)


def test_too_many_nodes_are_refused_before_they_are_checked():
    nodes = [helper.make_node("Relu", ["x" if i == 0 else f"v{i}"], [f"v{i + 1}"]) for i in range(25_000)]
    refused = _refused(_model(*nodes, helper.make_node("Relu", ["v25000"], ["y"])), ResourceLimitExceeded)
    assert refused.details()["resource"] == "nodes"


@pytest.mark.slow
def test_a_million_nodes_are_refused():
    model = _model(RELU)
    model.graph.node.extend([RELU] * 10**6)
    with pytest.raises(ResourceLimitExceeded):
        certify_bytes(model.SerializeToString())


def test_functions_that_double_at_every_level_are_refused_before_they_are_inlined():
    """Thirty functions that call the next one twice: 2^30 nodes in two kilobytes."""
    functions = []
    for level in range(30):
        callee, domain = (f"F{level + 1}", "local") if level < 29 else ("Relu", "")
        calls = [
            helper.make_node(callee, ["x"], ["a"], domain=domain),
            helper.make_node(callee, ["a"], ["y"], domain=domain),
        ]
        imports = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
        functions.append(helper.make_function("local", f"F{level}", ["x"], ["y"], calls, imports))
    node = helper.make_node("F0", ["x"], ["y"], domain="local")
    model = _model(node, functions=functions, opsets=[("", 18), ("local", 1)])
    started = time.process_time()
    refused = _refused(model, ResourceLimitExceeded)
    assert refused.details()["resource"] == "nodes"
    # Not a measure of speed: inlined, it would take hours.
    assert time.process_time() - started < 60


def test_recursive_functions_are_refused():
    call = helper.make_node("F", ["x"], ["y"], domain="local")
    function = helper.make_function("local", "F", ["x"], ["y"], [call], [helper.make_opsetid("local", 1)])
    _refused(_model(call, functions=[function], opsets=[("", 18), ("local", 1)]), MalformedModel)


def test_a_function_is_bounded_by_its_body():
    """Even where it takes the name of a standard operator: what is bounded is what is served."""
    body = [helper.make_node("Mul", ["x", "x3"], ["y"])]
    three = helper.make_node("Constant", [], ["x3"], value=_tensor("", np.array([3.0])))
    imports = [helper.make_opsetid("", 18)]
    function = helper.make_function("local", "Triple", ["x"], ["y"], [three, *body], imports)
    node = helper.make_node("Triple", ["x"], ["y"], domain="local")
    model = _model(node, functions=[function], opsets=[("", 18), ("local", 1)])
    assert 3.0 <= certify_bytes(model.SerializeToString()).certificate.lipschitz.upper < 3.0001


def _attribute_reference() -> onnx.ModelProto:
    model = _model(helper.make_node("LeakyRelu", ["x"], ["y"], alpha=0.5))
    model.graph.node[0].attribute[0].ref_attr_name = "elsewhere"
    return model


def _mistyped_attribute() -> onnx.ModelProto:
    model = _model(helper.make_node("LeakyRelu", ["x"], ["y"], alpha=0.5))
    model.graph.node[0].attribute[0].type = onnx.AttributeProto.INT
    return model


def _repeated_attribute() -> onnx.ModelProto:
    model = _model(helper.make_node("LeakyRelu", ["x"], ["y"], alpha=0.5))
    model.graph.node[0].attribute.add().CopyFrom(model.graph.node[0].attribute[0])
    model.graph.node[0].attribute[1].f = 7.0
    return model


def _sparse_weights() -> onnx.ModelProto:
    model = _model(RELU)
    model.graph.sparse_initializer.add()
    return model


def _two_inputs() -> onnx.ModelProto:
    model = _model(helper.make_node("Add", ["x", "z"], ["y"]))
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [None, 3]))
    return model


def _two_outputs() -> onnx.ModelProto:
    model = _model(RELU, helper.make_node("Abs", ["x"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [None, 3]))
    return model


def _constant_output() -> onnx.ModelProto:
    return _model(helper.make_node("Identity", ["c"], ["y"]), constants=[_tensor("c", np.ones((1, 3)))])


def _missing_value() -> onnx.ModelProto:
    return _model(helper.make_node("Add", ["x", "nowhere"], ["y"]))


@pytest.mark.parametrize(
    "build",
    [
        _attribute_reference, _mistyped_attribute, _repeated_attribute, _sparse_weights, _two_inputs, _two_outputs,
        _constant_output, _missing_value,
    ],
)  # fmt: skip
def test_odd_graphs_are_refused(build: Callable[[], onnx.ModelProto]):
    _refused(build(), CertifierError)


@pytest.mark.parametrize(
    ("operator", "values"),
    [
        ("Expand", [10**12, 3]), ("Expand", [2**62, 4, 3]), ("Tile", [10**6, 10**6]), ("Tile", [2**62, 4]),
        ("Reshape", [3, 2**62]), ("Reshape", [-5]), ("Pad", [0, 2**62, 0, 0]), ("Pad", [0, 10**9, 0, 0]),
        ("Pad", [0, -9, 0, 0]), ("Gather", [0, -(2**62)]),
    ],
)  # fmt: skip
def test_operators_that_blow_their_input_up_are_refused(operator, values):
    node = helper.make_node(operator, ["x", "i"], ["y"])
    _refused(_model(node, constants=[_tensor("i", np.array(values))]), CertifierError)


@pytest.mark.parametrize(
    ("operator", "shape", "kernel", "attributes"),
    [
        ("Conv", (1, 3, 3), (1, 1), {"pads": [2**40] * 4}),
        ("Conv", (1, 3, 3), (1, 1), {"pads": [2**14] * 4}),
        ("Conv", (1, 3, 3), (2, 2), {"dilations": [2**40] * 2}),
        ("Conv", (1, 3, 3), (1, 1), {"strides": [0, 0]}),
        ("Conv", (1, 3, 3), (1, 1), {"group": 0}),
        ("Conv", (1, 3, 3), (1, 1), {"group": -1}),
        ("ConvTranspose", (1, 3, 3), (2, 2), {"strides": [2**30] * 2}),
        ("ConvTranspose", (1, 3, 3), (2, 2), {"dilations": [2**30] * 2}),
        ("MaxPool", (1, 3, 3), None, {"kernel_shape": [2000, 2000], "pads": [1999] * 4}),
        ("AveragePool", (1, 3, 3), None, {"kernel_shape": [2**20, 2**20], "pads": [2**20] * 4}),
        ("LpPool", (1, 3, 3), None, {"kernel_shape": [-1, 3]}),
    ],
)
def test_geometry_without_measure_is_refused(operator, shape, kernel, attributes):
    inputs, constants = ["x"], []
    if kernel is not None:
        inputs.append("w")
        constants.append(_tensor("w", np.ones((1, 1, *kernel))))
    node = helper.make_node(operator, inputs, ["y"], **attributes)
    _refused(_model(node, constants=constants, shape=(None, *shape)), CertifierError)


@pytest.mark.parametrize(
    ("operator", "values"),
    [
        ("ConstantOfShape", [np.array([10**6, 10**6])]),
        ("ConstantOfShape", [np.array([2**62, 2**62])]),
        ("ConstantOfShape", [np.array([-4])]),
        ("Range", [np.array(0), np.array(10**12), np.array(1)]),
        ("Range", [np.array(0), np.array(10), np.array(0)]),
        ("Range", [np.array(0), np.array(-(10**18)), np.array(-1)]),
        ("Expand", [np.array([1]), np.array([10**6, 10**6])]),
        ("Tile", [np.array([1]), np.array([10**12])]),
    ],
)
def test_constants_that_fold_into_huge_ones_are_refused_before_they_exist(operator, values):
    constants = [_tensor(f"i{index}", value) for index, value in enumerate(values)]
    nodes = [
        helper.make_node(operator, [tensor.name for tensor in constants], ["k"]),
        helper.make_node("Cast", ["k"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["f"], ["c"], keepdims=0),
    ]
    _refused(_model(*nodes, ADD, constants=constants), CertifierError)


def test_folded_constants_count_together():
    """Each is within the limit, their sum is not."""
    shape = _tensor("s", np.array([600]))
    axes = _tensor("a", np.array([0]))
    nodes, value = [], "x"
    for index in range(5):
        nodes.append(helper.make_node("ConstantOfShape", ["s"], [f"k{index}"]))
        nodes.append(helper.make_node("ReduceSum", [f"k{index}", "a"], [f"r{index}"]))
        nodes.append(helper.make_node("Add", [value, f"r{index}"], [f"v{index}"]))
        value = f"v{index}"
    model = _model(*nodes, helper.make_node("Relu", [value], ["y"]), constants=[shape, axes])
    refused = _refused(model, ResourceLimitExceeded, limits=Limits(elements=1000))
    assert refused.details()["resource"] == "elements"


@pytest.mark.parametrize(
    "limits", [Limits(model_bytes=10), Limits(nodes=0), Limits(elements=2), Limits(value_elements=2)]
)
def test_every_limit_names_its_resource(limits):
    model = _model(ADD, constants=[_tensor("c", np.ones(3))])
    refused = _refused(model, ResourceLimitExceeded, limits=limits)
    assert getattr(limits, str(refused.details()["resource"])) == refused.details()["limit"]


def _rich_model() -> bytes:
    model = Model(2, 4, 4)
    model.then("Conv", np.ones((2, 2, 3, 3)), np.ones(2), pads=[1, 1, 1, 1])
    model.then("BatchNormalization", np.ones(2), np.ones(2), np.ones(2), np.ones(2))
    model.then("Relu")
    model.then("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    model.then("Reshape", np.array([0, -1]))
    model.linear(np.ones((3, 8)), np.ones(3))
    model.then("Softmax", axis=1)
    return model.data()


RICH = _rich_model()


def _certified_or_refused(data: bytes) -> None:
    """Anything but a certificate or a CertifierError is a fault."""
    try:
        certificate = certify_bytes(data, limits=Limits(value_elements=2**20, elements=2**20)).certificate
    except CertifierError:
        return
    assert 0 <= certificate.lipschitz.lower <= certificate.lipschitz.upper < np.inf


MUTATIONS = st.lists(
    st.tuples(st.integers(0, len(RICH) - 1), st.integers(0, 255), st.sampled_from(["set", "cut", "insert"])),
    min_size=1,
    max_size=6,
)


def _mutated(changes: list[tuple[int, int, str]]) -> bytes:
    data = bytearray(RICH)
    for place, byte, kind in changes:
        at = place % max(1, len(data))
        if kind == "set":
            data[at : at + 1] = bytes([byte])
        elif kind == "cut":
            del data[at : at + 1 + byte % 16]
        else:
            data[at:at] = bytes([byte])
    return bytes(data)


@settings(max_examples=400)
@given(MUTATIONS)
def test_a_damaged_model_is_certified_or_refused(changes):
    _certified_or_refused(_mutated(changes))


@pytest.mark.slow
@settings(max_examples=8000)
@given(MUTATIONS)
def test_many_damaged_models_are_certified_or_refused(changes):
    _certified_or_refused(_mutated(changes))


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data):
    _certified_or_refused(data)
    _certified_or_refused(b"\x08\x0a" + data)


@pytest.mark.parametrize("operator", ["Concat", "Max", "Sum"])
def test_many_inputs_of_one_node_cost_no_more_than_their_sizes(operator):
    """k inputs of n entries are k n numbers, not k² n."""
    count, size = 60, 4000
    parts = [helper.make_node("Relu", ["x"], [f"p{index}"]) for index in range(count)]
    attributes = {"axis": 1} if operator == "Concat" else {}
    node = helper.make_node(operator, [f"p{index}" for index in range(count)], ["y"], **attributes)
    graph = read_model(_model(*parts, node, shape=(None, size)).SerializeToString(), limits=Limits())[1]
    tracemalloc.start()
    try:
        build_network(graph, limits=Limits(), cut_head=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12 * 8 * count * size
