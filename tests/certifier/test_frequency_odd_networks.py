"""Oddly laid out networks on tori: point by point what they compute, and constants that are never below the truth."""

from __future__ import annotations

import numpy as np
import pytest

from certifier.errors import NotProved
from certifier.flow import Network
from certifier.frequencies.lowering import lower
from certifier.frequencies.method import METHOD, PARTS, check
from certifier.frequencies.plans import Planner
from certifier.frequencies.recording import Cut, Slope
from certifier.frequencies.scheduling import scheduled
from certifier.frequencies.views import NotCovered
from certifier.limits import Budget
from certifier.search import frequency as descent
from certifier.search.frequency import Wish, descend
from certifier.witness import Witness
from tests.certifier.on_tori import agrees, network_of, no_norm
from tests.certifier.preparing import prepared
from tests.odd_networks import odd_network


def origins(network: Network) -> list[str]:
    """The input and the first values behind it: a witness may name any."""
    return [network.input.name, *(term.output for term in network.terms[:2])]


def is_comparable(network: Network, origin: str) -> bool:
    """Whether every operation computes what its term does: no cut, no slope that differs from point to point."""
    lowered = lower(network, origin, no_norm)
    if len(scheduled(lowered, norm_only=False).segments) > 1:
        return False
    slopes = [each for each in lowered.operations if isinstance(each, Slope)]
    return not any(isinstance(each, Cut) for each in lowered.operations) and all((s.upper == 1).all() for s in slopes)


def compared(seeds: range) -> int:
    """Of how many networks and origins every value agrees."""
    count = 0
    for seed in seeds:
        model = odd_network(seed)
        network = network_of(model)
        for origin in origins(network):
            try:
                if not is_comparable(network, origin):
                    continue
            except NotCovered:
                continue
            agrees(model, seed, origin=origin)
            count += 1
    return count


def test_tori_compute_what_odd_networks_compute() -> None:
    assert compared(range(120)) > 120


@pytest.mark.slow
def test_tori_compute_what_many_odd_networks_compute() -> None:
    assert compared(range(1000, 4000)) > 3000


def held(seeds: range) -> int:
    """How many constants of witnesses, good and bad ones, are no smaller than the norms that they bound."""
    count = 0
    for seed in seeds:
        model, generator = odd_network(seed), np.random.default_rng(seed)
        if seed % 3 == 0:
            large = [name for name, value in model.constants.items() if value.dtype == np.float64 and value.size > 1]
            model.constants |= {name: model.constants[name] * 10.0 ** generator.integers(-20, 20) for name in large}
        network, norms = prepared(model.data())
        size = network.input_size
        exact = (network.evaluate(np.eye(size)) - network.evaluate(np.zeros((1, size)))).T
        for ends in splits(network, generator):
            count += holds(Planner(network, norms), ends, exact, generator)
    return count


def splits(network: Network, generator: np.random.Generator) -> list[list[tuple[str, str]]]:
    """Parts that a witness may name: one to the output, or several one behind another or side by side."""
    output, values = network.output, [network.input.name, *(term.output for term in network.terms)]
    whole = [[(origin, output)] for origin in origins(network)]
    middle = [values[int(place)] for place in np.sort(generator.integers(0, len(values), 3))]
    pairs = [pair for pair in zip([values[0], *middle], middle, strict=False) if pair[0] != pair[1]]
    return [*whole, [(values[0], middle[-1])], [*pairs, (middle[-1], output)], pairs]


def holds(planner: Planner, ends: list[tuple[str, str]], exact: np.ndarray, generator: np.random.Generator) -> int:
    plans, arrays = [], {}
    for origin, end in ends:
        try:
            plan = planner.plan(origin, end)
            wish = Wish(weights=None, norm_only=end != planner.network.output, start={})
            segments, numbers = plan.schedule.segments, plan.schedule.numbers
            found = descend(segments, numbers=numbers, wish=wish, budget=Budget.of(60.0))
        except (NotCovered, NotProved):
            continue
        arrays |= {f"{len(plans)}/{name}": array for name, array in found.arrays.items()}
        plans.append(plan.header)
    count, norm = 0, np.linalg.norm(exact, 2)
    for spread in (0.0, 0.3, 1.0):
        moved = {name: array * np.exp(generator.normal(0.0, spread, array.shape)) for name, array in arrays.items()}
        try:
            constants = check(planner, Witness(method=METHOD, header={PARTS: plans}, arrays=moved))
        except NotProved:
            continue
        noise = 1e-12 * norm
        assert constants.outputs is not None and constants.pairs is not None
        assert constants.upper >= norm - noise
        assert (constants.outputs >= np.linalg.norm(exact, axis=1) - noise).all()
        assert (constants.pairs >= np.linalg.norm(exact[:, None] - exact[None], axis=2) - noise).all()
        count += 1
    return count


def test_no_constant_of_an_odd_network_is_below_its_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descent, "ITERATIONS", 3)
    assert held(range(10)) > 20


@pytest.mark.slow
def test_no_constant_of_many_odd_networks_is_below_its_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descent, "ITERATIONS", 3)
    assert held(range(1000, 1300)) > 600
