"""Arithmetic, comparison and choice of ATen, entry by entry with broadcasting.

In half precision PyTorch computes a single function in single precision and rounds once: a second operand
that is a number and multiplies or divides stays in single precision; other numbers are rounded to half precision first.
"""

from __future__ import annotations

import numpy as np

from certifier.graph import FLOATING
from certifier.reading.aten.activations import clip
from certifier.reading.aten.registry import INTEGERS, Call, aten
from certifier.reading.emitting import Ref


@aten("add", "sub", "subtract")
def add(call: Call, self: object, other: object, alpha: object = 1) -> Ref:
    """self ± alpha other."""
    first, second = call.operands(self, other)
    return _sum(call, "Add" if call.operator.startswith("add") else "Sub", first, second, alpha)


@aten("rsub")
def rsub(call: Call, self: object, other: object, alpha: object = 1) -> Ref:
    """other - alpha self."""
    first, second = call.operands(self, other)
    return _sum(call, "Sub", second, first, alpha)


def _sum(call: Call, operator: str, first: Ref, second: Ref, alpha: object) -> Ref:
    factor = call.number(alpha, "alpha")
    if factor == 1:
        return call.emit(operator, [first, second])
    scale, dtype = call.constant(factor, second.dtype, "alpha"), second.dtype
    if dtype in HALVES:
        first, second, scale = (call.cast(each, "float32") for each in (first, second, scale))
    return call.cast(call.emit(operator, [first, call.emit("Mul", [second, scale])]), dtype)


HALVES = ("float16", "bfloat16")


def _is_number(value: object) -> bool:
    return not isinstance(value, Ref) or value.rank == 0


def _single(call: Call, value: object) -> Ref:
    """The operand in single precision."""
    return call.cast(value, "float32") if isinstance(value, Ref) else call.operands(value, 0.0)[0]


@aten("mul", "multiply")
def mul(call: Call, self: object, other: object) -> Ref:
    """self other."""
    first, second = call.operands(self, other)
    if first.dtype == "bool":
        return call.emit("And", [first, second])
    if first.dtype in HALVES and _is_number(other):
        return call.cast(call.emit("Mul", [_single(call, self), _single(call, other)]), first.dtype)
    return call.emit("Mul", [first, second])


@aten("div", "divide", "true_divide")
def div(call: Call, self: object, other: object, *, rounding_mode: object = None) -> Ref:
    """self / other, as real numbers; of known integers also rounded down (floor) or towards zero (trunc)."""
    if rounding_mode is not None:
        return _rounded_quotient(call, self, other, rounding_mode)
    first, second = call.operands(self, other)
    if first.dtype not in FLOATING:
        first, second = call.cast(first, "float32"), call.cast(second, "float32")
    if first.dtype in HALVES and _is_number(other):
        return call.cast(call.emit("Div", [_single(call, self), _single(call, other)]), first.dtype)
    return call.emit("Div", [first, second])


@aten("floor_divide")
def floor_divide(call: Call, self: object, other: object) -> object:
    """The quotient of two known integers, rounded down."""
    return _rounded_quotient(call, self, other, "floor")


def _rounded_quotient(call: Call, self: object, other: object, mode: object) -> Ref:
    first, second = call.operands(self, other)
    left, right = call.emitter.value(first), call.emitter.value(second)
    if first.dtype not in INTEGERS or left is None or right is None or not np.all(right) or mode not in _ROUNDED:
        raise call.refuse("division that rounds is discontinuous")
    quotient = np.floor_divide(left, right)
    if mode == "trunc":
        quotient = quotient + ((np.remainder(left, right) != 0) & (np.less(left, 0) != np.less(right, 0)))
    return call.emitter.constant(np.asarray(quotient, dtype=first.dtype), f"{call.where}/quotient")


_ROUNDED = ("floor", "trunc")


