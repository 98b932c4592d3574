"""ONNX bytes -> graph, refusing whatever is not understood.

The protobuf is parsed from memory; external data is refused; local functions are inlined; every node is given the
operator-set version that introduced its present meaning, so that a rule can refuse a meaning it was not written for.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx.checker
import onnx.defs
import onnx.helper
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from certifier.errors import MalformedModel, UnsupportedModel, UnsupportedNode
from certifier.graph import Array, Graph, Node, Tensor
from certifier.limits import Limits
from certifier.reading import quantised
from certifier.reading.functions import demand_expansion

OLDEST_OPSET = 7
DTYPES: dict[int, str] = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.DOUBLE: "float64",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.BFLOAT16: "bfloat16",
}


def read_onnx(data: bytes, *, limits: Limits) -> Graph:
    """The graph of an ONNX model, for one input row.

    Raises: MalformedModel, ResourceLimitExceeded, UnsupportedModel, UnsupportedNode.
    """
    model = parse(data)
    _count_nodes(model, limits)
    if not _has_text_only(model):
        raise MalformedModel("a name in the model is not valid UTF-8")
    _refuse_external_data(model)
    _demand_elements(model, limits)
    versions = _opsets(model)
    _refuse_unknown_operators(model, versions)
    try:
        onnx.checker.check_model(model)
        if model.functions:
            demand_expansion(model, limits)
            model = onnx.inliner.inline_local_functions(model)
            _count_nodes(model, limits)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise MalformedModel(f"the ONNX checker refuses the model: {_first_line(error)}") from error
    constants = {tensor.name: _array(tensor) for tensor in model.graph.initializer}
    inputs = tuple(_tensor(value) for value in model.graph.input if value.name not in constants)
    outputs = tuple(value.name for value in model.graph.output)
    if not outputs or len(set(outputs)) < len(outputs):
        raise MalformedModel("the model names one of its outputs twice" if outputs else "the model has no output")
    return Graph(
        nodes=tuple(_node(node, position, versions) for position, node in enumerate(model.graph.node)),
        inputs=inputs,
        outputs=outputs,
        constants=constants,
        opset=versions[""],
        ir_version=model.ir_version,
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def parse(data: bytes) -> onnx.ModelProto:
    """The protobuf of an ONNX model, its external data not looked at.

    Raises: MalformedModel, UnsupportedModel.
    """
    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError, RuntimeError) as error:
        raise MalformedModel(f"the bytes are not an ONNX model: {_first_line(error)}") from error
    if not model.graph.node and not model.graph.output:
        raise MalformedModel("the bytes hold no ONNX graph")
    if model.graph.sparse_initializer:
        raise UnsupportedModel("sparse initialisers are not supported; export dense weights")
    return model


def _has_text_only(model: onnx.ModelProto) -> bool:
    """Whether every name is text: the decoder hands out names that are not valid UTF-8 as bytes."""
    texts: list[object] = [entry.domain for entry in model.opset_import]
    for function in model.functions:
        texts += [function.name, function.domain, *function.input, *function.output, *function.attribute]
    for node in _every_node(model):
        texts += [node.name, node.op_type, node.domain, *node.input, *node.output]
        texts += [text for attribute in node.attribute for text in (attribute.name, attribute.ref_attr_name)]
    texts += [tensor.name for tensor in every_tensor(model)]
    texts += [value.name for value in (*model.graph.input, *model.graph.output, *model.graph.value_info)]
    return all(isinstance(text, str) for text in texts)


def _all_nodes(nodes: object) -> Iterator[onnx.NodeProto]:
    stack = list(nodes)  # pyright: ignore[reportArgumentType, reportCallIssue]
    while stack:
        node = stack.pop()
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                stack.extend(attribute.g.node)
            for graph in attribute.graphs:
                stack.extend(graph.node)


def _every_node(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    yield from _all_nodes(model.graph.node)
    for function in model.functions:
        yield from _all_nodes(function.node)


def _count_nodes(model: onnx.ModelProto, limits: Limits) -> None:
    for count, _ in enumerate(_every_node(model), start=1):
        limits.demand("nodes", count)


def every_tensor(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor in the model: initialisers and attributes, those of sub-graphs and functions included."""
    yield from model.graph.initializer
    for node in _every_node(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from graph.initializer


def _refuse_external_data(model: onnx.ModelProto) -> None:
    for tensor in every_tensor(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.external_data):
            raise UnsupportedModel(
                f"tensor {tensor.name!r} keeps its data in another file (external data), which a single-file upload "
                "does not carry; save the model with its weights inside",
                remedy="upload a zip that holds the model and its data files",
            )


def _demand_elements(model: onnx.ModelProto, limits: Limits) -> None:
    total = 0
    for tensor in every_tensor(model):
        count = 1
        for dim in tensor.dims:
            if dim < 0:
                raise MalformedModel(f"tensor {tensor.name!r} has a negative dimension")
            count *= dim
        total += count
        limits.demand("elements", total, f"tensor {tensor.name!r}")


def _opsets(model: onnx.ModelProto) -> dict[str, int]:
    versions = {("" if entry.domain == "ai.onnx" else entry.domain): entry.version for entry in model.opset_import}
    if len(versions) < len(model.opset_import):
        # Readers differ in which of the two they believe, so the model has two meanings.
        raise MalformedModel("the model imports one domain of operators twice")
    newest = onnx.defs.onnx_opset_version()
    opset = versions.get("")
    if opset is None:
        raise UnsupportedModel("the model imports no version of the standard ONNX operators")
    if not OLDEST_OPSET <= opset <= newest:
        raise UnsupportedModel(f"operator set {opset} is outside the supported range {OLDEST_OPSET} to {newest}")
    return versions


def _since(node: onnx.NodeProto, versions: dict[str, int]) -> int | None:
    domain = "" if node.domain == "ai.onnx" else node.domain
    if domain not in versions or not onnx.defs.has(node.op_type, domain):
        return None
    try:
        return onnx.defs.get_schema(node.op_type, versions[domain], domain).since_version
    except onnx.defs.SchemaError:
        return None


def _refuse_unknown_operators(model: onnx.ModelProto, versions: dict[str, int]) -> None:
    for refusal in _unknown_operators(model, versions):
        raise refusal


def _unknown_operators(model: onnx.ModelProto, versions: dict[str, int]) -> Iterator[UnsupportedNode]:
    local = {(function.domain, function.name) for function in model.functions}
    for node in _all_nodes(model.graph.node):
        if (node.domain, node.op_type) not in local and _since(node, versions) is None:
            domain = f" of domain {node.domain!r}" if node.domain else ""
            reason = f"no such operator{domain} in operator set {versions.get(node.domain, versions[''])}"
            is_quantised = quantised.is_quantised(node.op_type)
            yield UnsupportedNode(
                node.name or (node.output[0] if node.output else "?"),
                node.op_type,
                f"{quantised.REASON} ({reason})" if is_quantised else reason,
                remedy=quantised.REMEDY
                if is_quantised
                else "export the model with operators of the ONNX standard alone",
            )


def nodes_and_unknown(data: bytes, *, limits: Limits) -> tuple[tuple[Node, ...], list[UnsupportedNode]]:
    """The operators of a model that may hold unknown ones, without inputs and attributes, and the unknown ones.

    Raises: MalformedModel, ResourceLimitExceeded, UnsupportedModel.
    """
    model = parse(data)
    _count_nodes(model, limits)
    if not _has_text_only(model):
        raise MalformedModel("a name in the model is not valid UTF-8")
    versions = _opsets(model)
    nodes = tuple(
        Node(
            name=node.name or (node.output[0] if node.output else "?"),
            operator=node.op_type,
            domain="" if node.domain == "ai.onnx" else node.domain,
            since=_since(node, versions) or 0,
            inputs=(),
            outputs=tuple(node.output),
            attributes={},
        )
        for node in model.graph.node
    )
    return nodes, list(_unknown_operators(model, versions))


def _array(tensor: onnx.TensorProto) -> Array:
    try:
        return numpy_helper.to_array(tensor)
    except Exception as error:  # whatever a damaged tensor provokes inside the decoder
        raise MalformedModel(f"tensor {tensor.name!r} cannot be decoded: {_first_line(error)}") from error


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
        raise UnsupportedModel(f"input {value.name!r} is not a tensor of declared shape")
    dims = [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in kind.shape.dim]
    for axis, dim in enumerate(dims[1:], start=1):
        if dim is None:
            raise UnsupportedModel(
                f"axis {axis} of input {value.name!r} has no fixed size; export the model with fixed sizes for every "
                "axis but the batch"
            )
    batch_axis = bool(dims) and (dims[0] is None or (dims[0] == 1 and len(dims) > 1))
    shape = tuple(1 if dim is None else int(dim) for dim in dims)
    name = DTYPES.get(kind.elem_type) or _type_name(kind.elem_type)
    return Tensor(name=value.name, dtype=name, shape=shape, batch_axis=batch_axis)


def _type_name(number: int) -> str:
    known = onnx.TensorProto.DataType.values()
    return onnx.TensorProto.DataType.Name(number).lower() if number in known else f"unknown type {number}"


def _node(node: onnx.NodeProto, position: int, versions: dict[str, int]) -> Node:
    name = node.name or f"{node.op_type}_{position}"
    since = _since(node, versions)
    if since is None:
        raise UnsupportedNode(name, node.op_type, "no such operator in the imported operator sets")
    return Node(
        name=name,
        operator=node.op_type,
        domain="" if node.domain == "ai.onnx" else node.domain,
        since=since,
        inputs=tuple(node.input),
        outputs=tuple(node.output),
        attributes={attribute.name: _attribute(name, node, attribute) for attribute in node.attribute},
    )


def _attribute(name: str, node: onnx.NodeProto, attribute: onnx.AttributeProto) -> object:
    if attribute.ref_attr_name:
        raise MalformedModel(f"node {name!r}: attribute {attribute.name!r} refers to an attribute of no function")
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, onnx.TensorProto):
        return _array(value)
    if isinstance(value, (int, float)):
        return value
    if attribute.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS):
        return tuple(value)
    if attribute.type == onnx.AttributeProto.STRINGS:
        return tuple(text.decode("utf-8", errors="replace") for text in value)
    raise UnsupportedNode(name, node.op_type, f"attribute {attribute.name!r} holds a sub-graph or an exotic value")
