"""Which format an upload is in, told from its first bytes and never from its file name."""

from __future__ import annotations

from typing import Literal

from certifier.errors import UnknownFormat
from certifier.graph import Graph
from certifier.limits import Limits
from certifier.reading.onnx import read_onnx

_KNOWN_BUT_UNREAD = (
    (
        b"PK\x03\x04",
        "a zip archive (TorchScript, torch.export or a bundle); export the model to a single ONNX file",
    ),
    (b"\x89HDF", "an HDF5 file (Keras); export the model to ONNX"),
    (b"\x80\x02", "a Python pickle (a PyTorch state dict); it holds no graph: export the model to ONNX"),
    (b"\x80\x03", "a Python pickle; it holds no graph: export the model to ONNX"),
    (b"\x80\x04", "a Python pickle; it holds no graph: export the model to ONNX"),
    (b"\x80\x05", "a Python pickle; it holds no graph: export the model to ONNX"),
    (b"\x1f\x8b", "gzip data; upload the decompressed model"),
)


def read_model(data: bytes, *, limits: Limits) -> tuple[Literal["onnx"], Graph]:
    """The format's name and the graph held by `data`.

    Raises: UnknownFormat, MalformedModel, ResourceLimitExceeded, UnsupportedModel.
    """
    limits.demand("model_bytes", len(data))
    for magic, what in _KNOWN_BUT_UNREAD:
        if data.startswith(magic):
            raise UnknownFormat(f"this is {what}")
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") < len(data):
        raise UnknownFormat("this is a safetensors file; it holds weights but no graph: export the model to ONNX")
    if not data or data[:1] not in (b"\x08", b"\x12", b"\x1a", b"\x3a", b"\x42", b"\x22", b"\x2a", b"\x32"):
        # The first byte of an ONNX file is the tag of one of ModelProto's fields.
        raise UnknownFormat("the bytes are not an ONNX model")
    return "onnx", read_onnx(data, limits=limits)
