"""Nothing that a ball can reach is outside of what was proved of it: points, attacks, and exact fractions."""

from __future__ import annotations

import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings

from certifier.flow import Network
from certifier.proof.local.analysis import Analysis, Known
from certifier.proof.local.backward import Below
from certifier.proof.local.ledger import Goals, Ledger, Verdict
from certifier.proof.local.spans import centres_of
from certifier.search.lines import LeastArea
from certifier.search.refinement import _sharpen, search_radii
from certifier.terms import Affine
from tests.building import Model, single
from tests.certifier.local_balls import (
    analysed,
    everything_is_inside,
    local_of,
    network_and_gains,
    network_of,
    points_of,
    spans_alone,
)
from tests.random_networks import image_networks, vector_networks

RADII = (0.01, 0.3, 2.0)
FOREVER = 1e6


def _goals(coefficients: np.ndarray, rows: int) -> Goals:
    """The same goals for every row."""
    zeros = np.zeros((rows, len(coefficients)))
    return Goals(coefficients=np.repeat(coefficients[None], rows, axis=0), constants=zeros, growth=zeros)


def _sharpened(analysis: Analysis, coefficients: np.ndarray) -> Verdict:
    rows = len(analysis.balls.radii)
    verdict = Ledger(analysis.balls.x, _goals(coefficients, rows)).judge(analysis, np.arange(rows))
    _sharpen(verdict, steps=6)
    return verdict


def _is_sound(model: Model, seed: int) -> None:
    network, gains = network_and_gains(model)
    generator = np.random.default_rng(seed)
    x = np.repeat(generator.standard_normal((1, network.input_size)), len(RADII), axis=0)
    analysis = analysed(network, x, np.array(RADII), gains=gains)
    alone = spans_alone(network, x, np.array(RADII), gains=gains)
    coefficients = np.vstack([np.eye(3), -np.eye(3), [[1.0, -1.0, 0.0], [0.0, 2.0, -1.0]]])
    for row, radius in enumerate(RADII):
        points = points_of(network, x[row], radius, coefficients, seed)
        everything_is_inside(analysis, points, row)
        everything_is_inside(alone, points, row)
        rows, zeros = np.full(len(coefficients), row), np.zeros(len(coefficients))
        tuned = _sharpened(analysis, coefficients).below
        reached = centres_of(network, points)[network.output]
        for below in (
            analysis.below(coefficients, zeros, rows, own={}, seen=None),
            Below(base=tuned.base[row], steepness=tuned.steepness[row]),
        ):
            for share in (1.0, 0.5):
                inside = np.linalg.norm(points - x[row], axis=1) <= share * radius
                bounds = below.at(np.full(len(coefficients), share * radius))
                highest = coefficients @ reached.value[inside].T + np.abs(coefficients) @ reached.error[inside].T
                assert (bounds[:, None] <= highest).all()


@settings(max_examples=40)
@given(vector_networks(layers=5))
def test_no_point_of_a_ball_leaves_its_spans_or_functionals(drawn):
    _is_sound(*drawn)


@settings(max_examples=20)
@given(image_networks(layers=5))
def test_no_point_of_a_ball_of_images_leaves_its_spans_or_functionals(drawn):
    _is_sound(*drawn)


@pytest.mark.slow
@settings(max_examples=400)
@given(vector_networks(layers=8))
def test_many_networks_of_vectors(drawn):
    _is_sound(*drawn)


@pytest.mark.slow
@settings(max_examples=200)
@given(image_networks(layers=7))
def test_many_networks_of_images(drawn):
    _is_sound(*drawn)


@pytest.mark.parametrize(
    ("operator", "attributes"),
    [("Gelu", {}), ("Gelu", {"approximate": "tanh"}), ("Mish", {}), ("HardSwish", {}), ("LeakyRelu", {"alpha": -0.5})],
    ids=["gelu", "gelu tanh", "mish", "hard swish", "leaky"],
)
@pytest.mark.parametrize("seed", range(3))
def test_slopes_of_both_signs(operator, attributes, seed):
    generator = np.random.default_rng(seed)
    model = Model(6, opset=20)
    for rows, columns in ((9, 6), (9, 9), (3, 9)):
        model.linear(single(generator.standard_normal((rows, columns)) / 2), single(generator.standard_normal(rows)))
        if rows != 3:
            model.then(operator, **attributes)
    _is_sound(model, seed)