@aten("fmod", "remainder")
def remainder(call: Call, self: object, other: object) -> Ref:
    """What division leaves, with the sign of the dividend (fmod) or of the divisor (remainder)."""
    first, second = call.operands(self, other)
    if first.dtype in FLOATING and call.operator == "remainder":
        raise call.refuse("the remainder of floating-point division is discontinuous")
    return call.emit("Mod", [first, second], {"fmod": int(call.operator == "fmod")})


@aten("neg", "negative", "abs", "absolute", "sqrt", "exp", "log", "reciprocal", "sign", "floor", "ceil", "round")
def one_operand(call: Call, self: object) -> Ref:
    """One function of one variable, the same in both."""
    return _one_operand(call, self)


@aten("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh")
def trigonometric(call: Call, self: object) -> Ref:
    """One trigonometric or hyperbolic function, or its inverse."""
    return _one_operand(call, self)


def _one_operand(call: Call, self: object) -> Ref:
    renamed = {"negative": "Neg", "absolute": "Abs"}
    name = call.operator
    ref = call.tensor(self, "self")
    if ref.dtype not in FLOATING and name not in (
        "neg",
        "negative",
        "abs",
        "absolute",
        "sign",
        "floor",
        "ceil",
        "round",
    ):
        ref = call.cast(ref, "float32")
    if ref.dtype not in FLOATING and name in ("floor", "ceil", "round"):
        return ref
    return call.emit(renamed.get(name, name.capitalize()), [ref])


@aten("rsqrt")
def rsqrt(call: Call, self: object) -> Ref:
    """1 / sqrt(x)."""
    return call.emit("Reciprocal", [call.emit("Sqrt", [call.tensor(self, "self")])])


@aten("square")
def square(call: Call, self: object) -> Ref:
    """x²."""
    ref = call.tensor(self, "self")
    return call.emit("Mul", [ref, ref])


@aten("expm1", "log1p")
def near_zero(call: Call, self: object) -> Ref:
    """exp(x) - 1 or log(1 + x)."""
    ref = call.tensor(self, "self")
    one = call.constant(1, ref.dtype, "one")
    if call.operator.startswith("expm1"):
        return call.emit("Sub", [call.emit("Exp", [ref]), one])
    return call.emit("Log", [call.emit("Add", [ref, one])])


@aten("pow")
def power(call: Call, self: object, exponent: object) -> Ref:
    """self ** exponent."""
    first, second = call.operands(self, exponent)
    if isinstance(exponent, (int, float)) and exponent == 1:
        return first
    return call.emit("Pow", [first, second])


@aten("clamp", "clip")
def clamp(call: Call, self: object, min: object = None, max: object = None) -> Ref:
    """min(max(x, min), max); numbers become one Clip, tensors a Max and a Min."""
    ref = call.tensor(self, "self")
    if isinstance(min, Ref) or isinstance(max, Ref):
        for operator, bound in (("Max", min), ("Min", max)):
            if bound is not None:
                ref = call.emit(operator, list(call.operands(ref, bound)))
        return ref
    low = None if min is None else call.number(min, "min")
    high = None if max is None else call.number(max, "max")
    if low is None and high is None:
        raise call.refuse("needs at least one of min and max")
    dtype = call.promoted(ref, *(bound for bound in (low, high) if bound is not None))
    return clip(call, call.cast(ref, dtype), low, high)


@aten("clamp_min")
def clamp_min(call: Call, self: object, min: object) -> Ref:
    """max(x, min)."""
    return clamp(call, self, min, None)


@aten("clamp_max")
def clamp_max(call: Call, self: object, max: object) -> Ref:
    """min(x, max)."""
    return clamp(call, self, None, max)


@aten("maximum", "minimum", "fmax", "fmin")
def extremum(call: Call, self: object, other: object) -> Ref:
    """The larger or the smaller of two, entry by entry."""
    first, second = call.operands(self, other)
    return call.emit("Max" if "max" in call.operator else "Min", [first, second])


