"""Small good models in every format: what mutants are made of.  Weights are fixed, so that mutants are too."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from tests.building import Model
from tests.certifier.reading.exporting import exported
from tests.certifier.reading.torchscript_making import archived, scripted, traced
from tests.fuzzing.mutations import Seed


def seeds() -> list[Seed]:
    """Some models of every format."""
    torch.manual_seed(0)
    image, row = (1, 2, 4, 4), (1, 4)
    convolutional, dense = _convolutional(), _dense()
    return [
        Seed(form="onnx", data=_onnx_image(), input_shape=None),
        Seed(form="onnx", data=_onnx_dense(), input_shape=None),
        Seed(form="onnx", data=_onnx_function(), input_shape=None),
        Seed(form="bundle", data=_bundle(), input_shape=None),
        Seed(form="torchscript", data=traced(convolutional, image), input_shape=image),
        Seed(form="torchscript", data=scripted(convolutional), input_shape=image),
        Seed(form="torchscript", data=scripted(dense, frozen=True), input_shape=row),
        Seed(form="torchscript", data=scripted(_Branching()), input_shape=row),
        Seed(form="torch.export", data=exported(convolutional, [torch.zeros(image)]), input_shape=None),
        Seed(form="torch.export", data=exported(_Branching(), [torch.zeros(row)]), input_shape=None),
    ]


def _convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)
    ).eval()


def _dense() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.LayerNorm(4), nn.Dropout(), nn.Linear(4, 2)).eval()


class _Branching(nn.Module):
    """Lists, loops, slices and branches on constants."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.doubles = True

    def forward(self, x: Tensor) -> Tensor:
        parts = [x[:, :2], x[:, 2:]]
        x = torch.cat(parts, dim=1)
        for layer in self.layers:
            x = torch.relu(layer(x))
        if self.doubles:
            x = 2 * x
        return x.view(x.shape[0], 2, 2).permute(0, 2, 1).reshape(-1, 4)


def _weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).integers(-8, 8, shape).astype(np.float64) / 8


def _onnx_image() -> bytes:
    model = Model(2, 4, 4)
    model.then("Conv", _weights(2, 2, 3, 3), _weights(2), pads=[1, 1, 1, 1])
    model.then("BatchNormalization", np.ones(2), np.ones(2), np.zeros(2), np.ones(2))
    model.then("Relu")
    model.then("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    model.then("Reshape", np.array([0, -1]))
    model.linear(_weights(3, 8), _weights(3))
    model.then("Softmax", axis=1)
    return model.data()


def _onnx_dense() -> bytes:
    """Folded constants, data movement and normalisation."""
    model = Model(4)
    model.linear(_weights(6, 4))
    model.then("LayerNormalization", np.ones(6), np.zeros(6), axis=-1)
    model.then("Gelu") if model.opset >= 20 else model.then("LeakyRelu", alpha=0.25)
    before = model.output
    parts = [model.constant(np.array([1])), model.constant(np.array([-1]))]
    shape = model.add("Concat", *parts, axis=0)
    filled = model.add("ConstantOfShape", model.constant(np.array([6])))
    model.add("Add", before, filled)
    model.then("Pad", np.array([0, 1, 0, 1]))
    model.then("Slice", np.array([1]), np.array([7]), np.array([1]))
    model.then("Transpose", perm=[1, 0])
    model.then("Reshape", shape)
    model.linear(_weights(2, 6))
    return model.data()


def _onnx_function() -> bytes:
    body = [helper.make_node("Mul", ["a", "a3"], ["b"]), helper.make_node("Tanh", ["b"], ["c"])]
    three = helper.make_node("Constant", [], ["a3"], value_float=3.0)
    function = helper.make_function("local", "Scaled", ["a"], ["c"], [three, *body], [helper.make_opsetid("", 18)])
    nodes = [
        helper.make_node("Scaled", ["x"], ["u"], domain="local"),
        helper.make_node("Split", ["u"], ["v", "w"], axis=1, num_outputs=2),
        helper.make_node("Sub", ["v", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "with a function",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])],
    )
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10, functions=[function]).SerializeToString()


def _bundle() -> bytes:
    model = Model(4)
    model.linear(_weights(5, 4), _weights(5))
    model.then("Relu")
    model.linear(_weights(2, 5))
    proto = model.proto()
    members: dict[str, bytes] = {}
    for position, tensor in enumerate(proto.graph.initializer):
        data: Any = tensor.raw_data
        members[f"w{position}.bin"] = b"\0" * 8 + data
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", f"w{position}.bin"), ("offset", "8"), ("length", str(len(data)))):
            tensor.external_data.add(key=key, value=value)
    return archived({"model.onnx": proto.SerializeToString(), **members})
