"""Values side by side, and repeated."""

from __future__ import annotations

import math

import numpy as np

from certifier.operators import Operator, Placed
from certifier.rules.building import size_of
from certifier.rules.geometry import demand_elements
from certifier.rules.movements.places import integers_of, moved, places
from certifier.rules.reductions import normalised_axes
from certifier.rules.registry import Site, rule
from certifier.terms import Affine, Term


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
            amplification=1.0,
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
