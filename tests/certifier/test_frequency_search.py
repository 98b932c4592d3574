"""Where the search begins and what it is for changes how far it comes, and never what is true."""

from __future__ import annotations

import numpy as np
import pytest

from certifier.bounds import ProductBound
from certifier.errors import NotProved
from certifier.frequencies.method import check
from certifier.frequencies.plans import Planner
from certifier.limits import Budget
from certifier.search import frequency as descent
from certifier.tightening.frequency import Searched, search
from tests.building import Model, single
from tests.certifier.preparing import mean_pair, prepared

SECONDS = 120.0


def small(seed: int, *, classes: int = 3) -> Model:
    generator = np.random.default_rng(seed)
    model = Model(2, 6, 6, opset=20)
    for before, after in ((2, 3), (3, 3)):
        kernel = single(generator.standard_normal((after, before, 3, 3)) / 3 / np.sqrt(before))
        model.then("Conv", kernel, pads=[1, 1, 1, 1])
        model.then("Relu")
    model.then("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    model.then("Conv", single(generator.standard_normal((3, 3, 3, 3)) / 5), pads=[1, 1, 1, 1])
    model.then("Relu")
    model.then("Flatten")
    model.linear(single(generator.standard_normal((classes, 27)) / 5))
    return model


def found(model: Model, monkeypatch: pytest.MonkeyPatch, iterations: int, **wish) -> tuple[float, np.ndarray, Searched]:
    """The mean pair constant, all pairs and what the search left after so many steps."""
    monkeypatch.setattr(descent, "ITERATIONS", iterations)
    network, norms = prepared(model.data())
    planner = Planner(network, norms)
    searched = search(planner, ProductBound(network, norms), budget=Budget.of(SECONDS), **wish)
    constants = check(planner, searched.witness)
    assert constants.pairs is not None
    return mean_pair(constants), constants.pairs, searched


def test_a_kept_witness_is_where_the_next_search_begins(monkeypatch):
    """Also for the next version of the model, whose weights moved a little."""
    model = small(0)
    cold, _, _ = found(model, monkeypatch, 1)
    best, _, kept = found(model, monkeypatch, 60)
    warm, _, _ = found(model, monkeypatch, 1, kept=kept.parameters)
    assert best <= 0.8 * cold and warm <= 1.02 * best
    generator = np.random.default_rng(1)
    for name, value in model.constants.items():
        if value.ndim == 4:
            model.constants[name] = single(value * (1 + 0.01 * generator.standard_normal(value.shape)))
    moved, _, _ = found(model, monkeypatch, 1, kept=kept.parameters)
    assert moved <= 1.1 * best


@pytest.mark.parametrize("spoilt", ["shape", "size", "name"])
def test_a_kept_witness_that_does_not_fit_costs_nothing_but_its_help(monkeypatch, spoilt):
    model = small(0)
    cold, _, kept = found(model, monkeypatch, 3)
    arrays = dict(kept.parameters)
    if spoilt == "shape":
        arrays = {name: np.ones(17) for name in arrays}
    elif spoilt == "size":
        arrays = {name: array * 1e-6 for name, array in arrays.items()}
    else:
        arrays = {f"another {name}": array for name, array in arrays.items()}
    again, _, _ = found(model, monkeypatch, 3, kept=arrays)
    assert again <= 1.01 * cold


def test_pairs_that_matter_get_smaller_constants(monkeypatch):
    model = small(2, classes=4)
    _, alike, _ = found(model, monkeypatch, 80)
    weights = np.zeros((4, 4))
    weights[0, 1] = weights[1, 0] = 1.0
    _, chosen, _ = found(model, monkeypatch, 80, weights=weights)
    assert chosen[0, 1] < alike[0, 1] * (1 - 1e-4)


def test_the_origin_is_chosen_by_what_it_promises(monkeypatch):
    """A transposed convolution stands in front: going by its norm alone, or starting behind it."""
    generator = np.random.default_rng(3)
    model = Model(2, 4, 4, opset=20)
    model.then("Conv", single(generator.standard_normal((2, 2, 3, 3))), pads=[1, 1, 1, 1])
    model.then("ConvTranspose", single(generator.standard_normal((2, 2, 2, 2))), strides=[2, 2])
    model.then("BatchNormalization", np.full(2, 0.125), np.zeros(2), np.zeros(2), np.ones(2), epsilon=0.0)
    model.then("Conv", single(generator.standard_normal((2, 2, 3, 3))), pads=[1, 1, 1, 1])
    model.then("Relu")
    model.then("Flatten")
    model.linear(single(generator.standard_normal((3, 128))))
    network, norms = prepared(model.data())
    product = ProductBound(network, norms)
    monkeypatch.setattr(descent, "ITERATIONS", 30)
    planner = Planner(network, norms)
    witness = search(planner, product, budget=Budget.of(SECONDS)).witness
    assert mean_pair(check(planner, witness)) <= 1.3 * mean_pair(product.constants())
    parts = witness.header["parts"]
    assert isinstance(parts, list) and isinstance(parts[-1], dict)
    assert parts[-1]["cuts"] == [] and parts[-1]["origin"] != "x"


def test_a_thinned_torus_suggests_multipliers_for_the_whole_one(monkeypatch):
    """As large networks are searched; what comes back is proved on the whole torus, and is close to searching there."""
    generator = np.random.default_rng(5)
    model = Model(2, 12, 12, opset=20)
    for before, after, stride in ((2, 3, 1), (3, 4, 2)):
        kernel = single(generator.standard_normal((after, before, 3, 3)) / 3 / np.sqrt(before))
        start = model.then("Conv", kernel, pads=[1, 1, 1, 1], strides=[stride, stride])
        model.then("Relu")
    model.add("Add", start, model.then("Conv", single(generator.standard_normal((4, 4, 3, 3)) / 6), pads=[1, 1, 1, 1]))
    model.then("Relu")
    model.then("Flatten")
    model.linear(single(generator.standard_normal((3, 144)) / 12))
    cold, _, _ = found(model, monkeypatch, 0)
    whole, _, _ = found(model, monkeypatch, 60)
    monkeypatch.setattr(descent, "WHOLE_NUMBERS", 0)
    thin, _, searched = found(model, monkeypatch, 60)
    parts = searched.witness.header["parts"]
    assert isinstance(parts, list) and isinstance(parts[0], dict) and parts[0]["tori"] == [[14, 14]]
    assert thin <= 1.1 * whole and thin <= 0.9 * cold


@pytest.mark.parametrize("layers", [3, 8])
def test_weights_beyond_the_range_of_the_analysis_are_refused(layers):
    """Whether the covariances are merely too large for it or overflow."""
    model = Model(1, 4, 4, opset=20)
    for _ in range(layers):
        model.then("Conv", single(np.full((1, 1, 3, 3), 1e30)), pads=[1, 1, 1, 1])
        model.then("Relu")
    model.then("Flatten")
    model.linear(single(np.ones((2, 16))))
    network, norms = prepared(model.data())
    with pytest.raises(NotProved):
        planner = Planner(network, norms)
        check(planner, search(planner, ProductBound(network, norms), budget=Budget.of(1.0)).witness)
