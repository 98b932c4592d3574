"""ATen operators that move entries without computing: shapes, axes, repetition."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from certifier.reading.aten.registry import Call, aten
from certifier.reading.emitting import Ref


@aten("view", "reshape", "_unsafe_view", "view_copy", "_reshape_copy", shares=True)
def view(call: Call, self: object, size: object) -> Ref:
    """The same entries in another shape; one size may be -1."""
    if not isinstance(size, (list, tuple)):
        raise call.refuse("a view as another element type is not supported")
    ref = call.tensor(self, "self")
    return call.reshape(ref, closed(call, ref.size, call.integers(size, "size")))


def closed(call: Call, elements: int, sizes: Sequence[int]) -> tuple[int, ...]:
    """The sizes with their -1 replaced by what `elements` leaves for it."""
    known = math.prod(size for size in sizes if size != -1)
    open_axes = [axis for axis, size in enumerate(sizes) if size == -1]
    fits = len(open_axes) <= 1 and all(size >= -1 for size in sizes)
    if not fits or (open_axes and (known == 0 or elements % known)) or (not open_axes and known != elements):
        raise call.refuse(f"{elements} elements do not fit the shape {list(sizes)}")
    return tuple(elements // known if size == -1 else size for size in sizes)


@aten("_reshape_alias", "_unsafe_reshape", shares=True)
def reshape_alias(call: Call, self: object, size: object, stride: object = None) -> Ref:
    """What `reshape` becomes inside PyTorch."""
    return view(call, self, size)


@aten("view_as", "reshape_as", shares=True)
def view_as(call: Call, self: object, other: object) -> Ref:
    """The same entries in the shape of another tensor."""
    return view(call, self, list(call.tensor(other, "other").shape))


@aten("flatten", shares=True)
def flatten(call: Call, self: object, start_dim: object = 0, end_dim: object = -1) -> Ref:
    """The axes from `start_dim` to `end_dim` joined into one."""
    ref = call.tensor(self, "self")
    first, last = call.axis(start_dim, ref.rank), call.axis(end_dim, ref.rank)
    if first > last:
        raise call.refuse("start_dim comes after end_dim")
    joined = math.prod(ref.shape[first : last + 1])
    return call.reshape(ref, (*ref.shape[:first], joined, *ref.shape[last + 1 :]))


@aten("unflatten", shares=True)
def unflatten(call: Call, self: object, dim: object, sizes: object) -> Ref:
    """One axis split into several."""
    ref = call.tensor(self, "self")
    axis = call.axis(dim, ref.rank)
    inner = closed(call, ref.shape[axis], call.integers(sizes, "sizes"))
    return call.reshape(ref, (*ref.shape[:axis], *inner, *ref.shape[axis + 1 :]))


@aten("squeeze", shares=True)
def squeeze(call: Call, self: object, dim: object = None) -> Ref:
    """Without the axes of size 1, or without those of them that are named."""
    ref = call.tensor(self, "self")
    named = range(ref.rank) if dim is None else {call.axis(each, ref.rank) for each in call.integers(dim, "dim")}
    return call.reshape(ref, [size for axis, size in enumerate(ref.shape) if size != 1 or axis not in named])


@aten("unsqueeze", shares=True)
def unsqueeze(call: Call, self: object, dim: object) -> Ref:
    """With a new axis of size 1 before `dim`."""
    ref = call.tensor(self, "self")
    axis = call.axis(dim, ref.rank + 1)
    return call.reshape(ref, (*ref.shape[:axis], 1, *ref.shape[axis:]))


@aten("permute", "permute_copy", shares=True)
def permute(call: Call, self: object, dims: object) -> Ref:
    """The axes in the order `dims`."""
    ref = call.tensor(self, "self")
    order = [call.axis(each, ref.rank) for each in call.integers(dims, "dims")]
    if sorted(order) != list(range(ref.rank)):
        raise call.refuse(f"{order} is not an order of the {ref.rank} axes")
    return call.transpose(ref, order)


@aten("transpose", "swapaxes", "swapdims", "transpose_copy", shares=True)
def transpose(call: Call, self: object, dim0: object, dim1: object) -> Ref:
    """Two axes exchanged."""
    ref = call.tensor(self, "self")
    order = list(range(ref.rank))
    first, second = call.axis(dim0, ref.rank), call.axis(dim1, ref.rank)
    if order:
        order[first], order[second] = order[second], order[first]
    return call.transpose(ref, order)


@aten("t", "numpy_T", "mT", "adjoint", "t_copy", shares=True)
def reversed_axes(call: Call, self: object) -> Ref:
    """The matrix transposed: all axes reversed, or the last two for mT."""
    ref = call.tensor(self, "self")
    if call.operator in ("mT", "adjoint"):
        return transpose(call, ref, -2, -1)
    if call.operator.startswith("t") and ref.rank > 2:
        raise call.refuse("takes matrices and vectors only")
    return call.transpose(ref, list(range(ref.rank))[::-1])


@aten("movedim", "moveaxis", shares=True)
def movedim(call: Call, self: object, source: object, destination: object) -> Ref:
    """Axes moved to other places; the rest keep their order."""
    ref = call.tensor(self, "self")
    sources = [call.axis(each, ref.rank) for each in call.integers(source, "source")]
    targets = [call.axis(each, ref.rank) for each in call.integers(destination, "destination")]
    if len(set(sources)) != len(targets) or len(set(targets)) != len(sources):
        raise call.refuse("source and destination do not fit one another")
    order = [axis for axis in range(ref.rank) if axis not in sources]
    for target, axis in sorted(zip(targets, sources, strict=True)):
        order.insert(target, axis)
    return call.transpose(ref, order)


@aten("expand", "broadcast_to", "expand_copy", shares=True)
def expand(call: Call, self: object, size: object, *, implicit: object = False) -> Ref:
    """Axes of size 1 repeated; -1 keeps a size."""
    ref, sizes = call.tensor(self, "self"), list(call.integers(size, "size"))
    lead = len(sizes) - ref.rank
    if lead < 0:
        raise call.refuse(f"{list(ref.shape)} cannot be expanded to {sizes}")
    own = (1,) * lead + ref.shape
    wanted = tuple(own[axis] if size == -1 and axis >= lead else size for axis, size in enumerate(sizes))
    if any(old not in (1, new) or new < 0 for old, new in zip(own, wanted, strict=True)):
        raise call.refuse(f"{list(ref.shape)} cannot be expanded to {sizes}")
    if wanted == ref.shape:
        return ref
    if math.prod(wanted) == ref.size:
        return call.reshape(ref, wanted)
    return call.emit("Expand", [ref, call.integers_constant(wanted, "shape")])


@aten("expand_as", shares=True)
def expand_as(call: Call, self: object, other: object) -> Ref:
    """Axes of size 1 repeated to the shape of another tensor."""
    return expand(call, self, list(call.tensor(other, "other").shape))


@aten("repeat", "tile")
def repeat(call: Call, self: object, repeats: object) -> Ref:
    """The whole tensor repeated along each axis."""
    ref, counts = call.tensor(self, "self"), list(call.integers(repeats, "repeats"))
    if call.operator == "tile":
        counts = [1] * (ref.rank - len(counts)) + counts
    if len(counts) < ref.rank or min(counts, default=1) < 0:
        raise call.refuse(f"{counts} are not repetitions of {ref.rank} axes")
    widened = call.reshape(ref, (1,) * (len(counts) - ref.rank) + ref.shape)
    if all(count == 1 for count in counts):
        return widened
    return call.emit("Tile", [widened, call.integers_constant(counts, "repeats")])


@aten("flip")
def flip(call: Call, self: object, dims: object) -> Ref:
    """The order along each of `dims` reversed."""
    ref = call.tensor(self, "self")
    for axis in sorted({call.axis(each, ref.rank) for each in call.integers(dims, "dims")}):
        ref = gathered(call, ref, axis, np.arange(ref.shape[axis])[::-1])
    return ref


def gathered(call: Call, ref: Ref, axis: int, index: np.ndarray) -> Ref:
    """The entries of `ref` at known places along one axis."""
    return call.emit("Gather", [ref, call.constant(index, "int64", "index")], {"axis": axis})


@aten("roll")
def roll(call: Call, self: object, shifts: object, dims: object = ()) -> Ref:
    """Entries moved along each of `dims`, those that fall off coming back at the other end."""
    ref, steps = call.tensor(self, "self"), call.integers(shifts, "shifts")
    axes = [call.axis(each, ref.rank) for each in call.integers(dims, "dims")]
    if not axes:
        flat = call.reshape(ref, (ref.size,))
        return call.reshape(gathered(call, flat, 0, np.roll(np.arange(ref.size), sum(steps))), ref.shape)
    if len(axes) != len(steps):
        raise call.refuse("shifts and dims must have the same length")
    for axis, step in zip(axes, steps, strict=True):
        ref = gathered(call, ref, axis, np.roll(np.arange(ref.shape[axis]), step))
    return ref


@aten("pixel_shuffle", shares=True)
def pixel_shuffle(call: Call, self: object, upscale_factor: object) -> Ref:
    """Groups of channels spread over squares of pixels."""
    ref, factor = call.tensor(self, "self"), call.integer(upscale_factor, "upscale_factor")
    if ref.rank != 4:
        raise call.refuse("is supported for four axes")
    return call.emit("DepthToSpace", [ref], {"blocksize": factor, "mode": "CRD"})


@aten("pixel_unshuffle", shares=True)
def pixel_unshuffle(call: Call, self: object, downscale_factor: object) -> Ref:
    """Squares of pixels gathered into channels: the inverse of `pixel_shuffle`."""
    ref, factor = call.tensor(self, "self"), call.integer(downscale_factor, "downscale_factor")
    if ref.rank != 4 or factor < 1 or ref.shape[2] % factor or ref.shape[3] % factor:
        raise call.refuse("is supported for four axes, the last two divisible by the factor")
    rows, channels, height, width = ref.shape
    split = call.reshape(ref, (rows, channels, height // factor, factor, width // factor, factor))
    moved = call.transpose(split, (0, 1, 3, 5, 2, 4))
    return call.reshape(moved, (rows, channels * factor * factor, height // factor, width // factor))


@aten("channel_shuffle", "native_channel_shuffle", shares=True)
def channel_shuffle(call: Call, self: object, groups: object) -> Ref:
    """Channel groups interleaved."""
    ref, count = call.tensor(self, "self"), call.integer(groups, "groups")
    if ref.rank < 2 or count < 1 or ref.shape[1] % count:
        raise call.refuse("the channels do not divide into the groups")
    split = call.reshape(ref, (ref.shape[0], count, ref.shape[1] // count, *ref.shape[2:]))
    order = (0, 2, 1, *range(3, ref.rank + 1))
    return call.reshape(call.transpose(split, order), ref.shape)
