"""ONNX files that nobody should open: what one file without any other can ask for.

Longer than other files, since one table of attacks is easier to read than its parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.fuzzing.protobufs import BYTES, VARINT, Field, written
from tests.hostile.case import Case
from tests.hostile.onnx_making import ADD, RELU, model_of, tensor_of

TRILLION = [10**6, 10**6]


def good() -> bytes:
    """What several attacks are made of."""
    return model_of(ADD, constants=[tensor_of("c", np.ones(3))]).SerializeToString()


def amplified(operator: str, *values: Any) -> bytes:
    """A constant that one node makes out of a few numbers."""
    constants = [tensor_of(f"i{place}", np.array(value)) for place, value in enumerate(values)]
    nodes = [
        helper.make_node(operator, [tensor.name for tensor in constants], ["k"]),
        helper.make_node("Cast", ["k"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["f"], ["c"], keepdims=0),
    ]
    return model_of(*nodes, ADD, constants=constants).SerializeToString()


def blown_up(operator: str, value: Any) -> bytes:
    """The model's input, made huge by one node."""
    node = helper.make_node(operator, ["x", "i"], ["y"])
    return model_of(node, constants=[tensor_of("i", np.array(value))]).SerializeToString()


def with_tensor(change: Callable[[TensorProto], None]) -> bytes:
    """A sum of the input and a constant that `change` has edited."""
    model = model_of(ADD, constants=[tensor_of("c", np.ones(3))])
    change(model.graph.initializer[0])
    return model.SerializeToString()


def with_values(*values: float) -> bytes:
    """A product of the input with the given numbers."""
    node = helper.make_node("Mul", ["x", "c"], ["y"])
    return model_of(node, constants=[tensor_of("c", np.array(values))]).SerializeToString()


def with_dims(*dims: int) -> bytes:
    """A constant whose shape is said to be `dims`."""

    def change(tensor: TensorProto) -> None:
        tensor.dims[:] = dims

    return with_tensor(change)


def external(**facts: str) -> bytes:
    """A constant that says it is in another file."""

    def change(tensor: TensorProto) -> None:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in facts.items():
            tensor.external_data.add(key=key, value=value)

    return with_tensor(change)


def edited(change: Callable[[onnx.ModelProto], object]) -> bytes:
    """The good model after `change`."""
    model = onnx.load_model_from_string(good())
    change(model)
    return model.SerializeToString()


def functions(bodies: dict[str, list[onnx.NodeProto]], root: str) -> bytes:
    """A model that calls the local function `root`."""
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    made = [helper.make_function("local", name, ["x"], ["y"], body, imports) for name, body in bodies.items()]
    call = helper.make_node(root, ["x"], ["y"], domain="local")
    return model_of(call, functions=made, opsets=[("", 18), ("local", 1)]).SerializeToString()


def calling(name: str) -> list[onnx.NodeProto]:
    """A body that calls `name` twice."""
    return [
        helper.make_node(name, ["x"], ["a"], domain="local"),
        helper.make_node(name, ["a"], ["y"], domain="local"),
    ]


def doubling_functions() -> bytes:
    """Thirty functions that call the next one twice: 2^30 nodes in two kilobytes."""
    bodies = {f"F{level}": calling(f"F{level + 1}") for level in range(30)}
    return functions({**bodies, "F30": [helper.make_node("Relu", ["x"], ["y"])]}, "F0")


def _model_file(graph: bytes) -> bytes:
    """A model of the standard operators around the bytes of a graph."""
    opset = written([Field(1, BYTES, b""), Field(2, VARINT, 18)])
    return written([Field(1, VARINT, 10), Field(7, BYTES, graph), Field(8, BYTES, opset)])


def million_nodes() -> bytes:
    """A million times the same node, written without building them."""
    node = RELU.SerializeToString()
    graph = model_of(RELU).graph.SerializeToString()
    repeated = written([Field(1, BYTES, node)]) * 10**6
    return _model_file(graph + repeated)


def nested_ifs(depth: int) -> bytes:
    """An If inside an If inside an If, as bytes: no library would write it."""
    graph = written([Field(1, BYTES, RELU.SerializeToString())])
    for _ in range(depth):
        attribute = written([Field(1, BYTES, b"then_branch"), Field(6, BYTES, graph), Field(20, VARINT, 5)])
        node = written(
            [Field(1, BYTES, b"b"), Field(2, BYTES, b"y"), Field(4, BYTES, b"If"), Field(5, BYTES, attribute)]
        )
        graph = written([Field(1, BYTES, node)])
    base = model_of(RELU).graph.SerializeToString()
    return _model_file(base + graph)


