"""Slope intervals hold at high precision and are tight; the engine's kernels keep to their allowance (A5)."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
from mpmath import mp, mpf
from onnx import TensorProto, helper

from certifier import elementwise
from certifier.terms import Elementwise

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

DIGITS = 50
Real = Any  # an mpmath number: its class is made at run time
Scalar = Callable[[Real], Real]


def phi(x: Real) -> Real:
    return (1 + mpmath.erf(x / mpmath.sqrt(2))) / 2


def silu(x: Real) -> Real:
    return x / (1 + mpmath.exp(-x))


def gelu_tanh(x: Real) -> Real:
    return x * (1 + mpmath.tanh(mpmath.sqrt(2 / mp.pi) * (x + mpf("0.044715") * x**3))) / 2


def mish(x: Real) -> Real:
    return x * mpmath.tanh(mpmath.log1p(mpmath.exp(x)))


def elu(x: Real, alpha: float) -> Real:
    return x if x >= 0 else alpha * mpmath.expm1(x)


def clamp(x: Real, lower: float, upper: float) -> Real:
    return min(mpf(upper), max(mpf(lower), x))


def single(value: float) -> float:
    return float(np.float32(value))


def cases() -> list[tuple[str, Elementwise, Scalar]]:
    """Every maker with its formula at arbitrary precision, with ordinary, random and hostile attributes."""
    fixed: list[tuple[str, Elementwise, Scalar]] = [
        ("relu", elementwise.relu(), lambda x: max(x, mpf(0))),
        ("sigmoid", elementwise.sigmoid(), lambda x: 1 / (1 + mpmath.exp(-x))),
        ("tanh", elementwise.tanh(), mpmath.tanh),
        ("softplus", elementwise.softplus(), lambda x: mpmath.log1p(mpmath.exp(x))),
        ("softsign", elementwise.softsign(), lambda x: x / (1 + abs(x))),
        ("erf", elementwise.erf(), mpmath.erf),
        ("gelu", elementwise.gelu(), lambda x: x * phi(x)),
        ("gelu_tanh", elementwise.gelu_tanh(), gelu_tanh),
        ("hard_swish", elementwise.hard_swish(), lambda x: x * clamp(x / 6 + mpf(1) / 2, 0, 1)),
        ("silu", elementwise.silu(), silu),
        ("mish", elementwise.mish(), mish),
        ("absolute", elementwise.absolute(), abs),
        ("sin", elementwise.sin(), mpmath.sin),
        ("cos", elementwise.cos(), mpmath.cos),
        ("atan", elementwise.atan(), mpmath.atan),
        ("asinh", elementwise.asinh(), mpmath.asinh),
        ("half", elementwise.swish(0.0), lambda x: x / 2),
        ("clip", elementwise.clip(-0.5, 0.75), lambda x: clamp(x, -0.5, 0.75)),
        ("clip inverted", elementwise.clip(0.75, -0.5), lambda x: mpf(-0.5)),
        ("maximum", elementwise.maximum(0.3), lambda x: max(x, mpf(0.3))),
        ("minimum", elementwise.minimum(0.3), lambda x: min(x, mpf(0.3))),
    ]
    rng = np.random.default_rng(0)
    drawn = [single(value) for value in (*rng.normal(size=5) * 2, 0.0, 1.0, -1.0)]
    for first in drawn:
        second = single(rng.normal())

        def scaled_elu(x: Real, alpha: float = first, gamma: float = second) -> Real:
            return gamma * elu(x, alpha)

        def linear_clipped(x: Real, alpha: float = first, beta: float = second) -> Real:
            return clamp(alpha * x + mpf(beta), 0, 1)

        def scaled_swish(x: Real, alpha: float = first) -> Real:
            return silu(alpha * x) / alpha

        def leaky(x: Real, alpha: float = first) -> Real:
            return x if x >= 0 else alpha * x

        def plain_elu(x: Real, alpha: float = first) -> Real:
            return elu(x, alpha)

        def celu(x: Real, alpha: float = abs(first)) -> Real:
            return x if x >= 0 else alpha * mpmath.expm1(x / alpha)

        fixed += [
            (f"leaky_relu {first}", elementwise.leaky_relu(first), leaky),
            (f"elu {first}", elementwise.elu(first), plain_elu),
            (f"selu {first} {second}", elementwise.selu(first, second), scaled_elu),
            (f"hard_sigmoid {first} {second}", elementwise.hard_sigmoid(first, second), linear_clipped),
        ]
        if first != 0:
            fixed.append((f"swish {first}", elementwise.swish(first), scaled_swish))
            fixed.append((f"celu {abs(first)}", elementwise.celu(abs(first)), celu))
    return fixed


CASES = cases()
each = pytest.mark.parametrize(("name", "function", "formula"), CASES, ids=[case[0] for case in CASES])


@each
def test_no_secant_leaves_the_slope_interval(name, function, formula):
    """f(y) - f(x) lies between lower (y - x) and upper (y - x), compared at 50 digits without tolerance."""
    rng = np.random.default_rng(1)
    # Pairs anywhere, and close pairs where the extreme slopes of the smooth functions lie.
    starts = np.concatenate([rng.normal(size=80) * 4, rng.choice([-1, 1], 60) * rng.uniform(1.2, 2.6, 60), np.zeros(9)])
    steps = np.concatenate([rng.uniform(1e-3, 9, size=80), rng.uniform(1e-9, 1e-6, size=60), 10.0 ** np.arange(-8, 1)])
    lower, upper = float(np.min(function.slope_lower)), float(np.max(function.slope_upper))
    with mp.workdps(DIGITS):
        for start, step in zip(starts, steps, strict=True):
            for a, b in ((start, start + step), (start - step, start)):
                x, y = mpf(float(a)), mpf(float(b))
                rise = formula(y) - formula(x)
                # 35 digits of the comparison are the formula's own.
                room = mpf(10) ** -35 * (y - x)
                assert rise >= lower * (y - x) - room
                assert rise <= upper * (y - x) + room


@each
def test_value_is_the_formula_and_derivative_its_slope(name, function, formula):
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.normal(size=40) * 3, [-40.0, 40.0, 1e-9, -1e-9]])
    value, slope = function.evaluate(x), function.derivative(x)
    with mp.workdps(DIGITS):
        exact = np.array([float(formula(mpf(float(point)))) for point in x])
        step = mpf(10) ** -20
        secant = [(formula(mpf(float(p)) + step) - formula(mpf(float(p)) - step)) / (2 * step) for p in x]
    unit = 2.0**-53
    assert (np.abs(value - exact) <= unit * (function.ulps * np.abs(exact) + function.absolute_ulps)).all()
    np.testing.assert_allclose(slope, np.array([float(s) for s in secant]), rtol=1e-9, atol=1e-9)


@each
def test_value_and_derivative_are_finite_and_silent_everywhere(name, function, formula):
    x = np.concatenate([np.logspace(-320, 300, 2000), -np.logspace(-320, 300, 2000), [0.0]])
    with warnings.catch_warnings(), np.errstate(over="warn", invalid="warn", divide="warn"):
        warnings.simplefilter("error")
        value, slope = function.evaluate(x), function.derivative(x)
    assert np.isfinite(value).all() and np.isfinite(slope).all()
    assert (slope >= np.min(function.slope_lower) - 1e-12).all()
    assert (slope <= np.max(function.slope_upper) + 1e-12).all()


def second_derivative_gelu(x: Real) -> Real:
    return (2 - x * x) * mpmath.exp(-x * x / 2) / mpmath.sqrt(2 * mp.pi)


def second_derivative_silu(x: Real) -> Real:
    s = 1 / (1 + mpmath.exp(-x))
    return s * (1 - s) * (2 + x * (1 - 2 * s))


EXTREMES = [
    ("gelu", elementwise.GELU_SLOPES, lambda x: x * phi(x), second_derivative_gelu, (-1.6, -1.2), (1.2, 1.6)),
    ("silu", elementwise.SILU_SLOPES, silu, second_derivative_silu, (-2.6, -2.2), (2.2, 2.6)),
    ("gelu_tanh", elementwise.GELU_TANH_SLOPES, gelu_tanh, None, (-1.6, -1.2), (1.2, 1.6)),
    ("mish", elementwise.MISH_SLOPES, mish, None, (-2.4, -2.1), (1.3, 1.7)),
]


@pytest.mark.parametrize(("name", "slopes", "formula", "second", "low", "high"), EXTREMES, ids=[e[0] for e in EXTREMES])
def test_extreme_slopes_are_rounded_outward_and_tight(name, slopes, formula, second, low, high):
    """The derivative at the bracketed root of the second derivative is inside, within 1e-12 of the end."""
    with mp.workdps(2 * DIGITS):
        curvature = second if second is not None else (lambda x: mpmath.diff(formula, x, 2))
        for end, (a, b), sign in ((slopes[0], low, -1), (slopes[1], high, 1)):
            assert curvature(mpf(a)) * curvature(mpf(b)) < 0
            root = mpmath.findroot(curvature, (mpf(a), mpf(b)), solver="anderson", tol=mpf(10) ** -60)
            slope = mpmath.diff(formula, root)
            assert sign * (mpf(end) - slope) >= 0
            assert sign * (mpf(end) - slope) <= 1e-12


@pytest.mark.parametrize(("name", "slopes", "formula", "second", "low", "high"), EXTREMES, ids=[e[0] for e in EXTREMES])
def test_the_derivative_has_no_other_extreme(name, slopes, formula, second, low, high):
    """On a grid of step 1/8 over [-30, 30], far enough for the tails to be monotone to 1e-12."""
    with mp.workdps(30):
        for point in range(-240, 241):
            slope = mpmath.diff(formula, mpf(point) / 8)
            assert slopes[0] <= slope <= slopes[1]


def test_erf_slope_is_rounded_up():
    with mp.workdps(DIGITS):
        exact = 2 / mpmath.sqrt(mp.pi)
        assert 0 <= mpf(elementwise.ERF_SLOPE) - exact <= 1e-15


def test_celu_needs_a_positive_alpha():
    for alpha in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="alpha > 0"):
            elementwise.celu(alpha)


KERNELS = [
    ("Relu", 14, {}, elementwise.relu()),
    ("LeakyRelu", 16, {"alpha": 0.01}, elementwise.leaky_relu(single(0.01))),
    ("Elu", 6, {}, elementwise.elu(1.0)),
    ("Elu", 6, {"alpha": 3.0}, elementwise.elu(3.0)),
    ("Celu", 12, {}, elementwise.celu(1.0)),
    ("Celu", 12, {"alpha": 3.0}, elementwise.celu(3.0)),
    ("Celu", 12, {"alpha": 0.1}, elementwise.celu(single(0.1))),
    ("Selu", 6, {}, elementwise.selu(1.6732631921768188, 1.0507010221481323)),
    ("Sigmoid", 13, {}, elementwise.sigmoid()),
    ("HardSigmoid", 6, {}, elementwise.hard_sigmoid(single(0.2), 0.5)),
    ("HardSigmoid", 6, {"alpha": 1e-3, "beta": 7.0}, elementwise.hard_sigmoid(single(1e-3), 7.0)),
    ("Tanh", 13, {}, elementwise.tanh()),
    ("Softplus", 1, {}, elementwise.softplus()),
    ("Softsign", 1, {}, elementwise.softsign()),
    ("Erf", 13, {}, elementwise.erf()),
    ("Gelu", 20, {}, elementwise.gelu()),
    ("Gelu", 20, {"approximate": "tanh"}, elementwise.gelu_tanh()),
    ("HardSwish", 14, {}, elementwise.hard_swish()),
    ("Swish", 24, {}, elementwise.silu()),
    ("Swish", 24, {"alpha": 2.5}, elementwise.swish(2.5)),
    ("Swish", 24, {"alpha": -0.01}, elementwise.swish(-single(0.01))),
    ("Mish", 18, {}, elementwise.mish()),
    ("Clip", 6, {"min": -1.0, "max": 2.0}, elementwise.clip(-1.0, 2.0)),
    ("Abs", 13, {}, elementwise.absolute()),
    ("Sin", 7, {}, elementwise.sin()),
    ("Cos", 7, {}, elementwise.cos()),
    ("Atan", 7, {}, elementwise.atan()),
    ("Asinh", 9, {}, elementwise.asinh()),
]


@pytest.mark.parametrize(
    ("operator", "opset", "attributes", "function"), KERNELS, ids=[f"{k[0]}{k[2]}" for k in KERNELS]
)
def test_the_engine_errs_by_a_quarter_of_the_allowance_at_most(operator, opset, attributes, function):
    """Assumption A5, measured over denormal, ordinary, saturating and huge inputs."""
    magnitudes = np.concatenate(
        [np.logspace(-45, 37, 60_001), np.linspace(0, 20, 60_001), np.linspace(20, 110, 20_001)]
    )
    x = np.concatenate([magnitudes, -magnitudes]).astype(np.float32)
    executed = engine(operator, opset, attributes, x).astype(np.float64)
    exact = function.evaluate(x.astype(np.float64))
    safety = 4.0 if function.ulps > 2 else 1.0  # one or two correctly rounded operations need no safety
    allowance = 2.0**-24 * (function.ulps * np.abs(exact) + function.absolute_ulps) / safety
    flushed = 0.0 if function.ulps == 0 and function.absolute_ulps == 0 else 4 * 2.0**-126
    assert np.isfinite(executed).all()
    assert (np.abs(executed - exact) <= allowance + flushed).all()


def engine(operator: str, opset: int, attributes: dict, x: np.ndarray) -> np.ndarray:
    graph = helper.make_graph(
        [helper.make_node(operator, ["x"], ["y"], **attributes)],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, x.shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])
