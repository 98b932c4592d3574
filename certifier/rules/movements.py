"""Operators that only move numbers, drop them, repeat them or set constants beside them.

Each is `moved`: an array of the places that the outputs are read from, made by applying numpy's operation of
the same meaning to the input's own places.  The batch axis, of size 1, is an axis like any other.

The file is longer than most because two dozen operators live here, each in about ten lines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from certifier.operators import Identity, Operator, Placed, Rearrange
from certifier.rules.building import identity, linear, size_of
from certifier.rules.geometry import demand_elements
from certifier.rules.reductions import normalised_axes
from certifier.rules.registry import Site, rule
from certifier.terms import Affine, Term

_SHAPING = (1, 13, 21, 23, 24, 25)


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


@rule("Identity", since=(1, 13, 14, 16, 19, 21, 23, 24, 25))
def copy(site: Site) -> tuple[Term, ...]:
    """x."""
    site.live(0)
    return (identity(site),)


@rule("Dropout", since=(7, 10, 12, 13, 22), attributes=("ratio", "seed"))
def dropout(site: Site) -> tuple[Term, ...]:
    """x: inference; training_mode must be constant and false.  The mask is never computed."""
    site.live(0)
    if site.has(2) and bool(np.any(site.constant(2, "training_mode"))):
        raise site.refuse("training_mode is on, so its outputs are random; export the model for inference")
    return (identity(site),)


@rule("Flatten", since=(1, 9, 11, 13, 21, 23, 24, 25), attributes=("axis",))
def flatten(site: Site) -> tuple[Term, ...]:
    """x as a matrix: the axes before `axis` by the others."""
    site.live(0)
    shape, axis = site.shape(0), site.integer("axis", 1)
    if axis < 0 and site.node.since < 11:
        raise site.refuse("a negative axis came with version 11")
    if not -len(shape) <= axis <= len(shape):
        raise site.refuse(f"axis {axis} is outside of rank {len(shape)}")
    axis = axis + len(shape) if axis < 0 else axis
    return (identity(site, shape=(math.prod(shape[:axis]), math.prod(shape[axis:]))),)


@rule("Reshape", since=(5, 13, 14, 19, 21, 23, 24, 25), attributes=("allowzero",))
def reshape(site: Site) -> tuple[Term, ...]:
    """x under another constant shape; 0 keeps an axis (unless allowzero), -1 is what remains."""
    site.live(0)
    own, wanted = site.shape(0), list(integers_of(site, 1, "the shape"))
    keeps = not site.integer("allowzero", 0)
    for axis, size in enumerate(wanted):
        if size == 0 and keeps:
            if axis >= len(own):
                raise site.refuse(f"shape {tuple(wanted)} keeps axis {axis}, which {own} does not have")
            wanted[axis] = own[axis]
    if min(wanted, default=1) < -1 or wanted.count(-1) > 1:
        raise site.refuse(f"shape {tuple(wanted)} is no shape")
    known = math.prod(size for size in wanted if size != -1)
    if -1 in wanted and known and size_of(own) % known == 0:
        wanted[wanted.index(-1)] = size_of(own) // known
    if -1 in wanted or math.prod(wanted) != size_of(own):
        raise site.refuse(f"shape {own} cannot become {tuple(wanted)}")
    return (identity(site, shape=tuple(wanted)),)


@rule("Transpose", since=_SHAPING, attributes=("perm",))
def transpose(site: Site) -> tuple[Term, ...]:
    """x with its axes permuted; reversed by default."""
    own = places(site)
    order = site.integers("perm", tuple(range(own.ndim))[::-1])
    if sorted(order) != list(range(own.ndim)):
        raise site.refuse(f"perm {order} does not permute {own.ndim} axes")
    return (moved(site, own.transpose(order)),)


def _named_axes(site: Site, rank: int) -> tuple[int, ...] | None:
    if site.has(1):
        return normalised_axes(site, integers_of(site, 1, "the axes"), rank)
    if "axes" in site.node.attributes:
        return normalised_axes(site, site.integers("axes", ()), rank)
    return None


@rule("Squeeze", since=(1, 11, 13, 21, 23, 24, 25), attributes=("axes",))
def squeeze(site: Site) -> tuple[Term, ...]:
    """x without the named axes of size 1, by default all of them; axes constant."""
    site.live(0)
    shape = site.shape(0)
    axes = _named_axes(site, len(shape))
    if axes is None:
        axes = tuple(axis for axis, size in enumerate(shape) if size == 1)
    if any(shape[axis] != 1 for axis in axes):
        raise site.refuse(f"axes {axes} of shape {shape} are not all of size 1")
    return (identity(site, shape=tuple(size for axis, size in enumerate(shape) if axis not in axes)),)


@rule("Unsqueeze", since=(1, 11, 13, 21, 23, 24, 25), attributes=("axes",))
def unsqueeze(site: Site) -> tuple[Term, ...]:
    """x with new axes of size 1; axes constant."""
    site.live(0)
    shape = site.shape(0)
    given = integers_of(site, 1, "the axes") if site.has(1) else site.integers("axes", ())
    axes = normalised_axes(site, given, len(shape) + len(given))
    if not axes:
        raise site.refuse("names no axes")
    rest = iter(shape)
    return (identity(site, shape=tuple(1 if i in axes else next(rest) for i in range(len(shape) + len(axes)))),)


_CODES = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}
"""The floating types among ONNX's TensorProto.DataType."""

