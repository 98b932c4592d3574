"""graph -> ONNX bytes: the graph that was bounded is the graph that is served."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from certifier.graph import Graph, Node, Tensor
from certifier.reading.onnx import DTYPES

_ELEMENT_TYPES = {name: number for number, name in DTYPES.items()}
_OLDEST_IR = 4
"""The first IR version in which an initialiser need not be an input as well."""
_NEWEST_IR = 11


def make_node(node: Node) -> onnx.NodeProto:
    """The node as ONNX."""
    proto = helper.make_node(node.operator, list(node.inputs), list(node.outputs), name=node.name, domain=node.domain)
    for name, value in node.attributes.items():
        if isinstance(value, np.ndarray):
            proto.attribute.append(helper.make_attribute(name, numpy_helper.from_array(value)))
        elif isinstance(value, tuple) and not value:
            proto.attribute.append(helper.make_attribute(name, [], attr_type=onnx.AttributeProto.INTS))
        else:
            proto.attribute.append(helper.make_attribute(name, list(value) if isinstance(value, tuple) else value))
    return proto


def write_onnx(graph: Graph, *, output_shapes: Sequence[tuple[int, ...]], output_dtypes: Sequence[str]) -> bytes:
    """The graph as a self-contained ONNX model for one input row."""
    read = {name for node in graph.nodes for name in node.inputs} | set(graph.outputs)
    outputs = [
        helper.make_tensor_value_info(name, _ELEMENT_TYPES[dtype], list(shape))
        for name, shape, dtype in zip(graph.outputs, output_shapes, output_dtypes, strict=True)
    ]
    nodes = [make_node(node) for node in graph.nodes]
    body = helper.make_graph(nodes, "served", [_input(tensor) for tensor in graph.inputs], outputs)
    domains = {node.domain for node in graph.nodes} - {""}
    imports = [
        helper.make_opsetid("", graph.opset),
        *(helper.make_opsetid(domain, 1) for domain in sorted(domains)),
    ]
    model = helper.make_model(body, opset_imports=imports, producer_name="lipcert")
    model.ir_version = min(max(graph.ir_version, _OLDEST_IR), _NEWEST_IR)
    # One by one into the finished model: every message that they are copied through would hold all weights once more.
    for name, value in graph.constants.items():
        if name in read:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return model.SerializeToString()


def _input(tensor: Tensor) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, _ELEMENT_TYPES[tensor.dtype], list(tensor.shape))
