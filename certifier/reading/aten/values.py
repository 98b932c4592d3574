"""ATen operators that compute nothing: conversions, sizes, and what inference leaves as it is."""

from __future__ import annotations

from certifier.graph import FLOATING
from certifier.reading.aten.movements import expand
from certifier.reading.aten.registry import SCALAR_TYPES, Call, aten
from certifier.reading.emitting import Ref


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
