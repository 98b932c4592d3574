"""The functions of TorchScript's own namespace, ops.prim, and of its language: int, range, named tuples."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence

from certifier.errors import UnsupportedNode
from certifier.reading.torchscript import scalars
from certifier.reading.torchscript.code import Definition
from certifier.reading.torchscript.operators import Operators, convert
from certifier.reading.torchscript.values import Cell, Device, Record

_SAME = frozenset("data unchecked_unwrap_optional unchecked_cast Identity".split())
"""Functions that give back what they are given; what they check or detach does not change a value."""
_FALSE = frozenset("is_cuda is_quantized is_sparse is_mkldnn is_xpu is_meta is_nested requires_grad is_mps".split())
_CASTS: Mapping[str, type] = {"int": int, "float": float, "bool": bool}
_SCALARS = frozenset("min max abs".split())
_STATEFUL = {
    "PythonOp": "it calls Python code that the archive does not hold",
    "fork": "it runs concurrently, which a static reader does not follow",
    "rpc_async": "it calls another machine",
}


def primitive(name: str, arguments: Sequence[object], operators: Operators, where: str) -> object:
    """The result of `ops.prim.name(...)`.

    Raises: UnsupportedNode, also for a program that raises an exception of its own.
    """
    operator = f"prim::{name}"
    first = arguments[0] if arguments else None
    if name == "RaiseException":
        raise UnsupportedNode(where, operator, f"the program refuses its input: {scalars.shown(first)}")
    if name == "NumToTensor":
        return operators.scalar_tensor(operators.number(first, where, operator), where)
    if name in _SAME and arguments:
        return first
    if name in _FALSE and isinstance(first, Cell):
        return False
    if name in _SCALARS and scalars.applies(name, arguments):
        return scalars.apply(name, arguments, where)
    action = _FACTS.get(name)
    if action is not None:
        return action(first, operators, where)
    raise UnsupportedNode(where, operator, _STATEFUL.get(name, "this function is not supported"))


def language_function(name: str, arguments: Sequence[object], operators: Operators, where: str) -> object:
    """The result of `name(...)`, a function of the language itself.

    Raises: UnsupportedNode.
    """
    if name in _CASTS and len(arguments) == 1 and not isinstance(arguments[0], str):
        return convert(_CASTS[name], operators.number(arguments[0], where, name), where)
    if name == "range":
        steps = [each for each in arguments if isinstance(each, int)]
        if len(steps) != len(arguments) or len(steps) not in (1, 2, 3) or steps[2:] == [0]:
            raise UnsupportedNode(where, name, "counts over something that is no range of integers")
        return range(*steps) if len(steps) > 1 else range(steps[0])
    if name in ("str", "len") and len(arguments) == 1:
        return scalars.apply(name, arguments, where)
    raise UnsupportedNode(where, name, "this function is not supported")


def record(definition: Definition, arguments: Sequence[object], keywords: Mapping[str, object], where: str) -> Record:
    """The named tuple that a class of the archive's code makes of its arguments.

    Raises: UnsupportedNode for any other class.
    """
    fields = tuple(
        each.target.id
        for each in definition.node.body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    )
    if definition.base != "NamedTuple" or keywords or len(fields) != len(arguments):
        raise UnsupportedNode(where, definition.node.name, "an object of a custom class is not supported")
    return Record(fields, tuple(arguments))


_FACTS: dict[str, Callable[[object, Operators, str], object]] = {
    "dtype": lambda value, operators, where: operators.dtype(value, where),
    "device": lambda value, operators, where: Device(),
    "layout": lambda value, operators, where: None,
    "is_cpu": lambda value, operators, where: True,
    "shape": lambda value, operators, where: operators.call("size", [value], {}, where),
    "TupleUnpack": lambda value, operators, where: value,
}
