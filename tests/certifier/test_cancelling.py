"""A search that is called off, or that a limit ends, still gives a proved certificate; and it tells what it does.

The searches here would run for ten minutes; that their tests end at all shows that they do not.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from certifier import progress
from certifier.bounds.product import ProductBound
from certifier.certification import CertifiedModel, certify
from certifier.documents import CertifyOptions, Method
from certifier.frequencies.method import check
from certifier.frequencies.plans import Planner
from certifier.limits import Budget, Limits
from certifier.progress import Progress
from certifier.search.state import SearchState
from certifier.tightening.frequency import search
from certifier.verification import verify
from tests.building import SEAL, Model, single
from tests.certifier.preparing import prepared

LONG = 600.0


def _dense() -> bytes:
    generator = np.random.default_rng(5)
    model = Model(8)
    for rows, columns in ((16, 8), (16, 16), (16, 16)):
        model.linear(single(generator.standard_normal((rows, columns)) / np.sqrt(columns)))
        model.then("Relu")
    model.linear(single(generator.standard_normal((4, 16))))
    return model.data()


def _convolutional() -> bytes:
    generator = np.random.default_rng(6)
    model = Model(1, 8, 8)
    for channels_out, channels_in in ((4, 1), (4, 4)):
        model.then("Conv", single(generator.standard_normal((channels_out, channels_in, 3, 3)) / 3), pads=[1, 1, 1, 1])
        model.then("Relu")
    model.then("Flatten")
    model.linear(single(generator.standard_normal((3, 4 * 64)) / 16))
    return model.data()


def _certified(
    data: bytes,
    *,
    method: Method,
    is_cancelled: Callable[[], bool],
    report: Callable[[Progress], None] = lambda news: None,
    seconds: float = LONG,
    limits: Limits | None = None,
) -> CertifiedModel:
    certified = certify(
        data,
        name="model",
        version=1,
        options=CertifyOptions(method=method, seconds=seconds),
        limits=limits or Limits(),
        state=SearchState(),
        seal=SEAL,
        progress=report,
        is_cancelled=is_cancelled,
    )
    found = verify(certified.portable, data, keys=[], limits=Limits())
    assert found.lipschitz_upper >= certified.certificate.lipschitz.upper
    return certified


def _uppers(certified: CertifiedModel) -> dict[str, float | None]:
    return {report.method: report.upper for report in certified.certificate.methods}


def test_what_is_called_off_before_it_begins_is_the_product_of_norms() -> None:
    certificate = _certified(_dense(), method="auto", is_cancelled=lambda: True).certificate
    assert certificate.lipschitz.method == "product"
    assert {report.reason for report in certificate.methods[1:]} == {"the search was cancelled before"}
    assert any(note.startswith("search cancelled") for note in certificate.notes)


def test_multipliers_that_were_found_by_then_are_proved() -> None:
    heard: list[Progress] = []
    looks = 0

    def soon() -> bool:
        """Ten steps into the method."""
        nonlocal looks
        looks += heard[-1].method == "multipliers"
        return looks > 10

    certified = _certified(_dense(), method="auto", is_cancelled=soon, report=heard.append)
    uppers = _uppers(certified)
    upper, product = uppers["multipliers"], uppers["product"]
    assert upper is not None and product is not None and upper < 0.9 * product
    assert certified.certificate.lipschitz.method == "multipliers"
    assert any(note.startswith("search cancelled") for note in certified.certificate.notes)


def test_so_are_those_on_frequencies() -> None:
    network, norms = prepared(_convolutional())
    product = ProductBound(network, norms)
    looks = 0

    def soon() -> bool:
        nonlocal looks
        looks += 1
        return looks > 10

    planner = Planner(network, norms)
    found = search(planner, product, budget=Budget(LONG, is_cancelled=soon, on_look=lambda: None))
    assert check(planner, found.witness).upper < 0.9 * product.constants().upper
    assert looks < 20


def test_a_search_that_ends_by_itself_was_not_cancelled() -> None:
    certificate = _certified(_dense(), method="auto", is_cancelled=lambda: False, seconds=0.5).certificate
    assert not any(note.startswith("search") for note in certificate.notes)


def test_a_limit_on_the_whole_certification_leaves_time_to_prove_and_test() -> None:
    limits = Limits(seconds=1e-6)
    certified = _certified(_dense(), method="multipliers", is_cancelled=lambda: False, limits=limits)
    assert any(note.startswith("search shortened") for note in certified.certificate.notes)
    upper, product = _uppers(certified)["multipliers"], _uppers(certified)["product"]
    assert upper is not None and product is not None and upper < product, "one step of the search is always taken"


def test_progress_tells_the_method_and_the_best_bound_by_then() -> None:
    heard: list[Progress] = []
    certified = _certified(
        _dense(), method="auto", is_cancelled=lambda: False, report=heard.append, seconds=0.5
    ).certificate
    assert [heard[0].stage, heard[-1].stage] == ["reading the model", "done"]
    shares = [news.share for news in heard]
    assert shares == sorted(shares) and shares[-1] == 1.0
    assert {news.method for news in heard} == {None, "loop_transform", "multipliers"}
    bounds = [news.lipschitz_upper for news in heard if news.lipschitz_upper is not None]
    assert bounds == sorted(bounds, reverse=True) and len(set(bounds)) > 2
    assert bounds[-1] == certified.lipschitz.upper
    means = [news.mean_pair_upper for news in heard if news.mean_pair_upper is not None]
    assert certified.pairs is not None
    assert means[-1] == pytest.approx(np.array(certified.pairs)[np.triu_indices(4, 1)].mean())


def test_a_search_reports_between_its_steps_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "OFTEN", 0.0)
    heard: list[Progress] = []
    _certified(_dense(), method="multipliers", is_cancelled=lambda: False, report=heard.append, seconds=0.5)
    in_pairs = [news.share for news in heard if news.stage == "tightening: pairs"]
    assert len(set(in_pairs)) > 5


def test_a_budget_is_gone_at_once_when_it_is_called_off() -> None:
    called_off, looks = [False], [0]

    def look() -> None:
        looks[0] += 1

    budget = Budget(LONG, is_cancelled=lambda: called_off[0], on_look=look)
    part = budget.part(LONG / 2).part(LONG / 4)
    assert 0 < part.left() <= LONG / 4 and 0 <= part.spent() < 1 and not budget.is_cut
    assert looks[0] == 2, "every look at a part is one at the whole"
    called_off[0] = True
    assert (part.left(), part.spent(), budget.left(), budget.spent()) == (0, 1, 0, 1)
    called_off[0] = False
    assert budget.left() == 0 and budget.is_cut, "what is called off stays so"


def test_a_budget_of_no_time_is_spent_but_not_cut() -> None:
    budget = Budget.of(0.0)
    assert (budget.left(), budget.spent(), budget.is_cut) == (0, 1, False)
    assert Budget.of(LONG).part(0.0).left() == 0
