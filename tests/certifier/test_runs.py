"""Runs of affine maps reach no further than their own norm allows, and hold every value that occurs."""

from __future__ import annotations

import numpy as np
import pytest

from certifier.box import Box
from certifier.flow import Network
from certifier.limits import Limits
from certifier.network import build_network
from certifier.norms import Norms
from certifier.proof.reach import Reach, reach_of
from certifier.reading.onnx import read_onnx
from certifier.runs import Runs, shortened
from certifier.search.hints import CarriedVectors
from certifier.search.state import SearchState
from tests.building import SEAL, Model, certify_bytes, single
from tests.certifier.test_ranges import inside

SIZE, STEEP = 64, 100.0


def there_and_back(model: Model, *, bias: float) -> str:
    """STEEP times in one direction and back again: two maps of norm STEEP whose run has norm 1."""
    generator = np.random.default_rng(4)
    turn, _ = np.linalg.qr(generator.standard_normal((SIZE, SIZE)))
    back, _ = np.linalg.qr(generator.standard_normal((SIZE, SIZE)))
    scale = np.append(STEEP, np.ones(SIZE - 1))
    model.linear(single(scale[:, None] * turn), single(bias * generator.standard_normal(SIZE)))
    return model.linear(single(back / scale), single(generator.standard_normal(SIZE)))


def network_of(model: Model) -> Network:
    return build_network(read_onnx(model.data(), limits=Limits()), limits=Limits(), cut_head=False)


def reaches(network: Network, box: Box) -> dict[str, tuple[Reach, Reach]]:
    """(step by step, along runs) for every value."""
    norms = Norms(state=SearchState(), seal=SEAL, carried=CarriedVectors({}), progress=lambda layer: None)
    runs = Runs(network, norms.norm_upper)
    start = Reach.box(box.lower, box.upper)
    found = {network.input.name: (start, start)}
    for term in network.terms:
        sources = [found[source][1] for source in term.sources]
        alone = reach_of(term, [found[source][0] for source in term.sources], norms.norm_upper)
        found[term.output] = alone, runs.tightened(term, sources, reach_of(term, sources, norms.norm_upper))
    return found


@pytest.mark.parametrize("bias", [0.0, 3.0])
@pytest.mark.parametrize("centre", [0.0, 5.0])
def test_a_run_reaches_as_far_as_its_norm(bias: float, centre: float) -> None:
    model = Model(SIZE)
    there_and_back(model, bias=bias)
    network = network_of(model)
    box = Box(lower=np.full(SIZE, centre - 1.0), upper=np.full(SIZE, centre + 1.0))
    alone, along = reaches(network, box)[network.output]
    corners = centre + np.sign(np.random.default_rng(5).standard_normal((500, SIZE)))
    values = network.evaluate(corners)
    assert (values >= along.lower).all() and (values <= along.upper).all()
    longest = np.linalg.norm(values, axis=1).max()
    assert longest <= along.length_upper
    # Of the source's norm around zero, not around the box's middle: hence the factor, and the offset.
    offset = np.linalg.norm(network.evaluate(np.zeros((1, SIZE))))
    assert along.length_upper <= ((abs(centre) + 1.0) * np.sqrt(SIZE) + offset) * (1 + 1e-6)
    assert along.length_upper <= alone.length_upper
    if centre == bias == 0.0:
        assert along.length_upper < 0.5 * alone.length_upper


def test_a_run_stretches_by_all_of_its_maps() -> None:
    """Three times the double: a run of norm 8, whose last map has norm 2."""
    model = Model(SIZE)
    for _ in range(3):
        model.linear(2.0 * np.eye(SIZE))
    network = network_of(model)
    box = Box(lower=np.full(SIZE, -1.0), upper=np.full(SIZE, 1.0))
    _, along = reaches(network, box)[network.output]
    longest = 8.0 * np.sqrt(SIZE)
    assert longest <= along.length_upper <= longest * (1 + 1e-9)


def test_a_gate_behind_a_run_is_bounded_by_the_run() -> None:
    model = Model(SIZE)
    value = there_and_back(model, bias=0.0)
    gate = model.add("Sigmoid", model.add("Mul", value, single([2.0])))
    model.add("Mul", value, model.add("Add", gate, single([1.0])))
    certified = certify_bytes(model.data(), options=inside(-1.0, 1.0, task="regression"))
    bound = certified.certificate.lipschitz
    # Entries of at most ||x|| + ||b||, gates of slope 1/2 and value 2.
    assert bound.lower <= bound.upper <= 2 + 0.5 * (np.sqrt(SIZE) + 10.0)


def test_only_shorter_lengths_change_a_reach() -> None:
    reach = Reach.box(np.full(SIZE, -1.0), np.full(SIZE, 1.0))
    assert shortened(reach, np.sqrt(SIZE) * 1.1) is reach
    shorter = shortened(reach, 0.5)
    assert shorter.length_upper <= 0.5 * (1 + 1e-12) and (shorter.upper == 0.5).all() and (shorter.lower == -0.5).all()