_CONTAINS = {
    "float16": ("float32", "float64"),
    "bfloat16": ("float32", "float64"),
    "float32": ("float64",),
    "float64": (),
}
"""Where every number of a type lives on unrounded."""


def _cast_to(site: Site, dtype: str) -> tuple[Term, ...]:
    is_exact = dtype == site.dtype or dtype in _CONTAINS[site.dtype]
    return (replace(identity(site), dtype=dtype, roundings=0 if is_exact else 1),)


@rule("Cast", since=(6, 9, 13, 19, 21, 23, 24, 25, 28), attributes=("to", "saturate", "round_mode"))
def cast(site: Site) -> tuple[Term, ...]:
    """x in another floating type; one rounding where the type is narrower.  Other types are discontinuous."""
    site.live(0)
    code = site.integer("to", 0)
    if code not in _CODES:
        raise site.refuse("a cast to anything but a floating type of at least 16 bits is discontinuous")
    return _cast_to(site, _CODES[code])


@rule("CastLike", since=(15, 19, 21, 23, 24, 25), attributes=("saturate", "round_mode"))
def cast_like(site: Site) -> tuple[Term, ...]:
    """x in the floating type of the second input."""
    site.live(0)
    # Live inputs of one node share one type, so only a constant one can name another.
    dtype = site.constant(1, "the target").dtype.name if site.is_constant(1) else site.dtype
    if dtype not in _CONTAINS:
        raise site.refuse(f"a cast to {dtype} is discontinuous")
    return _cast_to(site, dtype)


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


def within(site: Site, indices: np.ndarray, size: int) -> np.ndarray:
    """`indices` counted from the front, all inside an axis of `size`."""
    if indices.dtype.kind not in "iu" or np.any((indices < -size) | (indices >= size)):
        raise site.refuse(f"its indices are outside of an axis of {size}")
    return np.where(indices < 0, indices + size, indices).astype(np.int64)


