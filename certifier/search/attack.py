"""Searches from below: how far the network really stretches two inputs, and whether a class flips inside a ball.

Untrusted directions, honest results: the stretch that is reported is a secant between two concrete inputs, with the
rounding error of evaluating both taken off, so it is a true lower bound of the Lipschitz constant; secants know no
kinks, at which gradients overshoot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from certifier.box import Box
from certifier.flow import Network
from certifier.proof.execution import Gains, enclose
from certifier.proof.rounding import div_lower, norm_lower, norm_upper
from certifier.terms import EXACT

Floats = NDArray[np.float64]

LARGEST_EFFORT = 2**38
"""Products that one search may take: about a minute on one core, 17 evaluations of VGG-16 on 224x224."""


def affordable(network: Network, iterations: int, *, rows: int) -> int:
    """So many of the wished `iterations` as `LARGEST_EFFORT` allows, but two at least; each goes forth and back.

    A clock has no say in it: the same model is searched and tested alike on every machine.
    """
    return min(iterations, max(2, LARGEST_EFFORT // max(1, 2 * rows * network.multiplications)))


def probe_inputs(box: Box, *, count: int, seed: int) -> Floats:
    """Inputs of several kinds: uniform in [0, 1], normal, small and large; within a bounded box uniform or corners.

    Shapes: [count, input_size].
    """
    generator = np.random.default_rng(seed)
    bounded = np.isfinite(box.lower) & np.isfinite(box.upper)
    start = np.where(bounded, box.lower, 0.0)
    # The width of a bounded box may overflow, half of it does not.
    half = np.where(bounded, box.upper / 2 - start / 2, 0.0)
    rows = []
    for position in range(count):
        uniform = generator.random(box.lower.size)
        normal = generator.standard_normal(box.lower.size)
        free = (uniform, normal, 0.1 * normal, uniform * 3.0)[position % 4]
        share = np.rint(uniform) if position % 4 == 1 else uniform
        rows.append(box.clip(np.where(bounded, start + share * half + share * half, free)))
    # Representable in float32, so that the engine starts from the very same numbers.
    with np.errstate(over="ignore"):
        return np.array(rows).astype(np.float32).astype(np.float64)


def stretch_lower(network: Network, x: Floats, others: Sequence[Floats], gains: Gains) -> float:
    """max over rows and `others` of ||f(x) - f(y)|| / ||x - y||, rounded down: a lower bound of the Lipschitz constant.

    Shapes: x and every y of `others` [B, input_size].
    """
    every = np.concatenate([x, *others])
    enclosure = enclose(network, every, input_radius=np.zeros_like(every), precisions=EXACT, gains=gains)
    centre, *centres = np.split(enclosure.centre, len(others) + 1)
    stray, *strays = np.split(enclosure.radius, len(others) + 1)
    lower = 0.0
    for y, value, radius in zip(others, centres, strays, strict=True):
        difference = np.abs(centre - value)
        # Subtracting rounds once; what is left below the sum of the strays proves nothing.
        reliable = np.nextafter(difference, 0.0) - np.nextafter(stray + radius, np.inf)
        reliable = np.where(np.isfinite(reliable), np.maximum(np.nextafter(reliable, -np.inf), 0.0), 0.0)
        apart = np.abs(x - y)
        distance = norm_upper(np.where(apart > 0, np.nextafter(apart, np.inf), 0.0), 1)
        lower = max(lower, float(np.max(div_lower(norm_lower(reliable, 1), distance), initial=0.0)))
    return lower


def stretch_search(
    network: Network, starts: Floats, gains: Gains, *, box: Box, iterations: int, steps: tuple[float, ...], seed: int
) -> float:
    """The largest stretch found by power iteration on the Jacobian around each of `starts`; a lower bound in the box.

    Shapes: starts [B, input_size].
    """
    generator = np.random.default_rng(seed)
    starts = box.clip(starts)
    directions = _normalised(generator.standard_normal(starts.shape))
    here = network.linearised(starts)
    small = min(steps)
    for _ in range(affordable(network, iterations, rows=len(starts))):
        forward = (network.evaluate(starts + small * directions) - here.value) / small
        lengths = np.linalg.norm(forward, axis=1, keepdims=True)
        forward = np.divide(forward, lengths, out=np.zeros_like(forward), where=lengths > 0)
        backward = here.pullback(forward)
        alive = np.linalg.norm(backward, axis=1, keepdims=True) > 0
        directions = np.where(alive, _normalised(backward), directions)
    return stretch_lower(network, starts, [box.clip(starts + step * directions) for step in steps], gains)


def attack_in_ball(
    network: Network,
    x: Floats,
    radii: Floats,
    gradient_of_margin: Callable[[Floats], Floats],
    *,
    box: Box,
    iterations: int,
    steps: tuple[float, ...],
) -> list[Floats]:
    """Points inside the balls and the box that try to make the margin small, by projected gradient descent.

    `gradient_of_margin` maps logits [B, c] to the gradient [B, c] of each row's margin.
    Shapes: x [B, n] in the box, radii [B]; each returned array [B, n] lies within the radii of x.
    """
    found = []
    room = radii[:, None] * (1.0 - 1e-9)
    iterations = affordable(network, iterations, rows=len(steps) * len(x))
    for step in steps:
        current = x.copy()
        for _ in range(iterations):
            here = network.linearised(current)
            downhill = here.pullback(gradient_of_margin(here.value))
            moved = current - step * room * _normalised(downhill)
            offset = moved - x
            lengths = np.linalg.norm(offset, axis=1, keepdims=True)
            # The nearest point of the box is no further from x, which lies in it.
            current = box.clip(x + offset * np.minimum(1.0, room / np.maximum(lengths, 1e-290)))
        found.append(current)
    return found


def _normalised(rows: Floats) -> Floats:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
