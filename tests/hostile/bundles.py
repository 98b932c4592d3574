"""Zips of an ONNX model with its external data that nobody should open."""

from __future__ import annotations

import io
import stat
import warnings
import zipfile
from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.hostile.case import Case

WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3)
AT = {"location": "w.bin", "offset": "8"}


def linear_model(facts: dict[str, str], *, dtype: int = TensorProto.FLOAT, dims: tuple[int, ...] = (4, 3)) -> bytes:
    """A linear model whose weight is said to be at `facts`."""
    weight = TensorProto(name="weight", data_type=dtype, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, value in facts.items():
        weight.external_data.add(key=key, value=value)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]).SerializeToString()


def zipped(members: dict[str, bytes], *, deflated: bool = False) -> bytes:
    buffer = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def bundle(facts: dict[str, str], **others: bytes) -> bytes:
    return zipped({"model.onnx": linear_model(facts), "w.bin": b"\0" * 8 + WEIGHT.tobytes(), **others})


def with_entry(change: Callable[[zipfile.ZipInfo], None], content: bytes = b"x") -> bytes:
    """A bundle with one member more, whose description `change` has edited."""
    buffer = io.BytesIO(bundle({"location": "w.bin", "offset": "8"}))
    with zipfile.ZipFile(buffer, "a") as archive:
        entry = zipfile.ZipInfo("more")
        change(entry)
        archive.writestr(entry, content)
    return buffer.getvalue()


def symlink(entry: zipfile.ZipInfo) -> None:
    entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16


def lying(promised: int) -> bytes:
    """A deflated member that says it unpacks to `promised` bytes."""
    data = bytearray(zipped({"a.onnx": b"\0" * 10**6}, deflated=True))
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = promised.to_bytes(4, "little")
    return bytes(data)


def duplicate() -> bytes:
    buffer = io.BytesIO(bundle({"location": "w.bin", "offset": "8"}))
    with zipfile.ZipFile(buffer, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("w.bin", b"y")
    return buffer.getvalue()


def with_own_data() -> bytes:
    model = onnx.load_model_from_string(linear_model(AT))
    model.graph.initializer[0].raw_data = WEIGHT.tobytes()
    return model.SerializeToString()


def renamed(old: bytes, new: bytes) -> bytes:
    return with_entry(lambda entry: setattr(entry, "filename", old.decode())).replace(old, new)


CASES: dict[str, Case] = {
    "not a zip": Case("malformed_model", lambda: b"PK\x03\x04" + b"\0" * 100),
    "truncated": Case("malformed_model", lambda: bundle(AT)[:-30]),
    "no model": Case("unknown_format", lambda: zipped({"w.bin": b""})),
    "two models": Case("unsupported_model", lambda: zipped({"a.onnx": linear_model(AT), "b.onnx": linear_model(AT)})),
    "damaged model": Case("malformed_model", lambda: zipped({"a.onnx": b"\xff" * 50})),
    "missing data": Case("malformed_model", lambda: bundle({"location": "other.bin"})),
    "no location": Case("malformed_model", lambda: bundle({"offset": "0"})),
    "location outside": Case("malformed_model", lambda: bundle({"location": "../w.bin"})),
    "location absolute": Case("malformed_model", lambda: bundle({"location": "/etc/passwd"})),
    "location through a folder": Case("malformed_model", lambda: bundle({"location": "a/../w.bin"})),
    "location with backslash": Case("malformed_model", lambda: bundle({"location": "..\\w.bin"})),
    "unknown key": Case("malformed_model", lambda: bundle({**AT, "basepath": "/"})),
    "location that is no text": Case(
        "malformed_model",
        lambda: zipped({"a.onnx": linear_model(AT).replace(b"w.bin", b"\xff\xfe\xff.b"), "w.bin": b""}),
    ),
    "negative offset": Case("malformed_model", lambda: bundle({**AT, "offset": "-8"})),
    "offset in words": Case("malformed_model", lambda: bundle({**AT, "offset": "eight"})),
    "offset beyond": Case("malformed_model", lambda: bundle({**AT, "offset": "16"})),
    "endless offset": Case("malformed_model", lambda: bundle({**AT, "offset": "9" * 5000})),
    "length too small": Case("malformed_model", lambda: bundle({**AT, "length": "44"})),
    "length too large": Case("malformed_model", lambda: bundle({**AT, "length": "4800"})),
    "data inside and outside": Case(
        "malformed_model", lambda: zipped({"a.onnx": with_own_data(), "w.bin": b"\0" * 8 + WEIGHT.tobytes()})
    ),
    "huge shape": Case(
        "resource_limit_exceeded", lambda: zipped({"a.onnx": linear_model(AT, dims=(2**40, 2**40)), "w.bin": b"x"})
    ),
    "negative shape": Case(
        "malformed_model", lambda: zipped({"a.onnx": linear_model(AT, dims=(-4, 3)), "w.bin": b"x"})
    ),
    "text weights": Case(
        "unsupported_model", lambda: zipped({"a.onnx": linear_model(AT, dtype=TensorProto.STRING), "w.bin": b"x"})
    ),
    "unknown element type": Case(
        "unsupported_model", lambda: zipped({"a.onnx": linear_model(AT, dtype=99), "w.bin": b"x"})
    ),
    "member longer than it says": Case("malformed_model", lambda: lying(1000)),
    "member shorter than it says": Case("malformed_model", lambda: lying(10**6 + 1)),
    "symbolic link": Case("malformed_model", lambda: with_entry(symlink, b"/etc/passwd")),
    "two members of one name": Case("malformed_model", duplicate),
    "name outside": Case("malformed_model", lambda: with_entry(lambda entry: setattr(entry, "filename", "../more"))),
    "name absolute": Case("malformed_model", lambda: with_entry(lambda entry: setattr(entry, "filename", "/more"))),
    "name with a drive": Case(
        "malformed_model", lambda: with_entry(lambda entry: setattr(entry, "filename", "C:/more"))
    ),
    "name with a zero byte": Case("malformed_model", lambda: renamed(b"more", b"m\0re")),
    "name with backslash": Case("malformed_model", lambda: renamed(b"..more", b"..\\ore")),
    "other compression": Case(
        "unsupported_model", lambda: with_entry(lambda entry: setattr(entry, "compress_type", zipfile.ZIP_LZMA))
    ),
}
