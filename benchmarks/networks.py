"""Random networks of realistic shapes as ONNX bytes, the same for the same seed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8
RESNET50_STAGES = ((64, 256, 3), (128, 512, 4), (256, 1024, 6), (512, 2048, 3))
"""Inner channels, outer channels and blocks of each stage."""


class Builder:
    """Adds layers one behind another; names are made from a counter."""

    def __init__(self, *, seed: int, shape: tuple[int, ...]) -> None:
        self._random = np.random.default_rng(seed)
        self._nodes, self._weights = [], []
        self._shape, self._count = shape, 0

    def node(self, operator: str, *sources: str, attributes: dict[str, Any]) -> str:
        """One node; returns its output's name."""
        self._count += 1
        output = f"{operator.lower()}_{self._count}"
        self._nodes.append(helper.make_node(operator, list(sources), [output], name=output, **attributes))
        return output

    def weight(self, values: NDArray[np.floating]) -> str:
        name = f"weight_{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def normal(self, *shape: int, scale: float) -> str:
        """Independent normal weights of the given standard deviation."""
        return self.weight(self._random.standard_normal(shape, dtype=np.float32) * np.float32(scale))

    def dense(self, source: str, inputs: int, outputs: int) -> str:
        weight = self.normal(outputs, inputs, scale=np.sqrt(2.0 / inputs))
        return self.node("Gemm", source, weight, self.normal(outputs, scale=0.1), attributes={"transB": 1})

    def convolution(self, source: str, inputs: int, outputs: int, taps: int, stride: int) -> str:
        weight = self.normal(outputs, inputs, taps, taps, scale=np.sqrt(2.0 / (inputs * taps**2)))
        window = {"kernel_shape": [taps] * 2, "strides": [stride] * 2, "pads": [taps // 2] * 4}
        return self.node("Conv", source, weight, attributes=window)

    def relu(self, source: str) -> str:
        return self.node("Relu", source, attributes={})

    def averaged(self, source: str) -> str:
        """Every channel's mean, as one vector."""
        return self.node("Flatten", self.node("GlobalAveragePool", source, attributes={}), attributes={})

    def normalisation(self, source: str, channels: int) -> str:
        """BatchNormalization with statistics as training leaves them."""
        parameters = (
            self.weight(self._random.uniform(0.5, 1.5, channels)),
            self.normal(channels, scale=0.1),
            self.normal(channels, scale=0.1),
            self.weight(self._random.uniform(0.5, 1.5, channels)),
        )
        return self.node("BatchNormalization", source, *parameters, attributes={})

    def model(self, output: str, classes: int) -> bytes:
        """The finished model, from `input` to `output`."""
        self._nodes.append(helper.make_node("Identity", [output], ["output"], name="output"))
        graph = helper.make_graph(
            self._nodes,
            "network",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *self._shape])],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", classes])],
            self._weights,
        )
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION).SerializeToString()


def dense_network(*widths: int, seed: int) -> bytes:
    """Dense layers with ReLU between them."""
    builder = Builder(seed=seed, shape=(widths[0],))
    value = "input"
    for position, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        value = builder.dense(value if position == 0 else builder.relu(value), inputs, outputs)
    return builder.model(value, widths[-1])


def convolutional_network(*, channels: tuple[int, ...], size: int, classes: int, seed: int) -> bytes:
    """3x3 convolutions, every second one of stride 2, batch normalisation, ReLU; then average pooling and a head."""
    builder = Builder(seed=seed, shape=(channels[0], size, size))
    value = "input"
    for position, (inputs, outputs) in enumerate(itertools.pairwise(channels)):
        value = builder.convolution(value, inputs, outputs, 3, 1 + position % 2)
        value = builder.relu(builder.normalisation(value, outputs))
    value = builder.averaged(value)
    return builder.model(builder.dense(value, channels[-1], classes), classes)


def resnet50(*, size: int, width_divisor: int, classes: int, normalised: bool, seed: int) -> bytes:
    """ResNet-50 (He et al. 2016, strides in the 3x3 convolutions) with random weights.

    `width_divisor` 1 is the real one, of 25.5 million parameters; `normalised` keeps the batch normalisations, which
    an exporter folds otherwise.
    """
    builder = Builder(seed=seed, shape=(3, size, size))

    def unit(source: str, inputs: int, outputs: int, taps: int, stride: int) -> str:
        value = builder.convolution(source, inputs, outputs, taps, stride)
        return builder.normalisation(value, outputs) if normalised else value

    channels = 64 // width_divisor
    value = builder.relu(unit("input", 3, channels, 7, 2))
    window = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    value = builder.node("MaxPool", value, attributes=window)
    for stage, (inner, outer, blocks) in enumerate(RESNET50_STAGES):
        inner, outer = inner // width_divisor, outer // width_divisor
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            inside = builder.relu(unit(value, channels, inner, 1, 1))
            inside = builder.relu(unit(inside, inner, inner, 3, stride))
            inside = unit(inside, inner, outer, 1, 1)
            around = unit(value, channels, outer, 1, stride) if block == 0 else value
            value = builder.relu(builder.node("Add", inside, around, attributes={}))
            channels = outer
    value = builder.averaged(value)
    return builder.model(builder.dense(value, channels, classes), classes)


def moved(model: bytes, move: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> bytes:
    """The model with `move` applied to every weight of two or more axes."""
    changed = ModelProto.FromString(model)
    for tensor in changed.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim >= 2 and values.dtype == np.float32:
            new = move(values.astype(np.float64)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(new, tensor.name))
    return changed.SerializeToString()


def random_move(*, share: float, rank: int | None, seed: int) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Adds a random direction of `share` of the weight's Frobenius norm; of the given rank, as fine-tuning does."""
    random = np.random.default_rng(seed)

    def move(values: NDArray[np.float64]) -> NDArray[np.float64]:
        rows, columns = len(values), values.size // len(values)
        if rank is None:
            step = random.standard_normal((rows, columns))
        else:
            step = random.standard_normal((rows, rank)) @ random.standard_normal((rank, columns))
        step *= share * np.linalg.norm(values) / np.linalg.norm(step)
        return values + step.reshape(values.shape)

    return move
