"""Places where an analysis of a ball could claim too much: values read twice, offsets that cancel, rows off the box."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from certifier import elementwise
from certifier.proof.local.analysis import Local
from certifier.proof.local.spans import ball_span
from certifier.search.lines import LeastArea
from tests.building import Model, single
from tests.certifier.local_balls import analysed, everything_is_inside, local_of, network_of, points_of

AGAIN = {
    "itself": lambda model, value: value,
    "identity": lambda model, value: model.add("Identity", value),
    "reshape": lambda model, value: model.add("Reshape", value, np.array([-1, 5])),
    "chain": lambda model, value: model.add("Flatten", model.add("Identity", value)),
}


@pytest.mark.parametrize("again", AGAIN)
@pytest.mark.parametrize("activation", ["Relu", "Tanh"])
def test_a_value_that_is_added_to_itself_counts_twice(again, activation):
    """Functionals of single entries then begin at a sum whose coefficients are no unit vectors further back."""
    generator = np.random.default_rng(2)
    model = Model(4)
    value = model.linear(single(generator.standard_normal((5, 4))), single(generator.standard_normal(5)))
    model.add("Add", value, AGAIN[again](model, value))
    model.then(activation)
    model.linear(single(generator.standard_normal((3, 5))))
    network = network_of(model)
    x = generator.standard_normal((1, 4))
    analysis = analysed(network, x, np.array([0.5]))
    coefficients = np.vstack([np.eye(3), -np.eye(3)])
    everything_is_inside(analysis, points_of(network, x[0], 0.5, coefficients, 1), 0)
    read = analysis.spans[network.terms[-2].sources[0]]
    attained = network.terms[0].evaluate(points_of(network, x[0], 0.5, coefficients, 1))
    # Sharp as well: an affine map's own ends, within what rounding takes.
    weights = network.terms[0].evaluate(np.eye(4)) - network.terms[0].evaluate(np.zeros((1, 4)))
    reach = np.linalg.norm(weights, axis=0)
    assert (read.upper[0] - read.lower[0] <= 2 * 2 * 0.5 * reach * (1 + 1e-5)).all()
    assert (2 * attained <= read.upper[0]).all() and (2 * attained >= read.lower[0]).all()


@pytest.mark.parametrize("seed", range(6))
def test_offsets_that_cancelled_carry_their_own_rounding(seed):
    """B less the scaled mean, in fractions: what was rounded is larger by far than what is left."""
    generator = np.random.default_rng(seed)
    model = Model(4, 1, 1)
    scale, mean = single(1 + generator.random(4)), single(1e6 * generator.standard_normal(4))
    bias = single(mean * scale / 3)
    model.then("BatchNormalization", scale, bias, mean, np.full(4, 8.875), epsilon=0.125)
    model.then("Flatten")
    network = network_of(model)
    exact = [
        Fraction(float(b)) - Fraction(float(m)) * Fraction(float(s)) / 3
        for b, m, s in zip(bias, mean, scale, strict=True)
    ]
    analysis = analysed(network, np.zeros((1, 4)), np.zeros(1))
    both = np.vstack([np.eye(4), -np.eye(4)])
    bounds = analysis.below(both, np.zeros(8), np.zeros(8, int), own={}, seen=None).at(np.zeros(8))
    for bound, truth in zip(bounds, [*exact, *(-value for value in exact)], strict=True):
        assert Fraction(float(bound)) <= truth
        assert float(truth) - bound <= 1e-13 * 2e6


def test_a_row_outside_of_the_box_moves_as_far_as_it_does():
    """Values at the row are what distances are measured from, so slopes there count too."""
    model = Model(1)
    model.then("Tanh")
    model.linear(single(np.ones((2, 1))))
    network = network_of(model)
    local = Local(network, {}, lower=np.array([2.0]), upper=np.array([3.0]))
    x, radius = np.array([[0.0]]), np.array([3.0])
    analysis = local.analyse(local.balls(x, radius), LeastArea(deadline=0.0, budget=0.0, steps=0), known=None)
    span = analysis.spans[network.terms[0].output]
    assert span.moved[0, 0] >= np.tanh(3.0) and span.length[0, 0] >= np.tanh(3.0)
    assert span.lower[0, 0] <= 0.0 and span.upper[0, 0] >= np.tanh(3.0)
    inside = ball_span(np.array([[2.5]]), np.array([3.0]), np.array([2.0]), np.array([3.0]))
    assert (inside.lower, inside.upper) == (2.0, 3.0)


def test_rows_are_analysed_in_double_precision():
    """A row in single precision is the same row, and is not evaluated in single precision."""
    model = Model(3, opset=20)
    model.then("Gelu")
    network = network_of(model)
    x = np.random.default_rng(1).standard_normal((2, 3)).astype(np.float32)
    local = local_of(network)
    given, wide = local.balls(x, np.ones(2)), local.balls(x.astype(np.float64), np.ones(2))
    for name, centre in wide.centres.items():
        assert given.centres[name].value.dtype == np.float64
        assert (given.centres[name].value == centre.value).all(), name
    with pytest.raises(ValueError, match="exact in float64"):
        local.balls(x.astype(np.longdouble), np.ones(2))


@pytest.mark.parametrize("radius", [np.nan, -1.0, np.inf])
@pytest.mark.parametrize("other", [0.5, 1e200])
def test_a_row_of_no_use_claims_nothing_and_spoils_no_other(radius, other):
    """Rows of one batch have nothing to do with one another."""
    generator = np.random.default_rng(3)
    model = Model(3)
    for _ in range(2):
        model.linear(single(generator.standard_normal((3, 3))), single(generator.standard_normal(3)))
        model.then("Relu")
    network = network_of(model)
    x = generator.standard_normal((2, 3))
    together = analysed(network, x, np.array([radius, other]))
    alone = analysed(network, x[1:], np.array([other]))
    rows, zeros = np.repeat(np.arange(2), 3), np.zeros(6)
    units = -np.vstack([np.eye(3), np.eye(3)])
    below = together.below(units, zeros, rows, own={}, seen=None)
    assert (below.at(np.array([radius, radius, radius, *[other] * 3]))[:3] == -np.inf).all()
    assert (below.radii(np.full(6, 1.0))[:3] == 0).all()
    single_row = alone.below(units[3:], zeros[3:], np.zeros(3, int), own={}, seen=None)
    assert below.base[3:] == pytest.approx(single_row.base, rel=1e-9)


@pytest.mark.parametrize(("alpha", "gamma"), [(1.6732632423543772, 1.0507009873554805), (-0.7, 1.3), (0.1, -0.3)])
def test_the_slopes_beside_a_bend_enclose_their_exact_product(alpha, gamma):
    bends = elementwise.selu(alpha, gamma).bends
    assert bends is not None
    product = Fraction(alpha) * Fraction(gamma)
    assert Fraction(float(bends[0].least)) <= min(product, Fraction(gamma))
    assert Fraction(float(bends[0].most)) >= max(product, Fraction(gamma))