@aten("eq", "ne", "gt", "ge", "lt", "le", "greater", "less", "greater_equal", "less_equal", "not_equal")
def compare(call: Call, self: object, other: object) -> Ref:
    """A truth value per entry."""
    first, second = call.operands(self, other)
    name = call.operator
    operators = {"eq": "Equal", "gt": "Greater", "ge": "GreaterOrEqual", "lt": "Less", "le": "LessOrEqual"}
    operators |= {"greater": "Greater", "less": "Less", "greater_equal": "GreaterOrEqual", "less_equal": "LessOrEqual"}
    if name in ("ne", "not_equal"):
        return call.emit("Not", [call.emit("Equal", [first, second])])
    return call.emit(operators[name], [first, second])


@aten("logical_and", "logical_or", "logical_xor", "bitwise_and", "bitwise_or", "bitwise_xor", "__and__", "__or__")
def logical(call: Call, self: object, other: object) -> Ref:
    """Two truth values combined."""
    first, second = (call.tensor(value, "an operand") for value in (self, other))
    if first.dtype != "bool" or second.dtype != "bool":
        raise call.refuse("is supported for truth values only")
    name = call.operator.strip("_").rsplit("_", 1)[-1]
    return call.emit({"and": "And", "or": "Or", "xor": "Xor"}[name], [first, second])


@aten("logical_not", "bitwise_not")
def logical_not(call: Call, self: object) -> Ref:
    """A truth value reversed."""
    ref = call.tensor(self, "self")
    if ref.dtype != "bool":
        raise call.refuse("is supported for truth values only")
    return call.emit("Not", [ref])


@aten("where")
def where(call: Call, condition: object, self: object, other: object) -> Ref:
    """`self` where the condition holds, `other` elsewhere."""
    choice = call.tensor(condition, "condition")
    if choice.dtype != "bool":
        choice = call.cast(choice, "bool")
    first, second = call.operands(self, other)
    return call.emit("Where", [choice, first, second])


@aten("masked_fill")
def masked_fill(call: Call, self: object, mask: object, value: object) -> Ref:
    """`value` where the mask holds, `self` elsewhere."""
    ref, choice = call.tensor(self, "self"), call.tensor(mask, "mask")
    if choice.dtype != "bool":
        raise call.refuse("the mask must hold truth values")
    filling = (
        call.cast(value, ref.dtype)
        if isinstance(value, Ref)
        else call.constant(call.number(value, "value"), ref.dtype, "value")
    )
    return call.emit("Where", [choice, filling, ref])


@aten("addcmul", "addcdiv")
def add_product(call: Call, self: object, tensor1: object, tensor2: object, *, value: object = 1) -> Ref:
    """self + value tensor1 tensor2, or with the quotient of both."""
    dtype = call.promoted(self, tensor1, tensor2)
    first, second = call.operands(tensor1, tensor2)
    start = call.operands(self, first)[0]
    if dtype in HALVES:
        start, first, second = (call.cast(each, "float32") for each in (start, first, second))
    factor = call.number(value, "value")
    scaled = first if factor == 1 else call.emit("Mul", [first, call.constant(factor, first.dtype, "value")])
    combined = call.emit("Mul" if call.operator.startswith("addcmul") else "Div", [scaled, second])
    return call.cast(call.emit("Add", list(call.operands(start, combined))), dtype)


@aten("lerp")
def lerp(call: Call, self: object, end: object, weight: object) -> Ref:
    """self + weight (end - self); counted from the other end for a number from one half on."""
    dtype = call.promoted(self, end)
    first, last = call.operands(self, end)
    if dtype in HALVES:
        first, last = call.cast(first, "float32"), call.cast(last, "float32")
    step = call.emit("Sub", [last, first])
    if not isinstance(weight, Ref) and abs(call.number(weight, "weight")) >= 0.5:
        rest = call.emit("Mul", list(call.operands(step, 1 - call.number(weight, "weight"))))
        return call.cast(call.emit("Sub", [last, rest]), dtype)
    return call.cast(call.emit("Add", [first, call.emit("Mul", list(call.operands(step, weight)))]), dtype)
