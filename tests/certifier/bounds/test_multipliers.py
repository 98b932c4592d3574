"""Bounds from multipliers: sound for any multipliers, tight for good ones, refused for what does not fit."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from certifier.bounds import multipliers
from certifier.bounds.joint import Slopes, Step, joint_form, obstacle
from certifier.bounds.multipliers import METHOD, check, constants_of, proved_matrix
from certifier.certificates import Constants
from certifier.errors import NotProved
from certifier.limits import Budget
from certifier.proof.multipliers import LinearMap, implies
from certifier.search.multipliers.arrays import NumpyArrays
from certifier.search.multipliers.objectives import outputs, pairs, whole
from certifier.search.multipliers.recursion import Recursion
from certifier.tightening.multipliers import Searching, chain_of
from certifier.witness import Witness
from tests.building import Model, single
from tests.certifier.bounds.building import bounded, differences, network_of
from tests.random_networks import image_networks, vector_networks


def _searching(form, *, classes: bool = True, kept=None) -> Searching:
    count = len(form.readout.matrix)
    return Searching(
        form, weights=np.ones((count, count)), classes=classes, kept=kept or {}, progress=lambda family: None
    )


def _found(form, seconds: float = 5.0, *, alone: bool = False) -> Searching:
    searching = _searching(form)
    for _ in searching.families(Budget.of(seconds), cost=lambda: 0.0, is_worthwhile=lambda: alone):
        pass
    return searching


def _holds(network, constants: Constants, seed: int) -> None:
    """No sampled secant, along random lines and short steps, is above a constant."""
    assert constants.outputs is not None and constants.pairs is not None
    first, second = differences(network, np.random.default_rng(seed), 64)
    change = first[network.output] - second[network.output]
    distance = np.linalg.norm(first[network.input.name] - second[network.input.name], axis=1)
    noise = 1e-9 * max(1.0, float(np.abs(first[network.output]).max()))
    assert (np.linalg.norm(change, axis=1) <= constants.upper * distance + noise).all()
    assert (np.abs(change) <= constants.outputs * distance[:, None] + noise).all()
    for t, j in combinations(range(change.shape[1]), 2):
        assert (np.abs(change[:, t] - change[:, j]) <= constants.pairs[t, j] * distance + noise).all()


def _any_multipliers_are_sound(model: Model, seed: int) -> None:
    """From a random feasible point of the search, not an optimised one."""
    network, product = bounded(model)
    if obstacle(network) is not None:
        return
    form = joint_form(network, product.lipschitz_upper)
    recursion, generator = Recursion(chain_of(form), NumpyArrays()), np.random.default_rng(seed)
    counts = [len(stage.matrix) for stage in recursion.chain.stages]
    t = [
        np.zeros(count) if stage.middle is None else generator.normal(size=count)
        for count, stage in zip(counts, recursion.chain.stages, strict=True)
    ]
    recursion.forward(t, [np.asarray(generator.normal()) for _ in counts])
    try:
        proved = constants_of(proved_matrix(form, recursion.multipliers()))
    except NotProved:
        return
    _holds(network, proved, seed)


@settings(max_examples=50)
@given(vector_networks(layers=6))
def test_any_multipliers_bound_vector_networks(example):
    _any_multipliers_are_sound(*example)


@settings(max_examples=25)
@given(image_networks(layers=4))
def test_any_multipliers_bound_image_networks(example):
    _any_multipliers_are_sound(*example)


@pytest.mark.parametrize("distance", [1e-9, 1e-6, 1e-3])
def test_a_precision_is_lowered_until_it_is_proved(distance: float) -> None:
    """The exact map may lie so far from the computed one that what nearly follows does not."""
    matrix = np.random.default_rng(0).standard_normal((4, 4))
    law, read = Slopes(lower=np.zeros(4), upper=np.ones(4)), LinearMap(matrix=matrix, distance=distance)
    step, family = Step(name="h", output="h", size=4, law=law, read=read, kept=np.arange(4, 8)), np.full(4, 0.05)
    form = multipliers._form(np.eye(4), step, family)
    exact = multipliers._marginal(form.values, step.kept)
    assert exact is not None
    assert not implies(form, multipliers._symmetric(exact * (1 - multipliers.SLACKS[0])), step.kept)
    lowered = multipliers._continued(np.eye(4), step, family)
    assert implies(form, lowered, step.kept) and np.trace(lowered) >= 0.99 * np.trace(exact)


@pytest.mark.parametrize("operator", ["Relu", "Gelu", "HardSwish", "Mish", "Abs", "Tanh", "LeakyRelu"])
def test_every_kind_of_slope_is_followed_to_its_constants(operator: str) -> None:
    """With slopes below zero too: the search's multipliers are proved and beat the product of norms."""
    generator = np.random.default_rng(0)
    model = Model(6, opset=20)
    for _ in range(3):
        model.linear(single(generator.standard_normal((6, 6)) / 2))
        model.then(operator)
    model.linear(single(generator.standard_normal((3, 6))))
    network, product = bounded(model)
    form = joint_form(network, product.lipschitz_upper)
    proved, known = check(form, _found(form).witness()), product.constants()
    _holds(network, proved, 1)
    assert proved.pairs is not None and known.pairs is not None
    assert proved.upper < 0.95 * known.upper
    assert (proved.pairs <= known.pairs * (1 + 1e-6)).all()


