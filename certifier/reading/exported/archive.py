"""The archive of an exported program: where its graph is, and its tensors as bounds-checked views of raw bytes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from certifier.errors import MalformedModel, ResourceLimitExceeded, UnsupportedModel
from certifier.graph import Array
from certifier.limits import Limits
from certifier.reading.archive import read_archive
from certifier.reading.emitting import array_dtype

ELEMENT_TYPES = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    12: "bool",
    13: "bfloat16",
}
"""The numbering of element types in exported programs, which is not PyTorch's own."""
_STRIDED = 7
_LARGEST_JSON = 64 * 2**20
_LARGEST_RANK = 32
_SCHEMA = 8
_SURROGATE = re.compile(rb"\\u[dD]")
_RE_EXPORT = "export it again with a recent torch.export.save"

Json = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One exported program: its graph as parsed JSON, and where each of its tensors is kept."""

    program: Json
    members: Mapping[str, bytes]
    payloads: Mapping[str, tuple[str, Json]]
    """For the name of each parameter, buffer or constant: the folder of its bytes and its description."""

    def tensor(self, name: str, *, limits: Limits) -> Array:
        """The array of a parameter, buffer or constant.

        Raises: MalformedModel, UnsupportedModel, ResourceLimitExceeded.
        """
        if name not in self.payloads:
            raise MalformedModel(f"the archive describes no tensor {name!r}")
        folder, payload = self.payloads[name]
        if payload.get("use_pickle") is not False or payload.get("tensor_meta") is None:
            raise UnsupportedModel(f"tensor {name!r} is kept as a pickle or custom object, which could run code")
        content = self.members.get(f"{folder}/{text(payload, 'path_name')}")
        if content is None:
            raise MalformedModel(f"the bytes of tensor {name!r} are missing")
        return _strided(name, mapping(payload, "tensor_meta"), content, limits)


def read_exported_archive(data: bytes, *, limits: Limits) -> Archive:
    """The one exported program of a `.pt2` archive.

    Raises: MalformedModel, UnsupportedModel, ResourceLimitExceeded.
    """
    members = _without_root(read_archive(data, limits=limits, compressed=False))
    if "serialized_exported_program.json" in members:
        raise UnsupportedModel(f"the .pt2 archive is of an older kind that keeps its weights as pickles; {_RE_EXPORT}")
    if any(name.startswith("data/aotinductor/") for name in members):
        raise UnsupportedModel("the .pt2 archive holds compiled code (AOTInductor); save it with torch.export.save")
    if members.get("archive_format", b"").strip() != b"pt2":
        raise MalformedModel("the archive is not an exported program: it does not say that its format is pt2")
    if members.get("archive_version", b"0").strip() != b"0":
        raise UnsupportedModel("the .pt2 archive is of an unknown version")
    if members.get("byteorder", b"little").strip() != b"little":
        raise UnsupportedModel("the .pt2 archive is not little-endian")
    models = [name for name in members if name.startswith("models/") and name.endswith(".json")]
    if len(models) != 1:
        raise UnsupportedModel(f"the .pt2 archive holds {len(models)} programs; save exactly one")
    stem = models[0].removeprefix("models/").removesuffix(".json")
    program = _json(members, models[0])
    version = mapping(program, "schema_version").get("major")
    if version != _SCHEMA:
        raise UnsupportedModel(f"the exported program follows schema {version}, not {_SCHEMA}; {_RE_EXPORT}")
    payloads: dict[str, tuple[str, Json]] = {}
    for folder, config in (
        ("data/weights", f"data/weights/{stem}_weights_config.json"),
        ("data/constants", f"data/constants/{stem}_constants_config.json"),
    ):
        if config in members:
            described = mapping(_json(members, config), "config")
            payloads |= {name: (folder, mapping(described, name)) for name in described}
    return Archive(program=program, members=members, payloads=payloads)


def _without_root(members: Mapping[str, bytes]) -> dict[str, bytes]:
    """The members by their names inside the one folder that holds them all."""
    roots = {name.split("/", 1)[0] for name in members}
    if len(roots) != 1 or any("/" not in name for name in members):
        raise MalformedModel("the archive does not keep its members in one folder")
    return {name.split("/", 1)[1]: content for name, content in members.items()}


def _json(members: Mapping[str, bytes], name: str) -> Json:
    content = members[name]
    if len(content) > _LARGEST_JSON:
        raise ResourceLimitExceeded("json_bytes", limit=_LARGEST_JSON, actual=len(content), where=name)
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=_unique)
        if _SURROGATE.search(content):
            # JSON can spell half a character, which no message that quotes it could be sent with.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise MalformedModel(f"{name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise MalformedModel(f"{name} holds no object")
    return value


def _unique(pairs: list[tuple[str, object]]) -> Json:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("an object names one of its members twice")
    return values


def mapping(owner: Mapping[str, object], key: str) -> Json:
    """The object that `owner` holds under `key`."""
    value = owner.get(key)
    if not isinstance(value, dict):
        raise MalformedModel(f"the exported program has no object {key!r} where one is needed")
    return value


def sequence(owner: Mapping[str, object], key: str) -> list[Json]:
    """The list of objects that `owner` holds under `key`."""
    value = owner.get(key)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise MalformedModel(f"the exported program has no list {key!r} where one is needed")
    return value


def text(owner: Mapping[str, object], key: str) -> str:
    """The string that `owner` holds under `key`."""
    value = owner.get(key)
    if not isinstance(value, str):
        raise MalformedModel(f"the exported program has no text {key!r} where one is needed")
    return value


def element_type(meta: Mapping[str, object], name: str) -> str:
    """The element type of a tensor's description."""
    number = meta.get("dtype")
    if not isinstance(number, int) or number not in ELEMENT_TYPES:
        raise UnsupportedModel(f"tensor {name!r} is of an element type that is not supported")
    if meta.get("layout", _STRIDED) != _STRIDED:
        raise UnsupportedModel(f"tensor {name!r} is sparse or of another layout that is not supported")
    return ELEMENT_TYPES[number]


def _known(value: object, name: str, role: str) -> int:
    number = value.get("as_int") if isinstance(value, dict) else None
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**63:
        raise MalformedModel(f"tensor {name!r}: its {role} is not a number from 0 to 2^63")
    return number


def _strided(name: str, meta: Json, content: bytes, limits: Limits) -> Array:
    dtype = array_dtype(element_type(meta, name))
    shape = [_known(size, name, "size") for size in sequence(meta, "sizes")]
    strides = [_known(stride, name, "stride") for stride in sequence(meta, "strides")]
    offset = _known(meta.get("storage_offset"), name, "storage offset")
    if len(shape) != len(strides) or len(shape) > _LARGEST_RANK:
        raise MalformedModel(f"tensor {name!r} has {len(shape)} sizes and {len(strides)} strides")
    limits.demand("elements", math.prod(shape), f"tensor {name!r}")
    if 0 in shape:
        return np.zeros(shape, dtype=dtype)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if len(content) % dtype.itemsize or (last + 1) * dtype.itemsize > len(content):
        raise MalformedModel(f"tensor {name!r} reaches beyond its {len(content)} bytes")
    raw = np.frombuffer(content, dtype=np.uint8 if dtype.kind == "b" else dtype)
    steps = [stride * raw.itemsize for stride in strides]
    view = np.lib.stride_tricks.as_strided(raw[offset:], shape=shape, strides=steps, writeable=False)
    # A byte of a truth value may be anything but 0, which numpy must never see as such.
    return np.not_equal(view, 0) if dtype.kind == "b" else np.ascontiguousarray(view).reshape(shape)
