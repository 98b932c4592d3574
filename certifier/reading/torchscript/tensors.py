"""Tensor descriptions -> arrays, every index checked before a number is read."""

from __future__ import annotations

import math

import numpy as np

from certifier.errors import MalformedModel, UnsupportedModel
from certifier.graph import Array
from certifier.limits import Limits
from certifier.reading.emitting import array_dtype
from certifier.reading.torchscript.archive import Archive
from certifier.reading.torchscript.pickle import TensorSpec

_DTYPES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
_MOST_AXES = 32


def dtype_of(spec: TensorSpec) -> str:
    """numpy's name of a tensor's element type.

    Raises: UnsupportedModel for complex, quantised and eight-bit floating tensors.
    """
    if spec.storage.kind not in _DTYPES:
        raise UnsupportedModel(
            f"tensor {spec.folder}/{spec.storage.key} is a {spec.storage.kind}, which is not supported"
        )
    return _DTYPES[spec.storage.kind]


class Tensors:
    """The tensors of one archive; each storage is read once."""

    def __init__(self, archive: Archive, *, limits: Limits) -> None:
        self._archive, self._limits = archive, limits
        self._storages: dict[tuple[str, str, str], Array] = {}
        self._demand_byte_order()

    def array(self, spec: TensorSpec) -> Array:
        """The array that `spec` describes.

        Raises: MalformedModel if it reaches outside its storage, UnsupportedModel, ResourceLimitExceeded.
        """
        where = f"{spec.folder}/{spec.storage.key}"
        if len(spec.shape) != len(spec.strides) or len(spec.shape) > _MOST_AXES:
            raise MalformedModel(f"tensor {where} has {len(spec.shape)} sizes and {len(spec.strides)} strides")
        size = math.prod(spec.shape)
        self._limits.demand("elements", size, f"tensor {where}")
        storage = self._storage(spec, where)
        if size == 0:
            return np.zeros(spec.shape, dtype=storage.dtype)
        last = spec.offset + sum((length - 1) * step for length, step in zip(spec.shape, spec.strides, strict=True))
        if last >= storage.size:
            raise MalformedModel(f"tensor {where} reaches element {last} of a storage of {storage.size}")
        # Steps of axes of one element are never taken; they may be any number, also one that no pointer can hold.
        steps = tuple(
            step * storage.itemsize if length > 1 else 0 for length, step in zip(spec.shape, spec.strides, strict=True)
        )
        view = np.ndarray(spec.shape, storage.dtype, storage, spec.offset * storage.itemsize, steps)
        return np.ascontiguousarray(view).reshape(spec.shape)

    def _storage(self, spec: TensorSpec, where: str) -> Array:
        key = (spec.folder, spec.storage.key, spec.storage.kind)
        if key not in self._storages:
            dtype = array_dtype(dtype_of(spec))
            name = f"{spec.folder}/{spec.storage.key}"
            self._limits.demand("elements", spec.storage.count, f"tensor {where}")
            if self._archive.size(name) != spec.storage.count * dtype.itemsize:
                raise MalformedModel(
                    f"tensor {where} declares {spec.storage.count} elements of {dtype}, but its member has "
                    f"{self._archive.size(name)} bytes"
                )
            blob = self._archive.blob(name)
            if dtype == np.bool_ and blob.strip(b"\x00\x01"):
                raise MalformedModel(f"tensor {where} holds truth values other than 0 and 1")
            self._storages[key] = np.frombuffer(blob, dtype=dtype)
        return self._storages[key]

    def _demand_byte_order(self) -> None:
        if "byteorder" in self._archive and self._archive.blob("byteorder", largest=64).strip() != b"little":
            raise UnsupportedModel("the archive was written on a big-endian machine; save it on a little-endian one")
