"""Values written into others at constant places, and choices by a constant mask: linear in all that is live."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from certifier.operators import Adjoint, Identity, Operator, Rearrange
from certifier.rules.building import Floats, size_of
from certifier.rules.geometry import demand_elements
from certifier.rules.movements import axis_of, within
from certifier.rules.registry import Site, rule
from certifier.terms import Affine, Term

_SCATTER = ("axis", "reduction")


@rule("ScatterND", since=(11, 13, 16, 18), attributes=("reduction",))
def scatter_nd(site: Site) -> tuple[Term, ...]:
    """Data with updates written, or added, at constant tuples of indices; none twice unless they are added."""
    shape, indices = site.shape(0), np.asarray(site.constant(1, "the indices"))
    depth = indices.shape[-1] if indices.ndim else 0
    if not 1 <= depth <= len(shape):
        raise site.refuse(f"indices of shape {indices.shape} do not fit {shape}")
    demand_elements(site, size_of(indices.shape[:-1]) * size_of(shape[depth:]))
    places = np.arange(size_of(shape)).reshape(shape)
    return _written(site, places[tuple(within(site, indices[..., i], shape[i]) for i in range(depth))])


@rule("ScatterElements", since=(11, 13, 16, 18), attributes=_SCATTER)
def scatter_elements(site: Site) -> tuple[Term, ...]:
    """Data with y[indices[i][j]][j] = updates[i][j] (along axis 0), written or added; indices constant."""
    shape, indices = site.shape(0), np.asarray(site.constant(1, "the indices"))
    axis = axis_of(site, 0)
    if indices.ndim != len(shape):
        raise site.refuse(f"indices of shape {indices.shape} do not fit {shape}")
    places = np.arange(size_of(shape)).reshape(shape)
    others = tuple(slice(count) if i != axis else slice(None) for i, count in enumerate(indices.shape))
    return _written(site, np.take_along_axis(places[others], within(site, indices, shape[axis]), axis=axis))


@rule("Scatter", since=(9,), attributes=("axis",))
def scatter(site: Site) -> tuple[Term, ...]:
    """ScatterElements under its first name."""
    return scatter_elements(site)


def _written(site: Site, targets: np.ndarray) -> tuple[Term, ...]:
    """Input 0 with input 2 at the flat places `targets`."""
    shape, size, count = site.shape(0), size_of(site.shape(0)), targets.size
    if site.shape(2) != targets.shape:
        raise site.refuse(f"updates of shape {site.shape(2)} do not fit {targets.shape}")
    reduction = site.text("reduction", "none")
    if reduction not in ("none", "add"):
        raise site.refuse(
            f"reduction {reduction!r} is not linear", remedy="take the extremes of gathered values instead"
        )
    times = np.bincount(targets.reshape(-1), minlength=size)
    if reduction == "add":
        added = Adjoint(Rearrange(targets.reshape(-1), columns=size))
        return (
            _combined(site, (0, 2), (Identity(size), added), shape, "sum", roundings=1 + int(times.max(initial=0))),
        )
    if times.max(initial=0) > 1:
        raise site.refuse("two updates at one place have no order, so their result is undefined")
    kept = np.where(times > 0, -1, np.arange(size))
    read = np.full(size, -1)
    read[targets.reshape(-1)] = np.arange(count)
    parts = (Rearrange(kept, columns=size), Rearrange(read, columns=count))
    return (_combined(site, (0, 2), parts, shape, "stack", roundings=0),)


@rule("Where", since=(9, 16))
def where(site: Site) -> tuple[Term, ...]:
    """X where a constant condition holds, Y elsewhere; broadcast as numpy does."""
    if not site.is_constant(0):
        raise site.refuse(
            "a choice that depends on the input jumps where the condition changes",
            remedy="write it with Max, Min, Relu or Clip, which are continuous",
        )
    condition = np.asarray(site.constant(0, "the condition"), dtype=bool)
    shape = np.broadcast_shapes(condition.shape, site.shape(1), site.shape(2))
    demand_elements(site, size_of(shape))
    parts = []
    for index, chosen in ((1, condition), (2, ~condition)):
        own = size_of(site.shape(index))
        places = np.broadcast_to(np.arange(own).reshape(site.shape(index)), shape)
        parts.append(Rearrange(np.where(np.broadcast_to(chosen, shape), places, -1), columns=own))
    return (_combined(site, (1, 2), parts, shape, "stack", roundings=0),)


def _combined(
    site: Site,
    indices: tuple[int, int],
    operators: Sequence[Operator],
    shape: tuple[int, ...],
    arrangement: Literal["sum", "stack"],
    *,
    roundings: int,
) -> Affine:
    """Σ A_i x_i over two inputs, of which constant ones make up the offset."""
    offset: Floats | None = None
    magnitude: Floats | None = None
    live: list[tuple[str, Operator]] = []
    for index, operator in zip(indices, operators, strict=True):
        if not site.is_constant(index):
            live.append((site.live(index), operator))
            continue
        # What is not chosen may be anything, infinity and NaN included.
        values = np.asarray(site.constant(index, "an operand"), dtype=np.float64).reshape(1, -1)
        part, size = operator.forward(values)[0], operator.forward(abs(values))[0]
        if not np.isfinite(part).all():
            raise site.refuse(
                f"input {index} holds NaN or infinite entries that are chosen",
                remedy="fill with a large finite number, such as -1e9 before a Softmax",
            )
        offset = part if offset is None else offset + part
        magnitude = size if magnitude is None else magnitude + size
    return Affine(
        name=site.node.name,
        operator=site.node.operator,
        sources=tuple(name for name, _ in live),
        output=site.node.outputs[0],
        shape=shape,
        dtype=site.dtype,
        operators=tuple(operator for _, operator in live),
        offset=offset,
        offset_magnitude=magnitude,
        arrangement=arrangement,
        roundings=roundings,
        swelling=1.0,
        amplification=1.0,
    )