@pytest.mark.parametrize("seed", range(4))
def test_activations_that_read_activations(seed):
    """Functionals then begin at a value that no affine map computes, or behind one that only passes it on."""
    generator = np.random.default_rng(seed)
    model = Model(5, opset=20)
    model.linear(single(generator.standard_normal((6, 5))), single(generator.standard_normal(6)))
    model.then("Gelu")
    model.then("Identity" if seed % 2 else "Neg")
    model.then("LeakyRelu", alpha=0.25)
    model.then("Mish")
    model.linear(single(generator.standard_normal((3, 6))))
    _is_sound(model, seed)


def _exactly(network: Network, point: list[Fraction]) -> list[Fraction]:
    """The output of dense layers with rectifiers, in fractions."""
    values = point
    for term in network.terms:
        if isinstance(term, Affine):
            matrix = term.operators[0].forward(np.eye(len(values))).T
            offset = np.zeros(len(matrix)) if term.offset is None else term.offset
            values = [
                sum((Fraction(float(w)) * v for w, v in zip(row, values, strict=True)), Fraction(float(b)))
                for row, b in zip(matrix, offset, strict=True)
            ]
        else:
            values = [max(v, Fraction(0)) for v in values]
    return values


@pytest.mark.parametrize("seed", range(12))
def test_bounds_hold_in_exact_fractions(seed):
    """Weights whose sums cancel make every rounding show; nothing is allowed for here."""
    generator = np.random.default_rng(seed)
    model = Model(3)
    scale = 10.0 ** generator.integers(-3, 9)
    shift = single(scale * generator.standard_normal(4))
    model.linear(single(generator.standard_normal((4, 3))), shift)
    model.linear(single(generator.standard_normal((4, 4))), single(-scale * generator.standard_normal(4)))
    if seed % 2:
        model.then("Relu")
    model.linear(single(generator.standard_normal((2, 4))))
    network = network_of(model)
    x = generator.standard_normal((1, 3))
    for radius in (0.0, 1e-12, 0.1):
        analysis = analysed(network, x, np.array([radius]))
        below = analysis.below(np.vstack([np.eye(2), -np.eye(2)]), np.zeros(4), np.zeros(4, int), own={}, seen=None)
        bounds = below.at(np.full(4, radius))
        assert np.isfinite(bounds).all()
        span = analysis.spans[network.output]
        for sign in (0, 1, -1):
            # Three quarters of the radius along an axis: exactly a point of the ball.
            point = [Fraction(float(v)) for v in x[0]]
            point[seed % 3] += sign * Fraction(3, 4) * Fraction(radius)
            exact = _exactly(network, point)
            assert all(Fraction(float(b)) <= v for b, v in zip(bounds, [*exact, *(-v for v in exact)], strict=True))
            assert all(Fraction(float(low)) <= v for low, v in zip(span.lower[0], exact, strict=True))
            assert all(Fraction(float(high)) >= v for high, v in zip(span.upper[0], exact, strict=True))


@pytest.mark.parametrize("seed", range(20))
def test_a_single_sum_is_rounded_down(seed):
    """At radius 0 the bound is the value itself, and may not be what the sum was rounded up to."""
    generator = np.random.default_rng(seed)
    model = Model(40)
    model.linear(single(generator.standard_normal((8, 40))), single(generator.standard_normal(8)))
    network = network_of(model)
    x = generator.standard_normal((1, 40))
    exact = _exactly(network, [Fraction(float(v)) for v in x[0]])
    analysis = analysed(network, x, np.zeros(1))
    below = analysis.below(np.eye(8), np.zeros(8), np.zeros(8, int), own={}, seen=None)
    for bound, base, truth in zip(below.at(np.zeros(8)), below.base, exact, strict=True):
        assert Fraction(float(bound)) <= Fraction(float(base)) <= truth
        assert float(truth) - bound <= 1e-12 * (1 + abs(float(truth)))


def test_functionals_of_an_affine_network_are_exact():
    generator = np.random.default_rng(3)
    weights = single(generator.standard_normal((3, 7)))
    model = Model(7)
    model.linear(weights, single(generator.standard_normal(3)))
    network = network_of(model)
    x = generator.standard_normal((1, 7))
    for radius in (0.0, 0.5, 10.0):
        analysis = analysed(network, x, np.array([radius]))
        below = analysis.below(np.eye(3), np.zeros(3), np.zeros(3, int), own={}, seen=None)
        truth = network.evaluate(x)[0] - radius * np.linalg.norm(weights, axis=1)
        bounds = below.at(np.full(3, radius))
        assert (bounds <= truth + 1e-14 * np.abs(truth)).all() and bounds == pytest.approx(truth, rel=1e-5, abs=1e-9)