@rule("Concat", since=(4, 11, 13), attributes=("axis",))
def concat(site: Site) -> tuple[Term, ...]:
    """Its inputs side by side along an axis; some may be constant."""
    shapes = [site.shape(index) for index in range(len(site.node.inputs))]
    axis = normalised_axes(site, (site.integer("axis", 1),), len(shapes[0]))[0]
    if any(
        len(s) != len(shapes[0]) or s[:axis] + s[axis + 1 :] != shapes[0][:axis] + shapes[0][axis + 1 :] for s in shapes
    ):
        raise site.refuse(f"shapes {shapes} do not fit along axis {axis}")
    shape = (*shapes[0][:axis], sum(own[axis] for own in shapes), *shapes[0][axis + 1 :])
    demand_elements(site, size_of(shape))
    sources: list[str] = []
    parts: list[Operator] = []
    offset, is_shifted, start = np.zeros(shape), False, 0
    before, after = size_of(shape[:axis]), size_of(shape[axis + 1 :])
    for index, name in enumerate(site.node.inputs):
        own = shapes[index][axis]
        if name in site.shapes:
            sources.append(name)
            parts.append(Placed(before=before, own=own, after=after, total=shape[axis], start=start))
        else:
            span = (slice(None),) * axis + (slice(start, start + own),)
            offset[span], is_shifted = site.weights(index, "a part"), True
        start += own
    return (
        Affine(
            name=site.node.name,
            operator=site.node.operator,
            sources=tuple(sources),
            output=site.node.outputs[0],
            shape=shape,
            dtype=site.dtype,
            operators=tuple(parts),
            offset=offset.reshape(-1) if is_shifted else None,
            offset_magnitude=abs(offset).reshape(-1) if is_shifted else None,
            arrangement="stack",
            roundings=0,
            swelling=1.0,
        ),
    )


@rule("Expand", since=(8, 13))
def expand(site: Site) -> tuple[Term, ...]:
    """x broadcast to a constant shape; an entry repeated r times counts √r."""
    own = places(site)
    shape = np.broadcast_shapes(own.shape, integers_of(site, 1, "the shape"))
    demand_elements(site, size_of(shape))
    return (moved(site, np.broadcast_to(own, shape)),)


@rule("Tile", since=(6, 13))
def tile(site: Site) -> tuple[Term, ...]:
    """x repeated along its axes a constant number of times; r copies count √r."""
    own, repeats = places(site), integers_of(site, 1, "the repeats")
    if len(repeats) != own.ndim or min(repeats, default=1) < 1:
        raise site.refuse(f"repeats {repeats} do not fit shape {own.shape}")
    demand_elements(site, own.size * math.prod(repeats))
    return (moved(site, np.tile(own, repeats)),)


def _blocks(site: Site) -> tuple[np.ndarray, int, str]:
    own, block = places(site), site.integer("blocksize", 0)
    mode = site.text("mode", "DCR")
    if own.ndim != 4 or block < 1:
        raise site.refuse(f"needs 4 axes and a positive blocksize, got {own.shape} and {block}")
    if mode not in ("DCR", "CRD"):
        raise site.refuse(f"mode {mode!r} is not known")
    return own, block, mode


@rule("DepthToSpace", since=(1, 11, 13, 28), attributes=("blocksize", "mode"))
def depth_to_space(site: Site) -> tuple[Term, ...]:
    """Channels spread over blocks of pixels, in DCR or CRD order."""
    own, block, mode = _blocks(site)
    count, depth, height, width = own.shape
    if depth % block**2:
        raise site.refuse(f"{depth} channels do not fill blocks of {block} x {block}")
    channels = depth // block**2
    if mode == "DCR":
        spread = own.reshape(count, block, block, channels, height, width).transpose(0, 3, 4, 1, 5, 2)
    else:
        spread = own.reshape(count, channels, block, block, height, width).transpose(0, 1, 4, 2, 5, 3)
    return (moved(site, spread.reshape(count, channels, height * block, width * block)),)


