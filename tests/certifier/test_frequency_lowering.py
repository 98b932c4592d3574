"""What lowering writes down computes what the network computes, on tori, with anything but zeros outside of masks.

Networks here are linear: their activations are written as LeakyReLUs of slope 1, which are the identity inside of the
box and, as lowering must say, a mask outside.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certifier.frequencies.views import NotCovered
from tests.building import Model
from tests.certifier.on_tori import agrees, network_of
from tests.random_networks import _conv, _image_residual


def same(model: Model) -> None:
    model.then("LeakyRelu", alpha=1.0)


Shape = tuple[int, int, int]


def _padded_convolutions(model: Model, generator, shape: Shape) -> Shape:
    """Two convolutions with no activation in between: the second reads zeros where the first is not zero."""
    channels = shape[0]
    for _ in range(2):
        model.then("Conv", generator.standard_normal((channels, channels, 3, 3)), pads=[1, 1, 1, 1])
    return shape


def _pooled(model: Model, generator, shape: Shape) -> Shape:
    taps = [int(generator.integers(1, min(4, size + 1))) for size in shape[1:]]
    strides = [int(s) for s in generator.integers(1, 3, size=2)]
    model.then("AveragePool", kernel_shape=taps, strides=strides, count_include_pad=1)
    height, width = ((n - k) // s + 1 for n, k, s in zip(shape[1:], taps, strides, strict=True))
    return shape[0], height, width


def _normalised(model: Model, generator, shape: Shape) -> Shape:
    scale, shift, mean = generator.standard_normal((3, shape[0]))
    model.then("BatchNormalization", scale, shift, mean, 0.25 + generator.random(shape[0]), epsilon=0.125)
    return shape


def _activated(model: Model, generator, shape: Shape) -> Shape:
    same(model)
    return shape


def _sliced(model: Model, generator, shape: Shape) -> Shape:
    """Every second point, as a shortcut without weights reads them."""
    model.then("Slice", np.array([0, 0]), np.array([100, 100]), np.array([2, 3]), np.array([2, 2]))
    return shape[0], -(-shape[1] // 2), -(-shape[2] // 2)


def _projected(model: Model, generator, shape: Shape) -> Shape:
    """A strided residual block with a projection."""
    channels, start = shape[0], model.output
    out = int(generator.integers(1, 4))
    model.then("Conv", generator.standard_normal((out, channels, 3, 3)), pads=[1, 1, 1, 1], strides=[2, 2])
    same(model)
    branch = model.then("Conv", generator.standard_normal((out, out, 3, 3)), pads=[1, 1, 1, 1])
    shortcut = model.add("Conv", start, generator.standard_normal((out, channels, 1, 1)), strides=[2, 2])
    model.add("Add", branch, shortcut)
    return out, -(-shape[1] // 2), -(-shape[2] // 2)


def _joined(model: Model, generator, shape: Shape) -> Shape:
    """A dense block: the input beside what it becomes."""
    start = model.output
    branch = model.then("Conv", generator.standard_normal((2, shape[0], 3, 3)), pads=[1, 1, 1, 1])
    model.add("Concat", start, branch, axis=1)
    return shape[0] + 2, shape[1], shape[2]


def _turned(model: Model, generator, shape: Shape) -> Shape:
    """Channels last and back, around a scaling per channel."""
    model.then("Transpose", perm=[0, 2, 3, 1])
    model.then("Mul", generator.standard_normal(shape[0]))
    model.then("Transpose", perm=[0, 3, 1, 2])
    return shape


def _permuted(model: Model, generator, shape: Shape) -> Shape:
    model.then("Gather", generator.permutation(shape[0]), axis=1)
    return shape


def _framed(model: Model, generator, shape: Shape) -> Shape:
    """Zeros around, more on one side than on the other."""
    model.then("Pad", np.array([0, 0, 1, 0, 0, 0, 2, 1]), mode="constant")
    return shape[0], shape[1] + 3, shape[2] + 1


def _cropped(model: Model, generator, shape: Shape) -> Shape:
    """Without the first row; what a convolution then reads as zero is no zero in the signal."""
    model.then("Slice", np.array([1]), np.array([100]), np.array([2]))
    return shape[0], shape[1] - 1, shape[2]


def _split(model: Model, generator, shape: Shape) -> Shape:
    """Two parts of the channels go different ways and meet."""
    if shape[0] < 2:
        return shape
    left, right = f"left{len(model.nodes)}", f"right{len(model.nodes)}"
    model.add("Split", model.output, np.array([1, shape[0] - 1]), outputs=[left, right], axis=1)
    first = model.add("Conv", left, generator.standard_normal((2, 1, 3, 3)), pads=[1, 1, 1, 1])
    second = model.add("LeakyRelu", right, alpha=1.0)
    model.add("Concat", second, first, axis=1)
    return shape[0] + 1, shape[1], shape[2]


LAYERS = (
    _conv, _conv, _padded_convolutions, _pooled, _normalised, _activated, _sliced, _image_residual, _projected,
    _joined, _turned, _permuted, _framed, _cropped, _split,
)  # fmt: skip


def linear_network(choices: list[int], seed: int) -> Model:
    generator = np.random.default_rng(seed)
    shape: Shape = (int(generator.integers(1, 4)), int(generator.integers(3, 8)), int(generator.integers(3, 8)))
    model = Model(*shape, dtype=np.float64, opset=20)
    for choice in choices:
        shape = LAYERS[choice](model, generator, shape)
        if min(shape[1:]) < 2:
            break
    if generator.random() < 0.3:
        model.then("GlobalAveragePool")
        shape = (shape[0], 1, 1)
    model.then("Flatten")
    model.linear(generator.standard_normal((3, math.prod(shape))))
    # Whatever was drawn, the activations are the identity.
    model.nodes = [
        ("LeakyRelu", i[:1], o, {"alpha": 1.0}) if n in NONLINEAR else (n, i, o, a) for n, i, o, a in model.nodes
    ]
    return model


NONLINEAR = {
    "Relu", "LeakyRelu", "Elu", "Celu", "Selu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Erf", "HardSigmoid",
    "HardSwish", "Mish", "Gelu", "Abs", "Neg", "Identity",
}  # fmt: skip


@settings(max_examples=60)
@given(choices=st.lists(st.integers(0, len(LAYERS) - 1), min_size=1, max_size=5), seed=st.integers(0, 2**31))
def test_tori_compute_what_the_network_computes(choices, seed):
    model = linear_network(choices, seed)
    try:
        agrees(model, seed)
    except NotCovered as error:
        # A crop behind a convolution whose borders are then padded has no form; that much is known.
        assert "cropped and then padded" in str(error), f"{model} is not covered: {error}"


@pytest.mark.parametrize("axis", [1, 2])
def test_maps_of_groups_of_channels_and_their_interleaving(axis):
    """As comparators of channels that lie apart (the first axis of groups) or side by side (the second) are."""
    generator = np.random.default_rng(axis)
    model = Model(2, 5, 4, opset=20)
    model.then("Conv", generator.standard_normal((6, 2, 3, 3)), pads=[1, 1, 1, 1])
    same(model)
    groups = [-1, 2, 3, 5, 4] if axis == 1 else [-1, 3, 2, 5, 4]
    cube, axes = model.then("Reshape", np.array(groups)), np.array([axis])
    summed = model.add("ReduceSum", cube, axes, keepdims=1)
    mean = model.add("ReduceMean", cube, axes, keepdims=1)
    model.add("Concat", summed, mean, axis=axis)
    model.then("Reshape", np.array([-1, 6, 5, 4]))
    model.then("Conv", generator.standard_normal((2, 6, 3, 3)), pads=[1, 1, 1, 1])
    same(model)
    model.then("Flatten")
    model.linear(generator.standard_normal((3, 40)))
    lowered = agrees(model, axis)
    assert not lowered.cuts


@pytest.mark.parametrize("axes", [1, 3])
def test_one_and_three_axes(axes):
    generator = np.random.default_rng(axes)
    model = Model(2, *(7, 4, 5)[:axes], opset=20)
    ends = [1] * axes + [2] * axes
    model.then("Conv", generator.standard_normal((4, 2, *[3] * axes)), pads=ends, strides=[2] * axes)
    same(model)
    model.then("Conv", generator.standard_normal((4, 2, *[2] * axes)), group=2, pads=[1] * 2 * axes)
    same(model)
    model.then("Flatten")
    size = network_of(model).sizes[model.output]
    model.linear(generator.standard_normal((2, size)))
    agrees(model, 0)


def test_a_value_behind_a_matrix_is_laid_out_as_its_convolution_reads_it():
    generator = np.random.default_rng(0)
    model = Model(5, opset=20)
    model.linear(generator.standard_normal((24, 5)))
    model.then("Reshape", np.array([0, 3, 4, 2]))
    origin = model.then("Transpose", perm=[0, 3, 1, 2])
    model.then("Conv", generator.standard_normal((2, 2, 3, 3)), pads=[1, 1, 1, 1])
    same(model)
    model.then("Flatten")
    model.linear(generator.standard_normal((2, 24)))
    before = next(term.output for term in network_of(model).terms if term.operator == "Gemm")
    for value in (before, origin):
        agrees(model, 0, origin=value)
