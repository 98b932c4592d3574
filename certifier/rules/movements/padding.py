"""Constants, edges and reflections around a value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from certifier.rules.geometry import demand_elements
from certifier.rules.movements.places import integers_of, moved, places
from certifier.rules.reductions import normalised_axes
from certifier.rules.registry import Site, rule
from certifier.terms import Term


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