def nested_types(depth: int) -> bytes:
    """An input that is a sequence of sequences of sequences."""
    model = model_of(RELU)
    kind = model.graph.input[0].type
    kind.Clear()
    for _ in range(depth):
        kind = kind.sequence_type.elem_type
    kind.tensor_type.elem_type = TensorProto.FLOAT
    return model.SerializeToString()


def typed_input(change: Callable[[onnx.TypeProto], None]) -> bytes:
    """A model whose input's type `change` has made."""

    def edit(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.Clear()
        change(model.graph.input[0].type)

    return edited(edit)


def looping() -> bytes:
    """A Loop without end."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Relu", ["s"], ["t"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, None),
        ],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), helper.make_tensor_value_info("t", 1, None)],
    )
    loop = helper.make_node("Loop", ["", "b", "x"], ["y"], body=body)
    return model_of(loop, constants=[numpy_helper.from_array(np.array(True), "b")]).SerializeToString()


def cycle() -> bytes:
    """Two nodes that wait for each other."""
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    return model_of(*nodes).SerializeToString()


def convolution(**attributes: Any) -> bytes:
    """A convolution of no sensible geometry."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], **attributes)
    return model_of(node, constants=[tensor_of("w", np.ones((1, 1, 2, 2)))], shape=(None, 1, 3, 3)).SerializeToString()


def _append_zip(data: bytes) -> bytes:
    from tests.certifier.reading.torchscript_making import archived

    return data + archived({"evil/data.pkl": b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00id\x85R."})


def _boundaries() -> dict[str, Case]:
    """The good file cut short; `tests/certifier/test_reading.py` cuts one everywhere."""
    data = good()
    places = {"its first field": 2, "its last byte": len(data) - 1, "half of it": len(data) // 2}
    return {f"cut behind {where}": Case("malformed_model", lambda at=at: data[:at]) for where, at in places.items()}


CASES: dict[str, Case] = {
    "nothing": Case("unknown_format", lambda: b""),
    "a header that announces two gigabytes": Case(
        "malformed_model", lambda: b"\x08\x0a\x3a\xff\xff\xff\xff\x07" + b"\x0a" * 100
    ),
    "a length that is negative": Case(
        "malformed_model", lambda: b"\x08\x0a\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
    ),
    "a length of 2^64": Case("malformed_model", lambda: b"\x08\x0a\x3a" + b"\xff" * 9 + b"\x7f"),
    "a group without an end": Case("malformed_model", lambda: b"\x08\x0a" + b"\x0b" * 100_000),
    "bytes of no meaning": Case("malformed_model", lambda: b"\x08" + b"\xff" * 1000),
    "a zip behind the model": Case("malformed_model", lambda: _append_zip(good())),
    "ConstantOfShape of a trillion": Case("resource_limit_exceeded", lambda: amplified("ConstantOfShape", TRILLION)),
    "ConstantOfShape that overflows": Case(
        "resource_limit_exceeded", lambda: amplified("ConstantOfShape", [2**62, 2**62])
    ),
    "ConstantOfShape that overflows to nothing": Case(
        "resource_limit_exceeded", lambda: amplified("ConstantOfShape", [2**32, 2**32])
    ),
    "ConstantOfShape of a negative size": Case("unsupported_node", lambda: amplified("ConstantOfShape", [-4])),
    "Range of a trillion": Case("resource_limit_exceeded", lambda: amplified("Range", 0, 10**12, 1)),
    "Range without a step": Case("malformed_model", lambda: amplified("Range", 0, 10, 0)),
    "Expand of a constant": Case("resource_limit_exceeded", lambda: amplified("Expand", [1], TRILLION)),
    "Tile of a constant": Case("resource_limit_exceeded", lambda: amplified("Tile", [1], [10**12])),
    "Expand of the input": Case("resource_limit_exceeded", lambda: blown_up("Expand", [10**12, 3])),
    "Expand that overflows": Case("unsupported_node", lambda: blown_up("Expand", [2**62, 4, 3])),
    "Tile of the input": Case("resource_limit_exceeded", lambda: blown_up("Tile", TRILLION)),
    "Reshape to 2^62": Case("unsupported_node", lambda: blown_up("Reshape", [3, 2**62])),
    "Reshape to a negative size": Case("unsupported_node", lambda: blown_up("Reshape", [-5])),
    "Pad by 2^62": Case("resource_limit_exceeded", lambda: blown_up("Pad", [0, 2**62, 0, 0])),
    "Gather far outside": Case("unsupported_node", lambda: blown_up("Gather", [0, -(2**62)])),
    "a constant of 2^80 elements": Case("resource_limit_exceeded", lambda: with_dims(2**40, 2**40)),
    "dimensions that overflow to three": Case("resource_limit_exceeded", lambda: with_dims(2**32 + 1, 2**32 + 1, 3)),
    "dimensions that overflow beside nothing": Case("malformed_model", lambda: with_dims(2**62, 2**62, 0)),
    "a negative dimension": Case("malformed_model", lambda: with_dims(-3)),
    "two negative dimensions": Case("malformed_model", lambda: with_dims(-1, -3)),
    "more elements than bytes": Case("malformed_model", lambda: with_dims(5)),
    "fewer elements than bytes": Case("malformed_model", lambda: with_dims()),
    "a thousand dimensions": Case("malformed_model", lambda: with_dims(*[1] * 1000, 3)),
    "an unknown element type": Case(
        "malformed_model", lambda: with_tensor(lambda tensor: setattr(tensor, "data_type", 77))
    ),
    "no element type": Case("malformed_model", lambda: with_tensor(lambda tensor: setattr(tensor, "data_type", 0))),
    "weights that are text": Case(
        "malformed_model", lambda: with_tensor(lambda tensor: setattr(tensor, "data_type", 8))
    ),
    "weights in two fields": Case("malformed_model", lambda: with_tensor(lambda tensor: tensor.float_data.append(1.0))),
    "a weight that is no number": Case("unsupported_node", lambda: with_values(1.0, float("nan"), 1.0)),
    "an infinite weight": Case("unsupported_node", lambda: with_values(1.0, float("inf"), 1.0)),
    "denormal weights": Case("certified", lambda: with_values(1e-45, 1e-40, 1e-38)),
    "a dense weight that is no number": Case(
        "unsupported_node",
        lambda: model_of(
            helper.make_node("Gemm", ["x", "w"], ["y"]), constants=[tensor_of("w", np.full((3, 3), np.nan))]
        ).SerializeToString(),
    ),
    "external data of an absolute path": Case("unsupported_model", lambda: external(location="/etc/passwd")),
    "external data above the folder": Case("unsupported_model", lambda: external(location="../../../etc/passwd")),
    "external data of a plain name": Case("unsupported_model", lambda: external(location="w.bin")),
    "external data that overflows": Case(
        "unsupported_model", lambda: external(location="w.bin", offset=str(2**63), length=str(2**64 - 1))
    ),
    "external data in an attribute": Case(
        "unsupported_model",
        lambda: model_of(
            helper.make_node(
                "Constant",
                [],
                ["c"],
                value=onnx.load_model_from_string(external(location="/etc/passwd")).graph.initializer[0],
            ),
            ADD,
        ).SerializeToString(),
    ),
    "a cycle": Case("malformed_model", cycle),
    "a node that reads itself": Case(
        "malformed_model", lambda: model_of(helper.make_node("Add", ["x", "y"], ["y"])).SerializeToString()
    ),
    "a value written twice": Case(
        "malformed_model", lambda: model_of(RELU, helper.make_node("Abs", ["x"], ["y"])).SerializeToString()
    ),
    "a constant given twice": Case(
        "malformed_model",
        lambda: model_of(
            ADD, constants=[tensor_of("c", np.ones(3)), tensor_of("c", 5 * np.ones(3))]
        ).SerializeToString(),
    ),
    "a value that overwrites a constant": Case(
        "malformed_model",
        lambda: model_of(
            RELU, helper.make_node("Abs", ["x"], ["c"]), constants=[tensor_of("c", np.ones(3))]
        ).SerializeToString(),
    ),
    "an output twice": Case(
        "malformed_model", lambda: edited(lambda model: model.graph.output.append(model.graph.output[0]))
    ),
    "no output": Case("malformed_model", lambda: edited(lambda model: model.graph.ClearField("output"))),
    "no input": Case("malformed_model", lambda: edited(lambda model: model.graph.ClearField("input"))),
    "an input that nothing gives": Case(
        "malformed_model", lambda: model_of(helper.make_node("Add", ["x", "nowhere"], ["y"])).SerializeToString()
    ),
    "a name that is no text": Case(
        "malformed_model", lambda: good().replace(b"hostile", b"hos\xff\xfe\x00e").replace(b"Add", b"A\xffd")
    ),
    "a function that calls itself": Case("malformed_model", lambda: functions({"F": calling("F")}, "F")),
    "functions that call each other": Case(
        "malformed_model", lambda: functions({"F": calling("G"), "G": calling("F")}, "F")
    ),
    "functions that double": Case("resource_limit_exceeded", doubling_functions),
    "a function twice": Case(
        "malformed_model",
        lambda: edited(
            lambda model: model.functions.extend([helper.make_function("d", "F", ["a"], ["b"], [RELU], [])] * 2)
        ),
    ),
    "a million nodes": Case("resource_limit_exceeded", million_nodes),
    "a hundred nested branches": Case("malformed_model", lambda: nested_ifs(90)),
    "ten thousand nested branches": Case("malformed_model", lambda: nested_ifs(10_000)),
    "nested types": Case("malformed_model", lambda: nested_types(50)),
    "a loop without end": Case("unsupported_node", looping),
    "an operator set of tomorrow": Case(
        "unsupported_model", lambda: model_of(RELU, opsets=[("", 2**62)]).SerializeToString()
    ),
    "a negative operator set": Case("unsupported_model", lambda: model_of(RELU, opsets=[("", -1)]).SerializeToString()),
    "two operator sets of one domain": Case(
        "malformed_model", lambda: model_of(RELU, opsets=[("", 18), ("", 7)]).SerializeToString()
    ),
    "an IR version of tomorrow": Case(
        "malformed_model", lambda: edited(lambda model: setattr(model, "ir_version", 2**62))
    ),
    "an operator of a foreign domain": Case(
        "unsupported_node",
        lambda: model_of(
            helper.make_node("Run", ["x"], ["y"], domain="evil"), opsets=[("", 18), ("evil", 1)]
        ).SerializeToString(),
    ),
    "an attribute of thirty-two megabytes": Case(
        "malformed_model",
        lambda: model_of(helper.make_node("Relu", ["x"], ["y"], evil="x" * 2**25)).SerializeToString(),
    ),
    "a name of a megabyte": Case(
        "unsupported_node",
        lambda: model_of(
            helper.make_node("Erf", ["x"], ["y"], name="x" * 2**20, domain="y" * 2**20)
        ).SerializeToString(),
    ),
    "sparse weights": Case("unsupported_model", lambda: edited(lambda model: model.graph.sparse_initializer.add())),
    "a sequence for an input": Case(
        "unsupported_model",
        lambda: typed_input(lambda kind: setattr(kind.sequence_type.elem_type.tensor_type, "elem_type", 1)),
    ),
    "an optional for an input": Case(
        "unsupported_model",
        lambda: typed_input(lambda kind: setattr(kind.optional_type.elem_type.tensor_type, "elem_type", 1)),
    ),
    "a map for an input": Case(
        "malformed_model", lambda: typed_input(lambda kind: setattr(kind.map_type, "key_type", 7))
    ),
    "an input of 2^62 numbers": Case(
        "resource_limit_exceeded", lambda: model_of(RELU, shape=(None, 2**62)).SerializeToString()
    ),
    "an input of many axes that overflow": Case(
        "resource_limit_exceeded", lambda: model_of(RELU, shape=(None, *[2**16] * 4)).SerializeToString()
    ),
    "a convolution padded by 2^40": Case("resource_limit_exceeded", lambda: convolution(pads=[2**40] * 4)),
    "a convolution dilated by 2^62": Case("unsupported_node", lambda: convolution(dilations=[2**62] * 2)),
    "a convolution without strides": Case("unsupported_node", lambda: convolution(strides=[0, 0])),
    "a convolution with negative pads": Case("unsupported_node", lambda: convolution(pads=[-(2**62)] * 4)),
    **_boundaries(),
}
