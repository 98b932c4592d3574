"""ATen operators that combine all entries along axes."""

from __future__ import annotations

import math

from certifier.graph import FLOATING
from certifier.reading.aten.arithmetic import extremum
from certifier.reading.aten.registry import Call, aten
from certifier.reading.emitting import Ref


def reduced(call: Call, operator: str, ref: Ref, dim: object, keepdim: object) -> Ref:
    """A reduction over `dim`: one axis, several, or all for None and for none named."""
    named = () if dim is None else call.integers(dim, "dim")
    axes = sorted({call.axis(each, ref.rank) for each in named}) or list(range(ref.rank))
    attributes = {"keepdims": 1 if call.flag(keepdim, "keepdim") else 0}
    if not axes:
        return ref if operator not in ("ReduceL1", "ReduceL2") else call.emit("Abs", [ref])
    return call.emit(operator, [ref, call.integers_constant(axes, "axes")], attributes)


@aten("mean", "sum")
def mean(call: Call, self: object, dim: object = None, keepdim: object = False, *, dtype: object = None) -> Ref:
    """The mean or the sum of entries."""
    ref = call.cast(call.tensor(self, "self"), call.dtype(dtype))
    if call.operator == "sum" and ref.dtype not in FLOATING:
        ref = call.cast(ref, "int64")
    return reduced(call, "ReduceMean" if call.operator == "mean" else "ReduceSum", ref, dim, keepdim)


@aten("prod")
def prod(call: Call, self: object, dim: object = None, keepdim: object = False, *, dtype: object = None) -> Ref:
    """The product of entries."""
    return reduced(call, "ReduceProd", call.cast(call.tensor(self, "self"), call.dtype(dtype)), dim, keepdim)


@aten("amax", "amin")
def amax(call: Call, self: object, dim: object = (), keepdim: object = False) -> Ref:
    """The largest or the smallest entry."""
    return reduced(call, _extreme(call), call.tensor(self, "self"), dim, keepdim)


def _extreme(call: Call) -> str:
    return "ReduceMax" if "max" in call.operator else "ReduceMin"


@aten("max", "min")
def max_(call: Call, self: object, dim: object = None, keepdim: object = False, *, other: object = None) -> object:
    """The extreme entry of all; along an axis with its place; or of two tensors."""
    ref = call.tensor(self, "self")
    if isinstance(dim, Ref) or other is not None:
        return extremum(call, ref, dim if other is None else other)
    if dim is None:
        return reduced(call, _extreme(call), ref, None, False)
    return reduced(call, _extreme(call), ref, call.axis(dim, ref.rank), keepdim), _place(call, ref, dim, keepdim)


@aten("logsumexp")
def logsumexp(call: Call, self: object, dim: object, keepdim: object = False) -> Ref:
    """log(sum(exp(x)))."""
    return reduced(call, "ReduceLogSumExp", call.tensor(self, "self"), dim, keepdim)


@aten("argmax", "argmin")
def argmax(call: Call, self: object, dim: object = None, keepdim: object = False) -> Ref:
    """The place of the extreme entry."""
    ref = call.tensor(self, "self")
    if dim is None:
        ref, dim = call.reshape(ref, (ref.size,)), 0
    return _place(call, ref, dim, keepdim)


def _place(call: Call, ref: Ref, dim: object, keepdim: object) -> Ref:
    operator = "ArgMax" if "max" in call.operator else "ArgMin"
    attributes = {"axis": call.axis(dim, ref.rank), "keepdims": int(call.flag(keepdim, "keepdim"))}
    return call.emit(operator, [ref], attributes)


@aten("any", "all")
def any_(call: Call, self: object, dim: object = None, keepdim: object = False) -> Ref:
    """Whether some entry, or every entry, is true."""
    ref = call.cast(call.cast(call.tensor(self, "self"), "bool"), "int32")
    return call.cast(reduced(call, "ReduceMax" if call.operator == "any" else "ReduceMin", ref, dim, keepdim), "bool")


@aten("cumsum")
def cumsum(call: Call, self: object, dim: object, *, dtype: object = None) -> Ref:
    """The running sum along an axis."""
    ref = call.cast(call.tensor(self, "self"), call.dtype(dtype))
    return call.emit("CumSum", [ref, call.constant(call.axis(dim, ref.rank), "int64", "axis")])


@aten("topk")
def topk(
    call: Call, self: object, k: object, dim: object = -1, largest: object = True, sorted: object = True
) -> tuple[Ref, ...]:
    """The k most extreme entries along an axis and their places."""
    ref = call.tensor(self, "self")
    ordered = call.flag(sorted, "sorted")
    return _first(call, ref, call.axis(dim, ref.rank), call.integer(k, "k"), largest=largest, ordered=ordered)


@aten("sort")
def sort(
    call: Call, self: object, dim: object = -1, descending: object = False, *, stable: object = None
) -> tuple[Ref, ...]:
    """All entries along an axis in order, and their places; among equal entries their places may be others."""
    ref = call.tensor(self, "self")
    axis = call.axis(dim, ref.rank)
    return _first(call, ref, axis, ref.shape[axis], largest=descending, ordered=True)


