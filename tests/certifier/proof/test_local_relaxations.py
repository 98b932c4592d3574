"""Local slopes and lines of every scalar function, at fifty digits and without tolerance."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from mpmath import mp, mpf

from certifier.patterns import activations
from certifier.proof.local.relaxations import enclosing_lines
from certifier.proof.local.selections import candidates_of, selection
from certifier.proof.local.spans import Centre, Span
from certifier.steep import exponential, logarithm, power, reciprocal, square_root
from certifier.terms import DERIVATIVE_ROOM, Elementwise
from certifier.vector_functions.extremes import EntrywiseExtreme
from tests.certifier.test_elementwise import CASES, DIGITS

STEEP = [
    ("exp", exponential(), mpmath.exp, (-3.0, 3.0)),
    ("log", logarithm(), mpmath.log, (0.1, 5.0)),
    ("sqrt", square_root(), mpmath.sqrt, (0.1, 5.0)),
    ("reciprocal", reciprocal(), lambda x: 1 / x, (0.2, 5.0)),
    ("cube", power(3.0), lambda x: x**3, (-2.0, 2.0)),
    ("square", power(2.0), lambda x: x**2, (-2.0, 2.0)),
]


def silu_share(x):
    return 1 / (1 + mpmath.exp(-x))


def _intervals(seed: int, low: float = -6.0, high: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    """Wide, narrow and empty ones, and some that end where functions bend."""
    generator = np.random.default_rng(seed)
    middle = generator.uniform(low, high, 24)
    width = generator.choice([0.0, 1e-6, 0.05, 0.5, 3.0], 24)
    lower, upper = np.clip(middle - width, low, high), np.clip(middle + width, low, high)
    if low < 0 < high:
        lower[:4], upper[:4] = [0.0, -1.0, -3.0, -1.5], [1.0, 0.0, 3.0, np.sqrt(2.0)]
    return lower, upper


def _holds(function: Elementwise, formula, lower: np.ndarray, upper: np.ndarray, seed: int) -> None:
    generator = np.random.default_rng(seed)
    least, most = function.secants_on(lower[None], upper[None])
    chords = np.where(upper > lower, (function.evaluate(upper) - function.evaluate(lower)), 0.0) / np.where(
        upper > lower, upper - lower, 1.0
    )
    chosen = (least[0], most[0], chords, generator.normal(size=len(lower)))
    lines = [
        enclosing_lines(function, lower[None], upper[None], lower_slope=a[None], upper_slope=b[None])
        for a, b in zip(chosen, (*chosen[1:], chosen[0]), strict=True)
    ]
    with mp.workdps(DIGITS):
        room = mpf(10) ** -35
        for place, (low, high) in enumerate(zip(lower, upper, strict=True)):
            shares = np.unique([0.0, 1.0, *generator.random(5)])
            points = sorted({float(min(max(low + share * (high - low), low), high)) for share in shares})
            values = [formula(mpf(p)) for p in points]
            for first, second, f, g in zip(points[:-1], points[1:], values[:-1], values[1:], strict=True):
                run = mpf(second) - mpf(first)
                assert (mpf(float(least[0, place])) - room) * run <= g - f <= (mpf(float(most[0, place])) + room) * run
            for each in lines:
                below, above = mpf(float(each.lower_intercept[0, place])), mpf(float(each.upper_intercept[0, place]))
                for point, value in zip(points, values, strict=True):
                    assert mpf(float(each.lower_slope[0, place])) * mpf(point) + below <= value + room
                    assert mpf(float(each.upper_slope[0, place])) * mpf(point) + above >= value - room


@pytest.mark.parametrize(("name", "function", "formula"), CASES, ids=[case[0] for case in CASES])
def test_secants_and_lines_hold_on_intervals(name, function, formula):
    _holds(function, formula, *_intervals(1), 1)


@pytest.mark.parametrize(("name", "function", "formula"), CASES, ids=[case[0] for case in CASES])
def test_derivatives_err_by_less_than_their_room(name, function, formula):
    points = np.concatenate([np.random.default_rng(7).normal(size=12) * 4, [-60.0, 60.0, -1e-3, 1e-3]])
    slopes, room = function.derivative(points), DERIVATIVE_ROOM * max(1.0, float(np.max(function.steepest)))
    with mp.workdps(2 * DIGITS):
        step = mpf(10) ** -30
        for point, slope in zip(points, slopes, strict=True):
            secant = (formula(mpf(float(point)) + step) - formula(mpf(float(point)) - step)) / (2 * step)
            assert abs(mpf(float(slope)) - secant) <= room / 16


@pytest.mark.parametrize(("name", "function", "formula", "domain"), STEEP, ids=[case[0] for case in STEEP])
def test_steep_functions_have_lines_where_they_are_smooth(name, function, formula, domain):
    _holds(function, formula, *_intervals(2, *domain), 2)


@pytest.mark.parametrize(
    ("function", "formula"),
    [
        (activations._swish(0.5, 2.0), lambda x: x * silu_share(2 * x) / 2),
        (activations._gelu(0.5, 0.5**0.5), lambda x: x * (1 + mpmath.erf(x * mpf(0.5**0.5))) / 2),
        (activations._gelu_tanh(0.5, (2 / np.pi) ** 0.5, 0.044715 * (2 / np.pi) ** 0.5), None),
        (activations._hard_swish(1.0, 1 / 6, 0.5), None),
    ],
    ids=["swish", "gelu", "gelu tanh", "hard swish"],
)
def test_composites_bend_where_they_say(function, formula):
    if formula is None:
        first, cubic = mpf(float((2 / np.pi) ** 0.5)), mpf(0.044715 * (2 / np.pi) ** 0.5)
        formula = {
            "gelu (tanh)": lambda x: x * (1 + mpmath.tanh(first * x + cubic * x**3)) / 2,
            "hard swish": lambda x: x * min(mpf(1), max(mpf(0), mpf(1 / 6) * x + mpf(0.5))),
        }[function.name]
    _holds(function, formula, *_intervals(3), 3)


def test_local_slopes_are_sharp():
    """Within one part in a hundred of the range of the derivative, which a fine grid shows."""
    for name, function, _ in CASES:
        if name in ("sin", "cos") or name.startswith("hard_sigmoid"):
            continue
        lower, upper = _intervals(4)
        least, most = function.secants_on(lower, upper)
        grid = function.derivative(lower + np.linspace(0, 1, 400)[:, None] * (upper - lower))
        bends = [float(np.max(bend.at)) for bend in function.bends or ()]
        clear = np.all([(lower > at + 1e-3) | (upper < at - 1e-3) for at in bends], axis=0) if bends else True
        spread = grid.max(axis=0) - grid.min(axis=0)
        assert (np.where(clear, (most - least) - spread, 0.0) <= 0.01 * spread + 1e-9).all(), name


def test_lines_of_a_rectifier_are_the_chord_and_the_slope_that_was_asked_for():
    relu = CASES[0][1]
    lower, upper = np.array([[-1.0, -2.0, 1.0, -3.0]]), np.array([[2.0, 1.0, 3.0, -1.0]])
    slopes = np.array([[1.0, 0.25, 1.0, 0.0]]), np.array([[2 / 3, 1 / 3, 1.0, 0.0]])
    lines = enclosing_lines(relu, lower, upper, lower_slope=slopes[0], upper_slope=slopes[1])
    assert lines.lower_intercept[0] == pytest.approx([0.0, 0.0, 0.0, 0.0], abs=1e-12)
    assert lines.upper_intercept[0] == pytest.approx([2 / 3, 2 / 3, 0.0, 0.0], abs=1e-12)
    for slope in (-0.5, 1.5):
        slanted = enclosing_lines(relu, lower, upper, lower_slope=slopes[0] * 0 + slope, upper_slope=slopes[1])
        grid = lower + np.linspace(0, 1, 50)[:, None] * (upper - lower)
        gaps = np.maximum(grid, 0.0) - slope * grid - slanted.lower_intercept
        assert (gaps >= 0).all() and (gaps.min(axis=0) <= 1e-9).all()


def test_curved_lines_touch():
    """The distance to the function is a small share of the line's rise where it is nearest."""
    for name in ("sigmoid", "tanh", "gelu", "softplus", "mish"):
        function = next(case[1] for case in CASES if case[0] == name)
        lower, upper = np.array([[-2.0, -0.5, 1.0]]), np.array([[1.5, 0.5, 1.2]])
        chord = (function.evaluate(upper) - function.evaluate(lower)) / (upper - lower)
        lines = enclosing_lines(function, lower, upper, lower_slope=chord, upper_slope=chord)
        grid = lower + np.linspace(0, 1, 200)[:, None] * (upper - lower)
        heights = function.evaluate(grid) - chord * grid
        assert (heights.min(axis=0) - lines.lower_intercept <= 0.02 * (upper - lower)).all(), name
        assert (lines.upper_intercept - heights.max(axis=0) <= 0.02 * (upper - lower)).all(), name


