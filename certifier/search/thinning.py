"""Smaller tori, on which a search may look for multipliers of a larger one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from certifier.proof.frequency.steps import Linear, Segment

THIN_POINTS = (6, 4, 3)
"""Points per axis of the last torus of a thinned chain: the most for which matrices have no more numbers than these."""
THIN_NUMBERS = 2**20


def thin_points(segments: Sequence[Segment]) -> int | None:
    """How many points per axis a thinned chain has; None where thinning changes nothing."""
    for points in THIN_POINTS:
        sizes = [thin_sizes(segment, points) for segment in segments]
        widest = [max(segment.widths()) for segment in segments]
        if max(math.prod(size) / 2 * width**2 for size, width in zip(sizes, widest, strict=True)) <= THIN_NUMBERS:
            break
    return None if all(size == segment.sizes for size, segment in zip(sizes, segments, strict=True)) else points


def thin_sizes(segment: Segment, points: int) -> tuple[int, ...]:
    """A smaller torus with the same strides."""
    strides = [1] * len(segment.sizes)
    for step in segment.steps:
        if isinstance(step, Linear) and step.strides is not None:
            strides = [total * stride for total, stride in zip(strides, step.strides, strict=True)]
    return tuple(min(size, stride * points) for size, stride in zip(segment.sizes, strides, strict=True))
