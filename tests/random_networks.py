"""Hypothesis strategies for small random networks of every family of operators, as ONNX.

A network is drawn as a list of choices and a seed for its weights, so that examples shrink to few layers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from tests.building import Model, single

Draw = np.random.Generator

ACTIVATIONS: tuple[tuple[str, dict[str, object]], ...] = (
    ("Relu", {}),
    ("LeakyRelu", {"alpha": -0.5}),
    ("LeakyRelu", {"alpha": 1.5}),
    ("Elu", {"alpha": 1.5}),
    ("Celu", {"alpha": 0.5}),
    ("Selu", {}),
    ("Sigmoid", {}),
    ("Tanh", {}),
    ("Softplus", {}),
    ("Softsign", {}),
    ("Erf", {}),
    ("HardSigmoid", {"alpha": 0.4}),
    ("HardSwish", {}),
    ("Mish", {}),
    ("Gelu", {}),
    ("Gelu", {"approximate": "tanh"}),
    ("Abs", {}),
    ("Neg", {}),
    ("Identity", {}),
)


def _weights(generator: Draw, *shape: int) -> np.ndarray:
    fan_in = max(1, int(np.prod(shape[1:])))
    return single(generator.standard_normal(shape) / np.sqrt(fan_in))


def _activation(model: Model, generator: Draw) -> None:
    operator, attributes = ACTIVATIONS[generator.integers(len(ACTIVATIONS))]
    model.then(operator, **attributes)


# --- vectors [N, width] ------------------------------------------------------------------------------------------


def _dense(model: Model, generator: Draw, width: int) -> int:
    out = int(generator.integers(2, 7))
    model.linear(_weights(generator, out, width), _weights(generator, out))
    return out


def _nonlinear(model: Model, generator: Draw, width: int) -> int:
    _activation(model, generator)
    return width


def _prelu(model: Model, generator: Draw, width: int) -> int:
    model.then("PRelu", single(generator.standard_normal(width)))
    return width


def _residual(model: Model, generator: Draw, width: int) -> int:
    start = model.output
    model.linear(_weights(generator, width, width), _weights(generator, width))
    _activation(model, generator)
    branch = model.linear(_weights(generator, width, width))
    model.add("Add" if generator.random() < 0.5 else "Sub", start, branch)
    return width


def _branches(model: Model, generator: Draw, width: int) -> int:
    start = model.output
    first = model.add("Relu", start)
    second = model.add("Mul", start, _weights(generator, width))
    model.add("Concat", first, second, start, axis=1)
    return 3 * width


def _halves(model: Model, generator: Draw, width: int) -> int:
    cut = int(generator.integers(1, width)) if width > 1 else 1
    if width == 1:
        return width
    left, right = f"left{len(model.nodes)}", f"right{len(model.nodes)}"
    model.add("Split", model.output, np.array([cut, width - cut]), outputs=[left, right], axis=1)
    model.add("Tanh", left, outputs=[f"{left}t"])
    model.add("Concat", right, f"{left}t", axis=1)
    return width


def _mean_added(model: Model, generator: Draw, width: int) -> int:
    start = model.output
    mean = model.add("ReduceMean", start, np.array([1]), keepdims=1)
    model.add("Add", start, mean)
    return width


def _extremes(model: Model, generator: Draw, width: int) -> int:
    start = model.output
    other = model.linear(_weights(generator, width, width))
    model.add("Max" if generator.random() < 0.5 else "Min", start, other, _weights(generator, width))
    return width


def _gathered(model: Model, generator: Draw, width: int) -> int:
    indices = generator.integers(0, width, size=int(generator.integers(1, width + 2)))
    model.then("Gather", indices, axis=1)
    return len(indices)


def _normalised(model: Model, generator: Draw, width: int) -> int:
    model.then("LayerNormalization", _weights(generator, width), _weights(generator, width), epsilon=0.5)
    return width


def _softmax(model: Model, generator: Draw, width: int) -> int:
    model.then("Softmax" if generator.random() < 0.5 else "LogSoftmax", axis=1)
    return width


def _clipped(model: Model, generator: Draw, width: int) -> int:
    low, high = sorted(single(generator.standard_normal(2)))
    model.then("Clip", np.float64(low), np.float64(high))
    return width


VECTOR_LAYERS: tuple[Callable[[Model, Draw, int], int], ...] = (
    _dense, _dense, _nonlinear, _nonlinear, _residual, _branches, _halves, _mean_added, _extremes, _gathered,
    _normalised, _softmax, _clipped, _prelu,
)  # fmt: skip


@st.composite
def vector_networks(draw: st.DrawFn, *, layers: int) -> tuple[Model, int]:
    """A classifier of vectors with three classes, and a seed for its inputs."""
    seed = draw(st.integers(0, 2**31))
    choices = draw(st.lists(st.integers(0, len(VECTOR_LAYERS) - 1), min_size=1, max_size=layers))
    generator = np.random.default_rng(seed)
    width = int(generator.integers(2, 6))
    model = Model(width, opset=20)
    for choice in choices:
        width = VECTOR_LAYERS[choice](model, generator, width)
    model.linear(_weights(generator, 3, width), _weights(generator, 3))
    return model, seed


# --- images [N, channels, height, width] ---------------------------------------------------------------------------


Shape = tuple[int, int, int]


def _conv(model: Model, generator: Draw, shape: Shape) -> Shape:
    channels, height, width = shape
    groups = int(generator.choice([g for g in (1, 2, 3) if channels % g == 0]))
    out = groups * int(generator.integers(1, 3))
    taps, dilations = generator.integers(1, 4, size=2), generator.integers(1, 3, size=2)
    extents = dilations * (taps - 1) + 1
    pads = [int(p) for p in generator.integers(0, 3, size=4)]
    strides = [int(s) for s in generator.integers(1, 4, size=2)]
    for axis, size in enumerate((height, width)):
        if size + pads[axis] + pads[2 + axis] < extents[axis]:
            taps[axis] = dilations[axis] = extents[axis] = 1
    kernel = _weights(generator, out, channels // groups, *(int(t) for t in taps))
    settings = {"pads": pads, "strides": strides, "dilations": [int(d) for d in dilations], "group": groups}
    model.then("Conv", kernel, _weights(generator, out), **settings)
    sizes = [
        (size + pads[axis] + pads[2 + axis] - int(extents[axis])) // strides[axis] + 1
        for axis, size in enumerate((height, width))
    ]
    return out, sizes[0], sizes[1]


def _transposed(model: Model, generator: Draw, shape: Shape) -> Shape:
    channels, height, width = shape
    if height * width > 30:
        return shape
    out, taps, stride = int(generator.integers(1, 3)), int(generator.integers(1, 4)), int(generator.integers(1, 3))
    extra = int(generator.integers(0, stride))
    model.then(
        "ConvTranspose",
        _weights(generator, channels, out, taps, taps),
        strides=[stride, stride],
        output_padding=[extra, extra],
    )
    return out, stride * (height - 1) + taps + extra, stride * (width - 1) + taps + extra


def _pooled(model: Model, generator: Draw, shape: Shape) -> Shape:
    channels = shape[0]
    taps = [int(generator.integers(1, min(4, size + 1))) for size in shape[1:]]
    strides = [int(s) for s in generator.integers(1, 3, size=2)]
    pads = [int(generator.integers(0, taps[axis])) for axis in (0, 1, 0, 1)]
    operator, attributes = [
        ("MaxPool", {}),
        ("AveragePool", {"count_include_pad": 0}),
        ("AveragePool", {"count_include_pad": 1}),
        ("LpPool", {"p": 2}),
    ][generator.integers(4)]
    model.then(operator, kernel_shape=taps, strides=strides, pads=pads, **attributes)
    sizes = [
        (size + pads[axis] + pads[2 + axis] - taps[axis]) // strides[axis] + 1 for axis, size in enumerate(shape[1:])
    ]
    return channels, sizes[0], sizes[1]


def _batch_normalised(model: Model, generator: Draw, shape: Shape) -> Shape:
    channels = shape[0]
    mean, scale, shift = (single(generator.standard_normal(channels)) for _ in range(3))
    model.then("BatchNormalization", scale, shift, mean, single(0.25 + generator.random(channels)), epsilon=0.125)
    return shape


def _image_activation(model: Model, generator: Draw, shape: Shape) -> Shape:
    _activation(model, generator)
    return shape


def _image_residual(model: Model, generator: Draw, shape: Shape) -> Shape:
    channels = shape[0]
    start = model.output
    model.then("Conv", _weights(generator, channels, channels, 3, 3), pads=[1, 1, 1, 1])
    _activation(model, generator)
    branch = model.then("Conv", _weights(generator, channels, channels, 3, 3), pads=[1, 1, 1, 1])
    model.add("Add", start, branch)
    return shape


def _padded(model: Model, generator: Draw, shape: Shape) -> Shape:
    mode = ("constant", "reflect", "edge")[generator.integers(3)]
    room = [0 if mode == "reflect" and size == 1 else 1 for size in shape[1:]]
    model.then("Pad", np.array([0, 0, *room, 0, 0, *room]), mode=mode)
    return shape[0], shape[1] + 2 * room[0], shape[2] + 2 * room[1]


def _per_channel_bias(model: Model, generator: Draw, shape: Shape) -> Shape:
    start = model.output
    means = model.add("GlobalAveragePool", start)
    model.add("Add", start, means)
    return shape


def _instance_normalised(model: Model, generator: Draw, shape: Shape) -> Shape:
    channels = shape[0]
    model.then("InstanceNormalization", _weights(generator, channels), _weights(generator, channels), epsilon=0.5)
    return shape


IMAGE_LAYERS: tuple[Callable[[Model, Draw, Shape], Shape], ...] = (
    _conv, _conv, _conv, _transposed, _pooled, _pooled, _batch_normalised, _image_activation, _image_activation,
    _image_residual, _padded, _per_channel_bias, _instance_normalised,
)  # fmt: skip


@st.composite
def image_networks(draw: st.DrawFn, *, layers: int) -> tuple[Model, int]:
    """A classifier of small images with three classes, and a seed for its inputs."""
    seed = draw(st.integers(0, 2**31))
    choices = draw(st.lists(st.integers(0, len(IMAGE_LAYERS) - 1), min_size=1, max_size=layers))
    generator = np.random.default_rng(seed)
    shape: Shape = (int(generator.integers(1, 4)), int(generator.integers(3, 6)), int(generator.integers(3, 6)))
    model = Model(*shape, opset=20)
    for choice in choices:
        if shape[1] * shape[2] > 100:
            break
        shape = IMAGE_LAYERS[choice](model, generator, shape)
    model.then("Flatten")
    model.linear(_weights(generator, 3, int(np.prod(shape))), _weights(generator, 3))
    return model, seed
