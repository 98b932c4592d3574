"""JSON that a stranger wrote: parsed only where what comes of it is bounded, in memory and in depth."""

from __future__ import annotations

import json
from typing import Any


def demand_few_parts(text: str, most: int) -> None:
    """The text has at most `most` commas and opening brackets, and so not many more JSON values than that.

    A parser makes some hundred bytes of every value, and a validator a thousand of one that it refuses; two bytes of
    text are enough for a value.
    Raises: ValueError.
    """
    parts = text.count(",") + text.count("[") + text.count("{")
    if parts > most:
        raise ValueError(f"it has {parts} parts, more than the {most} that are read")


def parsed(data: bytes | str, *, most: int) -> Any:
    """The JSON value of a text in UTF-8 with few parts.

    Raises: ValueError for any other.
    """
    text = data if isinstance(data, str) else data.decode()
    demand_few_parts(text, most)
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
