"""Small files that ask for much: every limit is a typed refusal, and comes before the memory is taken."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from certifier.errors import CertifierError, ResourceLimitExceeded
from certifier.limits import Limits
from certifier.network import build_network
from certifier.reading.formats import read_model
from tests.building import certify_bytes
from tests.hostile.onnx_making import ADD, RELU, model_of, refusal_of, tensor_of


def test_too_many_nodes_are_refused_before_they_are_checked():
    nodes = [helper.make_node("Relu", ["x" if i == 0 else f"v{i}"], [f"v{i + 1}"]) for i in range(25_000)]
    refused = refusal_of(model_of(*nodes, helper.make_node("Relu", ["v25000"], ["y"])), ResourceLimitExceeded)
    assert refused.details()["resource"] == "nodes"


@pytest.mark.slow
def test_a_million_nodes_are_refused():
    model = model_of(RELU)
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
    model = model_of(node, functions=functions, opsets=[("", 18), ("local", 1)])
    started = time.process_time()
    refused = refusal_of(model, ResourceLimitExceeded)
    assert refused.details()["resource"] == "nodes"
    # Not a measure of speed: inlined, it would take hours.
    assert time.process_time() - started < 60


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
    refusal_of(model_of(node, constants=[tensor_of("i", np.array(values))]), CertifierError)


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
        constants.append(tensor_of("w", np.ones((1, 1, *kernel))))
    node = helper.make_node(operator, inputs, ["y"], **attributes)
    refusal_of(model_of(node, constants=constants, shape=(None, *shape)), CertifierError)


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
    constants = [tensor_of(f"i{index}", value) for index, value in enumerate(values)]
    nodes = [
        helper.make_node(operator, [tensor.name for tensor in constants], ["k"]),
        helper.make_node("Cast", ["k"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["f"], ["c"], keepdims=0),
    ]
    refusal_of(model_of(*nodes, ADD, constants=constants), CertifierError)


def test_folded_constants_count_together():
    """Each is within the limit, their sum is not."""
    shape = tensor_of("s", np.array([600]))
    axes = tensor_of("a", np.array([0]))
    nodes, value = [], "x"
    for index in range(5):
        nodes.append(helper.make_node("ConstantOfShape", ["s"], [f"k{index}"]))
        nodes.append(helper.make_node("ReduceSum", [f"k{index}", "a"], [f"r{index}"]))
        nodes.append(helper.make_node("Add", [value, f"r{index}"], [f"v{index}"]))
        value = f"v{index}"
    model = model_of(*nodes, helper.make_node("Relu", [value], ["y"]), constants=[shape, axes])
    refused = refusal_of(model, ResourceLimitExceeded, limits=Limits(elements=1000))
    assert refused.details()["resource"] == "elements"


@pytest.mark.parametrize(
    "limits", [Limits(model_bytes=10), Limits(nodes=0), Limits(elements=2), Limits(value_elements=2)]
)
def test_every_limit_names_its_resource(limits):
    model = model_of(ADD, constants=[tensor_of("c", np.ones(3))])
    refused = refusal_of(model, ResourceLimitExceeded, limits=limits)
    assert getattr(limits, str(refused.details()["resource"])) == refused.details()["limit"]


@pytest.mark.parametrize("operator", ["Concat", "Max", "Sum"])
def test_many_inputs_of_one_node_cost_no_more_than_their_sizes(operator):
    """k inputs of n entries are k n numbers, not k² n."""
    count, size = 60, 4000
    parts = [helper.make_node("Relu", ["x"], [f"p{index}"]) for index in range(count)]
    attributes: dict[str, Any] = {"axis": 1} if operator == "Concat" else {}
    node = helper.make_node(operator, [f"p{index}" for index in range(count)], ["y"], **attributes)
    graph = read_model(
        model_of(*parts, node, shape=(None, size)).SerializeToString(), limits=Limits(), input_shape=None
    )[1]
    tracemalloc.start()
    try:
        build_network(graph, limits=Limits(), cut_head=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12 * 8 * count * size
