"""Calls of built-in functions: on Python values at once, on tensors through the common ATen table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from certifier.errors import InvalidInput, ResourceLimitExceeded, UnsupportedNode
from certifier.reading.aten.registry import INTEGERS, SCALAR_TYPES
from certifier.reading.aten.table import lower
from certifier.reading.aten.views import VIEWS, View, Writes
from certifier.reading.emitting import Emitter, Ref
from certifier.reading.torchscript import scalars
from certifier.reading.torchscript.values import FRESH, Cell, Device, Memory

_NUMBER_OF = {name: number for number, name in SCALAR_TYPES.items()}
_DIVISIONS = ("div", "div_", "divide", "true_divide")
"""Before operator version 4 these rounded quotients of integers."""
_EXACT = ("add", "sub", "mul", "floordiv", "neg", "eq", "ne", "lt", "le", "gt", "ge")
"""Operators that mean the same for integers and for tensors of one integer."""
_TO_NUMBER: Mapping[str, type | None] = {
    "Int": int,
    "IntImplicit": int,
    "Float": float,
    "FloatImplicit": float,
    "Bool": bool,
    "item": None,
    "ScalarImplicit": None,
}
_MOST_ITEMS = 10_000


def missing_shape(hint: str) -> InvalidInput:
    """The error to raise where the input's shape is needed and unknown; `hint` says what the program wants."""
    return InvalidInput(
        "options.input_shape",
        f"a TorchScript archive does not record its input's shape; give the whole shape with batch axis 1, such as "
        f"[1, 3, 32, 32] ({hint})",
    )


