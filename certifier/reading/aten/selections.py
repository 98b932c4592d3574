"""ATen operators that take parts of tensors and put parts together."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from certifier.reading.aten.movements import gathered
from certifier.reading.aten.registry import INTEGERS, Call, aten
from certifier.reading.emitting import Ref


@aten("slice", "slice_copy", shares=True)
def slice_(
    call: Call, self: object, dim: object = 0, start: object = None, end: object = None, step: object = 1
) -> Ref:
    """Every `step`-th entry from `start` up to, and without, `end` along one axis."""
    ref, stride = call.tensor(self, "self"), call.integer(step, "step")
    axis = call.axis(dim, ref.rank)
    if stride < 1:
        raise call.refuse("a step below 1 is not supported")
    first = None if start is None else call.integer(start, "start")
    last = None if end is None else call.integer(end, "end")
    low, high, _ = slice(first, last).indices(ref.shape[axis])
    return sliced(call, ref, axis, low, max(low, high), stride)


def sliced(call: Call, ref: Ref, axis: int, start: int, end: int, step: int = 1) -> Ref:
    """The entries from `start` to `end`, both within the axis."""
    if (start, end, step) == (0, ref.shape[axis], 1):
        return ref
    vectors = [
        call.integers_constant([value], role)
        for role, value in (("starts", start), ("ends", end), ("axes", axis), ("steps", step))
    ]
    return call.emit("Slice", [ref, *(vectors if step != 1 else vectors[:3])])


@aten("select", "select_copy", shares=True)
def select(call: Call, self: object, dim: object, index: object) -> Ref:
    """One entry along an axis, which goes away."""
    ref = call.tensor(self, "self")
    axis, place = call.axis(dim, ref.rank), call.integer(index, "index")
    return gathered(call, ref, axis, np.array(_place(call, place, ref.shape[axis])))


def _place(call: Call, place: int, size: int) -> int:
    if not -size <= place < size:
        raise call.refuse(f"index {place} is outside an axis of {size}")
    return place % size


@aten("narrow", "narrow_copy", shares=True)
def narrow(call: Call, self: object, dim: object, start: object, length: object) -> Ref:
    """`length` entries from `start` on along one axis."""
    ref = call.tensor(self, "self")
    axis, first, count = call.axis(dim, ref.rank), call.integer(start, "start"), call.integer(length, "length")
    first += ref.shape[axis] if first < 0 else 0
    if not 0 <= first <= first + count <= ref.shape[axis]:
        raise call.refuse("reaches outside the axis")
    return sliced(call, ref, axis, first, first + count)


@aten("index_select")
def index_select(call: Call, self: object, dim: object, index: object) -> Ref:
    """The entries at the given places along one axis."""
    ref, places = call.tensor(self, "self"), call.tensor(index, "index")
    return call.emit("Gather", [ref, places], {"axis": call.axis(dim, ref.rank)})


@aten("gather")
def gather(call: Call, self: object, dim: object, index: object, *, sparse_grad: object = False) -> Ref:
    """For each place of `index`, the entry it names along one axis."""
    ref, places = call.tensor(self, "self"), call.tensor(index, "index")
    return call.emit("GatherElements", [ref, places], {"axis": call.axis(dim, ref.rank)})


@aten("embedding")
def embedding(
    call: Call,
    weight: object,
    indices: object,
    padding_idx: object = -1,
    scale_grad_by_freq: object = False,
    sparse: object = False,
) -> Ref:
    """The rows of a table that the indices name."""
    return call.emit("Gather", [call.tensor(weight, "weight"), call.tensor(indices, "indices")], {"axis": 0})


@aten("index")
def index(call: Call, self: object, indices: object) -> Ref:
    """x[..., i, j, ...] for tensors of integers or truth values; more than one tensor of integers must be known."""
    ref = call.tensor(self, "self")
    items = list(indices) if isinstance(indices, (list, tuple)) else [indices]
    axes = [axis for axis, item in enumerate(items) if item is not None]
    if len(axes) == 1 and (only := call.tensor(items[axes[0]], "an index")).dtype in INTEGERS[1:]:
        return call.emit("Gather", [ref, only], {"axis": axes[0]})
    return gathered(call, call.reshape(ref, (ref.size,)), 0, _places(call, ref, items))


@aten(
    "split",
    "split_with_sizes",
    "unsafe_split",
    "unsafe_split_with_sizes",
    "split_copy",
    "split_with_sizes_copy",
    shares=True,
)
def split(call: Call, self: object, split_size: object, dim: object = 0) -> list[Ref]:
    """Consecutive parts along one axis, of one size or of the sizes given."""
    ref = call.tensor(self, "self")
    axis = call.axis(dim, ref.rank)
    if isinstance(split_size, (list, tuple)):
        return parts(call, ref, axis, call.integers(split_size, "split_sizes"))
    return parts(call, ref, axis, _equal(call, ref.shape[axis], call.integer(split_size, "split_size")))


def _equal(call: Call, total: int, width: int) -> list[int]:
    if width < 1:
        raise call.refuse("a part must have at least one entry")
    call.emitter.limits.demand("nodes", -(-total // width), call.where)
    return [min(width, total - start) for start in range(0, total, width)] or [0]


def parts(call: Call, ref: Ref, axis: int, sizes: Sequence[int]) -> list[Ref]:
    """Consecutive parts of the given sizes."""
    if sum(sizes) != ref.shape[axis] or min(sizes, default=0) < 0:
        raise call.refuse(f"parts of {list(sizes)} do not make up an axis of {ref.shape[axis]}")
    if len(sizes) == 1:
        return [ref]
    call.emitter.limits.demand("nodes", len(sizes), call.where)
    vector = call.integers_constant(sizes, "sizes")
    return list(call.emitter.node("Split", [ref, vector], {"axis": axis}, outputs=len(sizes), name=call.where))


@aten("chunk", "unsafe_chunk", shares=True)
def chunk(call: Call, self: object, chunks: object, dim: object = 0) -> list[Ref]:
    """At most `chunks` parts of equal size, the last one smaller where they do not divide the axis."""
    ref, count = call.tensor(self, "self"), call.integer(chunks, "chunks")
    axis = call.axis(dim, ref.rank)
    if count < 1:
        raise call.refuse("needs at least one part")
    return parts(call, ref, axis, _equal(call, ref.shape[axis], max(1, -(-ref.shape[axis] // count))))


@aten("tensor_split", shares=True)
def tensor_split(call: Call, self: object, sections: object, dim: object = 0) -> list[Ref]:
    """Parts whose sizes differ by at most one, or cut at the given places."""
    ref = call.tensor(self, "self")
    axis = call.axis(dim, ref.rank)
    total = ref.shape[axis]
    if isinstance(sections, (list, tuple)):
        cuts = [slice(each).indices(total)[1] for each in call.integers(sections, "indices")]
        ends = [0, *cuts, total]
        return parts(call, ref, axis, [ends[place + 1] - ends[place] for place in range(len(ends) - 1)])
    count = call.integer(sections, "sections")
    if not 1 <= count <= max(total, 1):
        raise call.refuse("needs between one part and one per entry")
    return parts(call, ref, axis, [total // count + (place < total % count) for place in range(count)])


@aten("unbind", "unbind_copy", shares=True)
def unbind(call: Call, self: object, dim: object = 0) -> list[Ref]:
    """One tensor per place along an axis, which goes away."""
    ref = call.tensor(self, "self")
    axis = call.axis(dim, ref.rank)
    shape = (*ref.shape[:axis], *ref.shape[axis + 1 :])
    return [call.reshape(part, shape) for part in parts(call, ref, axis, _equal(call, ref.shape[axis], 1))]


@aten("cat", "concat", "concatenate")
def cat(call: Call, tensors: object, dim: object = 0) -> Ref:
    """Tensors one after another along an axis; vectors without entries are left out, as in PyTorch."""
    refs = [ref for ref in call.tensors(tensors, "tensors") if ref.shape != (0,)]
    if not refs:
        raise call.refuse("there is nothing to put together")
    dtype = call.promoted(*refs)
    axis = call.axis(dim, refs[0].rank)
    return refs[0] if len(refs) == 1 else call.emit("Concat", [call.cast(ref, dtype) for ref in refs], {"axis": axis})


@aten("stack")
def stack(call: Call, tensors: object, dim: object = 0) -> Ref:
    """Tensors of one shape beside each other along a new axis."""
    refs = call.tensors(tensors, "tensors")
    if not refs or any(ref.shape != refs[0].shape for ref in refs):
        raise call.refuse("the tensors must have one shape")
    axis = call.axis(dim, refs[0].rank + 1)
    shape = (*refs[0].shape[:axis], 1, *refs[0].shape[axis:])
    dtype = call.promoted(*refs)
    widened = [call.reshape(call.cast(ref, dtype), shape) for ref in refs]
    return widened[0] if len(widened) == 1 else call.emit("Concat", widened, {"axis": axis})


@aten("index_put", "_unsafe_index_put")
def index_put(call: Call, self: object, indices: object, values: object, accumulate: object = False) -> Ref:
    """`self` with values written, or added, where known tensors of integers or truth values point."""
    ref, part = call.tensor(self, "self"), call.tensor(values, "values")
    places = _places(call, ref, indices)
    if part.shape != places.shape:
        part = call.emit("Expand", [part, call.integers_constant(places.shape, "shape")])
    rows = call.reshape(call.cast(part, ref.dtype), (places.size,))
    attributes = {"reduction": "add"} if call.flag(accumulate, "accumulate") else {}
    flat = call.reshape(ref, (ref.size,))
    targets = call.constant(places.reshape(-1, 1), "int64", "places")
    return call.reshape(call.emit("ScatterND", [flat, targets, rows], attributes), ref.shape)


def _places(call: Call, ref: Ref, indices: object) -> np.ndarray:
    """The flat places of `ref[indices]`, in its shape."""
    items: list[slice | np.ndarray] = []
    for item in indices if isinstance(indices, (list, tuple)) else [indices]:
        known = None if item is None else call.known(item, "an index")
        if known is None:
            items.append(slice(None))
        elif known.dtype == bool and known.ndim:
            if known.shape != ref.shape[len(items) : len(items) + known.ndim]:
                raise call.refuse(f"a mask of shape {known.shape} does not fit {ref.shape}")
            items.extend(np.nonzero(known))
        elif known.dtype.name in INTEGERS[1:]:
            # Of uint8 nobody can tell whether it counts or masks.
            items.append(known)
        else:
            raise call.refuse("is supported for tensors of integers and truth values")
    counts = [item for item in items if isinstance(item, np.ndarray)]
    if not counts or len(items) > ref.rank:
        raise call.refuse("needs indices of some of the axes")
    whole = [size for axis, size in enumerate(ref.shape) if axis >= len(items) or isinstance(items[axis], slice)]
    shape = np.broadcast_shapes(*(item.shape for item in counts))
    call.emitter.limits.demand("elements", math.prod(shape) * math.prod(whole), call.where)
    return np.arange(ref.size).reshape(ref.shape)[tuple(items)]


@aten("slice_scatter")
def slice_scatter(
    call: Call,
    self: object,
    src: object,
    dim: object = 0,
    start: object = None,
    end: object = None,
    step: object = 1,
) -> Ref:
    """`self` with every `step`-th entry from `start` to `end` along one axis replaced by `src`."""
    ref, part = call.tensor(self, "self"), call.tensor(src, "src")
    axis, stride = call.axis(dim, ref.rank), call.integer(step, "step")
    first = None if start is None else call.integer(start, "start")
    last = None if end is None else call.integer(end, "end")
    if stride < 1:
        raise call.refuse("a step below 1 is not supported")
    size = ref.shape[axis]
    low, high, _ = slice(first, last).indices(size)
    places = range(low, high, stride)
    if not places or part.shape != (*ref.shape[:axis], len(places), *ref.shape[axis + 1 :]):
        raise call.refuse("needs a source of the shape of what it replaces")
    part = call.cast(part, ref.dtype)
    if stride > 1:
        order = np.arange(size)
        order[places] = size + np.arange(len(places))
        return gathered(call, call.emit("Concat", [ref, part], {"axis": axis}), axis, order)
    before, after = sliced(call, ref, axis, 0, low), sliced(call, ref, axis, high, size)
    pieces = [before] * (low > 0) + [part] + [after] * (high < size)
    return pieces[0] if len(pieces) == 1 else call.emit("Concat", pieces, {"axis": axis})


@aten("select_scatter")
def select_scatter(call: Call, self: object, src: object, dim: object, index: object) -> Ref:
    """`self` with one place along an axis replaced by `src`."""
    ref, part = call.tensor(self, "self"), call.tensor(src, "src")
    axis = call.axis(dim, ref.rank)
    place = _place(call, call.integer(index, "index"), ref.shape[axis])
    shape = (*ref.shape[:axis], 1, *ref.shape[axis + 1 :])
    return slice_scatter(call, ref, call.reshape(part, shape), axis, place, place + 1)


@aten("triu", "tril")
def triangle(call: Call, self: object, diagonal: object = 0) -> Ref:
    """The entries on and above (or below) a diagonal, zeros elsewhere."""
    ref, offset = call.tensor(self, "self"), call.constant(call.integer(diagonal, "diagonal"), "int64", "diagonal")
    return call.emit("Trilu", [ref, offset], {"upper": 1 if call.operator == "triu" else 0})
