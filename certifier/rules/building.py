"""Short spellings of the terms that rules build most."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from certifier.operators import Identity, Operator
from certifier.rules.registry import Site
from certifier.terms import Activation, Affine, Contraction, Elementwise, VectorFunction

Floats = NDArray[np.float64]


def size_of(shape: tuple[int, ...]) -> int:
    """The number of entries of a tensor of this shape."""
    return math.prod(shape)


def linear(
    site: Site,
    operator: Operator,
    *,
    shape: tuple[int, ...],
    index: int = 0,
    output: str | None = None,
    source: str | None = None,
) -> Affine:
    """y = A x for live input number `index` (or the named `source`), rounded only in A's own sums.

    The engine sums the products of A's entries; what divides a sum when it is complete is an `average`.
    """
    return Affine(
        name=site.node.name,
        operator=site.node.operator,
        sources=(source if source is not None else site.live(index),),
        output=output if output is not None else site.node.outputs[0],
        shape=shape,
        dtype=site.dtype,
        operators=(operator,),
        offset=None,
        offset_magnitude=None,
        arrangement="sum",
        roundings=0 if operator.fan_in == 0 else 2,
        swelling=1.0,
        amplification=1.0,
    )


def average(
    site: Site, operator: Operator, *, shape: tuple[int, ...], divisor: float, source: str | None = None
) -> Affine:
    """y = A x where the engine sums first and divides by at most `divisor` then: the sum may overflow, the mean not."""
    return replace(linear(site, operator, shape=shape, source=source), swelling=max(1.0, divisor))


def affine(
    site: Site,
    operator: Operator,
    offset: Floats,
    *,
    shape: tuple[int, ...],
    roundings: int,
    offset_magnitude: Floats | None = None,
    index: int = 0,
    source: str | None = None,
) -> Affine:
    """y = A x + b; `offset` broadcasts to the tensor `shape`, as does `offset_magnitude` (default |b|).

    `roundings` counts every rounding per entry beyond A's products: at least the addition of b.
    """
    flat = np.broadcast_to(offset, shape).reshape(-1)
    magnitude = abs(flat) if offset_magnitude is None else np.broadcast_to(offset_magnitude, shape).reshape(-1)
    return Affine(
        name=site.node.name,
        operator=site.node.operator,
        sources=(source if source is not None else site.live(index),),
        output=site.node.outputs[0],
        shape=shape,
        dtype=site.dtype,
        operators=(operator,),
        offset=flat,
        offset_magnitude=magnitude,
        arrangement="sum",
        roundings=roundings,
        swelling=1.0,
        amplification=1.0,
    )


def identity(site: Site, *, shape: tuple[int, ...] | None = None, index: int = 0) -> Affine:
    """The same numbers under another shape."""
    own = site.shape(index)
    return linear(site, Identity(size_of(own)), shape=own if shape is None else shape, index=index)


def activation(
    site: Site,
    function: Elementwise,
    *,
    shape: tuple[int, ...] | None = None,
    index: int = 0,
    source: str | None = None,
    output: str | None = None,
) -> Activation:
    """h = f(y) entrywise."""
    return Activation(
        name=site.node.name,
        operator=site.node.operator,
        sources=(source if source is not None else site.live(index),),
        output=output if output is not None else site.node.outputs[0],
        shape=site.shape(index) if shape is None else shape,
        dtype=site.dtype,
        function=function,
    )


def contraction(
    site: Site,
    function: VectorFunction,
    *,
    shape: tuple[int, ...],
    index: int = 0,
    source: str | None = None,
    output: str | None = None,
) -> Contraction:
    """h = F(y) for a vector function of known constant."""
    return Contraction(
        name=site.node.name,
        operator=site.node.operator,
        sources=(source if source is not None else site.live(index),),
        output=output if output is not None else site.node.outputs[0],
        shape=shape,
        dtype=site.dtype,
        function=function,
    )
