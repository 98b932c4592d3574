"""Shapes and types: the numbers stay in order."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from certifier.rules.building import identity, size_of
from certifier.rules.movements.places import integers_of, moved, places
from certifier.rules.reductions import normalised_axes
from certifier.rules.registry import Site, rule
from certifier.terms import Term

_SHAPING = (1, 13, 21, 23, 24, 25)


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
