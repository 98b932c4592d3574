"""Recurrences written out step by step mean what the engine computes, in every direction and layout."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from certifier.errors import UnsupportedNode
from certifier.products import Bilinear
from certifier.proof.reach import Reach, factors_of, reach_of
from certifier.proof.structure import schur_upper
from tests.building import Model, certify_model, single
from tests.certifier.rules.oracle import Case, check

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
LENGTH, BATCH, INPUTS, HIDDEN = 4, 2, 3, 5


def recurrence(
    operator: str, opset: int = 14, *, seed: int = 0, outputs: tuple[str, ...] = ("y", "h"), **settings
) -> Case:
    generator = np.random.default_rng(seed)
    ways = 2 if settings.get("direction") == "bidirectional" else 1
    gates = GATES[operator]
    shape = (BATCH, LENGTH, INPUTS) if settings.get("layout") else (LENGTH, BATCH, INPUTS)

    def draw(*extents: int) -> np.ndarray:
        return generator.standard_normal(extents).astype(np.float32)

    inputs = {
        "x": draw(*shape),
        "w": draw(ways, gates * HIDDEN, INPUTS),
        "r": draw(ways, gates * HIDDEN, HIDDEN),
        "b": draw(ways, 2 * gates * HIDDEN),
    }
    if settings.pop("peepholes", False):
        inputs |= {"_4": np.empty(0), "_5": np.empty(0), "_6": np.empty(0), "p": draw(ways, 3 * HIDDEN)}
    attributes = {"hidden_size": HIDDEN, **settings}
    return Case(operator=operator, opset=opset, inputs=inputs, live=("x",), outputs=outputs, attributes=attributes)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("operator", GATES)
def test_every_direction(operator, direction):
    """The reference evaluator knows only the forward direction; the engine knows all."""
    outputs = ("y", "h", "c") if operator == "LSTM" else ("y", "h")
    check(recurrence(operator, outputs=outputs, direction=direction), by_reference=False)


@pytest.mark.parametrize("opset", [7, 14, 22])
@pytest.mark.parametrize("operator", GATES)
def test_every_version(operator, opset):
    check(recurrence(operator, opset), by_reference=opset == 14)


def test_linear_before_reset():
    check(recurrence("GRU", linear_before_reset=1), by_reference=True)


def test_peepholes():
    check(recurrence("LSTM", peepholes=True))


def test_other_activations():
    check(recurrence("RNN", activations=["Relu"]), by_reference=False)
    check(recurrence("LSTM", activations=["Sigmoid", "Softsign", "Tanh"]), by_reference=False)


@pytest.mark.parametrize("operator", GATES)
def test_no_length_changes_the_meaning_of_a_lone_step(operator):
    global_length = recurrence(operator, seed=3)
    first = Case(**{**global_length.__dict__, "inputs": {**global_length.inputs, "x": global_length.inputs["x"][:1]}})
    check(first, by_reference=False)


def test_batch_first_is_the_transposed_recurrence():
    """The engine does not run this layout, so the two are compared with one another."""
    plain, turned = recurrence("GRU", layout=0), recurrence("GRU", layout=1)
    x = plain.inputs["x"]
    turned = Case(**{**turned.__dict__, "inputs": {**turned.inputs, "x": x.transpose(1, 0, 2)}})
    known = []
    for case in (plain, turned):
        values = {"x": case.inputs["x"].astype(np.float64).reshape(1, -1)}
        for term in case.terms():
            values[term.output] = term.evaluate(*(values[source] for source in term.sources))
        known.append(values)
    np.testing.assert_allclose(
        known[0]["y"].reshape(LENGTH, 1, BATCH, HIDDEN).transpose(2, 0, 1, 3),
        known[1]["y"].reshape(BATCH, LENGTH, 1, HIDDEN),
        rtol=1e-12,
    )


@pytest.mark.parametrize(
    ("operator", "change", "reason"),
    [
        ("LSTM", {"attributes": {"hidden_size": HIDDEN, "clip": 1.0}}, "'clip' is not understood"),
        ("LSTM", {"attributes": {"hidden_size": HIDDEN, "input_forget": 1}}, "'input_forget' is not understood"),
        ("RNN", {"attributes": {"hidden_size": HIDDEN, "activations": ["Affine"]}}, "'Affine' is not supported"),
        ("GRU", {"extra": {"w": np.ones((1, 3 * HIDDEN, INPUTS + 1), np.float32)}}, "needs W of shape"),
        ("GRU", {"extra": {"r": np.ones((1, HIDDEN, 3 * HIDDEN), np.float32)}}, "needs R of shape"),
        ("GRU", {"extra": {"b": np.ones((1, 3 * HIDDEN), np.float32)}}, "needs B of shape"),
        ("GRU", {"attributes": {"hidden_size": HIDDEN - 1}}, "needs W of shape"),
        ("RNN", {"extra": {"s": np.array([LENGTH, LENGTH - 1], np.int32)}}, "shorter than the sequence"),
        ("RNN", {"extra": {"_4": np.empty(0), "h0": np.ones((1, BATCH, HIDDEN), np.float32)}}, "must be zero"),
    ],
)
def test_what_is_not_plain_is_refused(operator, change, reason):
    case = recurrence(operator)
    fields = {**case.__dict__, "inputs": {**case.inputs, **change.pop("extra", {})}, **change}
    with pytest.raises(UnsupportedNode, match=reason):
        Case(**fields).terms()


def test_states_of_a_gru_stay_convex_combinations():
    """However many steps: in [-1, 1] for tanh; but not behind a gate that leaves [0, 1]."""
    everything = Reach.box(np.full(LENGTH * BATCH * INPUTS, -np.inf), np.full(LENGTH * BATCH * INPUTS, np.inf))
    for activations, lower, upper in (
        (["Sigmoid", "Tanh"], -1.0, 1.0),
        (["Tanh", "Tanh"], -2.0 * LENGTH, 2.0 * LENGTH),
    ):
        reaches = {"x": everything}
        for term in recurrence("GRU", activations=activations).terms():
            sources = [reaches[source] for source in term.sources]
            if isinstance(term, Bilinear):
                term = replace(term, factors=factors_of(term, *sources))
            reaches[term.output] = reach_of(term, sources, lambda operator, name: schur_upper(operator))
        last = reaches["h"]
        assert last.lower.min() <= lower and last.lower.min() == pytest.approx(lower, abs=1e-4)
        assert last.upper.max() >= upper and last.upper.max() == pytest.approx(upper, abs=1e-4)


@pytest.mark.parametrize("operator", GATES)
def test_recurrences_are_certified_and_no_stretch_exceeds_the_bound(operator):
    generator = np.random.default_rng(4)
    gates = GATES[operator]
    model = Model(LENGTH, INPUTS)
    model.then("Transpose", perm=[1, 0, 2])
    weights = [single(0.5 * generator.standard_normal((1, gates * HIDDEN, extent))) for extent in (INPUTS, HIDDEN)]
    model.add(operator, model.output, *weights, outputs=["y", "last"], hidden_size=HIDDEN)
    model.output = "last"
    model.then("Squeeze", np.array([0]))
    model.linear(single(generator.standard_normal((3, HIDDEN))))
    upper = certify_model(model).certificate.lipschitz.upper
    evaluate = model.reference()
    steepest = 0.0
    for start in generator.uniform(-1, 1, (6, LENGTH * INPUTS)):
        direction = np.linalg.svd(evaluate.jacobian(start))[2][0]
        other = start + 0.01 * direction
        steepest = max(
            steepest, float(np.linalg.norm(evaluate(other) - evaluate(start)) / np.linalg.norm(other - start))
        )
    assert steepest <= upper <= 2e3 * steepest