def _first(call: Call, ref: Ref, axis: int, count: int, *, largest: object, ordered: bool) -> tuple[Ref, ...]:
    attributes = {"axis": axis, "largest": int(call.flag(largest, "the direction")), "sorted": int(ordered)}
    return call.emitter.node(
        "TopK", [ref, call.integers_constant([count], "k")], attributes, outputs=2, name=call.where
    )


@aten("norm")
def norm(
    call: Call, self: object, p: object = 2, dim: object = None, keepdim: object = False, *, dtype: object = None
) -> Ref:
    """The p-norm of entries, for p = 1, 2 or infinity; p = "fro" and None mean 2."""
    return _norm(call, call.cast(call.tensor(self, "self"), call.dtype(dtype)), p, dim, keepdim)


@aten("linalg_vector_norm")
def vector_norm(
    call: Call, self: object, ord: object = 2, dim: object = None, keepdim: object = False, *, dtype: object = None
) -> Ref:
    """The p-norm of entries, for p = 1, 2 or infinity."""
    return _norm(call, call.cast(call.tensor(self, "self"), call.dtype(dtype)), ord, dim, keepdim)


@aten("linalg_norm")
def linalg_norm(
    call: Call, self: object, ord: object = None, dim: object = None, keepdim: object = False, *, dtype: object = None
) -> Ref:
    """The 2-norm of all entries, or a vector norm along one axis; operator norms are refused."""
    axes = None if dim is None else call.integers(dim, "dim")
    if ord is not None and (axes is None or len(axes) != 1):
        raise call.refuse("is supported as a norm of vectors only")
    return _norm(call, call.cast(call.tensor(self, "self"), call.dtype(dtype)), ord, dim, keepdim)


@aten("frobenius_norm")
def frobenius_norm(call: Call, self: object, dim: object = None, keepdim: object = False) -> Ref:
    """The 2-norm of entries."""
    return _norm(call, call.tensor(self, "self"), 2, dim, keepdim)


def _norm(call: Call, ref: Ref, p: object, dim: object, keepdim: object) -> Ref:
    order = 2 if p is None or p == "fro" else call.number(p, "p")
    if order == 2:
        return reduced(call, "ReduceL2", ref, dim, keepdim)
    if order == 1:
        return reduced(call, "ReduceL1", ref, dim, keepdim)
    if order == math.inf:
        return reduced(call, "ReduceMax", call.emit("Abs", [ref]), dim, keepdim)
    raise call.refuse(f"the norm of order {order} is not supported")


@aten("norm_except_dim")
def norm_except_dim(call: Call, v: object, pow: object = 2, dim: object = 0) -> Ref:
    """The 2-norm of each slice along `dim`, of everything for -1, with all axes kept."""
    ref = call.tensor(v, "v")
    if call.number(pow, "pow") != 2:
        raise call.refuse("is supported for the 2-norm")
    kept = None if dim == -1 else call.axis(dim, ref.rank)
    return reduced(call, "ReduceL2", ref, [axis for axis in range(ref.rank) if axis != kept], True)


@aten("_weight_norm")
def weight_norm(call: Call, v: object, g: object, dim: object = 0) -> Ref:
    """v g / norm(v), the norm as in `norm_except_dim`."""
    direction, length = call.operands(v, g)
    return call.emit("Mul", [direction, call.emit("Div", [length, norm_except_dim(call, direction, 2, dim)])])


@aten("_weight_norm_interface")
def weight_norm_interface(call: Call, v: object, g: object, dim: object = 0) -> tuple[Ref, Ref]:
    """`_weight_norm`, and the norms."""
    return weight_norm(call, v, g, dim), norm_except_dim(call, v, 2, dim)


@aten("var", "std", "var_mean", "std_mean")
def var(
    call: Call,
    self: object,
    dim: object = None,
    unbiased: object = None,
    keepdim: object = False,
    *,
    correction: object = None,
) -> object:
    """The variance (or its root) of entries, with their mean where that is asked for."""
    ref = call.tensor(self, "self")
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    named = () if dim is None else call.integers(dim, "dim")
    axes = {call.axis(each, ref.rank) for each in named} or set(range(ref.rank))
    count = math.prod(ref.shape[axis] for axis in axes)
    lost = (
        call.number(correction, "correction") if correction is not None else int(unbiased is None or unbiased is True)
    )
    mean_kept = reduced(call, "ReduceMean", ref, dim, True)
    apart = call.emit("Sub", [ref, mean_kept])
    result = reduced(call, "ReduceMean", call.emit("Mul", [apart, apart]), dim, keepdim)
    if lost != 0:
        if count <= lost:
            raise call.refuse("has too few entries for its correction")
        result = call.emit("Mul", [result, call.constant(count / (count - lost), ref.dtype, "correction")])
    if call.operator.startswith("std"):
        result = call.emit("Sqrt", [result])
    if not call.operator.endswith("mean"):
        return result
    return result, mean_kept if call.flag(keepdim, "keepdim") else call.reshape(mean_kept, result.shape)
