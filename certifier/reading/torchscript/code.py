"""The text under code/ -> syntax trees, measured before they are parsed.

TorchScript prints a small, regular subset of Python's syntax.  A scan over the text's tokens refuses whatever is
outside of it and whatever is nested too deeply, so that the parser is only ever given harmless text.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass

from certifier.errors import MalformedModel, ResourceLimitExceeded, UnsupportedNode
from certifier.reading.torchscript.archive import Archive

DEEPEST = 200
"""Brackets, calls and attributes inside one another."""
MOST_TOKENS = 2_000_000
_LONGEST_NUMBER = 400
_TOKEN = re.compile(
    r"""(?P<blank>[ ]+)|(?P<line>\n)|(?P<comment>\#[^\n]*)
    |(?P<string>"(?:[^"\\\n]|\\[^\n])*"|'(?:[^'\\\n]|\\[^\n])*')
    |(?P<number>[0-9][0-9a-zA-Z_.]*(?:(?<=[eE])[+-][0-9]+)?)
    |(?P<name>[^\W\d]\w*)
    |(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<dot>\.)|(?P<minus>-(?!>))|(?P<other>->|[,:=])""",
    re.VERBOSE,
)
_NAMED_CHARACTER = re.compile(r"(?<!\\)(?:\\\\)*\\[uUN]")
_FOREIGN = frozenset(
    """and as assert async await break continue del elif except finally from global import is lambda nonlocal not or
    raise try with yield""".split()
)


@dataclass(frozen=True)
class Definition:
    """A function or class of the archive's code and the file that it stands in."""

    node: ast.FunctionDef | ast.ClassDef
    file: str

    @property
    def where(self) -> str:
        """The place, as file:line."""
        return f"{self.file}:{self.node.lineno}"

    @property
    def base(self) -> str:
        """The name of a class's base, "" for none and for functions."""
        bases = self.node.bases if isinstance(self.node, ast.ClassDef) else []
        return bases[0].id if len(bases) == 1 and isinstance(bases[0], ast.Name) else ""

    def method(self, name: str) -> ast.FunctionDef | None:
        """The method called `name` of a class."""
        found = [each for each in self.node.body if isinstance(each, ast.FunctionDef) and each.name == name]
        if len(found) > 1:
            raise MalformedModel(f"{self.where}: the method {name!r} is defined twice")
        return found[0] if found else None


class Code:
    """The code of one archive, parsed file by file when a name of it is asked for."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._files: dict[str, Mapping[str, Definition]] = {}
        self._tokens = 0

    def find(self, qualified: str) -> Definition | None:
        """What `__torch__.a.b.Name` names: defined in code/__torch__/a/b.py.

        Raises: MalformedModel, ResourceLimitExceeded, UnsupportedNode for syntax that TorchScript does not print.
        """
        module, _, name = qualified.rpartition(".")
        file = f"code/{module.replace('.', '/')}.py"
        if file not in self._archive:
            return None
        if file not in self._files:
            self._files[file] = self._parsed(file)
        return self._files[file].get(name)

    def _parsed(self, file: str) -> Mapping[str, Definition]:
        text = self._archive.text(file).replace("\r\n", "\n")
        self._tokens = scan(text, file, self._tokens)
        try:
            tree = ast.parse(text, filename=file)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise MalformedModel(f"{file} cannot be parsed: {error}") from error
        found: dict[str, Definition] = {}
        for node in tree.body:
            if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                raise MalformedModel(f"{file}:{node.lineno} is neither a class nor a function")
            if node.name in found:
                raise MalformedModel(f"{file}:{node.lineno}: {node.name!r} is defined twice")
            found[node.name] = Definition(node, file)
        return found


def scan(text: str, file: str, tokens: int) -> int:
    """`text` holds only tokens that TorchScript prints, not nested deeper than `DEEPEST`; the token count so far.

    Raises: MalformedModel, ResourceLimitExceeded, UnsupportedNode.
    """
    line, at, previous = 1, 0, ""
    chains = [0]
    while at < len(text):
        found = _TOKEN.match(text, at)
        kind, token = (found.lastgroup or "", found.group()) if found is not None else ("", text[at])
        where = f"{file}:{line}"
        if token == "^":
            raise UnsupportedNode(where, "prim::PythonOp", "it calls Python code that the archive does not hold")
        if not kind or (kind == "minus" and previous == "minus"):
            raise UnsupportedNode(where, "syntax", f"TorchScript does not print {token!r} here")
        if kind == "name" and token in _FOREIGN:
            raise UnsupportedNode(where, token, "this statement is not part of what a static reader can follow")
        if kind == "string" and previous in ("name", "number"):
            raise UnsupportedNode(where, "syntax", "prefixed strings are not part of TorchScript")
        if kind == "string" and _NAMED_CHARACTER.search(token):
            # Such an escape can spell half a character, which no message that quotes it could be sent with.
            raise UnsupportedNode(where, "syntax", "TorchScript prints characters as themselves or by their bytes")
        if kind == "number" and len(token) > _LONGEST_NUMBER:
            raise MalformedModel(f"{where}: a number of {len(token)} digits")
        _nest(chains, kind, token, where)
        line += kind == "line"
        tokens += 1
        if tokens > MOST_TOKENS:
            raise ResourceLimitExceeded("source tokens", limit=MOST_TOKENS, actual=tokens, where=where)
        previous = kind
        at += len(token)
    return tokens


def _nest(chains: list[int], kind: str, token: str, where: str) -> None:
    """Keep count of what encloses the token: one number per open bracket, of the calls and attributes before it."""
    if kind == "open":
        chains[-1] += 1
        chains.append(0)
    elif kind == "close":
        if len(chains) == 1:
            raise MalformedModel(f"{where}: a bracket closes that was never opened")
        chains.pop()
    elif kind == "dot":
        chains[-1] += 1
    elif token in (",", "=", ":") or (kind == "line" and len(chains) == 1):
        chains[-1] = 0
    if kind in ("open", "dot") and len(chains) + sum(chains) > DEEPEST:
        raise ResourceLimitExceeded("nesting", limit=DEEPEST, actual=len(chains) + sum(chains), where=where)
