"""Padding and resampling of ATen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from certifier.reading.aten.movements import gathered
from certifier.reading.aten.registry import Call, aten
from certifier.reading.aten.selections import sliced
from certifier.reading.emitting import Ref

_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


@aten("constant_pad_nd")
def constant_pad(call: Call, self: object, pad: object, value: object = 0) -> Ref:
    """The tensor with `value` around it; negative padding cuts."""
    return _padded(call, self, pad, "constant", call.number(value, "value"))


@aten("pad")
def pad(call: Call, self: object, pad: object, mode: object = "constant", value: object = None) -> Ref:
    """The tensor with a constant, its mirror image, its edge or itself around it."""
    if mode not in _MODES:
        raise call.refuse(f"mode={mode!r} is not supported")
    return _padded(call, self, pad, _MODES[str(mode)], 0 if value is None else call.number(value, "value"))


@aten(
    "reflection_pad1d", "reflection_pad2d", "reflection_pad3d",
    "replication_pad1d", "replication_pad2d", "replication_pad3d", "_pad_circular",
)  # fmt: skip
def named_pad(call: Call, self: object, padding: object) -> Ref:
    """The tensor with its mirror image, its edge or itself around it."""
    modes = {"refle": "reflect", "repli": "edge", "_pad_": "wrap"}
    count = int(call.operator[-2]) if call.operator != "_pad_circular" else None
    pads = call.integers(padding, "padding", None if count is None else 2 * count)
    return _padded(call, self, pads, modes[call.operator[:5]], 0)


def _padded(call: Call, self: object, pad: object, mode: str, value: float | int) -> Ref:
    ref, pairs = call.tensor(self, "self"), call.integers(pad, "pad")
    if len(pairs) % 2 or len(pairs) > 2 * ref.rank:
        raise call.refuse(f"{list(pairs)} is not a padding of {ref.rank} axes")
    before, after = [0] * ref.rank, [0] * ref.rank
    for place in range(len(pairs) // 2):
        # PyTorch names the last axis first.
        before[ref.rank - 1 - place], after[ref.rank - 1 - place] = pairs[2 * place], pairs[2 * place + 1]
    for axis in range(ref.rank):
        low, high = max(0, -before[axis]), max(0, -after[axis])
        if low + high > 0:
            if mode != "constant" or low + high >= ref.shape[axis]:
                raise call.refuse("negative padding must leave something, and is supported for constants only")
            ref = sliced(call, ref, axis, low, ref.shape[axis] - high)
    pads = [max(0, each) for each in (*before, *after)]
    if not any(pads):
        return ref
    widest = {"reflect": -1, "wrap": 0}.get(mode)
    if widest is not None and any(max(pads[a], pads[a + ref.rank]) > ref.shape[a] + widest for a in range(ref.rank)):
        raise call.refuse("the padding is wider than the input")
    inputs = [ref, call.integers_constant(pads, "pads")]
    if mode == "constant":
        inputs.append(call.constant(value, ref.dtype, "value"))
    return call.emit("Pad", inputs, {"mode": mode})


def along_axis(call: Call, ref: Ref, axis: int, matrix: np.ndarray) -> Ref:
    """Every line of `ref` along `axis` multiplied by `matrix`.

    Shapes: matrix [new size, old size].
    """
    order = [each for each in range(ref.rank) if each != axis] + [axis]
    columns = call.constant(matrix.T, ref.dtype, "weights")
    product = call.emit("MatMul", [call.transpose(ref, order), columns])
    return call.transpose(product, [order.index(each) for each in range(ref.rank)])


@aten("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d")
def nearest(
    call: Call, self: object, output_size: object, first: object = None, second: object = None, third: object = None
) -> Ref:
    """Each entry repeated: output place i reads input place ⌊i · old size / new size⌋."""
    return _nearest(call, self, output_size, (first, second, third), 0.0)


@aten("_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d")
def nearest_exact(
    call: Call, self: object, output_size: object, first: object = None, second: object = None, third: object = None
) -> Ref:
    """Output place i reads input place ⌊(i + 1/2) · old size / new size⌋."""
    return _nearest(call, self, output_size, (first, second, third), 0.5)


def _nearest(call: Call, self: object, output_size: object, rest: Sequence[object], shift: float) -> Ref:
    ref, count = call.tensor(self, "self"), int(call.operator[-2])
    sizes, ratios = _targets(call, ref, count, output_size, rest)
    if shift == 0.0:
        # Where the size stays or doubles PyTorch copies, whatever the scale was.
        ratios = tuple(
            new / old if new in (old, 2 * old) else ratio
            for new, old, ratio in zip(sizes, ref.shape[2:], ratios, strict=True)
        )
    whole = all(
        ratio == new / old and new % old == 0 for new, old, ratio in zip(sizes, ref.shape[2:], ratios, strict=True)
    )
    if whole:
        attributes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return _resize(call, ref, sizes, attributes)
    for axis, (size, ratio) in enumerate(zip(sizes, ratios, strict=True), start=2):
        # PyTorch computes places in single precision.
        step = np.float32(1 / ratio)
        places = np.floor((np.arange(size, dtype=np.float32) + np.float32(shift)) * step).astype(np.int64)
        ref = gathered(call, ref, axis, np.minimum(places, ref.shape[axis] - 1))
    return ref


@aten("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d")
def interpolated(
    call: Call,
    self: object,
    output_size: object,
    align_corners: object,
    first: object = None,
    second: object = None,
    third: object = None,
) -> Ref:
    """Each output place interpolated between its neighbours, axis by axis."""
    ref, count = call.tensor(self, "self"), int(call.operator[-2])
    sizes, ratios = _targets(call, ref, count, output_size, (first, second, third))
    aligned, cubic = call.flag(align_corners, "align_corners"), "cubic" in call.operator
    # Where the size stays PyTorch copies, whatever the scale was.
    if not cubic:
        ratios = tuple(
            1.0 if new == old else ratio for new, old, ratio in zip(sizes, ref.shape[2:], ratios, strict=True)
        )
    plain = all(ratio == new / old for new, old, ratio in zip(sizes, ref.shape[2:], ratios, strict=True))
    if not cubic and (plain or aligned) and min(sizes) > 1:
        mode = "align_corners" if aligned else "half_pixel"
        return _resize(call, ref, sizes, {"mode": "linear", "coordinate_transformation_mode": mode})
    for axis, (size, ratio) in enumerate(zip(sizes, ratios, strict=True), start=2):
        call.emitter.limits.demand("elements", ref.shape[axis] * size, call.where)
        ref = along_axis(call, ref, axis, interpolation_matrix(ref.shape[axis], size, 1 / ratio, aligned, cubic))
    return ref


def interpolation_matrix(old: int, new: int, step: float, aligned: bool, cubic: bool) -> np.ndarray:
    """The weights of linear or cubic interpolation along one axis, repeated edges included.

    Shapes: [new, old].
    """
    if aligned:
        step = (old - 1) / (new - 1) if new > 1 else 0.0
    matrix = np.zeros((new, old))
    for place in range(new):
        source = place * step if aligned else (place + 0.5) * step - 0.5
        if not cubic:
            source = max(source, 0.0)
        base = math.floor(source)
        part = source - base
        weights = _cubic(part) if cubic else (1 - part, part)
        for offset, weight in enumerate(weights, start=base - 1 if cubic else base):
            matrix[place, min(max(offset, 0), old - 1)] += weight
    return matrix


def _cubic(part: float, sharpness: float = -0.75) -> tuple[float, ...]:
    """Keys' cubic convolution weights of the four neighbours.

    Reference: R. Keys, Cubic convolution interpolation for digital image processing, 1981.
    """

    def near(x: float) -> float:
        return ((sharpness + 2) * x - (sharpness + 3)) * x * x + 1

    def far(x: float) -> float:
        return ((sharpness * x - 5 * sharpness) * x + 8 * sharpness) * x - 4 * sharpness

    return far(part + 1), near(part), near(1 - part), far(2 - part)


def _resize(call: Call, ref: Ref, sizes: Sequence[int], attributes: Mapping[str, object]) -> Ref:
    return call.emit("Resize", [ref, None, None, call.integers_constant((*ref.shape[:2], *sizes), "sizes")], attributes)


def _targets(
    call: Call, ref: Ref, count: int, output_size: object, rest: Sequence[object]
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The new sizes, and the ratios by which places are computed, which need not be those of the sizes.

    ATen gives either a size, and perhaps one ratio per axis, or no size and a list of ratios.
    """
    if ref.rank != count + 2 or min(ref.shape) < 1:
        raise call.refuse(f"takes {count + 2} axes, not {ref.rank}")
    old = ref.shape[2:]
    listed = rest[0] if isinstance(rest[0], (list, tuple)) else list(rest[:count])
    given = [None if value is None else float(call.number(value, "a scale")) for value in listed]
    given = given or [None] * count
    if len(given) != count or any(ratio is not None and not 0 < ratio < 2**20 for ratio in given):
        raise call.refuse("a scale is out of range")
    if output_size is None:
        if None in given:
            raise call.refuse("needs a size or a scale")
        sizes = tuple(math.floor(size * (ratio or 1.0)) for size, ratio in zip(old, given, strict=True))
    else:
        sizes = call.integers(output_size, "output_size", count)
    if min(sizes) < 1:
        raise call.refuse("a new size is below 1")
    call.emitter.limits.demand("value_elements", math.prod((*ref.shape[:2], *sizes)), call.where)
    ratios = tuple(new / size if ratio is None else ratio for new, size, ratio in zip(sizes, old, given, strict=True))
    return sizes, ratios
