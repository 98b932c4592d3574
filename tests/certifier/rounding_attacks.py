"""Attacks on what executes: steps along gradients, projected descent on the engine itself, neighbouring floats.

Every attack yields points that lie within the given radii, counted in exact arithmetic on the float64 numbers that are
served, and the label that the engine gives them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from certifier.engine import Engine
from certifier.flow import Network
from certifier.limits import Limits
from certifier.network import build_network, served_model
from certifier.reading.onnx import read_onnx
from tests.building import Model
from tests.certifier import hostile_functions

Floats = np.ndarray
SHARES = tuple(np.linspace(0.05, 0.95, 19))


@dataclass(frozen=True)
class Target:
    """A network and the engine that serves it."""

    network: Network
    engine: Engine

    @classmethod
    def of(cls, data: bytes) -> Target:
        network = build_network(read_onnx(data, limits=Limits()), limits=Limits(), cut_head=True)
        return cls(network, Engine(served_model(network), network.input))

    def labels(self, rows: Floats) -> Floats:
        return np.argmax(self.engine.run(rows), axis=1)


def flips(target: Target, rows: Floats, labels: Floats, radii: Floats, *, seed: int) -> tuple[int, int]:
    """(tries, flips): how often the engine gives a point within a row's radius another label than the row's.

    Shapes: rows [B, n] float64; labels and radii [B]; radii beyond 1e6 are attacked at 1e6.
    """
    generator = np.random.default_rng(seed)
    tries = flipped = 0
    for row, label, radius in zip(rows, labels, np.minimum(radii, 1e6), strict=True):
        if radius <= 0:
            continue
        points = np.concatenate(list(_points(target, row, int(label), float(radius), generator)))
        inside = np.linalg.norm(points - row, axis=1) <= radius * (1 - 1e-12)
        found = target.labels(points[inside])
        tries += int(inside.sum())
        flipped += int((found != label).sum())
    return tries, flipped


def steps_along_the_gradient(target: Target, rows: Floats, labels: Floats, radii: Floats) -> tuple[int, int]:
    """(tries, flips) of the published attack: `SHARES` of each radius down the margin."""
    tries = flipped = 0
    for row, label, radius in zip(rows, labels, radii, strict=True):
        if radius > 0:
            points = row + radius * np.array(SHARES)[:, None] * _direction(target, row, int(label))
            tries += len(points)
            flipped += int((target.labels(points) != label).sum())
    return tries, flipped


def _points(target: Target, row: Floats, label: int, radius: float, generator: np.random.Generator) -> Iterator[Floats]:
    downhill = _direction(target, row, label)
    yield row + radius * np.array(SHARES)[:, None] * downhill
    # The same points as the engine sees them, and their neighbours on either side.
    near = (row + radius * 0.5 * downhill).astype(np.float32)
    yield np.array([np.nextafter(near, np.float32(side)) for side in (-np.inf, np.inf)], dtype=np.float64)
    signs = np.sign(generator.standard_normal(row.size)).astype(np.float32)
    yield np.nextafter(near, signs * np.float32(np.inf)).astype(np.float64)[None]
    noise = generator.standard_normal((3, row.size))
    yield row + radius * 0.99 * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    yield _descended(target, row, label, radius)


def _direction(target: Target, row: Floats, label: int) -> Floats:
    """Down the margin over the nearest rival by the engine's own logits."""
    logits = target.engine.run(row[None])[0].copy()
    logits[label] = -np.inf
    rival = int(np.argmax(logits))
    weights = np.zeros((1, logits.size))
    weights[0, rival], weights[0, label] = 1.0, -1.0
    gradient = target.network.linearised(row[None]).pullback(weights)
    length = np.linalg.norm(gradient)
    return gradient[0] / length if length > 0 else np.zeros_like(row)


