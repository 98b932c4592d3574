"""Linear maps of signals: kernels at offsets of a torus, and what torus they need."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from certifier.frequencies.views import Grid, NotCovered, Signal, View, as_grid
from certifier.operators import Convolution, Kronecker
from certifier.proof.rounding import TINY, add_upper, mul_upper

Array = NDArray[Any]
ROUNDED_ONCE = 2.0**-53 * (1 + 2.0**-50)
MAXIMAL_KERNEL = 2**27
"""Entries of one kernel that is written out."""
MAXIMAL_KERNELS = 2**28
"""Entries of all kernels together: a grouped convolution of few weights is written out for all pairs of channels."""


def demand_writable(*extents: int) -> None:
    """A kernel of these extents is written out.

    Raises: NotCovered for one of too many entries, before it is there.
    """
    if math.prod(extents) > MAXIMAL_KERNEL:
        raise NotCovered("a kernel is too large to be written out")


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """out += Σ_t kernel[:, :, t] source[· + offsets[t]]; kernel None is the identity.

    Shapes: kernel (c_out, c_in, T); offsets (T, axes).
    """

    source: Signal
    kernel: Array | None
    offsets: Array
    relative_error: float

    def scaled(self, factors: Array, error: float) -> Part:
        """diag(factors) times this; one rounding more."""
        kernel = self.kernel
        if kernel is None:
            demand_writable(self.source.channels, self.source.channels)
            kernel = np.eye(self.source.channels)[:, :, None]
        factors = factors[:, None, None]
        product = factors * kernel
        lost = (np.abs(product) < TINY) & (factors != 0) & (kernel != 0)
        if not np.isfinite(product).all() or lost.any():
            raise NotCovered("its weights and the scaling behind them overflow or underflow when they are joined")
        total = np.float64(0.0)
        for each in (self.relative_error, error, ROUNDED_ONCE):
            # (1 + total)(1 + each) - 1, rounded up.
            total = add_upper(add_upper(total, each), mul_upper(total, each))
        return replace(self, kernel=product, relative_error=float(total))


@dataclass(frozen=True, kw_only=True, eq=False)
class Map:
    """A sum of parts, every strides-th point kept (None: one point); `reach` is the least torus that it needs."""

    output: Signal
    parts: tuple[Part, ...]
    strides: tuple[int, ...] | None
    reach: tuple[int, ...]

    @property
    def keeps_torus(self) -> bool:
        return self.strides is not None and math.prod(self.strides) == 1


def identity_part(signal: Signal) -> Part:
    """out += source."""
    return Part(source=signal, kernel=None, offsets=np.zeros((1, len(signal.box)), dtype=np.int64), relative_error=0.0)


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """What one axis of a zero-padded convolution reads: position stride·q + dilation·t - pad for output q, tap t."""

    taps: int
    outputs: int
    stride: int
    dilation: int
    pad: int


def reads(grid: Grid, box: tuple[int, ...], axes: list[Geometry]) -> tuple[list[Array], tuple[int, ...], bool]:
    """Offsets per axis, the least torus per axis, and whether anything outside the box is read.

    A torus of N points with every read position p < N and, where p < 0, N + p outside the box, reads what the padded
    convolution reads, if all outside the box is zero (`docs/proofs/torus.md`, Theorem 1).

    Raises: NotCovered if what the convolution reads as zero lies in the box.
    """
    offsets, reach, outside = [], [], False
    for axis, geometry in enumerate(axes):
        taps = geometry.dilation * np.arange(geometry.taps) - geometry.pad
        flat = geometry.stride * np.arange(geometry.outputs)[:, None] + taps
        place = grid.scale[axis] * flat + grid.offset[axis]
        valid = grid.valid[axis]
        wanted = (flat >= 0) & (flat < len(valid)) & valid[np.clip(flat, 0, len(valid) - 1)]
        inside = (place >= 0) & (place < box[axis])
        if not np.array_equal(wanted, inside):
            raise NotCovered("a tensor is cropped and then padded with zeros")
        outside |= not inside.all()
        stride = grid.scale[axis] * geometry.stride
        offsets.append(grid.scale[axis] * taps + grid.offset[axis])
        ends = place.max() + 1, box[axis] - min(0, place.min())
        reach.append(int(max(box[axis], stride * geometry.outputs, *ends)))
    return offsets, tuple(reach), outside


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """A convolution with a kernel [c_out, c_in/groups, *taps] and the geometry of each axis, on a tensor of `shape`."""

    kernel: Array
    groups: int
    shape: tuple[int, ...]
    axes: tuple[Geometry, ...]
    relative_error: float

    @property
    def output_shape(self) -> tuple[int, ...]:
        return tuple(axis.outputs for axis in self.axes)

    @staticmethod
    def of(convolution: Convolution) -> Windows:
        """A convolution as it stands."""
        geometry = zip(
            convolution.kernel.shape[2:],
            convolution.output_shape,
            convolution.strides,
            convolution.dilations,
            convolution.pads_before,
            strict=True,
        )
        return Windows(
            kernel=np.asarray(convolution.kernel, dtype=np.float64),
            groups=convolution.groups,
            shape=convolution.input_shape,
            axes=tuple(Geometry(taps=t, outputs=o, stride=s, dilation=d, pad=p) for t, o, s, d, p in geometry),
            relative_error=convolution.weight_error,
        )

    @staticmethod
    def selection(channels: int, shape: tuple[int, ...]) -> Windows:
        """The identity on a tensor [channels, *shape]: what makes a signal of a view of another."""
        return Windows(
            kernel=np.ones((channels, 1, *(1 for _ in shape))),
            groups=channels,
            shape=shape,
            axes=tuple(Geometry(taps=1, outputs=n, stride=1, dilation=1, pad=0) for n in shape),
            relative_error=0.0,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """A part with its strides, the least torus it needs, and whether it reads outside its source's box."""

    part: Part
    strides: tuple[int, ...]
    reach: tuple[int, ...]
    outside: bool


