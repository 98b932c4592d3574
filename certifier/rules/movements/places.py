"""Where outputs are read from: the one form that all movements share."""

from __future__ import annotations

import numpy as np

from certifier.operators import Identity, Operator, Rearrange
from certifier.rules.building import linear, size_of
from certifier.rules.reductions import normalised_axes
from certifier.rules.registry import Site
from certifier.terms import Affine


def places(site: Site) -> np.ndarray:
    """The flat place of every entry of live input 0, in its tensor shape."""
    site.live(0)
    shape = site.shape(0)
    return np.arange(size_of(shape), dtype=np.int64).reshape(shape)


def moved(site: Site, read: np.ndarray, *, output: str | None = None) -> Affine:
    """y = x[read], and 0 where `read` is -1."""
    return linear(site, _moving(read, size_of(site.shape(0))), shape=read.shape, output=output)


def _moving(read: np.ndarray, columns: int) -> Operator:
    if read.size == columns and np.array_equal(read.reshape(-1), np.arange(columns)):
        return Identity(columns)
    return Rearrange(read.reshape(-1), columns=columns)


def integers_of(site: Site, index: int, role: str) -> tuple[int, ...]:
    """A constant input that is a list of integers."""
    return tuple(int(value) for value in np.asarray(site.constant(index, role)).reshape(-1))


def axis_of(site: Site, default: int) -> int:
    """The attribute `axis`, counted from the front."""
    return normalised_axes(site, (site.integer("axis", default),), len(site.shape(0)))[0]


def within(site: Site, indices: np.ndarray, size: int) -> np.ndarray:
    """`indices` counted from the front, all inside an axis of `size`."""
    if indices.dtype.kind not in "iu" or np.any((indices < -size) | (indices >= size)):
        raise site.refuse(f"its indices are outside of an axis of {size}")
    return np.where(indices < 0, indices + size, indices).astype(np.int64)
