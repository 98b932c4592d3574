"""A zip with one ONNX model and its external data -> graph.

The data is looked up among the archive's own members, in memory; no path ever reaches a file system.  The model is
then read as the single file that it would be with its weights inside, by the reader that refuses external data.
"""

from __future__ import annotations

import math
import posixpath
from collections.abc import Mapping

import onnx
from onnx import helper

from certifier.errors import MalformedModel, UnsupportedModel
from certifier.graph import Graph
from certifier.limits import Limits
from certifier.reading.archive import read_archive
from certifier.reading.onnx import every_tensor, parse, read_onnx

_KEYS = frozenset(("location", "offset", "length", "checksum"))
_PACKED = (onnx.TensorProto.UINT4, onnx.TensorProto.INT4, onnx.TensorProto.FLOAT4E2M1, onnx.TensorProto.STRING)


def read_bundle(data: bytes, *, limits: Limits) -> Graph:
    """The graph of the one `.onnx` member, with its external data taken from the other members.

    Raises: MalformedModel, ResourceLimitExceeded, UnsupportedModel, UnsupportedNode.
    """
    members = read_archive(data, limits=limits, compressed=True)
    name = model_member(members)
    model = parse(members[name])
    folder, total = posixpath.dirname(name), 0
    for tensor in every_tensor(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.external_data):
            content = _external(tensor, members, folder, limits)
            total += len(content)
            # Many tensors may name the same bytes: what is limited is what they take once inside.
            limits.demand("model_bytes", total, f"tensor {tensor.name!r}")
            del tensor.external_data[:]
            tensor.data_location = onnx.TensorProto.DEFAULT
            tensor.raw_data = content
    return read_onnx(model.SerializeToString(), limits=limits)


def model_member(members: Mapping[str, bytes]) -> str:
    """The name of the one ONNX model in an archive.

    Raises: UnsupportedModel if there is none or more than one.
    """
    models = sorted(name for name in members if name.endswith(".onnx") and not name.startswith("__MACOSX/"))
    if len(models) != 1:
        found = f"{len(models)}: {', '.join(models[:3])}" if models else "none"
        raise UnsupportedModel(f"a bundle holds exactly one .onnx file and its external data; this one holds {found}")
    return models[0]


def _external(tensor: onnx.TensorProto, members: Mapping[str, bytes], folder: str, limits: Limits) -> bytes:
    facts = _facts(tensor)
    content = members.get(posixpath.join(folder, facts["location"]))
    if content is None:
        raise MalformedModel(f"tensor {tensor.name!r} keeps its data in {facts['location']!r}, which the bundle lacks")
    expected = _byte_count(tensor, limits)
    offset = _count(tensor, facts, "offset", 0)
    length = _count(tensor, facts, "length", expected)
    if length != expected:
        raise MalformedModel(
            f"tensor {tensor.name!r} has {length} bytes of external data, but its shape needs {expected}"
        )
    if offset + length > len(content):
        raise MalformedModel(f"the external data of tensor {tensor.name!r} reaches beyond {facts['location']!r}")
    return content[offset : offset + length]


def _facts(tensor: onnx.TensorProto) -> dict[str, str]:
    facts = {entry.key: entry.value for entry in tensor.external_data}
    if not all(isinstance(part, str) for fact in facts.items() for part in fact):
        # Text that is not UTF-8 comes out of the protobuf as bytes.
        raise MalformedModel(f"tensor {tensor.name!r} says where its data is in something other than text")
    if len(facts) != len(tensor.external_data) or not set(facts) <= _KEYS or "location" not in facts:
        raise MalformedModel(f"tensor {tensor.name!r} says where its data is in a way that is not understood")
    location = facts["location"].removeprefix("./")
    if not location or any(part in ("", ".", "..") for part in location.split("/")) or "\\" in location:
        raise MalformedModel(f"tensor {tensor.name!r} keeps its data at {location!r}, outside the bundle")
    has_own = tensor.HasField("raw_data") or any(
        len(values)
        for values in (
            tensor.float_data,
            tensor.double_data,
            tensor.int32_data,
            tensor.int64_data,
            tensor.uint64_data,
            tensor.string_data,
        )
    )
    if has_own:
        raise MalformedModel(f"tensor {tensor.name!r} has data inside the model and outside it")
    return {**facts, "location": location}


def _count(tensor: onnx.TensorProto, facts: Mapping[str, str], key: str, default: int) -> int:
    text = facts.get(key)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise MalformedModel(f"tensor {tensor.name!r}: the {key} of its external data is {text[:40]!r}")
    return int(text)


def _byte_count(tensor: onnx.TensorProto, limits: Limits) -> int:
    known = tensor.data_type in onnx.TensorProto.DataType.values() and tensor.data_type != onnx.TensorProto.UNDEFINED
    if not known or tensor.data_type in _PACKED:
        raise UnsupportedModel(f"tensor {tensor.name!r}: external data of this element type is not supported")
    if any(size < 0 for size in tensor.dims):
        raise MalformedModel(f"tensor {tensor.name!r} has a negative dimension")
    elements = math.prod(tensor.dims)
    limits.demand("elements", elements, f"tensor {tensor.name!r}")
    return elements * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
