"""What TorchScript's built-in functions do to plain Python values: numbers, texts, lists and dictionaries.

Integers are 64 bits wide, and lists and texts are short: anything beyond is refused before it is made.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence

from certifier.errors import ResourceLimitExceeded, UnsupportedNode
from certifier.reading.torchscript.values import Cell, Device, Kept, KeptMapping, Uninitialised

LONGEST = 100_000
"""Items of a list, characters of a text."""


def applies(name: str, arguments: Sequence[object]) -> bool:
    """Whether `apply` knows `name` for these arguments; tensors are never its matter, except inside lists."""
    return name in _FUNCTIONS and not any(isinstance(item, Cell) for item in arguments[: _CHECKED.get(name, 3)])


def apply(name: str, arguments: Sequence[object], where: str) -> object:
    """The result of the built-in function `name`.

    Raises: UnsupportedNode, ResourceLimitExceeded.
    """
    try:
        result = _FUNCTIONS[name](*arguments)
    except _TooLong as error:
        raise ResourceLimitExceeded("list items", limit=LONGEST, actual=error.args[0], where=where) from error
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise UnsupportedNode(where, name, f"cannot be applied to these values: {error}") from error
    if isinstance(result, int) and not -(2**63) <= result < 2**63:
        raise UnsupportedNode(where, name, "the integer does not fit 64 bits")
    return result


class _TooLong(Exception):
    """A list or text would exceed `LONGEST`."""


def _plain(value: object) -> object:
    """`value`, a number, a text, None, or a flat list of those: what can be compared."""
    scalars = (int, float, str, type(None))
    if isinstance(value, scalars) or (
        isinstance(value, (list, tuple)) and all(isinstance(item, scalars) for item in value)
    ):
        return list(value) if isinstance(value, (list, tuple)) else value
    raise TypeError("only numbers, texts and flat lists can be compared")


def _number(value: object) -> int | float:
    if isinstance(value, (int, float)):
        return value
    raise TypeError("needs numbers")


def _short(length: int) -> None:
    if length > LONGEST:
        raise _TooLong(length)


def _changed(target: object) -> list[object]:
    if isinstance(target, Kept) or not isinstance(target, list):
        raise TypeError("changes a list that is kept from call to call")
    return target


def _add(first: object, second: object) -> object:
    for kind in (str, list):
        if isinstance(first, kind) and isinstance(second, kind):
            _short(len(first) + len(second))
            return [*first, *second] if isinstance(first, list) else first + second  # pyright: ignore
    return _number(first) + _number(second)


def _mul(first: object, second: object) -> object:
    if isinstance(first, list) and isinstance(second, int):
        _short(len(first) * max(second, 0))
        return list(first) * second
    return _number(first) * _number(second)


def _pow(base: object, exponent: object) -> object:
    base, exponent = _number(base), _number(exponent)
    if isinstance(base, int) and isinstance(exponent, int) and abs(exponent) > 63 and abs(base) > 1:
        raise ValueError("the power does not fit 64 bits")
    result = float(base) ** exponent if isinstance(base, float) or isinstance(exponent, float) else base**exponent
    return _real(result)


def _real(value: object) -> object:
    if isinstance(value, complex):
        raise ValueError("complex numbers are not supported")
    return value


def _is(first: object, second: object) -> bool:
    """Identity, where it means the same in both languages."""
    if first is None or second is None:
        return first is second
    raise TypeError("only None can be compared by identity")


def _compare(function: Callable[[object, object], bool]) -> Callable[[object, object], bool]:
    return lambda first, second: function(_plain(first), _plain(second))


def _contains(container: object, item: object) -> bool:
    if isinstance(container, Mapping):
        return isinstance(item, (str, int, float)) and item in container
    items = _plain(container)
    if isinstance(items, (list, str)):
        return _plain(item) in items  # pyright: ignore[reportOperatorIssue]
    raise TypeError("has no items")


def _length(value: object) -> int:
    if isinstance(value, (list, tuple, dict, str)):
        return len(value)
    raise TypeError("has no length")


def _append(target: object, item: object) -> object:
    items = _changed(target)
    _short(len(items) + 1)
    items.append(item)
    return target


def _extend(target: object, more: object) -> None:
    items = _changed(target)
    if not isinstance(more, (list, tuple)):
        raise TypeError("extends a list by something else")
    _short(len(items) + len(more))
    items.extend(list(more))


def _insert(target: object, index: object, item: object) -> None:
    items = _changed(target)
    _short(len(items) + 1)
    items.insert(int(_number(index)), item)


def _pop(target: object, index: object = -1) -> object:
    return _changed(target).pop(int(_number(index)))


def _item(container: object, index: object) -> object:
    if isinstance(container, (list, tuple)) and isinstance(index, int):
        return container[index]
    if isinstance(container, dict) and isinstance(index, (str, int, float)):
        return container[index]
    raise TypeError("has no such item")


def _set_item(target: object, index: object, value: object) -> object:
    if isinstance(target, KeptMapping):
        raise TypeError("changes a dictionary that is kept from call to call")
    if isinstance(target, dict) and isinstance(index, (str, int, float)):
        target[index] = value
    elif isinstance(index, int):
        _changed(target)[index] = value
    else:
        raise TypeError("has no such item")
    return target


def _slice(items: object, start: object = None, end: object = None, step: object = 1) -> object:
    if not isinstance(items, (list, tuple, str)):
        raise TypeError("has no items")
    bounds = [None if bound is None else int(_number(bound)) for bound in (start, end, step)]
    part = items[slice(*bounds)]
    return list(part) if isinstance(part, list) else part


def _listed(value: object) -> list[object]:
    if not isinstance(value, (list, tuple)):
        raise TypeError("has no items")
    return list(value)


def _keys(value: object) -> list[object]:
    return list(_mapping(value))


def _mapping(value: object) -> Mapping[object, object]:
    if not isinstance(value, dict):
        raise TypeError("is no dictionary")
    return value


def shown(value: object) -> str:
    """`value` as a message shows it, in a few words."""
    if isinstance(value, (int, float, str, type(None))):
        return str(value)[:200]
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(shown(item) if not isinstance(item, (list, tuple)) else "…" for item in value[:8]) + "]"
    return "a tensor" if isinstance(value, Cell) else "a value"


def _format(template: object, *values: object) -> str:
    pieces = str(template).split("{}")
    text = pieces[0]
    for position, piece in enumerate(pieces[1:]):
        text += (shown(values[position]) if position < len(values) else "{}") + piece
        _short(len(text))
    return text


def _extreme(function: Callable[[Sequence[int | float]], int | float]) -> Callable[..., int | float]:
    def choose(first: object, second: object = None) -> int | float:
        items = first if second is None and isinstance(first, (list, tuple)) else (first, second)
        return function([_number(item) for item in items])

    return choose


def _integer(value: object) -> int:
    if isinstance(value, str):
        _short(len(value))
        return int(value[:64])
    return int(_number(value))


def _same_device(first: object, second: object) -> bool:
    return isinstance(first, Device) and isinstance(second, Device)


def _equal(first: object, second: object) -> bool:
    return _same_device(first, second) or operator.eq(_plain(first), _plain(second))


def _truth(value: object) -> bool:
    return bool(_number(value))


def is_initialised(value: object) -> bool:
    """Whether `value` was ever assigned."""
    return not isinstance(value, Uninitialised)


_FUNCTIONS: dict[str, Callable[..., object]] = {
    "add": _add,
    "sub": lambda a, b: _number(a) - _number(b),
    "mul": _mul,
    "div": lambda a, b: _number(a) / _number(b),
    "floordiv": lambda a, b: (
        a // b if isinstance(a, int) and isinstance(b, int) else float(_number(a) / _number(b) // 1)
    ),
    "remainder": lambda a, b: _number(a) % _number(b),
    "mod": lambda a, b: _number(a) % _number(b),
    "fmod": lambda a, b: math.fmod(_number(a), _number(b)),
    "pow": _pow,
    "neg": lambda a: -_number(a),
    "abs": lambda a: abs(_number(a)),
    "floor": lambda a: math.floor(_number(a)),
    "ceil": lambda a: math.ceil(_number(a)),
    "sqrt": lambda a: math.sqrt(_number(a)),
    "log": lambda a: math.log(_number(a)),
    "exp": lambda a: math.exp(_number(a)),
    "eq": _equal,
    "ne": lambda a, b: not _equal(a, b),
    "lt": _compare(operator.lt),  # pyright: ignore[reportArgumentType]
    "le": _compare(operator.le),  # pyright: ignore[reportArgumentType]
    "gt": _compare(operator.gt),  # pyright: ignore[reportArgumentType]
    "ge": _compare(operator.ge),  # pyright: ignore[reportArgumentType]
    "__and__": lambda a, b: _number(a) & _number(b),  # pyright: ignore
    "__or__": lambda a, b: _number(a) | _number(b),  # pyright: ignore
    "__xor__": lambda a, b: _number(a) ^ _number(b),  # pyright: ignore
    "__not__": lambda a: not _truth(a),
    "__is__": _is,
    "__isnot__": lambda a, b: not _is(a, b),
    "__contains__": _contains,
    "__getitem__": _item,
    "_set_item": _set_item,
    "len": _length,
    "append": _append,
    "extend": _extend,
    "insert": _insert,
    "pop": _pop,
    "slice": _slice,
    "list": _listed,
    "copy": _listed,
    "keys": _keys,
    "values": lambda a: list(_mapping(a).values()),
    "items": lambda a: [(key, value) for key, value in _mapping(a).items()],
    "format": _format,
    "min": _extreme(min),
    "max": _extreme(max),
    "Int": _integer,
    "Float": lambda a: float(_number(a)),
    "Bool": _truth,
    "str": shown,
    "warn": lambda *_: None,
}
_CHECKED = {"append": 1, "insert": 2, "_set_item": 2, "format": 0, "warn": 0, "__is__": 0, "__isnot__": 0, "extend": 1}
"""How many leading arguments must not be tensors, where it is not all of them."""
