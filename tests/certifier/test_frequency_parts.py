"""Parts of a network, each bounded at once: what they prove, which are chosen, and what may be said of them."""

from __future__ import annotations

import numpy as np
import pytest

from certifier.bounds.comparators import with_comparators
from certifier.bounds.product import ProductBound
from certifier.documents import CertifyOptions
from certifier.errors import NotProved
from certifier.frequencies import scheduling
from certifier.frequencies.method import METHOD, check
from certifier.frequencies.plans import Planner, part, spine
from certifier.frequencies.views import NotCovered
from certifier.limits import Budget, Limits
from certifier.search import frequency as descent
from certifier.search.state import SearchState
from certifier.tightening import frequency as tightening
from certifier.tightening.frequency import search
from certifier.verification import verify
from certifier.witness import Witness
from tests.building import Model, certify_model, single
from tests.certifier.preparing import mean_pair, prepared
from tests.certifier.test_frequency_method import no_secant_exceeds

SECONDS = 120.0


def bottlenecks(seed: int, *, blocks: int = 3, outer: int = 8, inner: int = 3) -> Model:
    """Residual blocks of 1×1, 3×3 and 1×1 convolutions, a mean and a matrix."""
    generator = np.random.default_rng(seed)

    def kernel(rows: int, columns: int, taps: int) -> np.ndarray:
        return single(generator.standard_normal((rows, columns, taps, taps)) / taps / np.sqrt(columns))

    model = Model(2, 6, 6)
    model.then("Conv", kernel(outer, 2, 3), pads=[1, 1, 1, 1])
    for _ in range(blocks):
        start = model.then("Relu")
        model.then("Conv", kernel(inner, outer, 1))
        model.then("Relu")
        model.then("Conv", kernel(inner, inner, 3), pads=[1, 1, 1, 1])
        model.then("Relu")
        model.add("Add", model.then("Conv", kernel(outer, inner, 1)), start)
    model.then("Relu")
    model.then("GlobalAveragePool")
    model.then("Flatten")
    model.linear(single(generator.standard_normal((3, outer))))
    return model