def test_a_single_layer_reaches_the_optimum_of_its_semidefinite_program() -> None:
    """relu(x) + relu(-x) = |x|: two slopes in [0, 1] differ by at most 1, where the product of norms sees 2."""
    model = Model(1)
    model.linear(np.array([[1.0], [-1.0]]))
    model.then("Relu")
    model.linear(np.array([[1.0, 1.0], [0.0, 0.0]]))
    network, product = bounded(model)
    form = joint_form(network, product.lipschitz_upper)
    proved = check(form, _found(form).witness())
    assert product.constants().upper == pytest.approx(2.0, rel=1e-6)
    assert 1.0 <= proved.upper <= 1.01


def test_residual_blocks_are_followed_through_the_joint_state() -> None:
    generator = np.random.default_rng(5)
    model = Model(8)
    for _ in range(3):
        start = model.output
        model.linear(single(generator.standard_normal((8, 8)) / 3))
        model.then("Relu")
        model.add("Add", start, model.linear(single(generator.standard_normal((8, 8)) / 3)))
    model.linear(single(generator.standard_normal((3, 8))))
    network, product = bounded(model)
    form = joint_form(network, product.lipschitz_upper)
    proved = check(form, _found(form).witness())
    _holds(network, proved, 2)
    assert proved.upper < 0.7 * product.constants().upper


def test_pairs_with_multipliers_of_their_own_are_tighter() -> None:
    generator = np.random.default_rng(3)
    model = Model(8)
    for _ in range(2):
        model.linear(single(generator.standard_normal((16, 8 if model.output == "x" else 16)) / 3))
        model.then("Relu")
    model.linear(single(generator.standard_normal((4, 16))))
    network, product = bounded(model)
    form = joint_form(network, product.lipschitz_upper)
    together, alone = _found(form), _found(form, alone=True)
    first, second = check(form, together.witness()), check(form, alone.witness())
    assert first.pairs is not None and second.pairs is not None
    _holds(network, second, 3)
    assert second.pairs.mean() < 0.99 * first.pairs.mean()


@pytest.mark.parametrize("change", ["doubled", "shorter", "negative", "missing", "nan", "zero"])
def test_a_witness_that_does_not_fit_proves_nothing(change: str) -> None:
    generator = np.random.default_rng(4)
    model = Model(5)
    for _ in range(2):
        model.linear(single(generator.standard_normal((5, 5))))
        model.then("Relu")
    network, product = bounded(model)
    form = joint_form(network, product.lipschitz_upper)
    arrays = dict(_found(form).witness().arrays)
    name = next(iter(arrays))
    damaged = {
        "doubled": 4.0 * arrays[name],
        "shorter": arrays[name][:-1],
        "negative": -arrays[name],
        "nan": np.full_like(arrays[name], np.nan),
        "zero": np.zeros_like(arrays[name]),
    }
    if change == "missing":
        del arrays[name]
    else:
        arrays[name] = damaged[change]
    with pytest.raises(NotProved):
        check(form, Witness(method=METHOD, header={}, arrays=arrays))