@rule("SpaceToDepth", since=(1, 13, 28), attributes=("blocksize", "mode"))
def space_to_depth(site: Site) -> tuple[Term, ...]:
    """Blocks of pixels gathered into channels, in DCR or CRD order: the inverse of DepthToSpace."""
    own, block, mode = _blocks(site)
    count, channels, height, width = own.shape
    if height % block or width % block:
        raise site.refuse(f"{height} x {width} pixels do not divide into blocks of {block} x {block}")
    cells = own.reshape(count, channels, height // block, block, width // block, block)
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    gathered = cells.transpose(order).reshape(count, channels * block**2, height // block, width // block)
    return (moved(site, gathered),)


@rule("Trilu", since=(14,), attributes=("upper",))
def trilu(site: Site) -> tuple[Term, ...]:
    """x with one triangle of its last two axes zeroed; k constant."""
    own = places(site)
    if own.ndim < 2:
        raise site.refuse(f"needs two axes, got {own.shape}")
    k = int(np.asarray(site.constant(1, "the diagonal k")).reshape(())) if site.has(1) else 0
    mask = np.ones(own.shape[-2:], dtype=bool)
    kept = np.triu(mask, k) if site.integer("upper", 1) else np.tril(mask, k)
    return (moved(site, np.where(kept, own, -1)),)


def pad_pairs(site: Site, pads: Sequence[int], axes: Sequence[int], rank: int) -> list[tuple[int, int]]:
    """(before, after) for each of `rank` axes."""
    if len(pads) != 2 * len(axes):
        raise site.refuse(f"{len(pads)} pads do not fit {len(axes)} axes")
    pairs = [(0, 0)] * rank
    for position, axis in enumerate(axes):
        pairs[axis] = (pads[position], pads[len(axes) + position])
    return pairs


@rule("Pad", since=(2, 11, 13, 18, 19, 21, 23, 24, 25), attributes=("mode", "pads", "value"))
def pad(site: Site) -> tuple[Term, ...]:
    """x with constant, reflect, edge or wrap borders; negative pads crop; pads and value constant."""
    own = places(site)
    mode, value, pairs = _padding(site, own.ndim)
    cropped = own
    for axis, (before, after) in enumerate(pairs):
        first, last = max(-before, 0), own.shape[axis] - max(-after, 0)
        if first >= last:
            raise site.refuse(f"pads {before} and {after} leave nothing of {own.shape[axis]} entries")
        cropped = cropped.take(np.arange(first, last), axis=axis)
    grown = [(max(before, 0), max(after, 0)) for before, after in pairs]
    if not any(map(any, grown)):
        return (moved(site, cropped),)
    demand_elements(
        site, math.prod(n + before + after for n, (before, after) in zip(cropped.shape, grown, strict=True))
    )
    if mode == "constant":
        read = np.pad(cropped, grown, constant_values=-1)
        term = moved(site, read)
        offset = np.where(read.reshape(-1) < 0, value, 0.0)
        shifted = replace(term, offset=offset, offset_magnitude=abs(offset))
        return (shifted if value else term,)
    if cropped.shape != own.shape:
        raise site.refuse(f"mode {mode} with negative pads is read differently by different implementations")
    longest = {"reflect": -1, "wrap": 0}.get(mode)
    if longest is not None and any(max(pair) > n + longest for n, pair in zip(own.shape, grown, strict=True)):
        raise site.refuse(f"mode {mode} with pads beyond the input is read differently by implementations")
    return (moved(site, np.pad(own, grown, mode=mode)),)  # pyright: ignore[reportArgumentType, reportCallIssue]


def _padding(site: Site, rank: int) -> tuple[str, float, list[tuple[int, int]]]:
    mode = site.text("mode", "constant")
    if mode not in ("constant", "reflect", "edge", "wrap") or (mode == "wrap" and site.node.since < 19):
        raise site.refuse(f"mode {mode!r} is not known as of version {site.node.since}")
    if site.node.since < 11:
        pads, value = site.integers("pads", ()), site.number("value", 0.0)
        return mode, value, pad_pairs(site, pads, range(rank), rank)
    pads = integers_of(site, 1, "the pads")
    value = float(site.weights(2, "the padding value").reshape(-1)[0]) if site.has(2) and mode == "constant" else 0.0
    axes = normalised_axes(site, integers_of(site, 3, "the axes"), rank) if site.has(3) else tuple(range(rank))
    return mode, value, pad_pairs(site, pads, axes, rank)
