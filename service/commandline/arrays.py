"""Arrays from .npy and .npz files, as rows of a model and as labels; never unpickled."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certifier.documents import TensorDescription
from certifier.errors import InvalidInput
from certifier.parts import InputParts, as_rows

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """Inputs that were found in a file: an array, or an archive whose arrays may be those of several inputs."""

    path: Path
    field: str
    array: Array
    by_name: bool

    def rows(self, described: Sequence[TensorDescription]) -> Array:
        """The rows of a model with these inputs; several inputs are the archive's arrays of their names.

        Raises: InvalidInput.
        """
        whole = InputParts.of(described)
        if len(described) == 1 or not self.by_name:
            return as_rows(self.array, whole.row_shape, field=self.field)
        parts = {}
        for tensor in described:
            shape = tuple(size for size in tensor.shape if size is not None)
            field = f"{self.field}.{tensor.name}"
            parts[tensor.name] = as_rows(read_array(self.path, key=tensor.name, field=field), shape, field=field)
        return whole.rows(parts, self.field)


def read_inputs(path: Path, *, key: str | None, field: str) -> InputFile:
    """What `read_array` reads, with all of an archive for later where no key was given.

    Raises: InvalidInput.
    """
    array = read_array(path, key=key, field=field)
    return InputFile(path=path, field=field, array=array, by_name=key is None and zipfile.is_zipfile(path))


def read_array(path: Path, *, key: str | None, field: str) -> Array:
    """The array in a .npy file, which stays on disk until it is used, or the one named `key` in a .npz archive.

    Without a key, the archive's first array.  `field` names the array in errors.
    Raises: InvalidInput.
    """
    try:
        if zipfile.is_zipfile(path):
            return _from_archive(path, key, field)
        if key is not None:
            raise InvalidInput(field, f"{path.name} holds one array, so there is no key {key!r} in it")
        with path.open("rb") as file:
            if file.read(6) != b"\x93NUMPY":
                raise InvalidInput(field, f"{path.name} is neither a .npy nor a .npz file")
        return _on_disk(path)
    except (InvalidInput, MemoryError):
        raise
    except Exception as error:  # damage anywhere: zip directory, header, dtype, length
        raise InvalidInput(field, f"{path.name} cannot be read: {error}") from error


def _from_archive(path: Path, key: str | None, field: str) -> Array:
    with np.load(path, allow_pickle=False) as archive:
        if not archive.files:
            raise InvalidInput(field, f"{path.name} holds no arrays")
        wanted = archive.files[0] if key is None else key
        if wanted not in archive.files:
            raise InvalidInput(field, f"{path.name} has no array {wanted!r}; it has {', '.join(archive.files)}")
        return np.asarray(archive[wanted])


def _on_disk(path: Path) -> Array:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:  # arrays without entries and some dtypes cannot stay on disk
        return np.load(path, allow_pickle=False)


def as_labels(array: Array) -> NDArray[np.int64]:
    """`array` as one whole number per row; axes of extent 1 after the first are dropped.

    Raises: InvalidInput.
    """
    if array.ndim == 0 or math.prod(array.shape[1:]) != 1:
        raise InvalidInput("labels", f"has shape {list(array.shape)}, but one label per row is needed: [N]")
    flat = array.reshape(-1)
    if flat.dtype.kind not in "iufb":
        raise InvalidInput("labels", f"holds {flat.dtype}, not numbers")
    whole = np.abs(flat.astype(np.float64)) < 2**53
    if flat.dtype.kind == "f":
        whole &= flat == np.floor(flat)
    if not whole.all():
        row = int(np.argmin(whole))
        raise InvalidInput("labels", f"row {row} is {flat[row]}, not a class number")
    return flat.astype(np.int64)
