"""A zip archive nobody vouches for -> its members, in memory.

Nothing is ever extracted: members are bytes under names that cannot leave the archive.  An archive is refused whole if
one of its members is a link, is encrypted, has two meanings of its name, or would unpack beyond the limits.
"""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from types import MappingProxyType

from certifier.errors import MalformedModel, ResourceLimitExceeded, UnsupportedModel
from certifier.limits import Limits

LARGEST_MEMBER_COUNT = 65_536
_DIRECTORY_ENTRY = b"PK\x01\x02"
_ENCRYPTED = 0x1


def read_archive(data: bytes, *, limits: Limits, compressed: bool) -> Mapping[str, bytes]:
    """The members of a zip archive by name, without its folders.

    `compressed` allows deflated members; formats that promise stored ones do not.
    Raises: MalformedModel, UnsupportedModel, ResourceLimitExceeded.
    """
    _demand_few(data)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return MappingProxyType(_members(archive, limits, compressed))
    except (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
        raise MalformedModel(f"the zip archive is damaged: {error}") from error
    except (ValueError, UnicodeError, IndexError, RuntimeError) as error:
        raise MalformedModel(f"the zip archive cannot be read: {error}") from error


def read_member_names(data: bytes) -> list[str]:
    """The names in the archive's directory, whatever they are; nothing is unpacked.

    Raises: MalformedModel, ResourceLimitExceeded.
    """
    _demand_few(data)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, OSError, NotImplementedError) as error:
        raise MalformedModel(f"the zip archive is damaged: {error}") from error
    except (ValueError, UnicodeError, IndexError, RuntimeError, struct.error) as error:
        raise MalformedModel(f"the zip archive cannot be read: {error}") from error


def _demand_few(data: bytes) -> None:
    # Every entry of the directory begins with this mark, so more entries than marks cannot be.
    count = data.count(_DIRECTORY_ENTRY)
    if count > LARGEST_MEMBER_COUNT:
        raise ResourceLimitExceeded("archive_members", limit=LARGEST_MEMBER_COUNT, actual=count)


def _members(archive: zipfile.ZipFile, limits: Limits, compressed: bool) -> dict[str, bytes]:
    entries, total = [], 0
    names = set[str]()
    for entry in archive.infolist():
        _demand_plain(entry, compressed)
        if entry.filename in names:
            raise MalformedModel(f"the archive holds two members called {entry.filename!r}")
        names.add(entry.filename)
        total += entry.file_size
        limits.demand("model_bytes", total, f"archive member {entry.filename!r}")
        if not entry.filename.endswith("/"):
            entries.append(entry)
    return {entry.filename: _content(archive, entry) for entry in entries}


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    with archive.open(entry) as member:
        # One byte more than promised shows a member that unpacks to more.
        content = member.read(entry.file_size + 1)
    if len(content) != entry.file_size:
        raise MalformedModel(f"archive member {entry.filename!r} is not as long as the archive says")
    return content


def _demand_plain(entry: zipfile.ZipInfo, compressed: bool) -> None:
    name = entry.filename
    parts = name.removesuffix("/").split("/")
    if entry.orig_filename != name or not name.isprintable() or "\\" in name or ":" in parts[0]:
        raise MalformedModel(f"the archive member name {entry.orig_filename!r} is not allowed")
    if any(part in ("", ".", "..") for part in parts):
        raise MalformedModel(f"the archive member name {name!r} would leave the archive")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise MalformedModel(f"archive member {name!r} is a link or a device, not a file")
    if entry.flag_bits & _ENCRYPTED:
        raise UnsupportedModel(f"archive member {name!r} is encrypted")
    if entry.compress_type == zipfile.ZIP_STORED:
        if entry.compress_size != entry.file_size:
            raise MalformedModel(f"archive member {name!r} is stored with two different sizes")
    elif not compressed:
        raise MalformedModel(f"archive member {name!r} is compressed, which PyTorch never writes")
    elif entry.compress_type != zipfile.ZIP_DEFLATED:
        raise UnsupportedModel(f"archive member {name!r} is compressed by a method other than deflate")
