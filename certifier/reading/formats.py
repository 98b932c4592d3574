"""Which format an upload is in, told from its bytes and never from its file name."""

from __future__ import annotations

from certifier.documents import ModelFormat
from certifier.errors import InvalidInput, UnknownFormat
from certifier.graph import Graph
from certifier.limits import Limits
from certifier.reading.archive import read_member_names
from certifier.reading.bundle import read_bundle
from certifier.reading.exported.reader import read_exported
from certifier.reading.onnx import read_onnx
from certifier.reading.torchscript.reader import read_torchscript

_ZIP = b"PK\x03\x04"
_KNOWN_BUT_UNREAD = (
    (b"\x89HDF", "an HDF5 file (Keras); export the model to ONNX"),
    (b"\x80\x02", "a Python pickle (a PyTorch state dict); it holds no graph: export the model to ONNX or TorchScript"),
    (b"\x80\x03", "a Python pickle; it holds no graph: export the model to ONNX or TorchScript"),
    (b"\x80\x04", "a Python pickle; it holds no graph: export the model to ONNX or TorchScript"),
    (b"\x80\x05", "a Python pickle; it holds no graph: export the model to ONNX or TorchScript"),
    (b"\x1f\x8b", "gzip data; upload the decompressed model"),
)
_ONNX_TAGS = (b"\x08", b"\x12", b"\x1a", b"\x22", b"\x2a", b"\x32", b"\x3a", b"\x42")
"""The first byte of an ONNX file is the tag of one of ModelProto's fields."""


def read_model(data: bytes, *, limits: Limits, input_shape: tuple[int, ...] | None) -> tuple[ModelFormat, Graph]:
    """The format's name and the graph held by `data`.

    `input_shape` is needed by formats that do not record it, and must agree with those that do.
    Raises: UnknownFormat, MalformedModel, ResourceLimitExceeded, UnsupportedModel, InvalidInput.
    """
    limits.demand("model_bytes", len(data))
    for magic, what in _KNOWN_BUT_UNREAD:
        if data.startswith(magic):
            raise UnknownFormat(f"this is {what}")
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") < len(data):
        raise UnknownFormat("this is a safetensors file; it holds weights but no graph: export the model to ONNX")
    if data.startswith(_ZIP):
        model_format, graph = _read_zip(data, limits, input_shape)
    elif data[:1] in _ONNX_TAGS:
        model_format, graph = "onnx", read_onnx(data, limits=limits)
    else:
        raise UnknownFormat("the bytes are not a model in ONNX, TorchScript or torch.export format")
    if input_shape is not None and any(tensor.shape != input_shape for tensor in graph.inputs):
        actual = ", ".join(str(list(tensor.shape)) for tensor in graph.inputs)
        raise InvalidInput("options.input_shape", f"is {list(input_shape)}, but the model takes {actual}")
    return model_format, graph


def _read_zip(data: bytes, limits: Limits, input_shape: tuple[int, ...] | None) -> tuple[ModelFormat, Graph]:
    names = read_member_names(data)
    if any(name.endswith(("/archive_format", "serialized_exported_program.json")) for name in names):
        return "torch.export", read_exported(data, limits=limits)
    if any(name.lower().endswith(".onnx") for name in names):
        return "onnx bundle", read_bundle(data, limits=limits)
    if any(name.endswith("data.pkl") for name in names):
        return "torchscript", read_torchscript(data, limits=limits, input_shape=input_shape)
    raise UnknownFormat(
        "this is a zip archive that holds no model: neither TorchScript, nor a torch.export program, nor an ONNX model "
        "with its external data"
    )