class Operators:
    """Applies built-in functions; `version` is the archive's operator version."""

    def __init__(self, emitter: Emitter, *, version: int) -> None:
        self.emitter, self.version = emitter, version
        self.pending: Cell | None = None
        """The model's input, as long as its shape is not known."""
        self.pending_name, self.pending_dtype = "input", "float32"
        self._calls, self._writes = 0, Writes()

    def call(self, name: str, arguments: Sequence[object], keywords: Mapping[str, object], where: str) -> object:
        """The result of `torch.name(...)`.

        Raises: UnsupportedNode, MalformedModel, ResourceLimitExceeded; InvalidInput if the input's shape is missing.
        """
        if not keywords and scalars.applies(name, arguments):
            return scalars.apply(name, arguments, where)
        if name == "device":
            return Device()
        cells = list(_cells([*arguments, *keywords.values()]))
        if self.pending is not None and any(cell is self.pending for cell in cells):
            self._infer_input(name, arguments, where)
        if cells and cells[0] is (arguments[0] if arguments else None):
            known, value = self._query(name, cells[0], arguments[1:], where)
            if known:
                return value
        if not keywords and name in _EXACT and scalars.applies(name, whole := self._integers(name, arguments, where)):
            result = scalars.apply(name, whole, where)
            dtype = "bool" if isinstance(result, bool) else "int64"
            return self.wrap(self.emitter.constant(np.array(result, dtype=dtype), f"{where}/{name}"), [])
        if name == "copy_" and len(cells) == 2 and len(arguments) in (2, 3):
            return self._copy(cells[0], cells[1], where)
        return self._lowered(name, arguments, keywords, cells, where)

    def number(self, value: object, where: str, operator: str) -> int | float | bool:
        """The number in a tensor of one known element, or the number itself.

        Raises: UnsupportedNode if it depends on the model's input.
        """
        if isinstance(value, (int, float)):
            return value
        array = self.emitter.value(self.read(value, where, operator)) if isinstance(value, Cell) else None
        if array is None or array.size != 1:
            raise UnsupportedNode(
                where,
                operator,
                "needs a number, but depends on the model's input; no rule bounds a branch or a size that does",
            )
        if str(array.dtype) in ("float16", "bfloat16"):
            array = array.astype(np.float64)
        return array.reshape(-1)[0].item()

    def scalar_tensor(self, value: int | float | bool, where: str) -> object:
        """A tensor of no axes that holds `value`, in the element type that a trace gives it."""
        dtype = "bool" if isinstance(value, bool) else "int64" if isinstance(value, int) else "float64"
        return self.wrap(self.emitter.constant(np.array(value, dtype=dtype), f"{where}/number"), [])

    def dtype(self, value: object, where: str) -> int:
        """PyTorch's number of a tensor's element type."""
        if not isinstance(value, Cell):
            raise UnsupportedNode(where, "prim::dtype", "is asked of something that is no tensor")
        if value is self.pending:
            return _NUMBER_OF[self.pending_dtype]
        return _NUMBER_OF[self.read(value, where, "prim::dtype").dtype]

    def wrap(self, value: object, sources: Sequence[Cell]) -> object:
        """A result of `lower` as code sees it; it may lie in the memories of `sources`."""
        if isinstance(value, Ref):
            return Cell(value, [memory for cell in sources for memory in cell.memories] or [Memory("")])
        if isinstance(value, (list, tuple)):
            items = [self.wrap(item, sources) for item in value]
            return items if isinstance(value, list) else tuple(items)
        return value.item() if isinstance(value, np.generic) else value

    def read(self, cell: Cell, where: str, operator: str) -> Ref:
        """The present value of a tensor.

        Raises: UnsupportedNode; InvalidInput if it is the input and its shape is missing.
        """
        if cell is self.pending:
            raise missing_shape(f"{operator} at {where} depends on it")
        if not cell.is_stale or cell.origin is None:
            return cell.read(where, operator)
        base, path = _lineage(cell)
        self._count(where, 2 * len(path))
        cell.renew(self._writes.shown(self.emitter, base.read(where, operator), path, where))
        return cell.read(where, operator)

    def _count(self, where: str, calls: int = 1) -> None:
        self._calls += calls
        self.emitter.limits.demand("nodes", self._calls, where)

    def _write(self, target: Cell, value: Ref, where: str, operator: str) -> None:
        """Give a tensor a value, and whatever it is a view of the value that this leaves there."""
        base, path = _lineage(target)
        self._count(where, len(path))
        old = base.read(where, operator)
        target.write(value, where, operator)
        if path:
            base.renew(self._writes.written(self.emitter, old, path, value, operator=operator, where=where))

    def _lowered(
        self, name: str, arguments: Sequence[object], keywords: Mapping[str, object], cells: list[Cell], where: str
    ) -> object:
        self._count(where)
        if keywords.get("out") is not None:
            raise UnsupportedNode(where, name, "writes into a tensor that it is given")
        given = [self._plain(item, name, where) for item in arguments]
        named = {key: self._plain(item, name, where) for key, item in keywords.items()}
        refs = [self.read(cell, where, name) for cell in cells]
        if self.version < 4 and name in _DIVISIONS and all(ref.dtype in INTEGERS for ref in refs):
            raise UnsupportedNode(where, name, "divides integers by the rules of an old PyTorch; save the model anew")
        result = lower(self.emitter, name, given, named, where=where)
        if name.endswith("_") and not name.endswith("__"):
            if not cells or cells[0] is not arguments[0] or not isinstance(result, Ref):
                raise UnsupportedNode(where, name, "changes something that is no tensor of its own")
            self._write(cells[0], result, where, name)
            return cells[0]
        if name in VIEWS and len(cells) == 1 and cells[0] is arguments[0]:
            return _viewed(result, cells[0], View(operator=name, arguments=given[1:], keywords=named, part=None))
        unchanged = isinstance(result, Ref) and any(result.name == ref.name for ref in refs)
        return self.wrap(result, cells if unchanged or name not in FRESH else [])

    def _copy(self, target: Cell, source: Cell, where: str) -> Cell:
        """target.copy_(source)."""
        old, new = self.read(target, where, "copy_"), self.read(source, where, "copy_")
        if new.dtype != old.dtype:
            new = lower(self.emitter, "to", [new, _NUMBER_OF[old.dtype]], {}, where=where)
        if isinstance(new, Ref) and new.shape != old.shape:
            new = lower(self.emitter, "expand", [new, list(old.shape)], {}, where=where)
        if not isinstance(new, Ref):
            raise UnsupportedNode(where, "copy_", "copies something that is no tensor")
        self._write(target, new, where, "copy_")
        return target

    def _query(self, name: str, cell: Cell, rest: Sequence[object], where: str) -> tuple[bool, object]:
        """Facts of a tensor that are known without computing anything."""
        if name in _TO_NUMBER:
            return True, convert(_TO_NUMBER[name], self.number(cell, where, name), where)
        if name not in ("size", "dim", "len", "numel", "is_floating_point", "is_complex"):
            return False, None
        shape, dtype = self.read(cell, where, name).shape, self.read(cell, where, name).dtype
        if name == "size" and len(rest) == 1 and isinstance(rest[0], int):
            if not -len(shape) <= rest[0] < len(shape):
                raise UnsupportedNode(where, name, f"axis {rest[0]} is outside a tensor of {len(shape)} axes")
            return True, shape[rest[0]]
        if name == "size" and not rest:
            return True, list(shape)
        if name == "len" and shape:
            return True, shape[0]
        facts: dict[str, object] = {"dim": len(shape), "numel": int(np.prod(shape, dtype=object))}
        facts |= {"is_floating_point": "float" in dtype, "is_complex": False}
        return name in facts, facts.get(name)

    def _integers(self, name: str, arguments: Sequence[object], where: str) -> list[object]:
        """The arguments with known tensors of one 64-bit integer and no axes as integers; others as they are."""
        whole = []
        for item in arguments:
            if isinstance(item, Cell) and item is not self.pending:
                array = self.emitter.value(self.read(item, where, name))
                if array is not None and array.shape == () and array.dtype == np.int64:
                    item = int(array)
            whole.append(item)
        exact = all(isinstance(item, int) and not isinstance(item, bool) for item in whole)
        return whole if exact else list(arguments)

    def _infer_input(self, name: str, arguments: Sequence[object], where: str) -> None:
        """Take the input's shape from a matrix that it is multiplied with, or say what is known of it."""
        weight, axis, rank = None, -1, 2
        if name == "linear" and len(arguments) > 1 and arguments[0] is self.pending:
            weight = arguments[1]
        elif name == "addmm" and len(arguments) > 2 and arguments[1] is self.pending:
            weight, axis = arguments[2], 0
        elif name in ("_convolution", "conv1d", "conv2d", "conv3d") and len(arguments) > 1:
            weight, axis, rank = arguments[1], 1, 0
        shape = weight.read(where, name).shape if isinstance(weight, Cell) and weight is not self.pending else ()
        if rank == 2 and len(shape) == 2 and self.pending is not None:
            self.pending.ref = self.emitter.input(
                self.pending_name, dtype=self.pending_dtype, shape=(1, shape[axis]), batch_axis=True
            )
            self.pending = None
        elif rank == 0 and len(shape) > 2:
            raise missing_shape(f"{name} at {where}: {shape[1]} channels per group, {len(shape) - 2} axes of space")

    def _plain(self, value: object, name: str, where: str) -> object:
        """An argument as `lower` takes it."""
        if isinstance(value, Cell):
            return self.read(value, where, name)
        if isinstance(value, (list, tuple)):
            return [self._plain(item, name, where) for item in value]
        if isinstance(value, Device):
            return "cpu"
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise UnsupportedNode(where, name, "is given something that is neither a tensor nor a number")


