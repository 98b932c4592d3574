"""Where the entries of a value lie: in which channel of which signal, at which point of its box."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[Any]


class NotCovered(Exception):
    """The network, or a part of it, has no form on a torus; the text says why."""


@dataclass(frozen=True, eq=False)
class Signal:
    """A stack of channels on a torus, of which the points of `box` (per axis 0 … n-1) carry the network's values.

    `is_clean`: zero outside the box.  `is_point`: on a torus of one point.
    """

    channels: int
    box: tuple[int, ...]
    is_clean: bool
    is_point: bool

    @property
    def points(self) -> int:
        """Points of the box."""
        return math.prod(self.box)

    @property
    def size(self) -> int:
        """Entries that carry values."""
        return self.channels * self.points


@dataclass(frozen=True, eq=False)
class View:
    """Entry i of a value is entry indices[i] of the signal (channel first, then row-major points), or 0 for -1."""

    signal: Signal
    indices: Indices | None
    """None: entry i is entry i."""

    def rearranged(self, indices: Indices) -> View:
        """The view of y with y_i = x[indices_i], 0 where indices_i = -1."""
        if self.indices is None:
            return View(self.signal, indices)
        return View(self.signal, np.where(indices >= 0, self.indices[indices], -1))

    @property
    def all_indices(self) -> Indices:
        return np.arange(self.signal.size) if self.indices is None else self.indices

    @property
    def is_whole(self) -> bool:
        """Every entry of the box is seen exactly once."""
        if self.indices is None:
            return True
        seen = self.indices[self.indices >= 0]
        return len(self.indices) == self.signal.size == len(np.unique(seen))


@dataclass(frozen=True, eq=False)
class Grid:
    """Entry (c, q) of a tensor is channel channels[c] at point scale·q + offset, or 0 where either is not valid.

    Shapes: channels (C,), -1 where all is 0; per axis a scale, an offset and which coordinates are valid.
    """

    channels: Indices
    scale: tuple[int, ...]
    offset: tuple[int, ...]
    valid: tuple[Indices, ...]


def as_grid(view: View, channels: int, shape: tuple[int, ...]) -> Grid:
    """The view as a grid of a tensor [channels, *shape].

    Raises: NotCovered if it is none, or reads one channel twice.
    """
    signal = view.signal
    if len(shape) != len(signal.box):
        raise NotCovered(f"a tensor of {len(shape)} spatial axes is read from one of {len(signal.box)}")
    if view.indices is None and (channels, shape) == (signal.channels, signal.box):
        ones, zeros = (1,) * len(shape), (0,) * len(shape)
        return Grid(np.arange(channels), ones, zeros, tuple(np.ones(n, dtype=bool) for n in shape))
    if len(view.all_indices) != channels * math.prod(shape):
        raise NotCovered("a tensor is read in another shape than it was written")
    table = view.all_indices.reshape(channels, -1)
    valid = table >= 0
    channel_valid, point_valid = np.asarray(valid.any(axis=1)), np.asarray(valid.any(axis=0))
    if not np.array_equal(valid, np.outer(channel_valid, point_valid)) or not valid.any():
        raise NotCovered("zeros lie in a tensor in another way than as channels or borders")
    kept = table[channel_valid][:, point_valid]
    source = kept // signal.points
    place = kept % signal.points
    if np.any(source != source[:, :1]) or np.any(place != place[:1]):
        raise NotCovered("entries are rearranged across channels and points")
    chosen = np.full(channels, -1)
    chosen[channel_valid] = source[:, 0]
    if len(np.unique(source[:, 0])) != len(source):
        raise NotCovered("a channel is read twice")
    scale, offset, per_axis = _axes(signal.box, shape, point_valid, place[0])
    return Grid(chosen, scale, offset, per_axis)


def _axes(
    box: tuple[int, ...], shape: tuple[int, ...], point_valid: Indices, place: Indices
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[Indices, ...]]:
    there = point_valid.reshape(shape)
    at = np.argwhere(there)
    targets = np.stack(np.unravel_index(place, box), axis=1)
    scale, offset, per_axis = [], [], []
    expected = np.ones((), dtype=bool)
    for axis in range(len(shape)):
        first = at[0, axis]
        apart = np.flatnonzero(at[:, axis] != first)
        step = 1
        if len(apart):
            run = at[apart[0], axis] - first
            rise = targets[apart[0], axis] - targets[0, axis]
            step = int(rise // run)
        start = int(targets[0, axis] - step * first)
        if step < 1 or np.any(targets[:, axis] != step * at[:, axis] + start):
            raise NotCovered("points are rearranged in another way than by a shift and a stride")
        scale.append(step)
        offset.append(start)
        coordinates = np.zeros(shape[axis], dtype=bool)
        coordinates[at[:, axis]] = True
        per_axis.append(coordinates)
        expected = np.logical_and.outer(expected, coordinates)
    if not np.array_equal(there, expected):
        raise NotCovered("zeros lie in a tensor in another way than as borders")
    return tuple(scale), tuple(offset), tuple(per_axis)
