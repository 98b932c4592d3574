"""Uploads: streamed to disk and hashed as they come, in multipart or raw form, never whole in memory."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from certifier.documents import CertifyOptions
from service.bodies import demand_length, parse_fields, parse_json
from service.errors import BodyTooLarge, InvalidRequest, MalformedRequest, UnsupportedMediaType

RAW, MULTIPART = "application/octet-stream", "multipart/form-data"
BATCH_BYTES = 2**20
"""Received bytes are hashed and written in batches of this size, in a thread."""
MAX_FIELD_BYTES = 2**16
MULTIPART_OVERHEAD = 2**18
"""What boundaries, part headers and the small fields of a form may add to the file."""
FIELDS = ("name", "version", "options")


class Received:
    """A file on disk with its digest, growing chunk by chunk up to `limit` bytes."""

    def __init__(self, path: Path, limit: int) -> None:
        self._file: BinaryIO = path.open("xb")
        self._digest = hashlib.sha256()
        self._limit = limit
        self.size = 0
        self.filename = ""
        self.is_given = False

    def write(self, data: bytes) -> None:
        """Append `data`.

        Raises: BodyTooLarge.
        """
        self.size += len(data)
        if self.size > self._limit:
            raise BodyTooLarge(self._limit)
        self._digest.update(data)
        self._file.write(data)

    @property
    def sha256(self) -> str:
        """Digest of what was written."""
        return self._digest.hexdigest()

    def close(self) -> None:
        """Flush and close the file."""
        self._file.close()


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a file of an upload goes, and how many bytes it may have."""

    path: Path
    limit: int


@dataclass(frozen=True, kw_only=True)
class Form:
    """What an upload brought: the model, the inputs given beside it, if any, and the small fields."""

    model: Received
    calibration: Received | None
    fields: dict[str, str]


async def receive(request: Request, *, model: Place, calibration: Place) -> Form:
    """Stream the request's files to their places; with them the form's other fields, or the query's for a raw body.

    A raw body is the model alone.

    Raises: BodyTooLarge, MalformedRequest, UnsupportedMediaType, InvalidRequest.
    """
    header = request.headers.get("content-type", RAW)
    kind, options = parse_options_header(header)
    received = await asyncio.to_thread(Received, model.path, model.limit)
    inputs: Received | None = None
    try:
        if kind == RAW.encode():
            demand_length(request, model.limit)
            await _stream(request, received.write, model.limit)
            fields = {name: request.query_params[name] for name in FIELDS if name in request.query_params}
        elif kind == MULTIPART.encode():
            limit = model.limit + calibration.limit + MULTIPART_OVERHEAD
            demand_length(request, limit)
            inputs = await asyncio.to_thread(Received, calibration.path, calibration.limit)
            form = _Form(options.get(b"boundary", b""), {"file": received, "calibration": inputs})
            await _stream(request, form.feed, limit)
            fields = form.finish()
        else:
            raise UnsupportedMediaType(header.split(";")[0], (MULTIPART, RAW))
    finally:
        await asyncio.to_thread(received.close)
        if inputs is not None:
            await asyncio.to_thread(inputs.close)
    if not received.size:
        raise InvalidRequest([("file", "is empty")])
    if inputs is not None and not inputs.is_given:
        await asyncio.to_thread(calibration.path.unlink)
        inputs = None
    if inputs is not None and not inputs.size:
        raise InvalidRequest([("calibration", "is empty")])
    return Form(model=received, calibration=inputs, fields=fields)


async def _stream(request: Request, consume: Callable[[bytes], None], limit: int) -> None:
    """Hand the body to `consume` in batches, in a thread, and stop at `limit` bytes."""
    batch: list[bytes] = []
    waiting = total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > limit:
            raise BodyTooLarge(limit)
        batch.append(chunk)
        waiting += len(chunk)
        if waiting >= BATCH_BYTES:
            await asyncio.to_thread(consume, b"".join(batch))
            batch, waiting = [], 0
    if batch:
        await asyncio.to_thread(consume, b"".join(batch))


class _Form:
    """The callbacks of the streaming multipart parser: files to disk, three small fields in memory."""

    def __init__(self, boundary: bytes, files: Mapping[str, Received]) -> None:
        self._files = files
        self._fields: dict[str, bytearray] = {}
        self._header = self._value = b""
        self._disposition: dict[bytes, bytes] = {}
        self._part = ""
        self._seen: set[str] = set()
        self._complete = False
        if not boundary:
            raise MalformedRequest("multipart/form-data without a boundary")
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": self._data,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise MalformedRequest(str(error)) from None

    def feed(self, data: bytes) -> None:
        """Parse the next bytes.

        Raises: MalformedRequest, InvalidRequest, BodyTooLarge.
        """
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise MalformedRequest(f"not a multipart form: {error}") from None

    def finish(self) -> dict[str, str]:
        """The small fields, once all was fed.

        Raises: MalformedRequest when the form is cut short; InvalidRequest without a file.
        """
        if not self._complete:
            raise MalformedRequest("the multipart form is cut short")
        if "file" not in self._seen:
            raise InvalidRequest([("file", "is missing")])
        try:
            return {name: bytes(value).decode() for name, value in self._fields.items()}
        except UnicodeDecodeError:
            raise MalformedRequest("a field of the form is not UTF-8") from None

    def _begin(self) -> None:
        self._header = self._value = b""
        self._disposition = {}
        self._part = ""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, self._disposition = parse_options_header(self._value)
        self._header = self._value = b""

    def _headers_finished(self) -> None:
        self._part = self._disposition.get(b"name", b"").decode("utf-8", "replace")
        if self._part not in (*self._files, *FIELDS):
            known = ", ".join((*self._files, *FIELDS))
            raise InvalidRequest([(self._part or "form", f"is no field of this form, which takes {known}")])
        if self._part in self._seen:
            raise InvalidRequest([(self._part, "is given twice")])
        self._seen.add(self._part)
        if self._part in self._files:
            self._files[self._part].is_given = True
            self._files[self._part].filename = self._disposition.get(b"filename", b"").decode("utf-8", "replace")
        else:
            self._fields[self._part] = bytearray()

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._part in self._files:
            self._files[self._part].write(data[start:end])
            return
        field = self._fields[self._part]
        field += data[start:end]
        if len(field) > MAX_FIELD_BYTES:
            raise BodyTooLarge(MAX_FIELD_BYTES)

    def _end(self) -> None:
        self._complete = True


def asked_options(form: Form) -> CertifyOptions:
    """The options among an upload's fields, the defaults without them, with the digest of the inputs beside the model.

    Raises: MalformedRequest, InvalidRequest.
    """
    text = form.fields.get("options")
    options = parse_fields(CertifyOptions, parse_json(text.encode()).value if text else {}, root="options")
    if form.calibration is None and options.calibration is not None:
        raise InvalidRequest([("calibration", "is missing, but the options name its digest")])
    if form.calibration is None or options.calibration is not None:
        return options
    return options.model_copy(update={"calibration": form.calibration.sha256})


def default_name(filename: str, sha256: str) -> str:
    """A valid model name from the uploaded file's name; from its digest when nothing of it remains."""
    stem = re.split(r"[/\\]", filename)[-1]
    stem = re.sub(r"\.(onnx|pt2?|pth|zip)$", "", stem, flags=re.IGNORECASE)
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("._-")[:128]
    return stem or f"model-{sha256[:8]}"
