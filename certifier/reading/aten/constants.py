"""Constants of ATen: tensors that are made without looking at any other's values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from certifier.reading.aten.registry import Call, aten
from certifier.reading.emitting import Ref, array_dtype


def _filled(call: Call, shape: Sequence[int], value: float | int, dtype: str) -> Ref:
    if any(size < 0 for size in shape):
        raise call.refuse(f"a size is negative: {list(shape)}")
    call.emitter.limits.demand("elements", math.prod(shape), call.where)
    return call.emitter.constant(np.full(tuple(shape), value, dtype=array_dtype(dtype)), call.where)


@aten("zeros", "ones")
def zeros(
    call: Call,
    size: object,
    *,
    names: object = None,
    dtype: object = None,
    layout: object = None,
    device: object = None,
    pin_memory: object = None,
) -> Ref:
    """A tensor of equal entries."""
    return _filled(call, call.integers(size, "size"), _fill(call), call.dtype(dtype) or "float32")


def _fill(call: Call) -> int:
    return 1 if "ones" in call.operator else 0


@aten("empty", "empty_strided", "empty_permuted")
def empty(
    call: Call,
    size: object,
    layout_of_memory: object = None,
    *,
    names: object = None,
    dtype: object = None,
    layout: object = None,
    device: object = None,
    pin_memory: object = None,
    memory_format: object = None,
) -> Ref:
    """Zeros, where PyTorch leaves open what the entries are until they are written."""
    return _filled(call, call.integers(size, "size"), 0, call.dtype(dtype) or "float32")


@aten("full")
def full(
    call: Call,
    size: object,
    fill_value: object,
    *,
    names: object = None,
    dtype: object = None,
    layout: object = None,
    device: object = None,
    pin_memory: object = None,
) -> Ref:
    """A tensor of equal entries."""
    value = call.number(fill_value, "fill_value")
    kind = "bool" if isinstance(value, bool) else "int64" if isinstance(value, int) else "float32"
    return _filled(call, call.integers(size, "size"), value, call.dtype(dtype) or kind)


@aten("zeros_like", "ones_like", "empty_like")
def zeros_like(
    call: Call,
    self: object,
    *,
    dtype: object = None,
    layout: object = None,
    device: object = None,
    pin_memory: object = None,
    memory_format: object = None,
) -> Ref:
    """A tensor of equal entries, shaped as another."""
    ref = call.tensor(self, "self")
    return _filled(call, ref.shape, _fill(call), call.dtype(dtype) or ref.dtype)


@aten("full_like")
def full_like(
    call: Call,
    self: object,
    fill_value: object,
    *,
    dtype: object = None,
    layout: object = None,
    device: object = None,
    pin_memory: object = None,
    memory_format: object = None,
) -> Ref:
    """A tensor of equal entries, shaped as another."""
    ref = call.tensor(self, "self")
    return _filled(call, ref.shape, call.number(fill_value, "fill_value"), call.dtype(dtype) or ref.dtype)


@aten("new_zeros", "new_ones", "new_empty")
def new_zeros(
    call: Call,
    self: object,
    size: object,
    *,
    dtype: object = None,
    layout: object = None,
    device: object = None,
    pin_memory: object = None,
) -> Ref:
    """A tensor of equal entries in the element type of another."""
    ref = call.tensor(self, "self")
    return _filled(call, call.integers(size, "size"), _fill(call), call.dtype(dtype) or ref.dtype)


@aten("fill", "zero")
def fill(call: Call, self: object, value: object = 0) -> Ref:
    """Every entry replaced by one number."""
    ref = call.tensor(self, "self")
    return _filled(call, ref.shape, call.number(value, "value"), ref.dtype)


@aten("arange")
def arange(
    call: Call,
    first: object,
    second: object = None,
    step: object = 1,
    *,
    dtype: object = None,
    layout: object = None,
    device: object = None,
    pin_memory: object = None,
) -> Ref:
    """The numbers from a start (0 if not given) up to, and without, an end."""
    start, end = (0, first) if second is None else (first, second)
    ends = [call.number(value, "a bound") for value in (start, end, step)]
    width = ends[2]
    if width == 0 or not all(math.isfinite(value) for value in ends):
        raise call.refuse("its bounds must be finite and its step not zero")
    call.emitter.limits.demand("elements", max(0.0, (ends[1] - ends[0]) / width), call.where)
    kind = "int64" if all(isinstance(value, int) for value in ends) else "float32"
    return call.emitter.constant(np.arange(*ends).astype(array_dtype(call.dtype(dtype) or kind)), call.where)


@aten("scalar_tensor", "tensor")
def scalar_tensor(
    call: Call,
    s: object,
    *,
    dtype: object = None,
    layout: object = None,
    device: object = None,
    pin_memory: object = None,
    requires_grad: object = False,
) -> Ref:
    """Known numbers as a tensor."""
    if isinstance(s, Ref):
        return call.cast(s, call.dtype(dtype))
    array = np.asarray(s)
    if array.dtype.kind not in "bif":
        raise call.refuse("holds something other than numbers")
    own = {"b": "bool", "i": "int64", "f": "float32"}[array.dtype.kind]
    return call.emitter.constant(array.astype(array_dtype(call.dtype(dtype) or own)), call.where)