def test_radii_reach_the_nearest_boundary_of_a_linear_classifier():
    generator = np.random.default_rng(4)
    weights = single(generator.standard_normal((2, 5)))
    model = Model(5)
    model.linear(weights)
    network = network_of(model)
    x = generator.standard_normal((6, 5))
    signs = np.where(np.diff(network.evaluate(x), axis=1) > 0, 1.0, -1.0)
    goals = Goals(
        coefficients=signs[:, :, None] * np.array([-1.0, 1.0]), constants=np.zeros((6, 1)), growth=np.zeros((6, 1))
    )
    found = search_radii(
        local_of(network), x, goals, first=None, deadline=time.monotonic() + FOREVER, budget=1e15
    ).radii
    truth = np.abs(x @ (weights[1] - weights[0])) / np.linalg.norm(weights[1] - weights[0])
    assert (found < truth).all() and (found >= 0.98 * truth).all()


def test_what_is_known_of_smaller_balls_is_not_used():
    """A span of radius 1 says nothing about radius 2, nor one of other rows."""
    network = network_of(_rectified(5))
    local, x = local_of(network), np.random.default_rng(5).standard_normal((2, 4))
    guide = LeastArea(deadline=time.monotonic() + FOREVER, budget=1e15, steps=2)
    small = local.analyse(local.balls(x, np.full(2, 0.5)), guide, known=None)
    plain = local.analyse(local.balls(x, np.full(2, 2.0)), guide, known=None)
    informed = local.analyse(local.balls(x, np.full(2, 2.0)), guide, known=Known.of(small))
    for name, span in plain.spans.items():
        assert (informed.spans[name].lower == span.lower).all() and (informed.spans[name].upper == span.upper).all()
    mixed = Known.of(small).replaced(np.array([0]), Known.of(plain).some(np.array([0])))
    assert mixed.radii.tolist() == [2.0, 0.5]
    with pytest.raises(ValueError, match="other rows"):
        local.analyse(local.balls(x[::-1].copy(), np.full(2, 0.1)), guide, known=Known.of(small))
    with pytest.raises(ValueError, match="other rows"):
        mixed.replaced(np.array([0]), Known.of(small).some(np.array([1])))


def test_a_ledger_takes_constants_and_growth_off_and_no_other_rows():
    """f = x_0 with an allowance of 0.25 + r/2: positive until 1 - 0.25 = 1.5 r."""
    model = Model(2)
    model.linear([[1.0, 0.0]])
    network = network_of(model)
    x = np.array([[1.0, 0.0], [3.0, 0.0]])
    goals = Goals(coefficients=np.ones((2, 1, 1)), constants=np.full((2, 1), -0.25), growth=np.full((2, 1), 0.5))
    ledger = Ledger(x, goals)
    ledger.judge(analysed(network, x[:1], np.array([9.0])), np.array([0]))
    assert 0.4999 < ledger.radii[0] < 0.5 and ledger.radii[1] == 0
    ledger.judge(analysed(network, x[:1], np.array([0.25])), np.array([0]))
    assert 0.4999 < ledger.radii[0] < 0.5
    ledger.judge(analysed(network, x[1:], np.array([0.125])), np.array([1]))
    assert ledger.radii[1] == 0.125
    with pytest.raises(ValueError, match="other rows"):
        ledger.judge(analysed(network, x[:1], np.array([0.25])), np.array([1]))


def _rectified(seed: int) -> Model:
    generator = np.random.default_rng(seed)
    model = Model(4)
    for rows, columns in ((8, 4), (8, 8)):
        model.linear(single(generator.standard_normal((rows, columns))), single(generator.standard_normal(rows)))
        model.then("Relu")
    model.linear(single(generator.standard_normal((3, 8))))
    return model


def test_functionals_are_sharper_than_intervals_and_slopes_of_their_own_sharper_still():
    """Within a stated factor of what is attained, so that spans without an end would not pass."""
    gained = []
    for seed in range(6):
        network = network_of(_rectified(seed))
        x = np.random.default_rng(seed).standard_normal((1, 4))
        analysis = analysed(network, x, np.array([0.5]))
        rows, zeros = np.zeros(3, int), np.zeros(3)
        plain = analysis.below(np.eye(3), zeros, rows, own={}, seen=None).at(np.full(3, 0.5))
        tuned = _sharpened(analysis, np.eye(3)).below.at(np.full((1, 3), 0.5))[0]
        points = points_of(network, x[0], 0.5, np.eye(3), seed)
        attained = network.evaluate(points).min(axis=0)
        assert (network.evaluate(x)[0] - plain <= 2.5 * (network.evaluate(x)[0] - attained)).all()
        assert (tuned >= plain).all()
        gained.append((tuned > plain + 1e-6).any())
    assert any(gained)
