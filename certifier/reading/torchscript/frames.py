"""One call of a function of TorchScript code: its variables, and how arguments become them."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from certifier.errors import MalformedModel, UnsupportedNode


@dataclass(frozen=True, eq=False)
class Returned:
    """The end of a function, with its value."""

    value: object


@dataclass(eq=False)
class Frame:
    """One call: its file and its variables."""

    file: str
    names: dict[str, object]

    def at(self, node: ast.AST) -> str:
        """The place of a piece of syntax, as file:line."""
        return f"{self.file}:{getattr(node, 'lineno', 0)}"


def bind(
    function: ast.FunctionDef,
    given: Sequence[object],
    keywords: Mapping[str, object],
    frame: Frame,
    where: str,
    evaluate: Callable[[ast.expr, Frame], object],
) -> None:
    """Put the arguments of a call into `frame`, and the defaults of those that are not given.

    Raises: MalformedModel if the arguments do not fit, UnsupportedNode for starred parameters.
    """
    parameters = function.args
    if parameters.vararg or parameters.kwarg or parameters.kwonlyargs or parameters.posonlyargs:
        raise UnsupportedNode(frame.at(function), function.name, "TorchScript functions take plain arguments only")
    names = [each.arg for each in parameters.args]
    defaults = dict(zip(names[len(names) - len(parameters.defaults) :], parameters.defaults, strict=True))
    bound = dict(zip(names, given, strict=False))
    if len(given) > len(names) or set(keywords) - set(names) or set(keywords) & set(bound):
        raise MalformedModel(f"{where}: the arguments of {function.name!r} do not fit")
    bound.update(keywords)
    for name in names:
        if name not in bound:
            if name not in defaults:
                raise MalformedModel(f"{where}: {function.name!r} lacks the argument {name!r}")
            bound[name] = evaluate(defaults[name], frame)
    frame.names.update(bound)
