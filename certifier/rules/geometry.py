"""Where the windows of convolutions and poolings lie: strides, pads, dilations and `auto_pad`, axis by axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from certifier.rules.registry import Site
from certifier.vector_functions.pooling import Windows


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One spatial axis: window o reads the positions `o stride - before + t dilation` for every tap t."""

    size: int
    taps: int
    stride: int
    dilation: int
    before: int
    after: int
    windows: int

    @property
    def extent(self) -> int:
        """The positions that one window spans."""
        return self.dilation * (self.taps - 1) + 1

    def positions(self) -> np.ndarray:
        """The position that each window reads at each tap; outside [0, size) it is padding."""
        starts = np.arange(self.windows)[:, None] * self.stride - self.before
        return starts + np.arange(self.taps)[None, :] * self.dilation


def integers_per_axis(site: Site, name: str, count: int, default: int) -> tuple[int, ...]:
    """The attribute `name` with one integer for each of `count` axes."""
    values = site.integers(name, (default,) * count)
    if len(values) != count:
        raise site.refuse(f"attribute {name} has {len(values)} entries for {count}")
    return values


def kernel_shape(site: Site, axes: int, known: tuple[int, ...] | None) -> tuple[int, ...]:
    """The attribute `kernel_shape`, checked against the kernel's own shape where there is one."""
    if known is None and "kernel_shape" not in site.node.attributes:
        raise site.refuse("attribute kernel_shape is missing")
    taps = site.integers("kernel_shape", known if known is not None else ())
    if len(taps) != axes or min(taps, default=0) < 1:
        raise site.refuse(f"kernel_shape {taps} does not fit {axes} spatial axes")
    if known is not None and taps != known:
        raise site.refuse(f"kernel_shape {taps} contradicts the kernel's shape {known}")
    return taps


def spatial_axes(site: Site, sizes: Sequence[int], taps: Sequence[int], *, ceil_mode: bool) -> tuple[Axis, ...]:
    """The geometry of a convolution or pooling over axes of the given sizes.

    Raises: UnsupportedNode for negative pads, kernels that do not fit, and settings on which implementations
    disagree.
    """
    count = len(sizes)
    strides = integers_per_axis(site, "strides", count, 1)
    dilations = integers_per_axis(site, "dilations", count, 1)
    pads = integers_per_axis(site, "pads", 2 * count, 0)
    if min(*strides, *dilations) < 1:
        raise site.refuse("strides and dilations must be positive")
    if min(pads) < 0:
        raise site.refuse("negative pads are not supported; slice the input instead")
    auto_pad = site.text("auto_pad", "NOTSET")
    if auto_pad not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise site.refuse(f"auto_pad {auto_pad!r} is not known")
    if auto_pad != "NOTSET" and any(pads):
        raise site.refuse(f"pads and auto_pad {auto_pad} exclude one another")
    return tuple(
        _axis(site, sizes[i], taps[i], strides[i], dilations[i], pads[i], pads[count + i], auto_pad, ceil_mode)
        for i in range(count)
    )


def _axis(
    site: Site,
    size: int,
    taps: int,
    stride: int,
    dilation: int,
    before: int,
    after: int,
    auto_pad: str,
    ceil_mode: bool,
) -> Axis:
    extent = dilation * (taps - 1) + 1
    if auto_pad.startswith("SAME"):
        windows = -(-size // stride)
        total = max((windows - 1) * stride + extent - size, 0)
        smaller = total // 2
        before, after = (smaller, total - smaller) if auto_pad == "SAME_UPPER" else (total - smaller, smaller)
    else:
        room = size + before + after - extent
        if room < 0:
            raise site.refuse(f"a window of extent {extent} does not fit into {size} + {before + after} positions")
        windows = room // stride + 1
        if ceil_mode and room % stride:
            if auto_pad == "VALID":
                raise site.refuse("ceil_mode with auto_pad VALID is read differently by different implementations")
            # One window more, unless it would start in the padding behind the input.
            windows += 1 if windows * stride < size + before else 0
    return Axis(size=size, taps=taps, stride=stride, dilation=dilation, before=before, after=after, windows=windows)


def windows_of(site: Site, axes: Sequence[Axis], *, before: int) -> Windows:
    """Every window of a pooling as flat indices of the input's spatial entries; `before` counts channels."""
    ranks = range(len(axes))
    places = math.prod(axis.windows for axis in axes)
    demand_elements(site, places * math.prod(axis.taps for axis in axes))
    count = len(axes)
    flat, inside = np.zeros((1,) * (2 * count), dtype=np.int64), np.ones((1,) * (2 * count), dtype=bool)
    for rank, axis in zip(ranks, axes, strict=True):
        shape = [1] * (2 * count)
        shape[rank], shape[count + rank] = axis.windows, axis.taps
        positions = axis.positions().reshape(shape)
        flat = flat * axis.size + positions
        inside = inside & (positions >= 0) & (positions < axis.size)
    indices = np.where(inside, flat, -1).reshape(places, -1)
    return Windows(indices=indices, width=math.prod(axis.size for axis in axes), before=before, after=1)


def demand_elements(site: Site, count: int) -> None:
    """Refuse an array of `count` entries that no value may have, before it is allocated.

    Raises: ResourceLimitExceeded.
    """
    site.limits.demand("value_elements", count, f"node {site.node.name!r}")
