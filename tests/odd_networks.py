"""Linear networks of layers that are rare, cropped, turned, repeated or joined oddly, for what lays them on tori.

Their activations are LeakyReLUs of slope 1, so that every constant is known exactly, yet masks are needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.building import Model

Shape = tuple[int, int, int]
LARGEST = 400
"""Entries of a value to which layers are still added."""


@dataclass(frozen=True)
class Draw:
    """Numbers at random for layers of one model."""

    model: Model
    generator: np.random.Generator

    def integer(self, least: int, most: int) -> int:
        return int(self.generator.integers(least, most + 1))

    def weights(self, *shape: int) -> np.ndarray:
        return self.generator.standard_normal(shape)

    def chance(self, share: float) -> bool:
        return bool(self.generator.random() < share)


def _windows(shape: Shape, taps: list[int], strides: list[int], pads: list[int]) -> list[int]:
    return [(n + pads[i] + pads[i + 2] - taps[i]) // strides[i] + 1 for i, n in enumerate(shape[1:])]


def convolved(draw: Draw, shape: Shape) -> Shape:
    """Groups, dilations, strides and pads, each axis and side its own."""
    groups = shape[0] if draw.chance(0.4) else 1
    outputs = groups * draw.integer(1, 2)
    taps, dilations, strides = ([draw.integer(1, most) for _ in range(2)] for most in (3, 2, 3))
    pads = [draw.integer(0, 3) for _ in range(4)]
    extents = [d * (k - 1) + 1 for k, d in zip(taps, dilations, strict=True)]
    size = _windows(shape, extents, strides, pads)
    if min(size) < 1:
        return shape
    kernel = draw.weights(outputs, shape[0] // groups, *taps)
    draw.model.then("Conv", kernel, group=groups, dilations=dilations, strides=strides, pads=pads)
    return outputs, size[0], size[1]


def padded(draw: Draw, shape: Shape) -> Shape:
    """A convolution that keeps the size, so that it reads around whatever came before."""
    draw.model.then("Conv", draw.weights(shape[0], shape[0], 3, 3), pads=[1, 1, 1, 1])
    return shape


def cropped(draw: Draw, shape: Shape) -> Shape:
    """Any box inside, a single point often."""
    starts = [draw.integer(0, n - 1) for n in shape[1:]]
    ends = [
        start + 1 if draw.chance(0.4) else draw.integer(start + 1, n)
        for start, n in zip(starts, shape[1:], strict=True)
    ]
    draw.model.then("Slice", np.array(starts), np.array(ends), np.array([2, 3]))
    return shape[0], ends[0] - starts[0], ends[1] - starts[1]


def pointed(draw: Draw, shape: Shape) -> Shape:
    """One point alone, with zeros around it again."""
    starts = [draw.integer(0, n - 1) for n in shape[1:]]
    draw.model.then("Slice", np.array(starts), np.array(starts) + 1, np.array([2, 3]))
    pad = draw.integer(1, 2)
    draw.model.then("Conv", draw.weights(shape[0], shape[0], 3, 3), pads=[pad] * 4)
    return shape[0], 2 * pad - 1, 2 * pad - 1


def stepped(draw: Draw, shape: Shape) -> Shape:
    """Every second or third point."""
    steps = [draw.integer(1, 3) for _ in range(2)]
    starts = [draw.integer(0, n - 1) for n in shape[1:]]
    draw.model.then("Slice", np.array(starts), np.array(shape[1:]), np.array([2, 3]), np.array(steps))
    height, width = (-(-(n - start) // step) for n, start, step in zip(shape[1:], starts, steps, strict=True))
    return shape[0], height, width


def framed(draw: Draw, shape: Shape) -> Shape:
    """Zeros around points or channels, mirrors, edges and copies from the other side."""
    if draw.chance(0.2):
        draw.model.then("Pad", np.array([0, 1, 0, 0, 0, 1, 0, 0]), mode="constant")
        return shape[0] + 2, shape[1], shape[2]
    mode = ("constant", "reflect", "edge", "wrap")[draw.integer(0, 3)]
    pads = [min(draw.integer(0, 2), n - (mode == "reflect")) for n in (*shape[1:], *shape[1:])]
    draw.model.then("Pad", np.array([0, 0, *pads[:2], 0, 0, *pads[2:]]), mode=mode)
    return shape[0], shape[1] + pads[0] + pads[2], shape[2] + pads[1] + pads[3]


def shifted(draw: Draw, shape: Shape) -> Shape:
    """A row goes on one side, a row of zeros comes on the other."""
    if min(shape[1:]) < 3:
        return shape
    draw.model.then("Pad", np.array([0, 0, -1, 1, 0, 0, 1, -1]), mode="constant")
    return shape


def shuffled(draw: Draw, shape: Shape) -> Shape:
    """The channels of two halves in turns."""
    channels, height, width = shape
    if channels % 2:
        return shape
    draw.model.then("Reshape", np.array([0, 2, channels // 2, height, width]))
    draw.model.then("Transpose", perm=[0, 2, 1, 3, 4])
    draw.model.then("Reshape", np.array([0, channels, height, width]))
    return shape


def turned(draw: Draw, shape: Shape) -> Shape:
    """Axes exchanged, or the same numbers in another shape."""
    channels, height, width = shape
    match draw.integer(0, 3):
        case 0:
            draw.model.then("Transpose", perm=[0, 1, 3, 2])
            return channels, width, height
        case 1:
            draw.model.then("Transpose", perm=[0, 2, 3, 1])
            return height, width, channels
        case 2:
            draw.model.then("Reshape", np.array([0, width, channels, height]))
            return width, channels, height
        case _:
            draw.model.then("Reshape", np.array([0, channels, 1, height * width]))
            return channels, 1, height * width


def blocked(draw: Draw, shape: Shape) -> Shape:
    """Points into channels or channels into points."""
    channels, height, width = shape
    if channels % 4 == 0:
        draw.model.then("DepthToSpace", blocksize=2)
        return channels // 4, 2 * height, 2 * width
    if height % 2 or width % 2:
        return shape
    draw.model.then("SpaceToDepth", blocksize=2)
    return 4 * channels, height // 2, width // 2


def averaged(draw: Draw, shape: Shape) -> Shape:
    """With or without the padding, which makes borders heavier; or all points at once."""
    if draw.chance(0.2):
        draw.model.then("GlobalAveragePool")
        return shape[0], 1, 1
    taps = [draw.integer(1, min(3, n)) for n in shape[1:]]
    strides, pads = [draw.integer(1, 3) for _ in range(2)], [draw.integer(0, taps[i % 2] - 1) for i in range(4)]
    counts = draw.integer(0, 1)
    draw.model.then("AveragePool", kernel_shape=taps, strides=strides, pads=pads, count_include_pad=counts)
    height, width = _windows(shape, taps, strides, pads)
    return shape[0], height, width


def scaled(draw: Draw, shape: Shape) -> Shape:
    """Per channel with any sign, per entry or per point."""
    form = (shape, (shape[0], 1, 1), (shape[0], 1, 1), (1, *shape[1:]))[draw.integer(0, 3)]
    draw.model.then("Mul", draw.weights(*form))
    return shape


def activated(draw: Draw, shape: Shape) -> Shape:
    """The identity, as an activation."""
    draw.model.then("LeakyRelu", alpha=1.0)
    return shape


def doubled(draw: Draw, shape: Shape) -> Shape:
    """A value with itself."""
    draw.model.add("Add", draw.model.output, draw.model.output)
    return shape


def residual(draw: Draw, shape: Shape) -> Shape:
    """Branches of one stride, of which the second is a projection, points at its stride, or the value itself."""
    start, channels = draw.model.output, shape[0]
    strides = [draw.integer(1, 3) for _ in range(2)] if draw.chance(0.6) else [1, 1]
    branch = draw.model.then("Conv", draw.weights(channels, channels, 3, 3), pads=[1, 1, 1, 1], strides=strides)
    if draw.chance(0.5):
        branch = draw.model.then("LeakyRelu", alpha=1.0)
    kind = draw.integer(0, 2)
    if kind == 0:
        start = draw.model.add("Conv", start, draw.weights(channels, channels, 1, 1), strides=strides)
    elif strides != [1, 1]:
        start = draw.model.add(
            "Slice", start, np.zeros(2, int), np.array(shape[1:]), np.array([2, 3]), np.array(strides)
        )
    operands = (start, branch) if draw.chance(0.5) else (branch, start)
    draw.model.add(("Add", "Sub")[draw.integer(0, 1)], *operands)
    return channels, -(-shape[1] // strides[0]), -(-shape[2] // strides[1])


def joined(draw: Draw, shape: Shape) -> Shape:
    """What was there once or twice beside what it becomes, along channels or along rows."""
    start = draw.model.output
    branch = draw.model.then("Conv", draw.weights(shape[0], shape[0], 3, 3), pads=[1, 1, 1, 1])
    if draw.chance(0.5):
        branch = draw.model.then("Mul", np.array(-2.0))
    parts = [start, branch, start][: draw.integer(2, 3)]
    if draw.chance(0.2):
        draw.model.add("Concat", *parts, axis=2)
        return shape[0], len(parts) * shape[1], shape[2]
    draw.model.add("Concat", *parts, axis=1)
    return len(parts) * shape[0], shape[1], shape[2]


def chosen(draw: Draw, shape: Shape) -> Shape:
    """Some of the channels, in another order."""
    count = draw.integer(1, shape[0])
    draw.model.then("Gather", draw.generator.permutation(shape[0])[:count], axis=1)
    return count, shape[1], shape[2]


def enlarged(draw: Draw, shape: Shape) -> Shape:
    """By a transposed convolution, which has no form on a torus."""
    draw.model.then("ConvTranspose", draw.weights(shape[0], 2, 2, 2), strides=[2, 2])
    return 2, 2 * shape[1], 2 * shape[2]


LAYERS: tuple[Callable[[Draw, Shape], Shape], ...] = (
    convolved, convolved, convolved, padded, padded, cropped, pointed, stepped, framed, framed, shifted, shuffled,
    turned, turned, blocked, averaged, averaged, scaled, scaled, activated, activated, doubled, residual, residual,
    joined, chosen, enlarged,
)  # fmt: skip


def odd_network(seed: int) -> Model:
    """One to five of the layers and, mostly, a matrix behind them, which may read channels last."""
    generator = np.random.default_rng(seed)
    shape: Shape = (int(generator.integers(1, 5)), int(generator.integers(1, 8)), int(generator.integers(1, 8)))
    draw = Draw(Model(*shape, dtype=np.float64, opset=20), generator)
    padded(draw, shape) if draw.chance(0.5) else activated(draw, shape)
    for _ in range(draw.integer(1, 5)):
        if math.prod(shape) <= LARGEST:
            shape = LAYERS[draw.integer(0, len(LAYERS) - 1)](draw, shape)
    if draw.chance(0.7):
        if draw.chance(0.3):
            draw.model.then("Transpose", perm=[0, 2, 3, 1])
        draw.model.then("Flatten")
        draw.model.linear(draw.weights(3, math.prod(shape)))
    return draw.model
