"""Poolings of ATen."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from certifier.reading.aten.registry import Call, aten
from certifier.reading.aten.resizing import along_axis
from certifier.reading.emitting import Ref


def _count(call: Call) -> int:
    """The number of pooled axes, which the operator's name ends with."""
    return int(call.operator.removesuffix("_with_indices")[-2])


def _operand(call: Call, self: object, count: int) -> tuple[Ref, bool]:
    """The input with a leading axis of rows, and whether that axis was added."""
    ref = call.tensor(self, "self")
    if ref.rank not in (count + 1, count + 2):
        raise call.refuse(f"takes {count + 2} axes, not {ref.rank}")
    single = ref.rank == count + 1
    return (call.reshape(ref, (1, *ref.shape)) if single else ref), single


def _result(call: Call, ref: Ref, single: bool) -> Ref:
    return call.reshape(ref, ref.shape[1:]) if single else ref


def _end_pads(
    call: Call,
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> tuple[int, ...]:
    """The padding after the last entry with which rounding down gives as many windows as PyTorch makes.

    Rounding up, PyTorch drops a last window that would begin in the padding behind the input.
    """
    ends = []
    for size, window, step, pad, spread in zip(sizes, kernel, stride, padding, dilation, strict=True):
        if step < 1 or window < 1 or spread < 1 or not 0 <= 2 * pad <= window:
            raise call.refuse("its kernel, stride, padding or dilation is out of range")
        reach = size + 2 * pad - spread * (window - 1) - 1
        if reach < 0:
            raise call.refuse("the kernel is larger than the padded input")
        windows = reach // step + 1
        if ceil_mode:
            windows = -(-reach // step) + 1
            windows -= (windows - 1) * step >= size + pad
        ends.append(pad + max(0, (windows - 1) * step - reach))
    return tuple(ends)


def _pool(
    call: Call, self: object, kernel_size: object, stride: object, padding: object, dilation: object, ceil_mode: object
) -> tuple[Ref, bool, dict[str, object], bool]:
    count = _count(call)
    ref, single = _operand(call, self, count)
    kernel = call.integers(kernel_size, "kernel_size", count)
    steps = kernel if stride is None or stride in ([], ()) else call.integers(stride, "stride", count)
    pads, spread = call.integers(padding, "padding", count), call.integers(dilation, "dilation", count)
    ends = _end_pads(call, ref.shape[2:], kernel, steps, pads, spread, call.flag(ceil_mode, "ceil_mode"))
    attributes: dict[str, object] = {"kernel_shape": kernel, "strides": steps, "pads": (*pads, *ends)}
    if any(each != 1 for each in spread):
        attributes["dilations"] = spread
    return ref, single, attributes, ends != pads


@aten("max_pool1d", "max_pool2d", "max_pool3d")
def max_pool(
    call: Call,
    self: object,
    kernel_size: object,
    stride: object = (),
    padding: object = 0,
    dilation: object = 1,
    ceil_mode: object = False,
) -> Ref:
    """The largest entry of each window; padding never wins."""
    ref, single, attributes, _ = _pool(call, self, kernel_size, stride, padding, dilation, ceil_mode)
    return _result(call, call.emit("MaxPool", [ref], attributes), single)


@aten("max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices")
def max_pool_with_indices(
    call: Call,
    self: object,
    kernel_size: object,
    stride: object = (),
    padding: object = 0,
    dilation: object = 1,
    ceil_mode: object = False,
) -> tuple[Ref, None]:
    """`max_pool`; the places of the entries must go unread."""
    return max_pool(call, self, kernel_size, stride, padding, dilation, ceil_mode), None


@aten("avg_pool1d", "avg_pool2d", "avg_pool3d")
def avg_pool(
    call: Call,
    self: object,
    kernel_size: object,
    stride: object = (),
    padding: object = 0,
    ceil_mode: object = False,
    count_include_pad: object = True,
    divisor_override: object = None,
) -> Ref:
    """The mean of each window."""
    if divisor_override is not None:
        raise call.refuse("divisor_override is not supported")
    ref, single, attributes, extended = _pool(call, self, kernel_size, stride, padding, 1, ceil_mode)
    padded = any(call.integers(padding, "padding", _count(call)))
    counted = call.flag(count_include_pad, "count_include_pad") and padded
    if counted and extended:
        raise call.refuse("ceil_mode together with counted padding is not supported")
    # What rounding up reaches beyond the input is never counted, so without padding nothing outside is.
    attributes["count_include_pad"] = int(counted)
    return _result(call, call.emit("AveragePool", [ref], attributes), single)


@aten(
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d"
)
def adaptive_avg_pool(call: Call, self: object, output_size: object) -> Ref:
    """The mean of each of `output_size` bins, which overlap where they do not divide the input."""
    ref, single, wanted = _adaptive(call, self, output_size)
    sizes = ref.shape[2:]
    if all(size == 1 for size in wanted):
        return _result(call, call.emit("GlobalAveragePool", [ref]), single)
    if wanted == sizes:
        return _result(call, ref, single)
    if all(size % target == 0 for size, target in zip(sizes, wanted, strict=True)):
        return _result(call, call.emit("AveragePool", [ref], _exact(sizes, wanted)), single)
    for axis, target in enumerate(wanted, start=2):
        call.emitter.limits.demand("elements", ref.shape[axis] * target, call.where)
        if ref.shape[axis] != target:
            ref = along_axis(call, ref, axis, _bins(ref.shape[axis], target))
    return _result(call, ref, single)


@aten("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")
def adaptive_max_pool(call: Call, self: object, output_size: object) -> tuple[Ref, None]:
    """The largest entry of each of `output_size` bins, which must divide the input; places must go unread."""
    ref, single, wanted = _adaptive(call, self, output_size)
    sizes = ref.shape[2:]
    if all(size == 1 for size in wanted):
        return _result(call, call.emit("GlobalMaxPool", [ref]), single), None
    if any(size % target for size, target in zip(sizes, wanted, strict=True)):
        raise call.refuse(f"the bins {list(wanted)} do not divide the input {list(sizes)}")
    return _result(call, call.emit("MaxPool", [ref], _exact(sizes, wanted)), single), None


def _adaptive(call: Call, self: object, output_size: object) -> tuple[Ref, bool, tuple[int, ...]]:
    count = _count(call)
    ref, single = _operand(call, self, count)
    given = list(output_size) if isinstance(output_size, (list, tuple)) else [output_size] * count
    if len(given) == 1:
        given *= count
    if len(given) != count:
        raise call.refuse(f"output_size must have {count} entries")
    wanted = tuple(
        size if target is None else call.integer(target, "output_size")
        for size, target in zip(ref.shape[2:], given, strict=True)
    )
    if min(wanted) < 1 or min(ref.shape) < 1:
        raise call.refuse("a size is below 1")
    call.emitter.limits.demand("value_elements", math.prod(wanted), call.where)
    return ref, single, wanted


def _exact(sizes: Sequence[int], wanted: Sequence[int]) -> dict[str, object]:
    window = tuple(size // target for size, target in zip(sizes, wanted, strict=True))
    return {"kernel_shape": window, "strides": window}


def _bins(size: int, target: int) -> np.ndarray:
    """The averaging matrix of adaptive pooling along one axis.

    Shapes: [target, size].
    """
    matrix = np.zeros((target, size))
    for place in range(target):
        start, end = place * size // target, -(-(place + 1) * size // target)
        matrix[place, start:end] = 1 / (end - start)
    return matrix
