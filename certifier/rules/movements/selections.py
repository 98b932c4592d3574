"""Parts of a value: slices, splits and gatherings at constant places."""

from __future__ import annotations

import math

import numpy as np

from certifier.rules.geometry import demand_elements
from certifier.rules.movements.places import axis_of, integers_of, moved, places, within
from certifier.rules.reductions import normalised_axes
from certifier.rules.registry import Site, rule
from certifier.terms import Term


@rule("Slice", since=(1, 10, 11, 13), attributes=("starts", "ends", "axes"))
def cut(site: Site) -> tuple[Term, ...]:
    """x[start:end:step] along constant axes; steps of any sign."""
    own = places(site)
    if site.node.since < 10:
        starts, ends, steps = site.integers("starts", ()), site.integers("ends", ()), ()
        named = site.integers("axes", ())
    else:
        starts, ends = integers_of(site, 1, "the starts"), integers_of(site, 2, "the ends")
        named = integers_of(site, 3, "the axes") if site.has(3) else ()
        steps = integers_of(site, 4, "the steps") if site.has(4) else ()
    axes = normalised_axes(site, named, own.ndim) if named else tuple(range(len(starts)))
    steps = steps or (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or len(starts) > own.ndim or 0 in steps:
        raise site.refuse(f"starts {starts}, ends {ends}, axes {axes} and steps {steps} do not fit together")
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        own = own.take(_span(start, end, step, own.shape[axis]), axis=axis)
    if own.size == 0:
        raise site.refuse("cuts everything away")
    return (moved(site, own),)


def _span(start: int, end: int, step: int, size: int) -> np.ndarray:
    """The positions of a slice by the standard's rules of clamping."""
    start, end = (start + size if start < 0 else start), (end + size if end < 0 else end)
    if step > 0:
        start, end = min(max(start, 0), size), min(max(end, 0), size)
    else:
        start, end = min(max(start, 0), size - 1), min(max(end, -1), size - 1)
    return np.arange(start, end, step)


@rule("Split", since=(2, 11, 13, 18), attributes=("axis", "split", "num_outputs"))
def split(site: Site) -> tuple[Term, ...]:
    """x cut into consecutive parts of constant sizes along an axis."""
    own, axis = places(site), axis_of(site, 0)
    size, count = own.shape[axis], len(site.node.outputs)
    if site.has(1):
        sizes = integers_of(site, 1, "the split sizes")
    elif "split" in site.node.attributes:
        sizes = site.integers("split", ())
    else:
        if site.integer("num_outputs", count) != count:
            raise site.refuse(f"num_outputs contradicts its {count} outputs")
        if size % count and site.node.since < 18:
            raise site.refuse(f"{size} entries do not split into {count} equal parts")
        part = -(-size // count)
        sizes = (*(part for _ in range(count - 1)), size - part * (count - 1))
    if len(sizes) != count or sum(sizes) != size or min(sizes) < 1:
        raise site.refuse(f"sizes {sizes} do not split {size} entries into {count} parts")
    parts = np.split(own, np.cumsum(sizes)[:-1], axis=axis)
    return tuple(moved(site, part, output=name) for part, name in zip(parts, site.node.outputs, strict=True) if name)


@rule("Gather", since=(1, 11, 13), attributes=("axis",))
def gather(site: Site) -> tuple[Term, ...]:
    """The entries at constant indices along an axis; an index that repeats r times counts √r."""
    indices = np.asarray(site.constant(1, "the indices"))
    own, axis = places(site), axis_of(site, 0)
    demand_elements(site, own.size // own.shape[axis] * indices.size)
    return (moved(site, own.take(within(site, indices, own.shape[axis]), axis=axis)),)


@rule("GatherElements", since=(11, 13), attributes=("axis",))
def gather_elements(site: Site) -> tuple[Term, ...]:
    """y[i][j] = x[indices[i][j]][j] (along axis 0); indices constant."""
    indices = np.asarray(site.constant(1, "the indices"))
    own, axis = places(site), axis_of(site, 0)
    if indices.ndim != own.ndim:
        raise site.refuse(f"indices of shape {indices.shape} do not fit {own.shape}")
    others = tuple(slice(count) if i != axis else slice(None) for i, count in enumerate(indices.shape))
    read = np.take_along_axis(own[others], within(site, indices, own.shape[axis]), axis=axis)
    return (moved(site, read),)


@rule("GatherND", since=(11, 12, 13), attributes=("batch_dims",))
def gather_nd(site: Site) -> tuple[Term, ...]:
    """The entries or blocks at constant tuples of indices."""
    indices = np.asarray(site.constant(1, "the indices"))
    own, batch = places(site), site.integer("batch_dims", 0)
    depth = indices.shape[-1] if indices.ndim else 0
    if not 0 <= batch < min(own.ndim, indices.ndim) or not 1 <= depth <= own.ndim - batch:
        raise site.refuse(f"indices of shape {indices.shape} do not fit {own.shape}")
    if own.shape[:batch] != indices.shape[:batch]:
        raise site.refuse(f"indices of shape {indices.shape} do not fit the batch axes of {own.shape}")
    demand_elements(site, math.prod(indices.shape[:-1]) * math.prod(own.shape[batch + depth :]))
    grid = np.indices(indices.shape[:-1])[:batch]
    tail = (within(site, indices[..., i], own.shape[batch + i]) for i in range(depth))
    return (moved(site, own[(*grid, *tail)]),)
