"""Scores masked by minus infinity are bounded with the softmax that takes them in; near-misses stay refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import TensorProto

from certifier.engine import Engine
from certifier.errors import UnsupportedNode
from certifier.limits import Limits
from certifier.network import build_network, served_model
from certifier.proof.execution import enclose
from certifier.reading.onnx import read_onnx
from certifier.terms import PRECISIONS, REFERENCE, Contraction
from certifier.vector_functions.softmaxes import MaskedSoftmax, Softmax
from tests.building import Model, certify_model, single

LOWER = np.tril(np.ones((3, 3))) > 0
CAUSAL = np.where(LOWER, 0.0, -np.inf)


def condition(model: Model, mask: np.ndarray) -> str:
    return model.add("Cast", np.where(mask, 1.0, 0.0), to=TensorProto.BOOL)


def added(m: Model) -> str:
    return m.add("Add", "x", CAUSAL)


def added_in_front(m: Model) -> str:
    return m.add("Add", CAUSAL[None], "x")


def chosen(m: Model) -> str:
    return m.add("Where", condition(m, LOWER), "x", np.array(-np.inf))


def replaced(m: Model) -> str:
    """What fills the places that are let through does not matter."""
    return m.add("Where", condition(m, ~LOWER), np.where(LOWER, np.nan, -np.inf), "x")


SPELLINGS = [added, added_in_front, chosen, replaced]
every = pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda each: each.__name__)


def model_of(masking: Callable[[Model], str], axis: int = -1) -> Model:
    model = Model(3, 3)
    model.add("Softmax", masking(model), axis=axis)
    return model


def network_of(model: Model):
    return build_network(read_onnx(model.data(), limits=Limits()), limits=Limits(), cut_head=False)


@every
@pytest.mark.parametrize("axis", [-1, 1])
def test_masked_scores_are_one_contraction_that_means_what_the_nodes_mean(spelling, axis):
    model = model_of(spelling, axis)
    network = network_of(model)
    (term,) = network.terms
    assert isinstance(term, Contraction) and isinstance(term.function, MaskedSoftmax)
    rows = np.random.default_rng(0).standard_normal((20, 9)) * 5
    np.testing.assert_allclose(network.evaluate(rows), model.reference()(rows), atol=1e-14)
    assert (network.evaluate(rows).reshape(-1, 3, 3)[:, ~LOWER] == 0).all()


@every
def test_the_engine_stays_within_the_bound(spelling):
    network = network_of(model_of(spelling))
    engine = Engine(served_model(network), network.input)
    rows = engine.cast(np.concatenate([s * np.random.default_rng(1).standard_normal((50, 9)) for s in (0.1, 3, 60)]))
    enclosure = enclose(network, rows, input_radius=np.zeros_like(rows), precisions=PRECISIONS, gains={})
    difference = np.abs(engine.run(rows) - enclosure.centre)
    assert (difference <= enclosure.radius).all() and (enclosure.radius <= 1e-3).all()


def test_the_constant_is_a_half_and_attained():
    model = model_of(added)
    found = certify_model(model).certificate.lipschitz
    assert 0.5 <= found.upper <= 0.5 * (1 + 1e-12)
    reference, step = model.reference(), 1e-4
    start, direction = np.zeros(9), np.array([0, 0, 0, 1, -1, 0, 0, 0, 0]) / np.sqrt(2)
    rise = np.linalg.norm(reference(start + step * direction) - reference(start)) / step
    assert 0.499 < rise <= found.upper * (1 + 1e-9)


def test_masked_entries_move_nothing_however_far_they_stray():
    allowed = np.array([True, False, True])
    masked = MaskedSoftmax(name="masked softmax", before=1, count=3, after=1, allowed=allowed)
    plain = Softmax(name="softmax", before=1, count=2, after=1)
    x, radius = np.array([[0.3, 1e30, -0.2]]), np.array([[1e-3, np.inf, 2e-3]])
    output = masked.evaluate(x)
    np.testing.assert_array_equal(output[:, allowed], plain.evaluate(x[:, allowed]))
    stray = masked.stray(x, radius, output, REFERENCE)
    fewer = plain.stray(x[:, allowed], radius[:, allowed], output[:, allowed], REFERENCE)
    np.testing.assert_allclose(stray[:, allowed], fewer, rtol=1e-9)
    assert stray[0, 1] < 1e-300
    moved = masked.evaluate(x + np.array([[1e-3, -5e29, -2e-3]])) - output
    assert (np.abs(moved) <= stray).all()


def test_causal_attention_in_a_box_is_above_every_stretch():
    from tests.certifier.test_ranges import inside

    model, generator = Model(3, 4), np.random.default_rng(2)
    query, key, value = (model.add("MatMul", "x", single(generator.standard_normal((4, 4)) / 2)) for _ in range(3))
    scores = model.add("MatMul", query, model.add("Transpose", key, perm=[0, 2, 1]))
    model.add("Softmax", model.add("Add", scores, CAUSAL), axis=-1)
    model.then("MatMul", value)
    model.then("Flatten")
    upper = certify_model(model, options=inside(-1.0, 1.0, task="regression")).certificate.lipschitz.upper
    reference, steepest = model.reference(), 0.0
    for start in generator.uniform(-1, 1, (8, 12)):
        steepest = max(steepest, float(np.linalg.norm(reference.jacobian(start), 2)))
    assert steepest * (1 - 1e-6) <= upper <= 100 * steepest


def a_row_without_any(m: Model) -> str:
    return m.add("Add", "x", np.where(np.eye(3) > 2, 0.0, -np.inf))


def another_number(m: Model) -> str:
    return m.add("Add", "x", np.where(LOWER, 0.5, -np.inf))


def zeros_instead(m: Model) -> str:
    """A score of zero is not left out."""
    return m.add("Where", condition(m, LOWER), "x", np.array([[0.0, 0.0, -np.inf]] * 3))


def plus_infinity(m: Model) -> str:
    return m.add("Add", "x", np.where(LOWER, 0.0, np.inf))


def no_number(m: Model) -> str:
    return m.add("Add", "x", np.where(LOWER, 0.0, np.nan))


def larger_than_the_scores(m: Model) -> str:
    return m.add("Add", m.add("ReduceMean", "x", np.array([1]), keepdims=1), CAUSAL)


def read_twice(m: Model) -> str:
    masked = added(m)
    return m.add("Add", masked, m.add("Softmax", masked, axis=-1))


MISSES = [
    a_row_without_any, another_number, zeros_instead, plus_infinity, no_number, larger_than_the_scores, read_twice,
]  # fmt: skip


@pytest.mark.parametrize("masking", MISSES, ids=lambda each: each.__name__)
def test_near_misses_are_refused(masking):
    with pytest.raises(UnsupportedNode):
        network_of(model_of(masking))


def test_masked_scores_that_are_an_output_are_refused():
    model = Model(3, 3)
    added(model)
    with pytest.raises(UnsupportedNode):
        certify_model(model)
