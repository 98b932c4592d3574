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

from certifier.flow import Network
from certifier.frequencies.layout import Layouts
from certifier.frequencies.lowering import lower
from certifier.frequencies.maps import Map
from certifier.frequencies.recording import Cut, Lowered, Slope
from certifier.frequencies.scheduling import scheduled
from certifier.frequencies.views import NotCovered, Signal
from certifier.limits import Limits
from certifier.network import build_network
from certifier.reading.formats import read_model
from tests.building import Model
from tests.random_networks import _conv, _image_residual


def network_of(model: Model) -> Network:
    _, graph = read_model(model.data(), limits=Limits(), input_shape=None)
    return build_network(graph, limits=Limits(), cut_head=True)


def no_norm(operator, name: str) -> float:
    raise AssertionError("everything here has a form of its own")


def on_tori(lowered: Lowered, value: np.ndarray) -> np.ndarray:
    """The output of the operations from the start's entries, evaluated point by point on the scheduled tori."""
    segments = scheduled(lowered).segments
    assert len(segments) == 1, "a chain without restarts"
    sizes = segments[0].sizes
    tensors: dict[int, np.ndarray] = {id(lowered.start): _embedded(lowered.start, value, sizes)}
    for operation in lowered.operations:
        assert not isinstance(operation, Cut)
        if isinstance(operation, Map):
            tensors[id(operation.output)] = _mapped(operation, tensors)
        else:
            tensors[id(operation.output)] = _masked(operation, tensors[id(operation.source)])
    signal = lowered.output.signal
    return _box(tensors[id(signal)], signal).reshape(-1)[lowered.output.all_indices]


def _embedded(signal: Signal, value: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    torus = np.zeros((signal.channels, *sizes))
    torus[(slice(None), *map(slice, signal.box))] = value.reshape(signal.channels, *signal.box)
    return torus


def _box(tensor: np.ndarray, signal: Signal) -> np.ndarray:
    return tensor[(slice(None), *map(slice, signal.box))]


def _mapped(operation: Map, tensors: dict[int, np.ndarray]) -> np.ndarray:
    total = None
    for part in operation.parts:
        source = tensors[id(part.source)]
        axes = tuple(range(1, source.ndim))
        if part.kernel is None:
            image = source
        else:
            # out[q] += K_t s[q + offset_t]
            rolled = [np.roll(source, tuple(-offset), axis=axes) for offset in part.offsets]
            image = np.sum([np.tensordot(part.kernel[:, :, t], each, axes=1) for t, each in enumerate(rolled)], axis=0)
        total = image if total is None else total + image
    assert total is not None
    if operation.strides is None:
        return total[(slice(None), *(slice(0, 1) for _ in total.shape[1:]))]
    return total[(slice(None), *(slice(None, None, stride) for stride in operation.strides))]


def _masked(operation: Slope, source: np.ndarray) -> np.ndarray:
    """The identity inside of the box; outside, zero, which must be one of the slopes."""
    assert (operation.upper == 1).all()
    result = source * operation.lower.reshape(-1, *(1 for _ in source.shape[1:]))
    inside = (slice(None), *map(slice, operation.source.box))
    if operation.source.is_point:
        assert (operation.lower == 1).all()
        return source
    assert (operation.lower == 0).all()
    result[inside] = source[inside]
    return result


def agrees(model: Model, seed: int, *, origin: str = "x") -> Lowered:
    network = network_of(model)
    lowered = lower(network, origin, no_norm)
    assert not lowered.cuts
    generator = np.random.default_rng(seed)
    first, second = generator.standard_normal((2, 1, network.input_size))
    values = [{"x": x} for x in (first, second)]
    for known in values:
        for term, _, value in network.walk(known["x"]):
            known[term.output] = value
    difference = values[0][origin] - values[1][origin]
    expected = (values[0][network.output] - values[1][network.output])[0]
    found = on_tori(lowered, _in_signal(lowered, network, difference[0]))
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9 * np.abs(expected).max(initial=1.0))
    return lowered


def _in_signal(lowered: Lowered, network: Network, value: np.ndarray) -> np.ndarray:
    view = Layouts(network).fresh(lowered.origin)
    assert (view.signal.channels, view.signal.box) == (lowered.start.channels, lowered.start.box)
    flat = np.zeros(view.signal.size)
    flat[view.all_indices] = value
    return flat


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


LAYERS = (
    _conv, _conv, _padded_convolutions, _pooled, _normalised, _activated, _sliced, _image_residual, _projected,
    _joined, _turned,
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
        assert "resolution" in str(error), f"{model} is not covered: {error}"


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


def test_an_average_that_leaves_the_padding_out_is_a_sum_with_slopes():
    """Heavier borders: a convolution of ones, then slopes between 0 (the mask) and one over the smallest window."""
    model = Model(2, 5, 5, opset=20)
    model.then("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=0)
    model.then("Flatten")
    model.linear(np.random.default_rng(0).standard_normal((2, 18)))
    lowered = lower(network_of(model), "x", no_norm)
    (slope,) = [operation for operation in lowered.operations if isinstance(operation, Slope)]
    assert slope.lower.tolist() == [0.0, 0.0] and slope.upper == pytest.approx([0.25, 0.25], rel=1e-15)
    assert (slope.upper >= 0.25).all()


def test_a_maximum_over_windows_cuts_channel_by_channel_and_a_transposed_convolution_by_its_norm():
    model = Model(2, 6, 6, opset=20)
    model.then("Conv", np.ones((3, 2, 3, 3)), pads=[1, 1, 1, 1])
    model.then("MaxPool", kernel_shape=[3, 3], strides=[2, 2])
    model.then("ConvTranspose", np.ones((3, 2, 2, 2)), strides=[2, 2])
    model.then("Conv", np.ones((3, 2, 3, 3)))
    model.then("Flatten")
    model.linear(np.ones((2, 12)))
    lowered = lower(network_of(model), "x", lambda operator, name: 7.0)
    pool, transposed = [operation for operation in lowered.operations if isinstance(operation, Cut)]
    assert pool.per_channel and not transposed.per_channel
    assert pool.square == pytest.approx(4.0) and transposed.square == pytest.approx(49.0)
    assert pool.square >= 4.0 and len(lowered.cuts) == 1
    segments = scheduled(lowered).segments
    assert [segment.sources.tolist() for segment in segments] == [[-1, -1], [0, 1, 2], [-1, -1]]


def test_what_two_branches_read_at_different_resolutions_is_refused():
    model = Model(2, 8, 8, opset=20)
    start = model.output
    model.then("Conv", np.ones((2, 2, 3, 3)), pads=[1, 1, 1, 1], strides=[2, 2])
    small = model.then("Flatten")
    large = model.add("Flatten", model.add("Conv", start, np.ones((2, 2, 1, 1))))
    model.add("Concat", small, large, axis=1)
    with pytest.raises(NotCovered):
        scheduled(lower(network_of(model), "x", no_norm))