def _descended(target: Target, row: Floats, label: int, radius: float) -> Floats:
    """Projected descent, judged by the margins that the engine computes."""
    current, best = row, row
    least = np.inf
    for step in (0.5, 0.3, 0.2, 0.1):
        current = current + step * radius * _direction(target, current, label)
        offset = current - row
        current = row + offset * min(1.0, 0.999 * radius / max(float(np.linalg.norm(offset)), 1e-300))
        logits = target.engine.run(current[None])[0]
        margin = logits[label] - np.delete(logits, label).max()
        if margin < least:
            least, best = margin, current
    return np.array([current, best])


# --- networks and inputs that make rounding show -------------------------------------------------------------------


def hostile_case(generator: np.random.Generator) -> tuple[Model, Floats]:
    """A small classifier of one of the hostile kinds, and inputs that nearly tie.  Weights are exact in float32."""
    kinds = (
        _ties,
        _tiny_weights,
        _huge_biases,
        _denormals,
        _cancellation,
        _adversarial_sums,
        _order_detector,
        _prevailing_mean,
        _tiny_epsilon,
        _gated,
        *hostile_functions.KINDS,
    )
    return kinds[int(generator.integers(len(kinds)))](generator)


def _single(values: object) -> Floats:
    return np.asarray(values, dtype=np.float32).astype(np.float64)


def _two_layers(generator: np.random.Generator, first: Floats, bias: Floats, second: Floats, end: Floats) -> Model:
    model = Model(first.shape[1])
    model.linear(_single(first), _single(bias))
    model.then("Relu")
    model.linear(_single(second), _single(end))
    return model


def _random(generator: np.random.Generator, scale: float = 1.0) -> tuple[Floats, Floats, Floats, Floats]:
    width, hidden, classes = (int(generator.integers(2, 9)) for _ in range(3))
    return (
        scale * generator.standard_normal((hidden, width)),
        scale * generator.standard_normal(hidden),
        generator.standard_normal((classes, hidden)),
        generator.standard_normal(classes),
    )


def _ties(generator: np.random.Generator) -> tuple[Model, Floats]:
    """Two classes a unit in the last place apart, where rounding decides."""
    first, bias, second, end = _random(generator)
    second[1] = second[0]
    end[1] = end[0] + 2.0 ** -float(generator.integers(10, 24))
    return _two_layers(generator, first, bias, second, end), generator.standard_normal((2, first.shape[1]))


def _tiny_weights(generator: np.random.Generator) -> tuple[Model, Floats]:
    """Products near the smallest normal number."""
    first, bias, second, end = _random(generator, 2.0 ** -float(generator.integers(20, 130)))
    return _two_layers(generator, first, bias, second, 0 * end), generator.standard_normal((2, first.shape[1]))


def _huge_biases(generator: np.random.Generator) -> tuple[Model, Floats]:
    """Added before the margin is decided (Murray 2026)."""
    first, bias, second, end = _random(generator)
    where = generator.integers(2)
    bias, end = (bias + 2.0**20, end) if where else (bias, end + 2.0 ** float(generator.integers(10, 26)))
    return _two_layers(generator, first, bias, second, end), generator.standard_normal((2, first.shape[1]))


def _denormals(generator: np.random.Generator) -> tuple[Model, Floats]:
    """Inputs and weights whose products a machine may flush to zero."""
    first, bias, second, end = _random(generator, 2.0**-70)
    inputs = generator.standard_normal((2, first.shape[1])) * 2.0 ** -float(generator.integers(40, 80))
    return _two_layers(generator, first, bias * 2.0**-60, second, end * 2.0**-140), inputs


def _cancellation(generator: np.random.Generator) -> tuple[Model, Floats]:
    """Large numbers whose difference decides."""
    first, bias, second, end = _random(generator)
    first = np.concatenate([first, first + 2.0**-12 * generator.standard_normal(first.shape)])
    second = np.concatenate([1e4 * second, -1e4 * second], axis=1)
    return _two_layers(generator, first, np.tile(bias, 2), second, end), generator.standard_normal((2, first.shape[1]))


