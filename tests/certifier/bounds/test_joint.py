"""The joint form is the network: what each step reads is the linear map it says, and the laws hold."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings

from certifier.bounds.comparators import with_comparators
from certifier.bounds.joint import MAXIMAL_ORDER, Slopes, joint_form, obstacle
from certifier.flow import Network
from certifier.products import Bilinear
from certifier.terms import Affine
from tests.building import Model, single
from tests.certifier.bounds.building import bounded, differences
from tests.random_networks import image_networks, vector_networks


def _follow(network: Network, constants, seed: int) -> int:
    """Walk random differences through the steps, comparing with the network itself; the number of steps."""
    form = joint_form(network, constants)
    network = with_comparators(network)
    first, second = differences(network, np.random.default_rng(seed), 6)
    delta = {name: first[name] - second[name] for name in first}
    state = delta[network.input.name]
    nonlinear = [term for term in network.terms if not isinstance(term, Affine)]
    assert [step.output for step in form.steps] == [term.output for term in nonlinear]
    for step, term in zip(form.steps, nonlinear, strict=True):
        size = max(1.0, float(np.abs(state).max()))
        read, fresh = state @ step.read.matrix.T, delta[term.output]
        if not isinstance(term, Bilinear):
            source = delta[term.sources[0]]
            scale = max(1.0, *(float(np.abs(run[term.sources[0]]).max()) for run in (first, second)))
            np.testing.assert_allclose(read, source, atol=1e-11 * scale * size)
        if isinstance(step.law, Slopes):
            low = np.minimum(step.law.lower * read, step.law.upper * read)
            high = np.maximum(step.law.lower * read, step.law.upper * read)
            scale = max(1.0, *(float(np.abs(run[term.output]).max()) for run in (first, second)))
            assert (fresh >= low - 1e-9 * scale).all() and (fresh <= high + 1e-9 * scale).all()
        else:
            reach = step.law.constant * np.linalg.norm(read, axis=1)
            assert (np.linalg.norm(fresh, axis=1) <= reach * (1 + 1e-9) + 1e-9).all()
        state = np.concatenate([state, fresh], axis=1)[:, step.kept]
    scale = max(1.0, *(float(np.abs(run[network.output]).max()) for run in (first, second)))
    np.testing.assert_allclose(state @ form.readout.matrix.T, delta[network.output], atol=1e-10 * scale)
    return len(form.steps)


@settings(max_examples=40)
@given(vector_networks(layers=7))
def test_vector_networks_are_their_joint_forms(example):
    model, seed = example
    network, product = bounded(model)
    if obstacle(network) is None:
        _follow(network, product.lipschitz_upper, seed)


@settings(max_examples=20)
@given(image_networks(layers=4))
def test_image_networks_are_their_joint_forms(example):
    model, seed = example
    network, product = bounded(model)
    if obstacle(network) is None:
        _follow(network, product.lipschitz_upper, seed)


def test_products_of_live_values_are_stretches_of_both_factors() -> None:
    generator = np.random.default_rng(0)
    model = Model(4)
    gate = model.add("Sigmoid", model.add("MatMul", "x", single(generator.standard_normal((4, 3)))))
    bounded_part = model.add("Tanh", model.add("MatMul", "x", single(generator.standard_normal((4, 3)))))
    model.add("Mul", gate, bounded_part)
    model.linear(single(generator.standard_normal((2, 3))))
    network, product = bounded(model)
    assert _follow(network, product.lipschitz_upper, 0) == 3


def test_the_distance_covers_the_rounding_of_composed_maps() -> None:
    """Three maps in a row, composed in floating point, against their exact product in fractions."""
    generator = np.random.default_rng(1)
    matrices = [single(generator.standard_normal((6, 6))) for _ in range(3)]
    model = Model(6)
    for matrix in matrices:
        model.linear(matrix)
    model.then("Relu")
    network, product = bounded(model)
    form = joint_form(network, product.lipschitz_upper)
    fractions = [np.array([[Fraction(float(value)) for value in row] for row in matrix]) for matrix in matrices]
    computed = np.array([[Fraction(float(value)) for value in row] for row in form.steps[0].read.matrix])
    off = fractions[2] @ fractions[1] @ fractions[0] - computed
    # The Frobenius norm is at least the spectral one, so this asks for more than is claimed.
    assert sum(value**2 for value in off.ravel()) <= Fraction(form.steps[0].read.distance) ** 2
    assert form.steps[0].read.distance < 1e-11


def test_an_anchor_that_nobody_reads_any_more_is_dropped() -> None:
    model = Model(5)
    generator = np.random.default_rng(2)
    for _ in range(3):
        model.linear(single(generator.standard_normal((5, 5))))
        model.then("Relu")
    network, product = bounded(model)
    form = joint_form(network, product.lipschitz_upper)
    assert [len(step.kept) for step in form.steps] == [5, 5, 5]
    skipping = Model(5)
    first = skipping.linear(single(generator.standard_normal((5, 5))))
    skipping.then("Relu")
    skipping.add("Add", skipping.linear(single(generator.standard_normal((5, 5)))), first)
    skipping.then("Relu")
    network, product = bounded(skipping)
    form = joint_form(network, product.lipschitz_upper)
    # The second step still reads the input, through `first`; behind it only its own output is alive.
    assert [len(step.kept) for step in form.steps] == [10, 5]


def test_states_too_large_to_be_proved_are_an_obstacle() -> None:
    model = Model(MAXIMAL_ORDER)
    model.then("Relu")
    network, _ = bounded(model)
    reason = obstacle(network)
    assert reason is not None and str(2 * MAXIMAL_ORDER) in reason


@pytest.mark.parametrize("seed", range(3))
def test_arranged_parts_of_one_source_are_added(seed: int) -> None:
    generator = np.random.default_rng(seed)
    model = Model(4)
    left = model.add("MatMul", "x", single(generator.standard_normal((4, 3))))
    right = model.add("MatMul", "x", single(generator.standard_normal((4, 3))))
    model.add("Concat", left, model.add("Add", left, right), axis=1)
    model.then("Tanh")
    network, product = bounded(model)
    assert _follow(network, product.lipschitz_upper, seed) == 1
