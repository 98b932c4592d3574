"""Blobs of the model versions, in a local folder or an object storage, one folder per version.

A folder's name is drawn at random and never reused, so that writing needs no lock and deleting can be repeated.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.store import LocalStore, ObjectStore, from_url

FOLDER = "versions"
_STAGED = re.compile(r".*#\d+$")
"""How the local storage names a file it has not finished writing."""


class Blobs:
    """Files of model versions by folder (`prefix`) and name."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._root: Path | None = None
        if parts.scheme == "file":
            self._root = Path(unquote(parts.path))
            self._store: ObjectStore = LocalStore(self._root, mkdir=True, automatic_cleanup=True)
        else:
            self._store = from_url(url)

    def put_file(self, prefix: str, name: str, source: Path) -> None:
        """Keep the content of `source`."""
        obstore.put(self._store, f"{FOLDER}/{prefix}/{name}", source)

    def put(self, prefix: str, name: str, data: bytes) -> None:
        """Keep `data`."""
        obstore.put(self._store, f"{FOLDER}/{prefix}/{name}", data)

    def get(self, prefix: str, name: str) -> bytes:
        """The bytes kept under that name.

        Raises: FileNotFoundError.
        """
        return bytes(obstore.get(self._store, f"{FOLDER}/{prefix}/{name}").bytes())

    def remove(self, prefix: str) -> None:
        """Remove the folder; removing it again does nothing."""
        for batch in obstore.list(self._store, f"{FOLDER}/{prefix}/"):
            for entry in batch:
                try:
                    obstore.delete(self._store, entry["path"])
                except FileNotFoundError:
                    continue  # another server removed it at the same time

    def prefixes(self) -> set[str]:
        """The folders that hold at least one blob."""
        listed = obstore.list_with_delimiter(self._store, f"{FOLDER}/")
        return {str(path).rstrip("/").rsplit("/", 1)[-1] for path in listed["common_prefixes"]}

    def remove_unfinished_files(self) -> None:
        """Remove what a killed process left half-written; object storages do this by themselves.

        Only for a local folder that no other process is writing to.
        """
        if self._root is None:
            return
        for folder, _, names in os.walk(self._root, topdown=False):
            for name in names:
                if _STAGED.match(name):
                    (Path(folder) / name).unlink(missing_ok=True)
            if folder != str(self._root) and not os.listdir(folder):
                os.rmdir(folder)

    def check(self) -> None:
        """The storage answers; any exception says that it does not."""
        obstore.list_with_delimiter(self._store, f"{FOLDER}/readiness/")
        if self._root is not None and not os.access(self._root, os.W_OK):
            raise PermissionError(f"the storage folder {self._root} is not writable")