def _adversarial_sums(generator: np.random.Generator) -> tuple[Model, Floats]:
    """One large number first, and many small ones that are lost beside it, in any order that an engine may take."""
    width = int(generator.integers(8, 200))
    rows = 2.0**-12 * generator.random((3, width))
    rows[:, int(generator.integers(width))] = 2.0 ** float(generator.integers(8, 16))
    model = Model(width)
    model.linear(_single(rows), _single(generator.standard_normal(3)))
    return model, 1.0 + 2.0**-8 * generator.standard_normal((2, width))


def _order_detector(generator: np.random.Generator) -> tuple[Model, Floats]:
    """((a + x) - a) against x itself: classes differ by what the order of operations rounds off."""
    large = 2.0 ** float(generator.integers(8, 25))
    model = Model(3)
    there = model.add("Add", "x", np.full(3, large))
    back = model.add("Sub", there, np.full(3, large))
    both = model.add("Concat", back, "x", axis=1)
    model.add("Gemm", both, _single(generator.standard_normal((6, 3))), _single(generator.standard_normal(3)))
    return model, generator.standard_normal((2, 3))


def _normalised(generator: np.random.Generator, epsilon: float, mean: float, deviation: float) -> tuple[Model, Floats]:
    """A LayerNormalization, or one spelled out, behind a matrix or none, and a readout that nearly ties.

    Over the reals the entries add up to 0, so that two rows that differ by a large constant differ by what is rounded.
    """
    count = int(generator.integers(2, 33))
    model = Model(count)
    if generator.integers(2):
        model.linear(_single(generator.standard_normal((count, count))), _single(np.full(count, mean)))
    else:
        model.add("Identity", "x")
    before = model.then("Identity")
    if generator.integers(2):
        model.then("LayerNormalization", np.ones(count), np.zeros(count), epsilon=epsilon)
    else:
        z = model.add("Sub", before, model.then("ReduceMean", np.array([1]), keepdims=1))
        model.add("Mul", z, z)
        model.then("ReduceMean", np.array([1]), keepdims=1)
        model.then("Add", np.array(epsilon))
        model.add("Div", z, model.then("Sqrt"))
    readout = _single(generator.standard_normal((3, count)))
    readout[1] = readout[0] + 2.0 ** float(generator.integers(0, 12))
    model.linear(_single(readout), _single([0.0, 2.0 ** -float(generator.integers(8, 24)), -1.0]))
    return model, mean + deviation * generator.standard_normal((2, count))


def _prevailing_mean(generator: np.random.Generator) -> tuple[Model, Floats]:
    """A mean up to as large beside the deviation as the bound allows, and beyond."""
    deviation = 10.0 ** float(generator.uniform(-3, 3))
    mean = deviation * float(generator.uniform(0, 5))
    return _normalised(generator, 1e-5, mean, deviation)


def _tiny_epsilon(generator: np.random.Generator) -> tuple[Model, Floats]:
    """Deviations near the root of an epsilon between 1e-30 and 1e-3."""
    epsilon = 10.0 ** float(generator.uniform(-30, -3))
    deviation = np.sqrt(epsilon) * 10.0 ** float(generator.uniform(-1, 1))
    return _normalised(generator, epsilon, deviation, deviation)


def _gated(generator: np.random.Generator) -> tuple[Model, Floats]:
    """Two normalised vectors multiplied, one of them with a large number added: bounded factors need no box."""
    count = int(generator.integers(2, 17))
    model = Model(count)
    plain = [np.ones(count), np.zeros(count)]
    first = model.add("LayerNormalization", "x", *plain, epsilon=1e-3)
    shifted = model.add("LayerNormalization", "x", *plain, epsilon=1e-3)
    shifted = model.add("Add", shifted, np.full(count, 2.0 ** float(generator.integers(0, 12))))
    model.add("Mul", first, shifted)
    readout = _single(generator.standard_normal((3, count)))
    readout[1] = readout[0] + 2.0 ** float(generator.integers(0, 12))
    model.linear(_single(readout), _single([0.0, 2.0 ** -float(generator.integers(2, 20)), -1.0]))
    return model, generator.standard_normal((2, count))
