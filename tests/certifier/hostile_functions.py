"""Small classifiers with functions of unbounded slope, whose ranges are bounded by what comes before, and inputs.

Weights are exact in float32; of the outputs two nearly tie.
"""

from __future__ import annotations

import numpy as np
from onnx.reference import ReferenceEvaluator

from tests.building import Model, single

Floats = np.ndarray


def _nearly_tied(model: Model, generator: np.random.Generator) -> tuple[Model, Floats]:
    """A readout, and two inputs at the first of which two outputs differ by about what is rounded near it, or more."""
    rows = generator.standard_normal((2, model.row_shape[0]))
    near = rows[0] * (1 + 2.0**-10 * generator.standard_normal((8, rows.shape[1])))
    exact, rounded = (_evaluated(model, near, dtype) for dtype in (np.float64, np.float32))
    readout = single(generator.standard_normal((3, exact.shape[1])))
    readout[2] = 0.0
    gaps = exact @ (readout[0] - readout[1])
    error = np.nanmax(np.abs(rounded @ (readout[0] - readout[1]) - gaps))
    tie = gaps[0] - error * 2.0 ** float(generator.uniform(-2, 10))
    ends = single([0.0, tie, -2.0 * np.abs(exact).max()])
    if np.isfinite(ends).all():
        model.linear(readout, ends)
    return model, rows


def _evaluated(model: Model, rows: Floats, dtype: type) -> Floats:
    values: list = ReferenceEvaluator(model.proto(dtype)).run(None, {"x": rows.astype(dtype)})  # pyright: ignore
    return values[0].astype(np.float64)


def _in_range(model: Model, generator: np.random.Generator, source: str, middle: float, half: float) -> str:
    """A matrix and a function with bounded values, between middle - half and middle + half: no box is needed."""
    count = model.row_shape[0]
    mixed = np.eye(count) if generator.integers(2) else generator.standard_normal((count, count))
    matrix = single(2.0 ** float(generator.integers(-4, 4)) * mixed)
    model.add("Gemm", source, matrix, single(generator.standard_normal(count)))
    if generator.integers(2):
        model.then("Tanh")
    else:
        model.then("Clip", np.array(-1.0), np.array(1.0))
    model.then("Mul", single(half))
    return model.then("Add", single(middle))


def _drifted(model: Model, generator: np.random.Generator, size: float) -> str:
    """A large number added and taken off again, in most networks."""
    if generator.integers(4):
        large = np.full(model.row_shape[0], single(size * 2.0 ** float(generator.integers(0, 21))))
        model.then("Add", large)
        model.then("Sub", large)
    return model.output


def steep(generator: np.random.Generator) -> tuple[Model, Floats]:
    """A function of unbounded slope, on a range that may come near the end of its domain."""
    count = int(generator.integers(2, 9))
    model = Model(count)
    operator = ("Exp", "Log", "Sqrt", "Reciprocal", "Pow")[int(generator.integers(5))]
    if operator == "Exp":
        half, middle = 10.0 ** float(generator.uniform(-2, 1.3)), float(generator.uniform(-60, 40))
    else:
        half = 10.0 ** float(generator.uniform(-4, 4))
        middle = half * (1 + 10.0 ** float(generator.uniform(-3, 2)))
    _in_range(model, generator, "x", middle, half)
    _drifted(model, generator, half)
    exponent = float(generator.choice([2.0, 3.0, 5.0, 0.5, -0.5, 1.5, -2.0, -3.0, 7.25]))
    model.then(operator, *([np.array(exponent)] if operator == "Pow" else []))
    return _nearly_tied(model, generator)


def divided(generator: np.random.Generator) -> tuple[Model, Floats]:
    """A quotient of two values that depend on the input."""
    count = int(generator.integers(2, 9))
    model = Model(count)
    sizes = 10.0 ** generator.uniform(-3, 3, 2)
    _in_range(model, generator, "x", sizes[0], float(generator.uniform(0.1, 0.9)) * sizes[0])
    below = _drifted(model, generator, sizes[0])
    _in_range(model, generator, "x", sizes[1] * float(generator.standard_normal()), sizes[1])
    above = _drifted(model, generator, sizes[1])
    model.add("Div", above, below)
    return _nearly_tied(model, generator)


def unit_length(generator: np.random.Generator) -> tuple[Model, Floats]:
    """x divided by its length, or by the root of a mean of squares, in several spellings."""
    count = int(generator.integers(2, 9))
    model = Model(count)
    half = 10.0 ** float(generator.uniform(-2, 2))
    _in_range(model, generator, "x", half * 10.0 ** float(generator.uniform(-1, 1)) + half, half)
    x = _drifted(model, generator, half)
    match int(generator.integers(3)):
        case 0:
            model.add("Div", x, model.add("ReduceL2", x, np.array([1]), keepdims=1))
        case 1:
            model.add("ReduceSum", model.add("Pow", x, np.array(2.0)), np.array([1]), keepdims=1)
            model.add("Div", x, model.then("Sqrt"))
        case _:
            model.add("ReduceMean", model.add("Mul", x, x), np.array([1]), keepdims=1)
            model.then("Add", np.array(2.0**-10))
            model.add("Mul", x, model.then("Pow", np.array(-0.5)))
    return _nearly_tied(model, generator)


def exponentials(generator: np.random.Generator) -> tuple[Model, Floats]:
    """Exponentials divided by their sum with a floor, or the logarithm of their mean."""
    count = int(generator.integers(2, 9))
    model = Model(count)
    half = 10.0 ** float(generator.uniform(-1, 1))
    _in_range(model, generator, "x", float(generator.standard_normal()), half)
    u = _drifted(model, generator, half)
    powers = model.add("Exp", u)
    total = model.add("ReduceSum", powers, np.array([1]), keepdims=1)
    if generator.integers(2):
        floored = model.add("Add", total, np.array(2.0 ** -float(generator.integers(0, 8))))
        model.add("Mul", powers, model.add("Reciprocal", floored))
    else:
        model.add("Sub", u, model.add("Log", total))
    return _nearly_tied(model, generator)


KINDS = (steep, divided, unit_length, exponentials)
