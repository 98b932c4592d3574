"""The four self-tests fail closed, each for the fault that it is there to find."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from certifier.bounds.product import ProductBound
from certifier.box import Box
from certifier.certificates import Constants
from certifier.engine import Engine
from certifier.errors import SelfTestFailed
from certifier.limits import Limits
from certifier.network import build_network, observable_model, served_model
from certifier.norms import Norms
from certifier.operators import Composed, Diagonal
from certifier.proof.execution import enclose, steps
from certifier.reading.onnx import read_onnx
from certifier.search.hints import CarriedVectors
from certifier.search.state import SearchState
from certifier.selftest import Subject, run_self_test
from certifier.serving import Decider
from certifier.terms import PRECISIONS, Affine
from tests.building import SEAL, Model, certify_model, single

PROBES = single(np.random.default_rng(0).standard_normal((6, 4)))


def _model(seed: int) -> Model:
    generator = np.random.default_rng(seed)
    model = Model(4)
    model.linear(single(generator.standard_normal((6, 4))), single(generator.standard_normal(6)))
    model.then("Relu")
    model.linear(single(generator.standard_normal((3, 6))))
    return model


def _subject(seed: int) -> Subject:
    network = build_network(read_onnx(_model(seed).data(), limits=Limits()), limits=Limits(), cut_head=False)
    norms = Norms(state=SearchState(), seal=SEAL, carried=CarriedVectors({}), progress=lambda layer: None)
    bound = ProductBound(network, norms)
    constants = bound.constants()
    return Subject(
        network=network,
        engine=Engine(served_model(network), network.input),
        decider=Decider(task="classification", constants=constants, threshold=0.5),
        gains=bound.gains(),
        drifts=None,
        is_evaluated=False,
        box=Box.everything(network.input_size),
        lower=0.0,
        upper=constants.upper,
    )


def _shrunk(subject: Subject, factor: float) -> Subject:
    constants = subject.decider.constants
    assert constants.pairs is not None
    small = Constants(upper=constants.upper * factor, outputs=constants.outputs, pairs=constants.pairs * factor)
    return replace(subject, decider=replace(subject.decider, constants=small))


def test_an_honest_subject_passes_all_four():
    result = run_self_test(_subject(0), PROBES)
    assert result.passed and [check.passed for check in result.checks] == [True] * 4


def test_an_engine_that_serves_another_network_is_refused():
    other = _subject(1)
    with pytest.raises(SelfTestFailed, match="engine agrees"):
        run_self_test(replace(_subject(0), engine=other.engine), PROBES)


def test_an_engine_that_is_off_by_a_hair_is_refused():
    """One weight moved by one part in a thousand."""
    model = _model(0)
    name = next(iter(model.constants))
    model.constants[name] = single(model.constants[name] * 1.001)
    network = build_network(read_onnx(model.data(), limits=Limits()), limits=Limits(), cut_head=False)
    engine = Engine(served_model(network), network.input)
    with pytest.raises(SelfTestFailed, match="engine agrees"):
        run_self_test(replace(_subject(0), engine=engine), PROBES)


def _deep() -> Subject:
    """So steep and deep that at the last normalisation no rounding bound of the whole network is finite."""
    generator = np.random.default_rng(2)
    model = Model(4)
    for _ in range(16):
        model.linear(single(10 * generator.standard_normal((4, 4))))
        model.then("Sin")
    model.then("LayerNormalization", single(np.ones(4)), single(np.zeros(4)), epsilon=1e-5)
    subject = _subject(0)
    network = build_network(read_onnx(model.data(), limits=Limits()), limits=Limits(), cut_head=False)
    norms = Norms(state=SearchState(), seal=SEAL, carried=CarriedVectors({}), progress=lambda layer: None)
    gains = ProductBound(network, norms).gains()
    decider = replace(subject.decider, task="regression")
    engine = Engine(served_model(network), network.input)
    return replace(subject, network=network, engine=engine, gains=gains, decider=decider)


def test_depth_hides_no_agreement():
    subject = _deep()
    still = np.zeros_like(PROBES)
    enclosure = enclose(subject.network, PROBES, input_radius=still, precisions=PRECISIONS, gains=subject.gains)
    assert np.isinf(enclosure.radius).all()
    assert run_self_test(subject, PROBES).passed


@pytest.mark.parametrize("position", [0, 10, 30])
def test_depth_hides_no_difference(position):
    """One bounded term that is off by one part in a thousand, where the whole network has no rounding bound."""
    subject = _deep()
    terms = list(subject.network.terms)
    term = terms[position]
    assert isinstance(term, Affine)
    first = term.operators[0]
    terms[position] = replace(
        term, operators=(Composed([first, Diagonal(np.full(first.rows, 1.001), weight_error=0.0)]),)
    )
    network = replace(subject.network, terms=tuple(terms))
    with pytest.raises(SelfTestFailed, match=f"engine agrees.*{term.name}"):
        run_self_test(replace(subject, network=network), PROBES)


@pytest.mark.parametrize("position", range(3))
def test_a_value_off_by_a_hair_shows_at_its_own_step(position):
    network = _subject(0).network
    executed = Engine(observable_model(network), network.input).observe(PROBES[0])
    assert set(executed) == {term.output for term in network.terms}
    honest = list(steps(network, PROBES[0], executed, precisions=PRECISIONS))
    assert all((step.difference <= step.allowed).all() for step in honest)
    assert max(float(step.allowed.max()) for step in honest) < 1e-4
    name = network.terms[position].output
    changed = {**executed, name: executed[name] + np.float32(1e-2)}
    for step in steps(network, PROBES[0], changed, precisions=PRECISIONS):
        if step.term.output == name:
            assert (step.difference > step.allowed).all()
            break
        assert (step.difference <= step.allowed).all()


def test_a_lower_bound_above_the_upper_is_refused():
    subject = _subject(0)
    with pytest.raises(SelfTestFailed, match="lower below upper"):
        run_self_test(replace(subject, lower=float(np.nextafter(subject.upper, np.inf))), PROBES)


def test_constants_that_are_too_small_fall_to_the_attack():
    with pytest.raises(SelfTestFailed, match="attack flips nothing"):
        run_self_test(_shrunk(_subject(0), 0.05), PROBES)


def test_nan_probes_compare_nothing_and_are_refused():
    """No comparison is no agreement."""
    with pytest.raises(SelfTestFailed, match="engine agrees"):
        run_self_test(_subject(0), np.full((2, 4), np.nan))


def test_the_answer_says_what_every_test_saw():
    checks = certify_model(_model(0)).certificate.self_test.checks
    assert [check.name for check in checks] == [
        "engine agrees",
        "lower below upper",
        "attack flips nothing",
        "sums are classical",
    ]
    assert all(check.passed and check.detail for check in checks)
