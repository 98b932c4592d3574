"""The data folder: one server at a time, its secret keys, and the folders of half-received uploads."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import uuid
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from certifier.search.state import Seal
from service.settings import SEAL_KEY_BYTES, Settings


class DataDirectoryInUse(RuntimeError):
    """Another server uses the data folder."""


class DataDirectory:
    """The folder that this process alone owns until `close`."""

    def __init__(self, settings: Settings) -> None:
        self.path = settings.data_dir.resolve()
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.path / "lock", "a")  # held open for the life of the process
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise DataDirectoryInUse(f"another server uses {self.path}") from error
        self._incoming = self.path / "incoming"
        self.sweep()

    def close(self) -> None:
        """Let another process have the folder."""
        self._lock.close()

    def sweep(self) -> None:
        """Remove half-received uploads of a killed process."""
        shutil.rmtree(self._incoming, ignore_errors=True)
        self._incoming.mkdir(mode=0o700)

    def new_folder(self) -> Path:
        """A fresh folder for one upload; `discard` removes it."""
        folder = self._incoming / uuid.uuid4().hex
        folder.mkdir(mode=0o700)
        return folder

    def discard(self, folder: Path) -> None:
        """Remove an upload's folder."""
        shutil.rmtree(folder, ignore_errors=True)

    def owner(self) -> str:
        """A name for whoever serves from this folder, the same after a restart."""
        return _kept_bytes(self.path / "owner", 16).hex()

    def seal(self, settings: Settings) -> Seal:
        """The seal under which this service keeps proved bounds."""
        if settings.seal_key is not None:
            return Seal(bytes.fromhex(settings.seal_key.get_secret_value()))
        return Seal(_kept_bytes(self.path / "seal.key", SEAL_KEY_BYTES))

    def signing_key(self, settings: Settings) -> Ed25519PrivateKey:
        """The key under which this service signs certificates.

        Raises: ValueError for a file that holds no such key, OSError for one that cannot be read.
        """
        if settings.signing_key is None:
            return Ed25519PrivateKey.from_private_bytes(_kept_bytes(self.path / "signing.key", 32))
        try:
            key = load_pem_private_key(settings.signing_key.read_bytes(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ValueError(f"{settings.signing_key} holds no private key in PEM: {error}") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError(f"{settings.signing_key} holds another kind of key than Ed25519")
        return key


def _kept_bytes(path: Path, count: int) -> bytes:
    """The random bytes of `path`, made once: complete under their name or not there at all."""
    if not path.exists():
        partial = path.with_name(path.name + ".partial")
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(count))
            file.flush()
            os.fsync(file.fileno())
        os.rename(partial, path)
    data = path.read_bytes()
    if len(data) != count:
        raise ValueError(f"{path} must hold {count} bytes, not {len(data)}")
    return data