def ends(witness: Witness) -> list[tuple[str, str]]:
    parts = witness.header["parts"]
    assert isinstance(parts, list)
    return [(str(each["origin"]), str(each["end"])) for each in parts if isinstance(each, dict)]


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrices of a whole block are more than may be worked on; those inside of its branch are not."""
    monkeypatch.setattr(descent, "ITERATIONS", 40)
    monkeypatch.setattr(scheduling, "MAXIMAL_STATE", 30 * 4**2)


@pytest.mark.usefixtures("in_parts")
def test_branches_are_bounded_where_blocks_are_too_large() -> None:
    model = bottlenecks(0, blocks=2)
    network, norms = prepared(model.data())
    product, planner = ProductBound(network, norms), Planner(network, norms)
    found = search(planner, product, budget=Budget.of(SECONDS))
    assert len(ends(found.witness)) == 2 and found.note is not None and "2 parts" in found.note
    constants, known = check(planner, found.witness), product.constants()
    assert constants.upper <= 0.8 * known.upper and mean_pair(constants) <= 0.8 * mean_pair(known)
    points = np.random.default_rng(0).standard_normal((2, 72))
    no_secant_exceeds(model.reference(), constants, points, 1e-9)


def test_no_part_begins_or_ends_inside_of_a_comparator() -> None:
    model = Model(4, 3, 3)
    model.then("Reshape", np.array([-1, 2, 2, 3, 3]))
    model.add("TopK", model.output, np.array([2]), axis=2, outputs=("values", "places"))
    model.output = "values"
    model.then("Flatten")
    network, norms = prepared(model.data())
    planner = Planner(network, norms)
    inner = with_comparators(network).terms[1].output
    for origin, end in ((inner, network.output), (network.input.name, inner)):
        with pytest.raises(NotCovered, match="no value"):
            planner.plan(origin, end)


@pytest.mark.usefixtures("in_parts")
def test_certificates_in_parts_say_so_and_are_proved_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("certifier.ladder.obstacle", lambda network: "left to frequencies")
    model = bottlenecks(1, blocks=2)
    certified = certify_model(model, options=CertifyOptions(method="multipliers", seconds=4))
    assert certified.certificate.lipschitz.method == METHOD
    assert any("parts of the network" in note for note in certified.certificate.notes)
    assert verify(certified.portable, model.data(), keys=[], limits=Limits()).methods == ["product", METHOD]


def test_parts_side_by_side_and_one_behind_another_prove_no_less_than_the_whole() -> None:
    """A constant of a part of a linear network is no smaller than its norm, and close to it."""
    model = Model(1, 1, 5)
    for kernel in ([2.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 0.5]):
        model.then("Conv", np.array([[[kernel]]]), pads=[0, 1, 0, 1])
        model.then("LeakyRelu", alpha=1.0)
    network, norms = prepared(model.data())
    planner, values = Planner(network, norms), spine(network)
    header, arrays = [], {}
    for position, (origin, end) in enumerate([(values[0], values[2]), (values[2], values[5])]):
        plan = planner.plan(origin, end)
        wish = descent.Wish(weights=None, norm_only=True, start={})
        segments, numbers = plan.schedule.segments, plan.schedule.numbers
        found = descent.descend(segments, numbers=numbers, wish=wish, budget=Budget.of(SECONDS))
        arrays |= {f"{position}/{name}": array for name, array in found.arrays.items()}
        header.append(plan.header)
    constants = check(planner, Witness(method=METHOD, header={"parts": header}, arrays=arrays))
    jacobian = model.reference().jacobian(np.zeros(5))
    assert np.linalg.norm(jacobian, 2) <= constants.upper <= 3.0 * (1 + 1e-3)
    assert constants.outputs is not None and constants.pairs is not None
    assert (constants.outputs >= np.linalg.norm(jacobian, axis=1)).all()
    assert (constants.pairs >= np.linalg.norm(jacobian[:, None] - jacobian[None], axis=2)).all()
    assert constants.pairs.max() <= np.sqrt(2) * constants.upper * (1 + 1e-12)
    for spoilt in ([*header, header[1]], [header[0], {**header[1], "origin": values[0]}], [], "parts", [3]):
        with pytest.raises(NotProved):
            check(planner, Witness(method=METHOD, header={"parts": spoilt}, arrays=arrays))


def test_a_part_depends_on_its_origin_alone() -> None:
    model = bottlenecks(2, blocks=1)
    network, _ = prepared(model.data())
    values = {term.operator: term.output for term in network.terms}
    inner = next(term.output for term in network.terms if term.shape == (1, 3, 6, 6))
    for origin, end in ((inner, values["Add"]), (values["Add"], inner), (inner, inner), ("nobody", inner)):
        with pytest.raises(NotCovered):
            part(network, origin, end)


def test_known_parts_replace_the_norms_inside_of_them() -> None:
    model = bottlenecks(3, blocks=1)
    network, norms = prepared(model.data())
    plain = ProductBound(network, norms)
    start, end = next((term.sources[1], term.sources[0]) for term in network.terms if term.operator == "Add")
    total = next(term.output for term in network.terms if term.operator == "Add")
    before = plain.lipschitz_upper(start)
    known = ProductBound(network, norms, known={end: (start, 0.25)})
    assert known.lipschitz_upper(end) == pytest.approx(0.25 * before, rel=1e-12)
    assert known.lipschitz_upper(total) == pytest.approx(1.25 * before, rel=1e-9)
    assert known.lipschitz_upper(total) >= 1.25 * before
    assert known.constants().upper == pytest.approx(
        plain.constants().upper * 1.25 * before / plain.lipschitz_upper(total)
    )


@pytest.mark.usefixtures("in_parts")
def test_the_next_version_begins_where_the_search_on_frequencies_stood(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state goes through a file; weights that moved by 1 % cost next to nothing."""
    model = bottlenecks(4, blocks=2)

    def mean(steps: int, state: SearchState) -> tuple[float, SearchState]:
        monkeypatch.setattr(descent, "ITERATIONS", steps)
        certified = certify_model(model, options=CertifyOptions(method="multipliers", seconds=SECONDS), state=state)
        (report,) = [each for each in certified.certificate.methods if each.method == METHOD]
        assert report.mean_pair is not None
        return report.mean_pair, SearchState.from_bytes(certified.state.to_bytes())

    monkeypatch.setattr("certifier.ladder.obstacle", lambda network: "left to frequencies")
    _, kept = mean(60, SearchState())
    assert any(name.startswith(METHOD) for name in kept.multipliers)
    generator = np.random.default_rng(1)
    for name, value in model.constants.items():
        if value.ndim == 4:
            model.constants[name] = single(value * (1 + 0.01 * generator.standard_normal(value.shape)))
    cold, _ = mean(60, SearchState())
    hasty, _ = mean(6, SearchState())
    warm, _ = mean(6, kept)
    assert warm <= 1.01 * cold < hasty


def test_frequencies_get_a_share_where_the_dense_method_would_take_all(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = []

    def recorded(planner, product, *, budget, weights, kept):
        seconds.append(budget.left())
        raise NotProved("only asked for the time")

    monkeypatch.setattr(tightening, "search", recorded)
    certificate = certify_model(bottlenecks(5, blocks=1), options=CertifyOptions(seconds=2.0)).certificate
    assert 0 < seconds[0] <= 0.6
    assert [report.method for report in certificate.methods] == ["product", "loop_transform", "multipliers", METHOD]
    monkeypatch.setattr("certifier.ladder.obstacle", lambda network: "too large")
    certify_model(bottlenecks(5, blocks=1), options=CertifyOptions(seconds=2.0))
    assert seconds[1] > 1.0