def convolved(view: View, windows: Windows) -> Reading:
    """The convolution of a view."""
    signal, channels = view.signal, windows.kernel.shape[1] * windows.groups
    grid = as_grid(view, channels, windows.shape)
    offsets, reach, outside = reads(grid, signal.box, list(windows.axes))
    part = Part(
        source=signal,
        kernel=_spread(windows.kernel, windows.groups, grid, signal.channels),
        offsets=np.array(list(itertools.product(*offsets)), dtype=np.int64),
        relative_error=windows.relative_error,
    )
    strides = tuple(scale * axis.stride for scale, axis in zip(grid.scale, windows.axes, strict=True))
    return Reading(part=part, strides=strides, reach=reach, outside=outside)


def _spread(kernel: Array, groups: int, grid: Grid, channels: int) -> Array:
    """The kernel over all channels of the signal, zero between groups. Shapes: (c_out, channels, T)."""
    outputs, per_group = kernel.shape[:2]
    taps = math.prod(kernel.shape[2:])
    demand_writable(outputs, channels, taps)
    if groups == 1 and np.array_equal(grid.channels, np.arange(channels)):
        return kernel.reshape(outputs, channels, taps)
    result = np.zeros((outputs, channels, taps))
    flat = kernel.reshape(groups, outputs // groups, per_group, taps)
    for group in range(groups):
        columns = grid.channels[group * per_group : (group + 1) * per_group]
        kept = np.flatnonzero(columns >= 0)
        rows = np.arange(group * (outputs // groups), (group + 1) * (outputs // groups))
        result[np.ix_(rows, columns[kept])] = flat[group][:, kept]
    return result


def dense_part(view: View, matrix: Array, error: float) -> Part:
    """y = W x for a value x, whatever the order of its entries: one tap per point of the box."""
    signal = view.signal
    indices = view.all_indices
    kept = np.flatnonzero(indices >= 0)
    if len(np.unique(indices[kept])) != len(kept):
        raise NotCovered("an entry is read twice by one matrix")
    demand_writable(matrix.shape[0], signal.size)
    kernel = np.zeros((matrix.shape[0], signal.size))
    kernel[:, indices[kept]] = matrix[:, kept]
    points = np.unravel_index(np.arange(signal.points), signal.box)
    return Part(
        source=signal,
        kernel=kernel.reshape(matrix.shape[0], signal.channels, signal.points),
        offsets=np.stack(points, axis=1).astype(np.int64),
        relative_error=error,
    )


def pooling_windows(operator: Kronecker, channels: int, shape: tuple[int, ...], outputs: tuple[int, ...]) -> Windows:
    """The depthwise convolution that equals I ⊗ W entry by entry, W from points of `shape` to points of `outputs`.

    Raises: NotCovered if there is none (border windows that divide by fewer points, say).
    """
    if operator.core_shape != (math.prod(outputs), math.prod(shape)):
        raise NotCovered("a pooling reads a tensor in another shape than it was written")
    rows, columns, values = _entries(operator)
    target = np.stack(np.unravel_index(rows, outputs), axis=1)
    source = np.stack(np.unravel_index(columns, shape), axis=1)
    strides = np.array([_stride(target[:, axis], source[:, axis], outputs[axis]) for axis in range(len(shape))])
    delta = source - target * strides
    first, last = delta.min(axis=0), delta.max(axis=0)
    kernel = np.zeros(tuple(int(n) for n in last - first + 1))
    kernel[tuple((delta - first).T)] = values
    axes, count = [], 1
    for axis, n in enumerate(shape):
        place = strides[axis] * np.arange(outputs[axis])[:, None] + np.arange(first[axis], last[axis] + 1)
        count *= int(np.count_nonzero((place >= 0) & (place < n)))
        axes.append(
            Geometry(
                taps=kernel.shape[axis],
                outputs=outputs[axis],
                stride=int(strides[axis]),
                dilation=1,
                pad=-int(first[axis]),
            )
        )
    # Equal entry by entry: the same weight wherever the offset is the same, and no entry missing.
    if np.any(kernel[tuple((delta - first).T)] != values) or count != len(values) or np.any(kernel == 0):
        raise NotCovered("a pooling is not the same at every point")
    return Windows(
        kernel=np.broadcast_to(kernel, (channels, 1, *kernel.shape)),
        groups=channels,
        shape=shape,
        axes=tuple(axes),
        relative_error=operator.weight_error,
    )


def equal_windows(operator: Kronecker) -> tuple[Kronecker, Array]:
    """(I ⊗ O, h) with W = diag(h) O and O of zeros and ones.

    Raises: NotCovered if some row of W holds different weights.
    """
    rows, columns, values = _entries(operator)
    heights = np.zeros(operator.core_shape[0])
    heights[rows] = values
    if np.any(heights[rows] != values) or np.any(heights == 0):
        raise NotCovered("a pooling is not the same at every point")
    ones = sparse.csr_array((np.ones(len(values)), (rows, columns)), shape=operator.core_shape)
    return Kronecker(ones, before=operator.before, after=operator.after, weight_error=0.0), heights


def _entries(operator: Kronecker) -> tuple[Array, Array, Array]:
    """Rows, columns and values of all entries of W but zeros."""
    entries = sparse.coo_array(operator.matrix)
    kept = entries.data != 0
    return entries.row[kept], entries.col[kept], np.asarray(entries.data[kept], dtype=np.float64)


def _stride(target: Array, source: Array, outputs: int) -> int:
    """How far the last point read moves from the first window to the second."""
    ends = np.full(outputs, -1)
    np.maximum.at(ends, target, source)
    return int(max(1, ends[1] - ends[0])) if outputs > 1 else 1
