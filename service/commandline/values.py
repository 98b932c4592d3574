"""Numbers, distances and arrays as they are typed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from service.commandline.failures import misuse


def number(text: str, option: str) -> float:
    """A finite number, which may be written as a quotient: `1/255`.

    Raises: typer.BadParameter.
    """
    numerator, slash, denominator = text.partition("/")
    try:
        value = float(numerator) / float(denominator) if slash else float(numerator)
    except (ValueError, ZeroDivisionError):
        raise misuse(option, f"{text!r} is not a number") from None
    if not math.isfinite(value):
        raise misuse(option, f"{text!r} is not a finite number")
    return value


def numbers(texts: list[str], option: str) -> list[float]:
    """All numbers of a repeated, comma-separated option, in order.

    Raises: typer.BadParameter.
    """
    return [number(part.strip(), option) for text in texts for part in text.split(",")]


def fixed_values(texts: list[str]) -> dict[str, Any]:
    """The values of `NAME=VALUE`, by name; a name may hold equals signs if the value does not.

    Raises: InvalidInput for a file that cannot be read; typer.BadParameter.
    """
    from service.commandline.arrays import read_array

    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        if not equals or not name or name in values:
            raise misuse("--fix", f"{text!r} is not NAME=VALUE" if name not in values else f"{name!r} is given twice")
        try:
            values[name] = json.loads(value)
        except ValueError:
            path = Path(value)
            if not path.is_file():
                raise misuse("--fix", f"{value!r} is neither a number, nor JSON lists, nor a file") from None
            values[name] = read_array(path, key=None, field=f"options.fixed_inputs.{name}").tolist()
    return values


def epsilons(texts: list[str]) -> dict[str, float]:
    """Distances by the words they were typed in.

    Raises: typer.BadParameter.
    """
    parts = [part.strip() for text in texts for part in text.split(",")]
    return {part: distance(part) for part in parts}


def distance(text: str) -> float:
    """A finite distance of at least 0.

    Raises: typer.BadParameter.
    """
    value = number(text, "--epsilon")
    if value < 0:
        raise misuse("--epsilon", f"must be at least 0, not {text}")
    return value
