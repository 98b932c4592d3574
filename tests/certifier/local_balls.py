"""Analyses of balls for the tests, and points of balls that try to leave what was proved."""

from __future__ import annotations

import time

import numpy as np

from certifier.bounds.product import ProductBound
from certifier.flow import Network
from certifier.proof.execution import Gains
from certifier.proof.local.analysis import Analysis, Local
from certifier.proof.local.spans import centres_of
from certifier.search.lines import LeastArea
from tests.building import Model
from tests.certifier.preparing import prepared

ROUNDING = 1.0 - 1e-9
"""Keeps a point that was computed to lie in a ball inside of it."""


def local_of(network: Network, gains: Gains | None = None) -> Local:
    """Over all inputs, by default without constants of the terms."""
    everything = np.full(network.input_size, np.inf)
    return Local(network, gains or {}, lower=-everything, upper=everything)


def analysed(network: Network, x: np.ndarray, radii: np.ndarray, *, gains: Gains | None = None) -> Analysis:
    """With functionals wherever they could help."""
    local, guide = local_of(network, gains), LeastArea(deadline=time.monotonic() + 1e6, budget=1e15, steps=2)
    return local.analyse(local.balls(x, radii), guide, known=None)


def spans_alone(network: Network, x: np.ndarray, radii: np.ndarray, *, gains: Gains) -> Analysis:
    """Without any functional of inner values."""
    local, guide = local_of(network, gains), LeastArea(deadline=0.0, budget=0.0, steps=0)
    return local.analyse(local.balls(x, radii), guide, known=None)


def network_of(model: Model) -> Network:
    """The network of a model under construction."""
    return prepared(model.data())[0]


def network_and_gains(model: Model) -> tuple[Network, Gains]:
    """The same with proved constants of its terms."""
    network, norms = prepared(model.data())
    return network, ProductBound(network, norms).gains()


def points_of(network: Network, x: np.ndarray, radius: float, coefficients: np.ndarray, seed: int) -> np.ndarray:
    """Points of the ball around one row: random ones, and descents of every functional of the output."""
    generator = np.random.default_rng(seed)
    sphere = generator.standard_normal((24, x.size))
    lengths = radius * generator.random((24, 1)) ** 0.25
    points = [x + lengths * sphere / np.linalg.norm(sphere, axis=1, keepdims=True)]
    current = np.repeat(x[None], len(coefficients), axis=0)
    for step in (1.0, 0.5, 0.5, 0.2):
        gradient = network.linearised(current).pullback(coefficients)
        norms = np.linalg.norm(gradient, axis=1, keepdims=True)
        offset = current - step * radius * gradient / np.where(norms > 0, norms, 1.0) - x
        lengths = np.linalg.norm(offset, axis=1, keepdims=True)
        current = x + offset * np.minimum(1.0, radius / np.where(lengths > 0, lengths, 1.0))
        points.append(current)
    return x + ROUNDING * (np.concatenate(points) - x)


def everything_is_inside(analysis: Analysis, points: np.ndarray, row: int) -> None:
    """The exact values at the points, which lie in the ball of `row`, are in every span.

    The float64 values come with a bound of their error: none is certainly outside.
    """
    for name, centre in centres_of(analysis.network, points).items():
        span = analysis.spans[name]
        assert (centre.value + centre.error >= span.lower[row]).all(), name
        assert (centre.value - centre.error <= span.upper[row]).all(), name
        base = analysis.balls.centres[name]
        apart = np.abs(centre.value - base.value[row]) - centre.error - base.error[row]
        assert (apart <= span.moved[row]).all(), name
        assert (np.linalg.norm(np.maximum(apart, 0.0), axis=1) <= span.length[row]).all(), name
