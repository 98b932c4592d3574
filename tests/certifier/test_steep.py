"""Functions of unbounded slope: slopes and values on intervals hold at high precision; kernels keep to A5."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pytest
from mpmath import mp, mpf

from certifier import elementwise, steep
from certifier.terms import Elementwise
from tests.certifier.rules.one_node import of_one_value
from tests.certifier.test_elementwise import engine

Real = Any

POSITIVE = np.logspace(-6, 6, 25)
ANYWHERE = np.sort(np.concatenate([-np.logspace(-3, 1.5, 10), [0.0], np.logspace(-3, 1.5, 10)]))

CASES = [
    ("exp", steep.exponential(), mpmath.exp, ANYWHERE),
    ("log", steep.logarithm(), mpmath.log, POSITIVE),
    ("sqrt", steep.square_root(), mpmath.sqrt, POSITIVE),
    ("reciprocal", steep.reciprocal(), lambda x: 1 / x, POSITIVE),
    ("reciprocal below", steep.reciprocal(), lambda x: 1 / x, -POSITIVE[::-1]),
    *[
        (f"power {p}", steep.power(p), lambda x, p=p: mpmath.power(x, mpf(p)), ANYWHERE)
        for p in (2.0, 3.0, 4.0, 5.0, 64.0)
    ],
    *[
        (f"power {p}", steep.power(p), lambda x, p=p: mpmath.power(x, mpf(p)), POSITIVE)
        for p in (0.5, -0.5, -1.0, -2.0, 1.5, 2.3, -63.7)
    ],
]
each = pytest.mark.parametrize(("name", "function", "formula", "points"), CASES, ids=[case[0] for case in CASES])


@each
def test_secants_and_values_on_intervals(name, function, formula, points):
    """No secant between the ends of an interval, or from them to its middle, leaves the slopes; no value the range."""
    with mp.workdps(60):
        for low, high in zip(points[:-3], points[3:], strict=True):
            slopes = [float(v) for v in function.slopes_on(np.float64(low), np.float64(high))]
            values = [float(v) for v in function.range_on(np.float64(low), np.float64(high))]
            inside = [mpf(float(x)) for x in np.unique([*np.linspace(low, high, 9), low, high])]
            exact = [formula(x) for x in inside]
            assert all(values[0] <= value <= values[1] for value in exact)
            secants = [(b - a) / (y - x) for x, y, a, b in zip(inside, inside[1:], exact, exact[1:], strict=False)]
            assert all(slopes[0] <= secant <= slopes[1] for secant in secants)


@each
def test_slopes_and_ranges_are_tight(name, function, formula, points):
    """The derivative comes within 1e-9 of both ends somewhere, and so does the value."""
    with mp.workdps(60):
        for low, high in zip(points[:-3], points[3:], strict=True):
            inside = [mpf(float(x)) for x in (low, high, *([0.0] if low < 0 < high else []))]
            derivatives = [mpmath.diff(formula, x, h=mpf(10) ** -25) for x in inside]
            exact = [formula(x) for x in inside]
            for (lower, upper), truth in (
                (function.slopes_on(np.float64(low), np.float64(high)), derivatives),
                (function.range_on(np.float64(low), np.float64(high)), exact),
            ):
                size = max(abs(value) for value in truth)
                if size > mpf(10) ** 300:
                    continue  # beyond double precision, where nothing is promised
                assert min(truth) - float(lower) <= 1e-9 * size
                assert float(upper) - max(truth) <= 1e-9 * size


@pytest.mark.parametrize("function", [steep.logarithm(), steep.square_root(), steep.power(0.5), steep.power(-1.0)])
@pytest.mark.parametrize("low", [0.0, -1.0, -np.inf])
def test_nothing_is_promised_where_a_function_is_not_smooth(function, low):
    slopes = function.slopes_on(np.array([low]), np.array([2.0]))
    assert slopes[0][0] == -np.inf and slopes[1][0] == np.inf


@pytest.mark.parametrize("ends", [(-1.0, 1.0), (0.0, 1.0), (-1.0, 0.0), (1.0, np.inf), (1e-200, 1.0)])
def test_a_reciprocal_promises_nothing_near_zero(ends):
    slopes = steep.reciprocal().slopes_on(np.array([ends[0]]), np.array([ends[1]]))
    assert not np.isfinite(slopes).all()


@pytest.mark.parametrize("exponent", [0.3, 1.5, 2.5, -0.5])
@pytest.mark.parametrize("magnitude", [1e-5, 1e-125, 1e-190, 1e-210, 1e-300, 1e300])
def test_slopes_of_powers_hold_where_a_power_underflows(exponent, magnitude):
    """On an interval so short that only rounding could help."""
    function, x = steep.power(exponent), np.array(magnitude * 1.234567)
    lower, upper = (float(end) for end in function.slopes_on(x, x))
    with mp.workdps(60):
        slope = mpf(exponent) * mpmath.power(mpf(float(x)), mpf(exponent) - 1)
        assert lower <= slope <= upper
    if magnitude == 1e-5:
        assert upper - lower <= 1e-12 * abs(upper)


@pytest.mark.parametrize("function", [steep.exponential(), steep.power(2.0), steep.power(3.0)])
def test_unbounded_intervals_have_unbounded_slopes(function):
    for ends in ((-np.inf, 0.0), (0.0, np.inf), (-np.inf, np.inf), (0.0, 1e308)):
        slopes = function.slopes_on(np.array([ends[0]]), np.array([ends[1]]))
        assert not np.isfinite(slopes).all()


KERNELS = [
    ("Exp", 13, {}, steep.exponential(), False),
    ("Log", 13, {}, steep.logarithm(), True),
    ("Sqrt", 13, {}, steep.square_root(), True),
    ("Reciprocal", 13, {}, steep.reciprocal(), False),
]


@pytest.mark.parametrize(("operator", "opset", "attributes", "function", "positive"), KERNELS)
def test_the_engine_errs_by_a_quarter_of_the_allowance_at_most(operator, opset, attributes, function, positive):
    """Assumption A5 over every magnitude whose result is a normal number of single precision."""
    magnitudes = np.concatenate(
        [np.logspace(-37, 37, 60_001), np.linspace(0, 20, 20_001), np.linspace(0.9, 1.1, 20_001)]
    )
    x = (magnitudes if positive else np.concatenate([magnitudes, -magnitudes])).astype(np.float32)
    _assert_close(engine(operator, opset, attributes, x), function, x)


EXPONENTS = (2.0, 3.0, 4.0, 5.0, 7.0, 33.0, 64.0, 0.5, -0.5, 0.3125, -1.0, -2.0, -3.0, 1.5, 2.5, -63.75, -64.0)


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_the_engines_powers_err_by_a_quarter_of_the_allowance_at_most(exponent):
    magnitudes = np.concatenate([np.logspace(-37, 37, 20_001), np.linspace(0.5, 2.0, 20_001)])
    whole = exponent == int(exponent)
    x = (np.concatenate([magnitudes, -magnitudes]) if whole else magnitudes).astype(np.float32)
    executed = of_one_value("Pow", 15, x.shape, {}, np.array(exponent)).engine({"x": x})
    _assert_close(executed, steep.power(exponent), x)


@pytest.mark.parametrize("exponent", [None, *EXPONENTS])
def test_the_engines_kernels_take_numbers_of_any_size(exponent):
    """Random bits, so that subnormal arguments and results, and those near overflow, occur as often as any."""
    generator = np.random.default_rng(0)
    bits = generator.integers(0, 0x7F800000, 200_000).astype(np.uint32).view(np.float32)
    if exponent is not None:
        x = np.concatenate([bits, -bits]) if exponent == int(exponent) else bits
        _assert_close(
            of_one_value("Pow", 15, x.shape, {}, np.array(exponent)).engine({"x": x}), steep.power(exponent), x
        )
        return
    for operator, opset, attributes, function, positive in KERNELS:
        x = bits if positive else np.concatenate([bits, -bits])
        _assert_close(engine(operator, opset, attributes, x), function, x)


@pytest.mark.parametrize("exponent", [None, *EXPONENTS])
def test_the_engines_kernels_in_double_precision(exponent):
    """The same allowances in units of 2^-53, against 40 digits."""
    generator = np.random.default_rng(0)
    cases: list = [("Pow", steep.power(exponent), lambda x: mpmath.power(x, mpf(exponent)))] if exponent else CASES[:4]
    for name, function, formula, *_ in cases:
        span = 1000.0 / max(1.0, abs(exponent or 1.0)) if name != "exp" else 9.0
        x = np.concatenate([np.exp2(generator.uniform(-span, span, 1500)), generator.uniform(0.5, 2.0, 500)])
        if name == "exp" or exponent == int(exponent or 0.5):
            x[::2] *= -1
        constants = [np.array(exponent)] if exponent else []
        node = of_one_value(name.title(), 15, x.shape, {}, *constants)
        executed = node.engine({"x": x}, dtype=np.float64)
        with mp.workdps(40):
            for point, value in zip(x.tolist(), executed.tolist(), strict=True):
                exact = formula(mpf(point))
                if abs(exact) < mpf(2) ** 1023:
                    allowance = mpf(2) ** -53 * (function.ulps * abs(exact) + function.absolute_ulps) / 4
                    assert abs(mpf(value) - exact) <= allowance + 4 * mpf(2) ** -1022


def _assert_close(executed: np.ndarray, function: Elementwise, x: np.ndarray) -> None:
    with np.errstate(all="ignore"):
        exact = function.evaluate(x.astype(np.float64))
    usual = np.isfinite(exact) & (np.abs(exact) < 2.0**127)
    allowance = 2.0**-24 * (function.ulps * np.abs(exact) + function.absolute_ulps) / 4 + 4 * 2.0**-126
    assert usual.sum() > 1000
    assert (np.abs(executed[usual].astype(np.float64) - exact[usual]) <= allowance[usual]).all()


RANGED = [
    elementwise.relu(),
    elementwise.leaky_relu(-0.5),
    elementwise.sigmoid(),
    elementwise.tanh(),
    elementwise.silu(),
    elementwise.gelu(),
    elementwise.hard_swish(),
    elementwise.mish(),
    elementwise.absolute(),
    elementwise.clip(-0.5, 2.0),
    elementwise.clip(2.0, -0.5),
    elementwise.softplus(),
    elementwise.sin(),
    elementwise.hard_sigmoid(-0.5, 0.25),
]


@pytest.mark.parametrize("function", RANGED, ids=lambda each: each.name)
def test_ranges_of_ordinary_functions_hold_their_values(function):
    """Also with infinite ends; and a rising function's range is that of its ends."""
    generator = np.random.default_rng(0)
    low = 4 * generator.standard_normal(200)
    high = low + generator.exponential(2.0, 200)
    lower, upper = function.range_on(low, high)
    for share in np.linspace(0, 1, 21):
        values = function.evaluate(np.clip(low + share * (high - low), low, high))
        assert (lower <= values + 1e-15).all() and (values - 1e-15 <= upper).all()
    if function.slope_lower >= 0:
        np.testing.assert_allclose(upper, function.evaluate(high), atol=1e-13)
    everywhere = function.range_on(np.full(1, -np.inf), np.full(1, np.inf))
    values = function.evaluate(np.linspace(-50, 50, 1001))
    assert everywhere[0][0] <= values.min() and values.max() <= everywhere[1][0]
