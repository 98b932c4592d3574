"""Zip archives that lie, whichever format they claim to hold."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable

from tests.hostile import exports, torchscripts
from tests.hostile.bundles import AT, bundle, linear_model, zipped
from tests.hostile.case import Case

_LOCAL, _ENTRY, _END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"


def patched(data: bytes, mark: bytes, offset: int, layout: str, value: int, *, last: bool = False) -> bytes:
    """`data` with a number written over the header that `mark` begins."""
    changed = bytearray(data)
    at = (data.rindex(mark) if last else data.index(mark)) + offset
    struct.pack_into(layout, changed, at, value)
    return bytes(changed)


def bomb(size: int) -> bytes:
    """A bundle whose data unpacks to `size` zeros, a thousand times what it takes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.onnx", linear_model(AT))
        with archive.open("w.bin", "w", force_zip64=True) as member:
            for _ in range(size // 2**20):
                member.write(bytes(2**20))
    return buffer.getvalue()


def lying_bomb(size: int) -> bytes:
    """The bomb, with a directory that promises eight bytes."""
    data = zipped({"model.onnx": linear_model(AT), "w.bin": bytes(size)}, deflated=True)
    return patched(data, _ENTRY, 24, "<I", 8, last=True)


def overlapping(count: int) -> bytes:
    """A directory whose entries all point to one deflated member."""
    data = zipped({"model.onnx": linear_model(AT), "w0000.bin": bytes(2**20)}, deflated=True)
    at, end = data.rindex(_ENTRY), data.index(_END)
    entry = data[at:end]
    entries = b"".join(entry.replace(b"w0000", f"w{number:04d}".encode()) for number in range(count))
    start = data.index(_ENTRY)
    directory = data[start:at] + entries
    return (
        data[:start] + directory + struct.pack("<4s4H2LH", _END, 0, 0, count + 1, count + 1, len(directory), start, 0)
    )


def zip64(size: int) -> bytes:
    """A member of eight bytes that calls itself `size` bytes long in its zip64 record."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model.onnx", linear_model(AT))
        entry = zipfile.ZipInfo("w.bin")
        entry.extra = struct.pack("<HHQQ", 1, 16, size, size)
        archive.writestr(entry, bytes(8))
    data = patched(buffer.getvalue(), _ENTRY, 20, "<I", 0xFFFFFFFF, last=True)
    return patched(data, _ENTRY, 24, "<I", 0xFFFFFFFF, last=True)


def with_directory_name(name: bytes) -> bytes:
    """A bundle whose directory calls a member otherwise than the member itself does."""
    data = bundle(AT)
    at = data.rindex(b"w.bin", 0, data.index(_END))
    return data[:at] + name + data[at + len(name) :]


def _appended(data: bytes) -> bytes:
    """Two archives in one file: readers that begin at the front see another one than those that begin at the end."""
    return bundle(AT) + data


_PLAIN: dict[str, Callable[[], bytes]] = {
    "bundle": lambda: bundle(AT),
    "torchscript": lambda: torchscripts.BASE,
    "torch.export": lambda: exports.PLAIN,
}


def _cut() -> dict[str, Case]:
    """Every format's archive, cut at the boundaries of its structure."""
    cases = {}
    for form, build in _PLAIN.items():
        for where, mark in (("directory", _ENTRY), ("end record", _END)):
            cases[f"{form} cut before its {where}"] = Case(
                "malformed_model", lambda build=build, mark=mark: build()[: build().index(mark)]
            )
        cases[f"{form} cut inside its first header"] = Case("malformed_model", lambda build=build: build()[:20])
        cases[f"{form} without its last byte"] = Case("malformed_model", lambda build=build: build()[:-1])
        cases[f"{form} without its first byte"] = Case("unknown_format", lambda build=build: build()[1:])
    return cases


CASES: dict[str, Case] = {
    "a bomb of a gigabyte": Case("resource_limit_exceeded", lambda: bomb(2**30)),
    "a bomb that lies about its size": Case("malformed_model", lambda: lying_bomb(2**28)),
    "a bomb inside a bomb": Case("malformed_model", lambda: zipped({"model.onnx": bomb(2**26)}, deflated=True)),
    "a thousand names for one member": Case("resource_limit_exceeded", lambda: overlapping(1000)),
    "a zip64 record of 2^63 bytes": Case("resource_limit_exceeded", lambda: zip64(2**63)),
    "a zip64 record of 2^40 bytes": Case("resource_limit_exceeded", lambda: zip64(2**40)),
    "a directory elsewhere": Case("malformed_model", lambda: patched(bundle(AT), _END, 16, "<I", 2**32 - 2)),
    "a directory of another length": Case("malformed_model", lambda: patched(bundle(AT), _END, 12, "<I", 3)),
    "a directory that counts 65535 members": Case("certified", lambda: patched(bundle(AT), _END, 10, "<H", 65535)),
    "a member at another place": Case("malformed_model", lambda: patched(bundle(AT), _ENTRY, 42, "<I", 7)),
    "a member beyond the end": Case("malformed_model", lambda: patched(bundle(AT), _ENTRY, 42, "<I", 2**31)),
    "a directory that renames": Case("malformed_model", lambda: with_directory_name(b"v.bin")),
    "a directory that climbs": Case("malformed_model", lambda: with_directory_name(b"../ab")),
    "a wrong checksum": Case("malformed_model", lambda: patched(bundle(AT), _ENTRY, 16, "<I", 1, last=True)),
    "an unknown compression": Case("unsupported_model", lambda: patched(bundle(AT), _ENTRY, 10, "<H", 99)),
    "a comment of 64 kilobytes that is not there": Case(
        "certified", lambda: patched(bundle(AT), _END, 20, "<H", 65535)
    ),
    "two archives in one": Case("unknown_format", lambda: _appended(zipped({"a.txt": b"x"}))),
    "sixty thousand members": Case("resource_limit_exceeded", lambda: zipped({"a.onnx": b"x"}) + _ENTRY * 70_000),
    "ten thousand empty members": Case(
        "unsupported_model", lambda: zipped({f"{number}.onnx": b"" for number in range(10_000)})
    ),
    "a model called like a path": Case("malformed_model", lambda: zipped({"a/../../model.onnx": linear_model(AT)})),
    **_cut(),
}