def test_unbounded_intervals_get_flat_lines():
    relu, sigmoid = CASES[0][1], CASES[1][1]
    ends = np.array([[-np.inf, 1.0, -np.inf]]), np.array([[1.0, np.inf, np.inf]])
    for function, most in ((relu, [1.0, np.inf, np.inf]), (sigmoid, [1.0, 1.0, 1.0])):
        ones = np.ones((1, 3))
        lines = enclosing_lines(function, *ends, lower_slope=ones, upper_slope=ones)
        assert (lines.lower_slope == 0).all() and (lines.upper_slope == 0).all()
        assert (lines.lower_intercept[0] >= 0).all() and (lines.upper_intercept[0] <= most).all()
        assert (lines.upper_intercept[0] > 0.7).all()


@pytest.mark.parametrize("largest", [True, False])
def test_extremes_lie_between_the_lines_over_their_winners(largest):
    generator = np.random.default_rng(6)
    function = EntrywiseExtreme(name="extreme", count=3, largest=largest)
    candidates = candidates_of(function, 15)
    assert candidates is not None
    value = generator.standard_normal((2, 15))
    moved = generator.choice([0.1, 1.0], (2, 15))
    span = Span(lower=value - moved, upper=value + moved, moved=moved, length=np.full((2, 1), np.inf))
    chosen = selection(candidates, Centre(value=value, error=np.zeros_like(value)), span)
    lines, dominated = chosen.lines, 0
    for _ in range(200):
        y = value + moved * generator.uniform(-1, 1, moved.shape)
        h, followed = function.evaluate(y), np.take_along_axis(y, chosen.winners, axis=1)
        assert (lines.lower_slope * followed + lines.lower_intercept <= h).all()
        assert (lines.upper_slope * followed + lines.upper_intercept >= h).all()
        dominated = int(((lines.lower_intercept == 0) & (lines.upper_intercept == 0)).sum())
    assert dominated > 0


