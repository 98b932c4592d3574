"""What a ball's length leaves of the losses of lines: never less than any displacement costs, and not much more."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from certifier.proof.local.budgets import Budget, budget_of, regained
from certifier.proof.local.relaxations import enclosing_lines
from certifier.proof.local.spans import Centre, Span
from certifier.terms import Activation
from tests.building import Model, single
from tests.certifier.local_balls import analysed, network_and_gains, network_of, points_of, spans_alone

RADIUS = 0.7


def _budget(caps: np.ndarray, rates: np.ndarray, free: np.ndarray, length: float) -> Budget:
    """The same below and above."""
    return Budget(caps=(caps, caps), rates=(rates, rates), free=(free, free), length=np.array([[length]]))


def _losses(budget: Budget, moved: np.ndarray) -> np.ndarray:
    return np.minimum(budget.caps[0], budget.rates[0] * np.maximum(moved - budget.free[0], 0.0))


@pytest.mark.parametrize("seed", range(30))
def test_no_displacement_within_the_length_costs_more(seed):
    generator = np.random.default_rng(seed)
    size = int(generator.integers(1, 12))
    a = generator.standard_normal((1, size)) * (generator.random((1, size)) < 0.8)
    draw = generator.random((3, 1, size)) * np.array([1.0, 1.0, generator.choice([0.0, 0.3])])[:, None, None]
    budget = _budget(*draw, length=float(generator.choice([0.01, 0.3, 1.0, 5.0])))
    left = np.sum(np.abs(a) * budget.caps[0]) - regained(a, budget, 0.0)[0]
    length = float(budget.length[0, 0])
    needed = budget.free[0] + budget.caps[0] / budget.rates[0]
    # Spread out, and each set of the entries that cost most filled up to its cap as far as the length reaches.
    sphere = np.abs(generator.standard_normal((400, size))) ** generator.choice([0.5, 1.0, 4.0], (400, 1))
    tries = [length * sphere / np.linalg.norm(sphere, axis=1, keepdims=True)]
    worth = np.abs(a) * budget.caps[0] / np.square(needed)
    order = np.argsort(-worth[0])
    for count in range(1, size + 1):
        chosen = np.zeros((1, size))
        chosen[0, order[:count]] = needed[0, order[:count]]
        tries.append(chosen * min(1.0, length / np.linalg.norm(chosen)))
    pulled = np.abs(a) * budget.rates[0]
    tries.append(pulled * length / max(1e-300, float(np.linalg.norm(pulled))))
    costs = np.sum(np.abs(a) * _losses(budget, np.concatenate(tries) * (1 - 1e-12)), axis=1)
    assert left >= costs.max()
    # One entry may be paid for in part only, which the bound cannot know.
    assert left <= 1.2 * costs.max() + np.max(np.abs(a) * budget.caps[0]) + 1e-9


def test_without_caps_it_is_the_norm_times_the_length():
    generator = np.random.default_rng(0)
    a, rates = generator.standard_normal((5, 40)), generator.random((1, 40))
    caps, length = np.full((1, 40), 1e3), 0.4
    left = np.sum(np.abs(a) * caps, axis=1) - regained(a, _budget(caps, rates, 0.0 * rates, length), 0.0)
    truth = np.linalg.norm(a * rates, axis=1) * length
    assert (left >= truth).all() and (left <= 1.02 * truth + 0.1).all()


def test_nothing_is_regained_where_a_length_or_a_cap_is_unknown_or_nothing_is_lost():
    ones = np.ones((1, 3))
    for caps, length in ((ones, np.inf), (np.inf * ones, 1.0), (ones, np.nan), (0.0 * ones, 1.0), (ones, 1e9)):
        found = regained(np.array([[1.0, -2.0, 0.0]]), _budget(caps, ones, 0.0 * ones, length), 1e-12)
        assert (found == 0.0).all()


@pytest.mark.parametrize("exponent", [-1060, -600, -538, -537, -512, -410, -390, 40, 100, 500])
def test_lengths_whose_squares_vanish_or_overflow_regain_no_more_than_they_can(exponent):
    """One of two values takes the whole length, most of it freely: exact fractions say what its line loses."""
    length, ones = 1.289 * 2.0**exponent, np.ones((1, 2))
    cap, free = 0.2 * length, 0.92 * length
    found = regained(ones, _budget(cap * ones, ones, free * ones, length), 0.0)
    left = 2 * Fraction(cap) - Fraction(float(found[0]))
    assert left >= Fraction(length) - Fraction(free)


@pytest.mark.parametrize("operator", ["Relu", "LeakyRelu", "Abs", "Gelu", "Sigmoid", "HardSwish"])
@pytest.mark.parametrize("seed", range(4))
def test_lines_are_short_of_no_more_than_budgets_say(operator, seed):
    model = Model(3, opset=20)
    model.then(operator)
    network = network_of(model)
    (term,) = (each for each in network.terms if isinstance(each, Activation))
    generator = np.random.default_rng(seed)
    y = generator.standard_normal((1, 400))
    reach = 2.0 * generator.random((1, 400))
    zeros = np.zeros_like(y)
    span = Span(lower=y - reach, upper=y + reach, moved=reach, length=np.array([[9.0]]))
    function, value = term.function, term.function.evaluate(y)
    error = 1e-12 * (1.0 + np.abs(value))
    tangent = function.derivative(y)
    slope = np.where(generator.random(y.shape) < 0.5, tangent, generator.random(y.shape))
    lines = enclosing_lines(function, span.lower, span.upper, lower_slope=slope, upper_slope=slope)
    budget = budget_of(function, lines, span, Centre(value=y, error=zeros), Centre(value=value, error=error))
    for share in np.linspace(-1.0, 1.0, 41):
        moved = np.clip(y + share * reach, span.lower, span.upper)
        there, far = function.evaluate(moved), np.abs(moved - y)
        room = 1e-12 * (1.0 + np.abs(there))
        for side, sign in ((0, 1.0), (1, -1.0)):
            intercept = sign * (lines.lower_intercept, lines.upper_intercept)[side]
            loss = np.minimum(budget.caps[side], budget.rates[side] * np.maximum(far - budget.free[side], 0.0))
            promised = intercept + budget.caps[side] - loss
            assert (sign * (there - slope * moved) + room >= promised).all()
    if operator in {"Relu", "Abs"}:
        assert (budget.free[0][0][slope[0] == tangent[0]] >= 0.99 * np.abs(y[0][slope[0] == tangent[0]])).all()


def test_wide_layers_lose_little_and_no_point_gets_below():
    """Many rectifiers that one input moves a little each: a ball cannot push all of them past their bends."""
    generator = np.random.default_rng(1)
    model = Model(60)
    model.linear(single(generator.standard_normal((1000, 60)) / 30), single(generator.standard_normal(1000) / 30))
    model.then("Relu")
    model.linear(single(generator.standard_normal((3, 1000))))
    network, gains = network_and_gains(model)
    x, radii = generator.standard_normal((1, 60)), np.array([RADIUS])
    for analysis in (analysed(network, x, radii, gains=gains), spans_alone(network, x, radii, gains=gains)):
        rows, zeros = np.zeros(3, int), np.zeros(3)
        slopes = {}
        for term in network.terms:
            if isinstance(term, Activation):
                tangent = np.repeat((analysis.balls.centres[term.sources[0]].value > 0) * 1.0, 3, axis=0)
                slopes[term.output] = tangent, tangent
        own = analysis.with_slopes(rows, slopes)
        plain = analysis.backward.below(network.output, np.eye(3), rows, own=own, seen=None, budgets=False)
        sharp = analysis.below(np.eye(3), zeros, rows, own=own, seen=None)
        here = network.evaluate(x)[0]
        lost = here - sharp.at(np.full(3, RADIUS))
        assert (lost <= 0.7 * (here - plain.at(np.full(3, RADIUS)))).all()
        reached = network.evaluate(points_of(network, x[0], RADIUS, np.eye(3), 1))
        assert (reached >= sharp.at(np.full(3, RADIUS)) - 1e-9).all()
