"""Values of ATen that move no data: constants, conversions, sizes, and what inference leaves as it is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from certifier.graph import FLOATING
from certifier.reading.aten_movements import expand
from certifier.reading.aten_registry import SCALAR_TYPES, Call, aten
from certifier.reading.emitting import Ref, array_dtype


def refuse_random(call: Call, probability: object) -> None:
    """Dropout that is switched on draws random numbers, so its output is no function of the input."""
    if call.number(probability, "p") != 0:
        raise call.refuse("drops values at random; export the model after model.eval()")


@aten("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", shares=True)
def dropout(call: Call, input: object, p: object, train: object) -> Ref:
    """The identity in inference."""
    if call.flag(train, "train"):
        refuse_random(call, p)
    return call.tensor(input, "input")


@aten("native_dropout")
def native_dropout(call: Call, input: object, p: object, train: object) -> tuple[Ref, None]:
    """The identity in inference, and a mask that nothing reads."""
    if train is not None:
        dropout(call, input, p, train)
    return call.tensor(input, "input"), None


@aten("clone", "detach_copy", "alias_copy", "lift_fresh_copy")
def copied(call: Call, self: object, *, memory_format: object = None) -> Ref:
    """The same values in memory of their own."""
    return call.tensor(self, "self")


@aten(
    "contiguous", "detach", "alias", "lift_fresh", "lift", "positive", "cpu", "resolve_conj", "resolve_neg", shares=True
)
def same(call: Call, self: object, *, memory_format: object = None) -> Ref:
    """The same values."""
    return call.tensor(self, "self")


@aten("copy")
def copy(call: Call, self: object, src: object, non_blocking: object = False) -> Ref:
    """`src` in the shape and the element type of `self`."""
    target, source = call.tensor(self, "self"), call.cast(call.tensor(src, "src"), call.tensor(self, "self").dtype)
    return expand(call, source, list(target.shape))


@aten("to", shares=True)
def to(
    call: Call,
    self: object,
    first: object = None,
    second: object = None,
    third: object = None,
    fourth: object = None,
    fifth: object = None,
    *,
    dtype: object = None,
    layout: object = None,
    device: object = None,
    other: object = None,
    pin_memory: object = None,
    non_blocking: object = False,
    copy: object = False,
    memory_format: object = None,
) -> Ref:
    """The tensor in another element type; where it is kept does not matter.

    ATen's forms begin with an element type, with a device and then an element type, or with a tensor to imitate.
    """
    ref = call.tensor(self, "self")
    for like in (first, other):
        if isinstance(like, Ref):
            return call.cast(ref, like.dtype)
    for wanted in (dtype, first, second):
        if _is_dtype(wanted):
            return call.cast(ref, call.dtype(wanted))
    if dtype is not None:
        raise call.refuse(f"the element type {dtype!r} is not supported")
    return ref


def _is_dtype(value: object) -> bool:
    if isinstance(value, bool):
        return False
    return value in SCALAR_TYPES if isinstance(value, int) else value in SCALAR_TYPES.values()


@aten("_to_copy")
def to_copy(
    call: Call,
    self: object,
    *,
    dtype: object = None,
    layout: object = None,
    device: object = None,
    pin_memory: object = None,
    non_blocking: object = False,
    memory_format: object = None,
) -> Ref:
    """The tensor in another element type."""
    return call.cast(call.tensor(self, "self"), call.dtype(dtype))


@aten("type_as", shares=True)
def type_as(call: Call, self: object, other: object) -> Ref:
    """The tensor in the element type of another."""
    return call.cast(call.tensor(self, "self"), call.tensor(other, "other").dtype)


@aten("float", "double", "half", "bfloat16", "long", "int", "bool", shares=True)
def converted(call: Call, self: object) -> object:
    """The tensor in the element type of that name; a Python number stays one."""
    names = {"float": "float32", "double": "float64", "half": "float16", "long": "int64", "int": "int32"}
    if not isinstance(self, Ref):
        number = call.number(self, "self")
        return {"float": float, "bool": bool}.get(call.operator, int)(number)
    return call.cast(self, names.get(call.operator, call.operator))


@aten("size", "sym_size")
def size(call: Call, self: object, dim: object = None) -> object:
    """The sizes of all axes, or of one."""
    shape = call.tensor(self, "self").shape
    return list(shape) if dim is None else shape[call.axis(dim, len(shape))]


@aten("numel", "sym_numel")
def numel(call: Call, self: object) -> int:
    """The number of elements."""
    return call.tensor(self, "self").size


@aten("dim", "ndimension")
def rank(call: Call, self: object) -> int:
    """The number of axes."""
    return call.tensor(self, "self").rank


@aten("len")
def length(call: Call, self: object) -> int:
    """The size of the first axis, or the length of a list."""
    return self.shape[0] if isinstance(self, Ref) else len(self)  # pyright: ignore[reportArgumentType]


@aten("is_floating_point")
def is_floating_point(call: Call, self: object) -> bool:
    """Whether the element type is floating."""
    return call.tensor(self, "self").dtype in FLOATING


@aten("item", "_local_scalar_dense")
def item(call: Call, self: object) -> float | int:
    """The one element of a known tensor."""
    return call.number(call.tensor(self, "self"), "self")


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


@aten("empty", "empty_like", "new_empty", "empty_strided")
def empty(call: Call) -> Ref:
    """Memory that was never written, which is refused: its values are not known."""
    raise call.refuse("reads memory that was never written")


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


@aten("zeros_like", "ones_like")
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


@aten("new_zeros", "new_ones")
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


@aten(
    "_assert_tensor_metadata", "_assert_async", "_assert_scalar", "sym_constrain_range", "sym_constrain_range_for_size"
)
def assertion(
    call: Call,
    first: object = None,
    second: object = None,
    third: object = None,
    fourth: object = None,
    *,
    min: object = None,
    max: object = None,
    dtype: object = None,
    device: object = None,
    layout: object = None,
) -> None:
    """A check that the exporter wrote down; it computes nothing."""
    return None