@pytest.mark.parametrize("largest", [True, False])
def test_the_line_beyond_an_extreme_is_its_chord(largest):
    """max(y, m) for y in [-1, 3]: never below, met at both ends; flat where y cannot win, y where it always does."""
    sign = 1.0 if largest else -1.0
    candidates = candidates_of(EntrywiseExtreme(name="extreme", count=2, largest=largest), 2)
    assert candidates is not None
    for other, slope, above in ((1.0, 0.5, 1.5), (4.0, 0.0, 4.0), (-2.0, 1.0, 0.0), (np.inf, 0.0, np.inf)):
        lower, upper = np.array([[-1.0, -9.0]]), np.array([[3.0, other]])
        if not largest:
            lower, upper = -upper, -lower
        value = sign * np.array([[2.0, -5.0]])
        span = Span(lower=lower, upper=upper, moved=np.full((1, 2), 9.0), length=np.full((1, 1), np.inf))
        chosen = selection(candidates, Centre(value=value, error=np.zeros_like(value)), span)
        assert chosen.winners.tolist() == [[0]]
        lines = chosen.lines
        found = lines.upper_slope if largest else lines.lower_slope
        height = lines.upper_intercept if largest else -lines.lower_intercept
        assert found[0, 0] == slope and height[0, 0] == pytest.approx(above, rel=1e-12)
        y = np.linspace(-1.0, 3.0, 9)
        with np.errstate(all="ignore"):
            assert (found[0, 0] * y + height[0, 0] >= np.maximum(y, other)).all()
