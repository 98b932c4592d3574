"""A folder that keeps search state and a seal key between runs, so that certifying again starts warm.

State is a starting point and never evidence, whoever wrote it.  Bounds are taken over under the seal alone, so the
key has to be the user's own and nobody else's to read.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from certifier.errors import StateCorrupted
from certifier.search.state import Seal, SearchState
from service.commandline.output import warn

KEY_BYTES = 32
KEY_FILE = "seal.key"
SUFFIX = ".state.npz"


class StateFolder:
    """The kept states of models, by their names, and the key that seals their bounds.

    Raises: OSError if the folder can neither be made nor used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def seal(self) -> Seal:
        """The seal under the folder's key, which is made at first use and replaced where others could know it."""
        path = self._path / KEY_FILE
        key = _private_bytes(path)
        if key is None:
            key = secrets.token_bytes(KEY_BYTES)
            _replace(path, key)
        return Seal(key)

    def read(self, name: str) -> SearchState:
        """What was kept of the model `name`, or else of the model certified last; empty if nothing can be read."""
        own = self._path / (name + SUFFIX)
        others = sorted(self._path.glob("*" + SUFFIX), key=lambda path: path.stat().st_mtime)
        path = own if own.exists() else (others[-1] if others else None)
        if path is None:
            return SearchState()
        try:
            return SearchState.from_bytes(path.read_bytes())
        except (StateCorrupted, OSError) as error:
            warn(f"{path.name} is ignored: {error}")
            return SearchState()

    def keep(self, name: str, state: SearchState) -> None:
        """Keep `state` for the next run."""
        _replace(self._path / (name + SUFFIX), state.to_bytes())


def unkept_seal() -> Seal:
    """A seal that nobody will ever know again: bounds under it are proved in this run."""
    return Seal(secrets.token_bytes(KEY_BYTES))


def _private_bytes(path: Path) -> bytes | None:
    """The key in `path`; None where there is none that only this user could have written or read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        warn(f"{path.name} is replaced: {error.strerror}")
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            warn(f"{path.name} is replaced: others could read or write it")
            return None
        key = file.read(KEY_BYTES + 1)
    if len(key) != KEY_BYTES:
        warn(f"{path.name} is replaced: it does not hold a key")
        return None
    return key


def _replace(path: Path, data: bytes) -> None:
    """Write `data` under its name at once, readable by this user alone."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
