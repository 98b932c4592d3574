"""The table of ATen operators: which operator becomes which nodes.

A lowering is a named function decorated with `@aten("conv2d")`.  Its parameters after the first are those of the ATen
schema, in the schema's order, with the schema's names and the schema's defaults, so that Python's own binding applies
them.  An operator that is not named here, or an argument value that its function does not understand, is refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from onnx import helper

from certifier.errors import UnsupportedNode
from certifier.graph import FLOATING, Array
from certifier.reading.emitting import Emitter, Ref, array_dtype

INTEGERS = ("uint8", "int8", "int16", "int32", "int64")
SCALAR_TYPES = {
    0: "uint8",
    1: "int8",
    2: "int16",
    3: "int32",
    4: "int64",
    5: "float16",
    6: "float32",
    7: "float64",
    11: "bool",
    15: "bfloat16",
}
"""PyTorch's own numbering of element types, as it stands in TorchScript code."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One application of an ATen operator: where it stands, and the emitter that it writes into."""

    emitter: Emitter
    operator: str
    where: str

    def refuse(self, reason: str) -> UnsupportedNode:
        """The error to raise when the call cannot be expressed; `reason` is for people."""
        return UnsupportedNode(self.where, self.operator, reason)

    def emit(self, operator: str, inputs: Sequence[Ref | None], attributes: Mapping[str, object] | None = None) -> Ref:
        """The one output of a node."""
        return self.emitter.node(operator, inputs, attributes or {}, outputs=1, name=self.where)[0]

    def constant(self, value: object, dtype: str, role: str = "constant") -> Ref:
        """A constant of this call's own."""
        with np.errstate(all="ignore"):
            array = np.asarray(value).astype(array_dtype(dtype))
        return self.emitter.constant(array, f"{self.where}/{role}")

    def integers_constant(self, values: Sequence[int], role: str) -> Ref:
        """A vector of 64-bit integers, as the standard wants shapes, axes and pads."""
        return self.constant(np.array(values, dtype=np.int64), "int64", role)

    def tensor(self, value: object, role: str) -> Ref:
        """`value`, which must be a tensor."""
        if not isinstance(value, Ref):
            raise self.refuse(f"{role} must be a tensor")
        return value

    def optional(self, value: object, role: str) -> Ref | None:
        """`value`, which must be a tensor or None."""
        return None if value is None else self.tensor(value, role)

    def tensors(self, value: object, role: str) -> list[Ref]:
        """`value`, which must be a list of tensors."""
        if not isinstance(value, (list, tuple)):
            raise self.refuse(f"{role} must be a list of tensors")
        return [self.tensor(item, role) for item in value]

    def known(self, value: object, role: str) -> Array:
        """The array of a tensor that does not depend on the model's input."""
        array = self.emitter.value(self.tensor(value, role))
        if array is None:
            raise self.refuse(f"{role} must not depend on the model's input")
        return array

    def integer(self, value: object, role: str) -> int:
        """`value` as an integer; tensors of one known element count."""
        if isinstance(value, Ref):
            array = self.known(value, role)
            if array.size == 1 and str(array.dtype) in INTEGERS:
                return int(array.reshape(-1)[0])
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise self.refuse(f"{role} must be an integer")
        if not -(2**63) <= value < 2**63:
            raise self.refuse(f"{role} does not fit 64 bits")
        return int(value)

    def number(self, value: object, role: str) -> float | int:
        """`value` as a number; tensors of one known element count."""
        if isinstance(value, Ref):
            array = self.known(value, role)
            if array.size == 1:
                return array.reshape(-1).astype(np.float64 if str(array.dtype) in FLOATING else np.int64)[0].item()
        if not isinstance(value, (int, float, np.integer, np.floating)):
            raise self.refuse(f"{role} must be a number")
        return value if isinstance(value, (int, float)) else value.item()

    def flag(self, value: object, role: str) -> bool:
        """`value` as a truth value."""
        if isinstance(value, bool) or value in (0, 1):
            return bool(value)
        raise self.refuse(f"{role} must be True or False")

    def integers(self, value: object, role: str, count: int | None = None) -> tuple[int, ...]:
        """`value` as integers; one integer stands for `count` equal ones, as everywhere in ATen."""
        if not isinstance(value, (list, tuple)):
            return (self.integer(value, role),) * (1 if count is None else count)
        items = tuple(self.integer(item, role) for item in value)
        if count is not None and len(items) == 1:
            return items * count
        if count is not None and len(items) != count:
            raise self.refuse(f"{role} must have {count} entries, not {len(items)}")
        return items

    def axis(self, value: object, rank: int, role: str = "dim") -> int:
        """`value` as an axis number from 0."""
        axis, span = self.integer(value, role), max(rank, 1)
        if not -span <= axis < span:
            raise self.refuse(f"{role} {axis} is outside a tensor of {rank} axes")
        return axis % span

    def dtype(self, value: object, role: str = "dtype") -> str | None:
        """The element type named by numpy's name or PyTorch's number; None for None."""
        if value is None or (isinstance(value, str) and value in SCALAR_TYPES.values()):
            return value
        if isinstance(value, int) and not isinstance(value, bool) and value in SCALAR_TYPES:
            return SCALAR_TYPES[value]
        raise self.refuse(f"{role} {value!r} is not supported")

    def cast(self, ref: Ref, dtype: str | None) -> Ref:
        """`ref` in the element type `dtype`; unchanged for None."""
        if dtype is None or ref.dtype == dtype:
            return ref
        value = self.emitter.value(ref)
        if value is not None:
            with np.errstate(all="ignore"):
                return self.emitter.constant(value.astype(array_dtype(dtype)), ref.name)
        return self.emit("Cast", [ref], {"to": onnx_type(dtype)})

    def reshape(self, ref: Ref, shape: Sequence[int]) -> Ref:
        """`ref` with its elements, in order, in another shape; no size may be open."""
        if tuple(shape) == ref.shape:
            return ref
        return self.emit(
            "Reshape", [ref, self.integers_constant(shape, "shape")], {"allowzero": 1} if 0 in shape else {}
        )

    def transpose(self, ref: Ref, permutation: Sequence[int]) -> Ref:
        """`ref` with its axes in another order."""
        if tuple(permutation) == tuple(range(ref.rank)):
            return ref
        return self.emit("Transpose", [ref], {"perm": tuple(permutation)})

    def operands(self, first: object, second: object) -> tuple[Ref, Ref]:
        """Two operands in the element type that PyTorch's promotion gives them."""
        dtype = self.promoted(first, second)
        return self._operand(first, dtype), self._operand(second, dtype)

    def _operand(self, value: object, dtype: str) -> Ref:
        if isinstance(value, Ref):
            return self.cast(value, dtype)
        if not isinstance(value, (bool, int, float)):
            raise self.refuse("an operand must be a tensor or a number")
        if isinstance(value, int) and dtype in INTEGERS and not _fits(value, dtype):
            raise self.refuse(f"the operand {value} does not fit {dtype}")
        return self.constant(value, dtype, "operand")

    def promoted(self, *values: object) -> str:
        """PyTorch's common element type: by kind first, then tensors before zero-dimensional ones before numbers."""
        return promote(self, values)