def _lineage(cell: Cell) -> tuple[Cell, list[View]]:
    """The tensor that is a view of no other, and the views from there to `cell`."""
    path: list[View] = []
    while cell.origin is not None:
        cell, view = cell.origin
        path.append(view)
    return cell, path[::-1]


def _viewed(value: object, source: Cell, view: View) -> object:
    """What an operator of `VIEWS` gives, as code sees it."""
    if isinstance(value, (list, tuple)):
        return [_viewed(item, source, replace(view, part=part)) for part, item in enumerate(value)]
    assert isinstance(value, Ref)
    return Cell(value, source.memories, (source, view))


def convert(kind: type | None, number: int | float | bool, where: str) -> int | float | bool:
    """`number` as `kind`; as it is for None.

    Raises: UnsupportedNode for what has no such value (int(nan)) or does not fit 64 bits.
    """
    try:
        result = number if kind is None else kind(number)
    except (ValueError, OverflowError) as error:
        raise UnsupportedNode(where, "Int", f"cannot convert {number}") from error
    if isinstance(result, int) and not -(2**63) <= result < 2**63:
        raise UnsupportedNode(where, "Int", "the integer does not fit 64 bits")
    return result


def _cells(values: Sequence[object]) -> Iterator[Cell]:
    """The tensors among the values and in lists among them, in order."""
    pending, count = list(values)[::-1], 0
    while pending:
        value = pending.pop()
        count += 1
        if count > _MOST_ITEMS:
            # Lists that hold one list several times, level by level, are small and mean very many items.
            raise ResourceLimitExceeded("list items", limit=_MOST_ITEMS, actual=count)
        if isinstance(value, Cell):
            yield value
        elif isinstance(value, (list, tuple)):
            pending.extend(value[::-1])