def test_a_witness_without_multipliers_proves_nothing() -> None:
    model = Model(3)
    model.then("Relu")
    network, product = bounded(model)
    with pytest.raises(NotProved, match="no multipliers"):
        check(joint_form(network, product.lipschitz_upper), Witness(method=METHOD, header={}, arrays={}))


@pytest.mark.parametrize("objective", ["pairs", "whole", "outputs"])
@pytest.mark.parametrize("residual", [False, True])
def test_the_gradient_is_that_of_the_recursion(objective: str, residual: bool) -> None:
    """Against differences, at a point where λ's sharp value and its smooth slope agree: one dominant eigenvalue."""
    generator = np.random.default_rng(6)
    model = Model(4, opset=20)
    for _ in range(2):
        start = model.output
        spread = np.diag([3.0, 0.4, 0.3, 0.2])
        rotation = np.linalg.qr(generator.standard_normal((4, 4)))[0]
        model.linear(single(rotation @ spread))
        model.then("Gelu")
        if residual:
            model.add("Add", start, model.output)
    model.linear(single(generator.standard_normal((3, 4))))
    network, product = bounded(model)
    recursion = Recursion(chain_of(joint_form(network, product.lipschitz_upper)), NumpyArrays())
    wanted = {"pairs": pairs(np.ones((3, 3))), "whole": whole(), "outputs": outputs()}[objective]
    point = 0.2 * generator.standard_normal(10)

    def at(x: np.ndarray) -> tuple[float, np.ndarray]:
        for _ in range(20):  # the vectors of the power iteration settle
            matrix = recursion.forward([x[:4], x[4:8]], [np.asarray(x[8]), np.asarray(x[9])])
        value, of_matrix = wanted(matrix)
        by_t, by_g = recursion.backward(of_matrix)
        steps = np.exp(-x[8:])
        return value, np.concatenate([*by_t, -np.array(by_g) * steps / (1 + steps)])

    _, gradient = at(point)
    for position in range(len(point)):
        move = np.zeros(len(point))
        move[position] = 1e-5
        slope = (at(point + move)[0] - at(point - move)[0]) / 2e-5
        assert gradient[position] == pytest.approx(slope, abs=2e-5), position


def test_kept_parameters_shorten_the_next_search() -> None:
    generator = np.random.default_rng(7)
    model = Model(8)
    for _ in range(2):
        model.linear(single(generator.standard_normal((8, 8))))
        model.then("Relu")
    network, product = bounded(model)
    form = joint_form(network, product.lipschitz_upper)
    cold = _found(form)
    warm = _searching(form, kept=cold.parameters)
    for _ in warm.families(Budget.of(5.0), cost=lambda: 0.0, is_worthwhile=lambda: False):
        pass
    assert sum(warm.iterations.values()) < 0.9 * sum(cold.iterations.values())
    first, second = check(form, cold.witness()), check(form, warm.witness())
    assert second.upper <= first.upper * (1 + 1e-4)
    # Parameters of another network, or nonsense, cost nothing but time.
    hostile = {name: np.full_like(values, 1e6) for name, values in cold.parameters.items()}
    ruined = _searching(form, kept=hostile)
    for _ in ruined.families(Budget.of(1.0), cost=lambda: 0.0, is_worthwhile=lambda: False):
        pass


@pytest.mark.parametrize(
    ("name", "whole_target", "pair_target"),
    [("mnist-net_256x2.onnx", 313.0, 397.0), ("ACASXU_run2a_1_1_batch_2000.onnx", 9.0e4, 2.36e4)],
)
def test_public_networks_reach_their_published_tightness(
    shared: Path, name: str, whole_target: float, pair_target: float
) -> None:
    (path,) = (shared / "models").glob(f"**/{name}")
    network = network_of(path.read_bytes())
    form = joint_form(network, lambda value: 1.0)
    proved = check(form, _found(form, 60.0).witness())
    assert proved.upper <= whole_target
    assert proved.pairs is not None
    assert proved.pairs[np.triu_indices(len(proved.pairs), 1)].mean() <= pair_target
