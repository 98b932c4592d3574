"""Arguments of an exported program's nodes: from tagged JSON to Python values, names looked up by the caller."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping

from certifier.errors import MalformedModel, UnsupportedNode
from certifier.reading.exported.archive import ELEMENT_TYPES, Json, text

Lookup = Callable[[str], object]
_NAMED_FLOATS = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}
_PLAIN = ("as_int", "as_bool", "as_string", "as_ints", "as_bools", "as_strings", "as_int_lists")
_WITHOUT_MEANING = ("as_memory_format", "as_layout", "as_device")
"""Where and how a tensor is kept, which changes nothing that is computed."""
SCALAR_FUNCTIONS: Mapping[str, Callable[..., object]] = {
    "_operator.add": operator.add,
    "_operator.sub": operator.sub,
    "_operator.mul": operator.mul,
    "_operator.floordiv": operator.floordiv,
    "_operator.truediv": operator.truediv,
    "_operator.mod": operator.mod,
    "_operator.neg": operator.neg,
    "_operator.eq": operator.eq,
    "_operator.ne": operator.ne,
    "_operator.lt": operator.lt,
    "_operator.le": operator.le,
    "_operator.gt": operator.gt,
    "_operator.ge": operator.ge,
    "_operator.and_": operator.and_,
    "_operator.or_": operator.or_,
    "math.trunc": math.trunc,
    "math.floor": math.floor,
    "math.ceil": math.ceil,
    "torch.sym_int": int,
    "torch.sym_float": float,
    "torch.sym_not": operator.not_,
    "torch.sym_max": max,
    "torch.sym_min": min,
}
"""Functions of sizes, which are known numbers once the batch axis is 1."""


def argument(value: object, lookup: Lookup, where: str) -> object:
    """The Python value of one tagged argument.

    Raises: MalformedModel, UnsupportedNode.
    """
    if not isinstance(value, dict) or len(value) != 1:
        raise MalformedModel(f"node {where!r}: an argument is not one tagged value")
    tag, content = next(iter(value.items()))
    if tag == "as_none" or tag in _WITHOUT_MEANING:
        return None
    if tag in _PLAIN:
        return content
    if tag == "as_float":
        return _float(content, where)
    if tag == "as_floats":
        return [_float(item, where) for item in _items(content, where)]
    if tag in ("as_tensor", "as_optional_tensor", "as_sym_int", "as_sym_bool", "as_sym_float"):
        return _named(content, lookup, where)
    if tag in ("as_tensors", "as_optional_tensors", "as_sym_ints", "as_sym_bools", "as_sym_floats"):
        return [_named(item, lookup, where) for item in _items(content, where)]
    if tag == "as_scalar_type":
        if not isinstance(content, int) or content not in ELEMENT_TYPES:
            raise UnsupportedNode(where, "?", f"the element type numbered {content!r} is not supported")
        return ELEMENT_TYPES[content]
    raise UnsupportedNode(where, "?", f"an argument of the kind {tag!r} is not supported")


def _items(content: object, where: str) -> list[object]:
    if not isinstance(content, list):
        raise MalformedModel(f"node {where!r}: an argument is not the list that it says it is")
    return content


def _float(content: object, where: str) -> float:
    if isinstance(content, str) and content in _NAMED_FLOATS:
        return _NAMED_FLOATS[content]
    if isinstance(content, bool) or not isinstance(content, (int, float)):
        raise MalformedModel(f"node {where!r}: an argument is not the number that it says it is")
    return float(content)


def _named(content: object, lookup: Lookup, where: str) -> object:
    """A tensor or number that another node computed, or one that is written out."""
    if isinstance(content, dict) and "name" in content:
        return lookup(text(content, "name"))
    if isinstance(content, dict) and len(content) == 1:
        tag, inner = next(iter(content.items()))
        if tag == "as_tensor":
            return _named(inner, lookup, where)
        if tag == "as_name" and isinstance(inner, str):
            return lookup(inner)
        if tag == "as_none":
            return None
        if tag in ("as_int", "as_bool", "as_float"):
            return _float(inner, where) if tag == "as_float" else inner
    raise MalformedModel(f"node {where!r}: an argument names nothing")


def names(value: object) -> set[str]:
    """Every name that tagged arguments read, at any depth outside sub-graphs."""
    found, pending = set[str](), [value]
    while pending:
        item = pending.pop()
        if isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, dict):
            for key, content in item.items():
                if key in ("name", "as_name") and isinstance(content, str):
                    found.add(content)
                elif key not in ("as_graph", "as_string"):
                    pending.append(content)
    return found


def output_names(outputs: list[Json], where: str) -> list[object]:
    """The names a node's results go by: a list of names for a result that is itself a list."""
    results: list[object] = []
    for output in outputs:
        tag, content = next(iter(output.items()), ("", None))
        if tag in ("as_tensor", "as_optional_tensor"):
            inner = content.get("as_tensor", content) if isinstance(content, dict) else content
            results.append(inner.get("name") if isinstance(inner, dict) else None)
        elif tag in ("as_sym_int", "as_sym_bool", "as_sym_float"):
            results.append(content.get("as_name") if isinstance(content, dict) else None)
        elif tag == "as_tensors":
            results.append([text(item, "name") for item in _items(content, where) if isinstance(item, dict)])
        elif tag == "as_none":
            results.append(None)
        else:
            raise UnsupportedNode(where, "?", f"a result of the kind {tag!r} is not supported")
    return results