def _fits(value: int, dtype: str) -> bool:
    limits = np.iinfo(dtype)
    return limits.min <= value <= limits.max


def onnx_type(dtype: str) -> int:
    """The standard's number of an element type."""
    return helper.np_dtype_to_tensor_dtype(array_dtype(dtype))


_KINDS = {"bool": 0, **dict.fromkeys(INTEGERS, 1), **dict.fromkeys(FLOATING, 2)}
_WIDTHS = {"bool": 0, "uint8": 1, "int8": 1, "int16": 2, "int32": 3, "int64": 4}
_WIDTHS |= {"float16": 1, "bfloat16": 1, "float32": 2, "float64": 3}


def promote(call: Call, values: Sequence[object]) -> str:
    """The element type of an operation on tensors and numbers.

    The highest kind (truth value, integer, floating) decides; within it, tensors with axes outrank tensors without,
    which outrank numbers.
    """
    ranked: list[tuple[int, int, str]] = []
    for value in values:
        if isinstance(value, Ref):
            if value.dtype not in _KINDS:
                raise call.refuse(f"the element type {value.dtype} is not supported")
            ranked.append((_KINDS[value.dtype], 2 if value.rank else 1, value.dtype))
        else:
            own = "bool" if isinstance(value, bool) else "int64" if isinstance(value, int) else "float32"
            ranked.append((_KINDS[own], 0, own))
    kind = max(each[0] for each in ranked)
    rank = max(each[1] for each in ranked if each[0] == kind)
    names = {each[2] for each in ranked if each[:2] == (kind, rank)}
    if names >= {"float16", "bfloat16"}:
        return "float64" if "float64" in names else "float32"
    if "uint8" in names and len(names) > 1:
        names = (names - {"uint8"}) | ({"int16"} if names == {"uint8", "int8"} else set())
    return max(names, key=lambda name: _WIDTHS[name])


Lowering = Callable[..., object]
AnyLowering = TypeVar("AnyLowering", bound=Lowering)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One lowering with its signature, and whether what it gives may be in the memory of its first tensor."""

    function: Lowering
    signature: inspect.Signature
    shares: bool


_ENTRIES: dict[str, Entry] = {}


def aten(*operators: str, shares: bool = False) -> Callable[[AnyLowering], AnyLowering]:
    """Register a lowering for each of `operators`, named without overload and without the in-place underscore.

    `shares` says that PyTorch may give a view, or the operand itself, so that later writes in place show in both.
    """

    def register(function: AnyLowering) -> AnyLowering:
        entry = Entry(function=function, signature=inspect.signature(function), shares=shares)
        for operator in operators:
            if operator in _ENTRIES:
                raise ValueError(f"two lowerings of {operator}")
            _ENTRIES[operator] = entry
        return function

    return register


def find(operator: str) -> tuple[str, Entry] | None:
    """The lowering of an operator, or of the one that it is the in-place form of, under its name in the table."""
    name = operator
    if name not in _ENTRIES and name.endswith("_") and not name.endswith("__"):
        name = operator[:-1]
    return (name, _ENTRIES[name]) if name in _ENTRIES else None


def shares_memory(operator: str) -> bool:
    """Whether the result of an operator may be in the memory of its first tensor."""
    found = find(operator)
    return found is not None and found[1].shares


def names() -> tuple[str, ...]:
    """Every operator with a lowering, sorted."""
    return tuple(sorted(_ENTRIES))
