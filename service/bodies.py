"""JSON bodies: bounded while they arrive, parsed away from the event loop, arrays converted as a whole."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from service.errors import BodyTooLarge, InvalidRequest, MalformedRequest
from service.problems import validation_problems

Schema = TypeVar("Schema", bound=BaseModel)
NOT_NUMBERS = "must be nested lists of numbers, of the same length at each depth"


@dataclass(frozen=True)
class Json:
    """A parsed body; `has_booleans` is false only when no `true` or `false` occurs in it."""

    value: Any
    has_booleans: bool


async def read_body(request: Request, *, limit: int) -> bytes:
    """The whole body, refused as soon as it is known to be over `limit` bytes.

    Raises: BodyTooLarge.
    """
    demand_length(request, limit)
    chunks: list[bytes] = []
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > limit:
            raise BodyTooLarge(limit)
        chunks.append(chunk)
    return b"".join(chunks)


def demand_length(request: Request, limit: int) -> None:
    """The announced length, where there is one, is within `limit`.

    Raises: BodyTooLarge.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise BodyTooLarge(limit)


def parse_json(body: bytes) -> Json:
    """The value of a JSON body.

    Raises: MalformedRequest; InvalidRequest where the only fault is NaN or an infinity.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        try:
            json.loads(body)  # Python's own reader accepts NaN and Infinity, and nothing else that is not JSON
        except (ValueError, RecursionError):
            raise MalformedRequest(f"not JSON: {error}") from None
        raise InvalidRequest([("body", "NaN, infinity and numbers beyond float64 are refused")]) from None
    return Json(value, has_booleans=b"true" in body or b"false" in body)


def parse_fields(schema: type[Schema], value: Any, root: str = "") -> Schema:
    """`value` as the document `schema`.

    Raises: InvalidRequest.
    """
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        raise InvalidRequest(validation_problems(error, root)) from None


def numeric_inputs(value: Any, *, field: str, has_booleans: bool) -> NDArray[np.float64] | dict[str, Any]:
    """Rows as one array, or an object of input names as one array each.

    Raises: InvalidRequest.
    """
    if not isinstance(value, dict):
        return numeric_array(value, field=field, has_booleans=has_booleans)
    if not value:
        raise InvalidRequest([(field, "names no input")])
    return {
        name: numeric_array(part, field=f"{field}.{name}", has_booleans=has_booleans) for name, part in value.items()
    }


def numeric_array(value: Any, *, field: str, has_booleans: bool) -> NDArray[np.float64]:
    """Nested lists of finite numbers as one float64 array.

    Raises: InvalidRequest.
    """
    if not isinstance(value, list) or not value:
        raise InvalidRequest([(field, NOT_NUMBERS)])
    if has_booleans and _holds_boolean(value):
        raise InvalidRequest([(field, NOT_NUMBERS)])
    try:
        array = np.array(value)
    except (ValueError, OverflowError) as error:  # ragged, or deeper than any array
        raise InvalidRequest([(field, NOT_NUMBERS)]) from error
    if array.dtype.kind not in "iuf":
        raise InvalidRequest([(field, NOT_NUMBERS)])
    converted = array.astype(np.float64)
    if not np.isfinite(converted).all():
        raise InvalidRequest([(field, "NaN and infinity are refused")])
    return converted


def _holds_boolean(value: Any) -> bool:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, bool):
            return True
        if isinstance(item, list):
            pending.extend(item)
    return False
