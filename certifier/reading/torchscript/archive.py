"""A zip of members held in memory: listed, checked, and read one by one; no name in it is ever used as a path."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib

from certifier.errors import MalformedModel, ResourceLimitExceeded, UnsupportedModel
from certifier.limits import Limits

MOST_MEMBERS = 50_000
LARGEST_TEXT = 16 * 2**20
"""Bytes of all compressed members that are read: code, and nothing else, is ever compressed."""
_ENTRY = b"PK\x01\x02"
_EXPORT = (
    "it holds weights but no program: load it in PyTorch and export the module in eval mode with "
    "torch.jit.trace(model, example).save('model.pt'), torch.export or torch.onnx.export"
)
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,  # encrypted members, and compression methods that do not exist (NotImplementedError)
    ValueError,
    OverflowError,
)


class Archive:
    """The members of one TorchScript archive, without the folder that they all lie in."""

    def __init__(self, data: bytes, *, limits: Limits) -> None:
        """List and check the members.

        Raises: MalformedModel, ResourceLimitExceeded; UnsupportedModel for archives that hold no code.
        """
        self.limits = limits
        self._text = 0
        entries = data.count(_ENTRY)
        if entries > MOST_MEMBERS:
            raise ResourceLimitExceeded("archive members", limit=MOST_MEMBERS, actual=entries)
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
            listed = self._zip.infolist()
        except _ZIP_ERRORS as error:
            raise MalformedModel(f"the zip archive cannot be read: {error}") from error
        self._members: dict[str, zipfile.ZipInfo] = {}
        roots, stored = set[str](), 0
        for info in listed:
            root, name = _checked_name(info)
            roots.add(root)
            if name in self._members:
                raise MalformedModel(f"the archive holds two members called {name!r}")
            if info.compress_type == zipfile.ZIP_STORED:
                if info.file_size != info.compress_size:
                    raise MalformedModel(f"stored member {name!r} declares two different sizes")
                stored += info.file_size
            self._members[name] = info
        if stored > len(data):
            # Members that lie on top of one another multiply a small archive.
            raise MalformedModel(f"the members claim {stored} bytes, more than the archive's {len(data)}")
        if len(roots) > 1:
            raise MalformedModel("the members do not all lie in one folder")

    def __contains__(self, name: str) -> bool:
        return name in self._members

    @property
    def names(self) -> tuple[str, ...]:
        """Every member's name, in the archive's order."""
        return tuple(self._members)

    def size(self, name: str) -> int:
        """The size in bytes that a member declares."""
        return self._info(name).file_size

    def blob(self, name: str, *, largest: int | None = None) -> bytes:
        """The bytes of a stored (uncompressed) member.

        Raises: MalformedModel if it is missing, compressed or damaged; ResourceLimitExceeded above `largest` bytes.
        """
        info = self._info(name)
        if info.compress_type != zipfile.ZIP_STORED:
            raise MalformedModel(f"member {name!r} is compressed, which PyTorch never does with data")
        if largest is not None and info.file_size > largest:
            raise ResourceLimitExceeded("bytes", limit=largest, actual=info.file_size, where=f"member {name!r}")
        return self._read(info, name)

    def text(self, name: str) -> str:
        """A member of source text, which may be deflated.

        Raises: MalformedModel, ResourceLimitExceeded.
        """
        info = self._info(name)
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise MalformedModel(f"member {name!r} is compressed by a method that PyTorch does not use")
        self._text += info.file_size
        if self._text > LARGEST_TEXT:
            raise ResourceLimitExceeded("source bytes", limit=LARGEST_TEXT, actual=self._text, where=f"{name!r}")
        try:
            return self._read(info, name).decode("utf-8")
        except UnicodeDecodeError as error:
            raise MalformedModel(f"member {name!r} is not UTF-8 text") from error

    def demand_program(self) -> None:
        """The archive holds a module and its code.

        Raises: UnsupportedModel, MalformedModel.
        """
        has_code = any(name.startswith("code/") for name in self._members)
        if "bytecode.pkl" in self._members and not has_code:
            raise UnsupportedModel(
                "this is a mobile archive with byte code only; save the scripted module with torch.jit.save instead"
            )
        if "data.pkl" in self._members and not has_code:
            raise UnsupportedModel(f"this is a PyTorch state dict or a pickled module; {_EXPORT}")
        if "data.pkl" not in self._members:
            raise MalformedModel("the zip archive holds no TorchScript module (no data.pkl)")

    def _info(self, name: str) -> zipfile.ZipInfo:
        if name not in self._members:
            raise MalformedModel(f"the archive lacks the member {name!r}")
        return self._members[name]

    def _read(self, info: zipfile.ZipInfo, name: str) -> bytes:
        try:
            with self._zip.open(info) as stream:
                content = stream.read(info.file_size)
                rest = stream.read(1)
        except _ZIP_ERRORS as error:
            raise MalformedModel(f"member {name!r} cannot be read: {error}") from error
        if len(content) != info.file_size or rest:
            raise MalformedModel(f"member {name!r} is not as long as it declares")
        return content


def refuse_legacy(data: bytes) -> None:
    """`data` starts as a zip archive does.

    Raises: UnsupportedModel for a bare pickle, MalformedModel for anything else that is no zip.
    """
    if data.startswith(b"PK\x03\x04"):
        return
    if data[:1] == b"\x80" and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise UnsupportedModel(f"this is a Python pickle (a PyTorch state dict or a pickled module); {_EXPORT}")
    raise MalformedModel("the bytes are not a zip archive")


def _checked_name(info: zipfile.ZipInfo) -> tuple[str, str]:
    """The folder and the name inside it of a member that is a plain file."""
    full = info.orig_filename
    parts = full.split("/")
    if "\x00" in full or "\\" in full or full.startswith("/") or ".." in parts or ":" in parts[0]:
        raise MalformedModel(f"the member name {full!r} is not one that PyTorch writes")
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        raise MalformedModel(f"member {full!r} is a symbolic link")
    if info.flag_bits & 0x1:
        raise MalformedModel(f"member {full!r} is encrypted")
    root, _, name = full.partition("/")
    if not name or info.is_dir():
        raise MalformedModel(f"member {full!r} is not a file in the archive's folder")
    return root, name
