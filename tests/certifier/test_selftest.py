"""The three self-tests fail closed, each for the fault that it is there to find."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from certifier.bounds import ProductBound
from certifier.box import Box
from certifier.certificates import Constants
from certifier.engine import Engine
from certifier.errors import SelfTestFailed
from certifier.limits import Limits
from certifier.network import build_network, served_model
from certifier.norms import Norms
from certifier.reading.onnx import read_onnx
from certifier.search.hints import CarriedVectors
from certifier.search.state import SearchState
from certifier.selftest import Subject, run_self_test
from certifier.serving import Decider
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
        box=Box.everything(network.input_size),
        lower=0.0,
        upper=constants.upper,
    )


def _shrunk(subject: Subject, factor: float) -> Subject:
    constants = subject.decider.constants
    assert constants.pairs is not None
    small = Constants(upper=constants.upper * factor, outputs=constants.outputs, pairs=constants.pairs * factor)
    return replace(subject, decider=replace(subject.decider, constants=small))


def test_an_honest_subject_passes_all_three():
    result = run_self_test(_subject(0), PROBES)
    assert result.passed and [check.passed for check in result.checks] == [True] * 3


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
    assert [check.name for check in checks] == ["engine agrees", "lower below upper", "attack flips nothing"]
    assert all(check.passed and check.detail for check in checks)
