"""Comparators: the same function as sorting, nothing lost against its constant, and more seen than by it."""

from __future__ import annotations

import numpy as np
import pytest

from certifier.bounds import comparators
from certifier.bounds.comparators import with_comparators
from certifier.bounds.joint import joint_form
from certifier.bounds.multipliers import check
from certifier.terms import Activation, Contraction
from tests.building import Model, single
from tests.certifier.bounds.building import bounded, differences
from tests.certifier.bounds.test_multipliers import _found, _holds


def _sorting(count: int, kept: int, largest: int) -> Model:
    model = Model(2, count, 3)
    model.add("TopK", "x", np.array([kept]), axis=2, largest=largest, outputs=("values", "places"))
    model.output = "values"
    model.then("Flatten")
    return model


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize(("count", "kept"), [(2, 2), (2, 1), (3, 3), (3, 2), (4, 4), (4, 1), (5, 5)])
def test_comparators_sort_as_the_original_does(count: int, kept: int, largest: int) -> None:
    network, _ = bounded(_sorting(count, kept, largest))
    rewritten = with_comparators(network)
    assert any(isinstance(term, Contraction) for term in network.terms)
    assert any(isinstance(term, Activation) for term in rewritten.terms) == (count <= 4)
    x = np.random.default_rng(count).standard_normal((50, network.input_size))
    x[:5] = np.round(x[:5])  # ties
    ends = []
    for each in (network, rewritten):
        *_, (_, _, last) = each.walk(x)
        ends.append(last)
    np.testing.assert_allclose(ends[0], ends[1], rtol=0, atol=1e-14)


@pytest.mark.parametrize("operator", ["Max", "Min"])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_entrywise_extremes_are_comparators_too(operator: str, count: int) -> None:
    model = Model(6)
    generator = np.random.default_rng(count)
    weights = [single(generator.standard_normal((6, 5))) for _ in range(count)]
    model.add(operator, *[model.add("MatMul", "x", weight) for weight in weights])
    network, product = bounded(model)
    rewritten = with_comparators(network)
    assert not any(isinstance(term, Contraction) for term in rewritten.terms)
    assert rewritten.terms[-1].shape == network.terms[-1].shape
    first, second = (differences(each, np.random.default_rng(0), 20)[0] for each in (network, rewritten))
    np.testing.assert_allclose(first[network.output], second[network.output], rtol=0, atol=1e-13)
    proved = check(joint_form(network, product.lipschitz_upper), _found(joint_form(network, lambda _: 1.0)).witness())
    _holds(network, proved, 1)
    assert proved.upper <= product.constants().upper * (1 + 1e-4)


@pytest.mark.parametrize(("count", "kept"), [(2, 2), (4, 4), (4, 1), (3, 2)])
def test_a_sorted_group_keeps_its_constant(count: int, kept: int) -> None:
    network, product = bounded(_sorting(count, kept, 1))
    form = joint_form(network, product.lipschitz_upper)
    proved = check(form, _found(form).witness())
    _holds(network, proved, 2)
    assert 1.0 <= proved.upper <= 1.0 + 1e-2


def _maxmin(generator: np.random.Generator) -> Model:
    model = Model(6)
    for width in (12, 12):
        previous = 6 if model.output == "x" else 12
        model.linear(single(generator.standard_normal((width, previous)) / np.sqrt(previous)))
        pairs = model.add("Reshape", model.output, np.array([-1, width // 2, 2]))
        axes = np.array([2])
        largest = model.add("ReduceMax", pairs, axes, keepdims=1)
        smallest = model.add("ReduceMin", pairs, axes, keepdims=1)
        model.add("Concat", largest, smallest, axis=2)
        model.then("Flatten")
    model.linear(single(generator.standard_normal((3, 12))))
    return model


def test_networks_of_maxmin_are_tighter_than_by_its_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    network, product = bounded(_maxmin(np.random.default_rng(0)))
    form = joint_form(network, product.lipschitz_upper)
    assert len(form.steps) == 2 and all(step.size == 6 for step in form.steps)
    seen = check(form, _found(form).witness())
    _holds(network, seen, 3)
    monkeypatch.setattr(comparators, "LARGEST_GROUP", 1)
    blind = joint_form(network, product.lipschitz_upper)
    known = check(blind, _found(blind).witness())
    assert seen.pairs is not None and known.pairs is not None
    assert seen.upper < 0.9 * known.upper and seen.pairs.mean() < 0.9 * known.pairs.mean()
