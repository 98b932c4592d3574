"""A symbolic evaluator of TorchScript code: Python values are computed, tensors become nodes of a graph.

Branches and loops are followed only where their conditions do not depend on the model's input.  Every step is counted
and every nesting is limited, so that no program runs for long.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping, Sequence

from certifier.errors import MalformedModel, ResourceLimitExceeded, UnsupportedNode
from certifier.reading import quantised
from certifier.reading.torchscript.code import Code, Definition
from certifier.reading.torchscript.frames import Frame, Returned, bind
from certifier.reading.torchscript.modules import Objects
from certifier.reading.torchscript.operators import Operators, convert
from certifier.reading.torchscript.primitives import language_function, primitive, record
from certifier.reading.torchscript.scalars import apply
from certifier.reading.torchscript.values import Cell, Method, Module, Path, Record, Uninitialised

MOST_STEPS = 2_000_000
DEEPEST = 220
"""Statements, expressions and calls inside one another."""
_ROOTS = ("torch", "ops", "__torch__", "CONSTANTS")
_NUMBERS: Mapping[str, object] = {"inf": float("inf"), "nan": float("nan")}


class Evaluator:
    """Evaluates functions of the archive's code."""

    def __init__(self, code: Code, objects: Objects, operators: Operators) -> None:
        self._code, self._objects, self._operators = code, objects, operators
        self._steps, self._depth = 0, 0

    def call(self, method: Method, arguments: Sequence[object], keywords: Mapping[str, object], where: str) -> object:
        """The result of one of the archive's own functions.

        Raises: UnsupportedNode, MalformedModel, ResourceLimitExceeded, InvalidInput.
        """
        function = method.definition.node
        if not isinstance(function, ast.FunctionDef):
            raise MalformedModel(f"{where}: {method.name!r} is no function")
        given = list(arguments) if method.owner is None else [method.owner, *arguments]
        frame = Frame(method.definition.file, {})
        bind(function, given, keywords, frame, where, self._expression)
        result = self._nested(self._block, function.body, frame)
        return result.value if isinstance(result, Returned) else None

    def default(self, method: Method, value: ast.expr) -> object:
        """The value of a parameter's default."""
        return self._expression(value, Frame(method.definition.file, {}))

    def _nested(self, step: Callable[[list[ast.stmt], Frame], object], body: list[ast.stmt], frame: Frame) -> object:
        self._depth += 1
        if self._depth > DEEPEST:
            raise ResourceLimitExceeded("nesting", limit=DEEPEST, actual=self._depth, where=frame.at(body[0]))
        try:
            return step(body, frame)
        finally:
            self._depth -= 1

    def _count(self, where: str) -> None:
        self._steps += 1
        if self._steps > MOST_STEPS:
            raise ResourceLimitExceeded("steps", limit=MOST_STEPS, actual=self._steps, where=where)

    def _block(self, body: Iterable[ast.stmt], frame: Frame) -> Returned | None:
        for statement in body:
            result = self._statement(statement, frame)
            if result is not None:
                return result
        return None

    def _statement(self, node: ast.stmt, frame: Frame) -> Returned | None:
        where = frame.at(node)
        self._count(where)
        match node:
            case ast.Assign(targets=[target], value=value):
                self._assign(target, self._expression(value, frame), frame)
            case ast.AnnAssign(target=target, value=value) if value is not None:
                self._assign(target, self._expression(value, frame), frame)
            case ast.Expr(value=value):
                self._expression(value, frame)
            case ast.Return(value=value):
                return Returned(None if value is None else self._expression(value, frame))
            case ast.If(test=test, body=body, orelse=orelse):
                chosen = body if self._truth(self._expression(test, frame), where, "If") else orelse
                return self._inner(chosen, frame)
            case ast.For(target=target, iter=source, body=body, orelse=[]):
                for item in self._items(self._expression(source, frame), where):
                    self._count(where)
                    self._assign(target, item, frame)
                    result = self._inner(body, frame)
                    if result is not None:
                        return result
            case ast.While(test=test, body=body, orelse=[]):
                while self._truth(self._expression(test, frame), where, "Loop"):
                    self._count(where)
                    result = self._inner(body, frame)
                    if result is not None:
                        return result
            case ast.Pass():
                pass
            case _:
                raise UnsupportedNode(where, type(node).__name__, "this statement is not supported in TorchScript code")
        return None

    def _inner(self, body: list[ast.stmt], frame: Frame) -> Returned | None:
        result = self._nested(self._block, body, frame) if body else None
        return result if isinstance(result, Returned) else None

    def _assign(self, target: ast.expr, value: object, frame: Frame) -> None:
        where = frame.at(target)
        match target:
            case ast.Name(id=name):
                frame.names[name] = value
            case ast.Tuple(elts=targets) | ast.List(elts=targets):
                items = value.values if isinstance(value, Record) else value
                if not isinstance(items, (list, tuple)) or len(items) != len(targets):
                    raise UnsupportedNode(where, "unpack", f"does not give {len(targets)} values")
                for each, item in zip(targets, items, strict=True):
                    self._assign(each, item, frame)
            case ast.Attribute(attr=name):
                raise UnsupportedNode(
                    where,
                    "prim::SetAttr",
                    f"assigns the attribute {name!r}: a module that keeps state from call to call is no function",
                )
            case ast.Subscript(value=container, slice=index):
                items = [self._expression(container, frame), self._expression(index, frame), value]
                apply("_set_item", items, where)
            case _:
                raise UnsupportedNode(where, type(target).__name__, "this assignment is not supported")

    def _items(self, source: object, where: str) -> Iterable[object]:
        if isinstance(source, (range, list, tuple)):
            return source
        raise UnsupportedNode(where, "Loop", "runs over something whose items are not known ahead of time")

    def _truth(self, value: object, where: str, operator: str) -> bool:
        if isinstance(value, Cell):
            reason = "depends on the model's input" if self._is_live(value, where) else "is a tensor of many elements"
            try:
                return bool(self._operators.number(value, where, operator))
            except UnsupportedNode:
                raise UnsupportedNode(where, operator, f"its condition {reason}; no rule bounds a branch") from None
        if isinstance(value, (bool, int, float)):
            return bool(value)
        raise UnsupportedNode(where, operator, "its condition is neither a number nor a truth value")

    def _is_live(self, cell: Cell, where: str) -> bool:
        return self._operators.emitter.value(self._operators.read(cell, where, "If")) is None

    def _expression(self, node: ast.expr, frame: Frame) -> object:
        where = frame.at(node)
        self._count(where)
        self._depth += 1
        if self._depth > DEEPEST:
            raise ResourceLimitExceeded("nesting", limit=DEEPEST, actual=self._depth, where=where)
        try:
            return self._value(node, frame, where)
        finally:
            self._depth -= 1

    def _value(self, node: ast.expr, frame: Frame, where: str) -> object:
        match node:
            case ast.Constant(value=bool() | int() | float() | str() | None as value):
                return value if not isinstance(value, int) else convert(None, value, where)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() as value)):
                return convert(None, -value, where)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return apply("neg", [self._expression(operand, frame)], where)
            case ast.Name(id=name):
                return self._name(name, frame, where)
            case ast.Attribute(value=owner, attr=name):
                return self._attribute(self._expression(owner, frame), name, where)
            case ast.Tuple(elts=items):
                return tuple(self._expression(item, frame) for item in items)
            case ast.List(elts=items):
                return [self._expression(item, frame) for item in items]
            case ast.Dict(keys=keys, values=values):
                return self._dictionary(keys, values, frame, where)
            case ast.Subscript(value=container, slice=index):
                return self._item(self._expression(container, frame), self._expression(index, frame), where)
            case ast.Call():
                return self._call(node, frame, where)
        raise UnsupportedNode(where, type(node).__name__, "this expression is not supported in TorchScript code")

    def _dictionary(
        self, keys: Sequence[ast.expr | None], values: Sequence[ast.expr], frame: Frame, where: str
    ) -> dict[object, object]:
        result: dict[object, object] = {}
        for key, value in zip(keys, values, strict=True):
            name = self._expression(key, frame) if key is not None else None
            if not isinstance(name, (str, int, float)):
                raise UnsupportedNode(where, "prim::DictConstruct", "its keys are not texts or numbers")
            result[name] = self._expression(value, frame)
        return result

    def _item(self, container: object, index: object, where: str) -> object:
        if isinstance(container, Record):
            container = container.values
        if isinstance(container, Cell):
            raise UnsupportedNode(where, "index", "indexes a tensor as if it were a list")
        return apply("__getitem__", [container, index], where)

    def _name(self, name: str, frame: Frame, where: str) -> object:
        if name in frame.names:
            return frame.names[name]
        if name in _ROOTS:
            return Path(name)
        if name in _NUMBERS:
            return _NUMBERS[name]
        raise MalformedModel(f"{where}: nothing is called {name!r}")

    def _attribute(self, owner: object, name: str, where: str) -> object:
        if isinstance(owner, Path):
            if owner.name == "CONSTANTS":
                return self._objects.constant(name, where)
            return Path(f"{owner.name}.{name}")
        if isinstance(owner, Record) and name in owner.fields:
            return owner.values[owner.fields.index(name)]
        if isinstance(owner, Module):
            return self._member(owner, name, where)
        raise UnsupportedNode(where, name, "this attribute is not supported in TorchScript code")

    def _member(self, module: Module, name: str, where: str) -> object:
        found, value = self._objects.attribute(module, name, where)
        if found:
            return value
        definition = module.definition
        method = definition.method(name)
        if method is not None:
            return Method(Definition(method, definition.file), module, name)
        for statement in definition.node.body:
            match statement:
                case ast.AnnAssign(target=ast.Name(id=known), value=value) if known == name and value is not None:
                    return self._expression(value, Frame(definition.file, {}))
        raise MalformedModel(f"{where}: {module.stub.qualified} has no attribute {name!r}")

    def _call(self, node: ast.Call, frame: Frame, where: str) -> object:
        if isinstance(node.func, ast.Name) and node.func.id not in frame.names:
            return self._builtin(node.func.id, node, frame, where)
        function = self._expression(node.func, frame)
        if any(keyword.arg is None for keyword in node.keywords):
            raise UnsupportedNode(where, "call", "unpacked arguments are not supported")
        arguments = [self._expression(argument, frame) for argument in node.args]
        keywords = {str(keyword.arg): self._expression(keyword.value, frame) for keyword in node.keywords}
        if isinstance(function, Method):
            return self.call(function, arguments, keywords, where)
        if isinstance(function, Path):
            return self._call_path(function.name, arguments, keywords, where)
        raise UnsupportedNode(where, "call", "calls something that is no function")

    def _call_path(self, path: str, arguments: list[object], keywords: dict[str, object], where: str) -> object:
        if path.startswith("__torch__."):
            definition = self._code.find(path)
            if definition is None:
                raise MalformedModel(f"{where}: the archive's code does not define {path}")
            if isinstance(definition.node, ast.FunctionDef):
                return self.call(Method(definition, None, definition.node.name), arguments, keywords, where)
            return record(definition, arguments, keywords, where)
        space, _, name = path.rpartition(".")
        if space == "torch":
            return self._operators.call(name, arguments, keywords, where)
        if space == "ops.prim":
            return primitive(name, arguments, self._operators, where)
        name = path.removeprefix("ops.")
        if quantised.is_quantised(name):
            raise UnsupportedNode(where, name, quantised.REASON, remedy=quantised.REMEDY)
        raise UnsupportedNode(where, name, "operators of this namespace are not supported")

    def _builtin(self, name: str, node: ast.Call, frame: Frame, where: str) -> object:
        """The few functions of the language itself; the types that some of them are given are not evaluated."""
        if node.keywords:
            raise UnsupportedNode(where, name, "this function takes no named arguments")
        if name in ("annotate", "unchecked_cast") and len(node.args) == 2:
            return self._expression(node.args[1], frame)
        if name == "uninitialized" and len(node.args) == 1:
            return Uninitialised()
        arguments = [self._expression(argument, frame) for argument in node.args]
        if name == "getattr" and len(arguments) == 2 and isinstance(arguments[1], str):
            return self._attribute(arguments[0], arguments[1], where)
        return language_function(name, arguments, self._operators, where)
