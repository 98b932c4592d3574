"""Drifts in certificate files are derived again, number by number; a file in which any was changed says where."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from certifier.documents import REAL_ARITHMETIC, Arithmetic, CertifyOptions
from certifier.errors import CertificateRefused
from certifier.executions import REAL_ASSUMPTIONS
from certifier.packing import DRIFT_LAYOUT, drift_tables, unpack_drifts
from certifier.portable.document import CONSTANTS_ALONE, Contents, from_bytes
from certifier.portable.writing import of_this_layout
from tests.building import Model, certify_model, single
from tests.certifier.portable.certified import Case, certified, convolutional, dense, forged, gated, verified

BOX = {"lower": -1.0, "upper": 1.0}
TABLES = (
    "summed_units", "constants", "room_forms", "peak", "whole", "own", "own_gains", "carried", "carried_outputs",
    "carried_pairs_0", "carried_pairs_1",
)  # fmt: skip


def rich() -> Model:
    """Everything that drifts have a table for: a room, a sum of two branches, a last run of two layers."""
    generator = np.random.default_rng(0)
    model = Model(6, opset=20)
    model.linear(single(generator.standard_normal((8, 6)) / 3), single(generator.standard_normal(8)))
    first = model.then("Relu")
    model.linear(single(generator.standard_normal((8, 8)) / 3))
    model.then("LayerNormalization", np.ones(8), np.zeros(8), axis=-1, epsilon=2.0**-6)
    model.then("Add", first)
    model.linear(single(generator.standard_normal((5, 8))), single(generator.standard_normal(5)))
    model.linear(single(generator.standard_normal((4, 5))))
    return model


def steep() -> Model:
    """e^x / (1 + e^-x²): functions of unbounded slope, and a quotient."""
    model = Model(4)
    above = model.add("Exp", "x")
    model.add("Neg", model.add("Pow", "x", np.array(2.0)))
    model.add("Div", above, model.add("Add", model.then("Exp"), np.array(1.0)))
    return model


def without_drifts() -> Model:
    """A normalisation whose epsilon is no larger than what single precision flushes to zero."""
    model = Model(4)
    model.then("LayerNormalization", np.ones(4), np.zeros(4), epsilon=2.0**-126)
    return model


@pytest.fixture(scope="module")
def case() -> Case:
    return certified(rich(), method="product")


@pytest.mark.parametrize("arithmetic", ["float32", "float64", "real"])
@pytest.mark.parametrize(
    ("model", "options"),
    [
        (dense(), {}),
        (rich(), {}),
        (convolutional(), {}),
        (gated(), {"input_box": BOX}),
        (steep(), {"input_box": BOX}),
    ],
    ids=["dense", "rich", "convolutional", "gated", "steep"],
)
def test_drifts_are_derived_again(model: Model, options: dict[str, object], arithmetic: str) -> None:
    chosen = CertifyOptions.model_validate({"method": "product", "arithmetic": arithmetic, **options})
    known = certify_model(model, options=chosen)
    found = verified(Case(model=model.data(), certificate=known.portable))
    assert found.arithmetic.name == arithmetic and found.arithmetic.because is None
    assert any("A5" in each for each in found.assumptions) == (arithmetic == "float32")
    drifts, contents = unpack_drifts(known.constants), from_bytes(known.portable)
    assert (drifts is None) == (found.drifts == 0) == (contents.certificate.drifts is None) == (arithmetic == "real")
    if drifts is not None:
        tables = drift_tables(drifts)
        assert contents.certificate.drifts == {"layout": DRIFT_LAYOUT, **tables.names}
        assert contents.drifts.keys() == tables.numbers.keys()
        for name, numbers in tables.numbers.items():
            # Room for another machine's rounding, upward and not much of it.
            stated = contents.drifts[name]
            assert (stated >= numbers).all() and (stated <= numbers * (1 + 2.0**-19)).all()
            assert ((stated > numbers) == (numbers > 0)).all()


def test_there_are_drifts_of_every_kind(case: Case) -> None:
    numbers = from_bytes(case.certificate).drifts
    assert set(numbers) == set(TABLES) and all(array.any() for array in numbers.values())


def _numbers(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Contents], Contents]:
    return lambda parts: replace(parts, drifts={**parts.drifts, name: change(parts.drifts[name].copy())})


def _header(**changes: object) -> Callable[[Contents], Contents]:
    def change(parts: Contents) -> Contents:
        return _certificate(drifts={**(parts.certificate.drifts or {}), **changes})(parts)

    return change


def _certificate(**changes: Any) -> Callable[[Contents], Contents]:
    return lambda parts: replace(parts, certificate=parts.certificate.model_copy(update=changes))


def _scaled(factor: float, *, last: bool) -> Callable[[np.ndarray], np.ndarray]:
    """One entry scaled: the first or the last that is not 0."""

    def change(array: np.ndarray) -> np.ndarray:
        array[tuple(np.argwhere(array)[-1 if last else 0])] *= factor
        return array

    return change


def _refusal(case: Case, change: Callable[[Contents], Contents]) -> CertificateRefused:
    with pytest.raises(CertificateRefused) as refused:
        verified(forged(case, change))
    return refused.value


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", TABLES)
def test_every_number_is_at_least_the_derived_one_and_not_much_more(case: Case, name: str, last: bool) -> None:
    for factor, because in ((1 - 1e-5, "smaller"), (0.0, "smaller"), (1.001, "but more"), (np.nan, "smaller")):
        refused = _refusal(case, _numbers(name, _scaled(factor, last=last)))
        assert refused.step == "drifts" and refused.reason.startswith(f"{name}: ") and because in refused.reason
        place = np.argwhere(from_bytes(case.certificate).drifts[name])[-1 if last else 0]
        assert refused.reason.endswith(str(place.tolist()))


@pytest.mark.parametrize("name", TABLES)
def test_every_table_is_there_and_has_its_shape(case: Case, name: str) -> None:
    refused = _refusal(case, _numbers(name, lambda array: array[:-1]))
    assert refused.step == "drifts" and refused.reason.startswith(f"{name}: of shape")
    refused = _refusal(case, lambda parts: replace(parts, drifts={k: v for k, v in parts.drifts.items() if k != name}))
    assert refused.step == "drifts" and repr(name) in refused.reason


@pytest.mark.parametrize("name", ["own", "own_gains", "room_forms", "carried_pairs_0", "peak", "whole"])
def test_a_form_that_was_moved_is_another(case: Case, name: str) -> None:
    """Rows, or in single forms the coefficients, in another order."""
    refused = _refusal(case, _numbers(name, lambda array: np.roll(array, 1, axis=-1)))
    assert refused.step == "drifts" and refused.reason.startswith(f"{name}: ")


@pytest.mark.parametrize("name", ["values", "sums", "summed", "rooms"])
def test_forms_speak_of_the_network_s_own_values(case: Case, name: str) -> None:
    header = from_bytes(case.certificate).certificate.drifts
    assert header is not None and header[name]
    swapped = [*header[name][1:], header[name][0]] if len(header[name]) > 1 else ["x"]
    for names in (swapped, [], [*header[name], "x"], None, "x", 1.5):
        refused = _refusal(case, _header(**{name: names}))
        assert refused.step == "drifts" and refused.reason.startswith(f"{name}: ")
        assert "speak of" in refused.reason or "no names" in refused.reason


@pytest.mark.parametrize("layout", [None, DRIFT_LAYOUT - 1, DRIFT_LAYOUT + 1, str(DRIFT_LAYOUT), 10**4000])
def test_numbers_of_another_layout_are_refused_before_they_are_looked_at(case: Case, layout: object) -> None:
    refused = _refusal(case, _header(layout=layout, values="these are other names"))
    assert refused.step == "drifts" and "layout" in refused.reason and "certify the model again" in refused.reason


def test_every_claimed_norm_is_needed(case: Case) -> None:
    """Those of single terms and of the last run as well."""
    norms = from_bytes(case.certificate).certificate.norms
    assert len(norms) > 4
    for left_out in norms:
        others = {digest: norm for digest, norm in norms.items() if digest != left_out}
        assert _refusal(case, _certificate(norms=others)).step in ("proof", "drifts")


def test_a_header_names_nothing_else(case: Case) -> None:
    assert _refusal(case, _header(more=1)).step == "drifts"


def test_an_execution_without_drifts_is_refused(case: Case) -> None:
    bare = _refusal(case, lambda parts: replace(_certificate(drifts=None)(parts), drifts={}))
    assert bare.step == "drifts" and "float32 rest on drifts" in bare.reason
    assert _refusal(case, _certificate(drifts=None)).step == "document"
    assert _refusal(case, lambda parts: replace(parts, drifts={})).step == "drifts"


def test_drifts_are_no_license_for_other_words(case: Case) -> None:
    """What is said of the arithmetic follows from the options, the network and what was derived."""
    known = from_bytes(case.certificate).certificate.arithmetic
    for update in ({"statement": "float32: all is covered"}, {"name": "float64"}, {"name": "real"}):
        assert _refusal(case, _certificate(arithmetic=known.model_copy(update=update))).step == "network"
    assert _refusal(case, _certificate(assumptions=list(REAL_ASSUMPTIONS))).step == "network"
    real = CertifyOptions(method="product", arithmetic="real")
    assert _refusal(case, _certificate(options=real)).step == "network"


def _real(parts: Contents) -> Contents:
    """The same constants, said of exact arithmetic."""
    options = parts.certificate.options.model_copy(update={"arithmetic": "real"})
    return _certificate(
        options=options,
        arithmetic=Arithmetic(name="real", statement=REAL_ARITHMETIC),
        assumptions=list(REAL_ASSUMPTIONS),
    )(parts)


def test_exact_arithmetic_has_no_drifts(case: Case) -> None:
    assert "where there are none" in _refusal(case, _real).reason
    bare = forged(case, lambda parts: replace(_certificate(drifts=None)(_real(parts)), drifts={}))
    found = verified(bare)
    assert (found.drifts, found.arithmetic.name) == (0, "real")


def test_a_reason_against_drifts_is_derived_again(case: Case) -> None:
    bound = certified(without_drifts(), method="product")
    found = verified(bound)
    assert found.drifts == 0 and found.arithmetic.because is not None and "LayerNorm" in found.arithmetic.because
    assert found.arithmetic.because in found.arithmetic.statement

    def because(reason: str | None) -> Callable[[Contents], Contents]:
        def change(parts: Contents) -> Contents:
            known = parts.certificate.arithmetic
            assert known.because is not None
            statement = known.statement.replace(known.because, reason or "")
            if reason is None:
                statement = from_bytes(case.certificate).certificate.arithmetic.statement
            fresh = known.model_copy(update={"because": reason, "statement": statement})
            return _certificate(arithmetic=fresh)(parts)

        return change

    for reason in ("the moon is full", None):
        refused = _refusal(bound, because(reason))
        assert refused.step == "drifts" and "LayerNorm" in refused.reason
    header, numbers = from_bytes(case.certificate).certificate.drifts, from_bytes(case.certificate).drifts
    with_drifts = _refusal(bound, lambda parts: replace(_certificate(drifts=header)(parts), drifts=numbers))
    assert with_drifts.step == "drifts" and "where there are none" in with_drifts.reason


def test_a_reason_cannot_be_made_up(case: Case) -> None:
    def refused(parts: Contents) -> Contents:
        statement = (
            "float32: no radius can be certified for executions in float32 that keep to the assumptions: a whim. "
            "The Lipschitz constants are those of the exact network."
        )
        words = Arithmetic(name="float32", statement=statement, because="a whim")
        return replace(_certificate(arithmetic=words, drifts=None)(parts), drifts={})

    found = _refusal(case, refused)
    assert found.step == "drifts" and "there are drifts" in found.reason and "whim" not in found.reason


def of_the_first_version(parts: Contents) -> Contents:
    options = parts.certificate.options.model_copy(update={"arithmetic": "float32"})
    bare = _certificate(document=CONSTANTS_ALONE, drifts=None)(_real(parts))
    return replace(_certificate(options=options)(bare), drifts={})


def test_documents_of_the_first_version_speak_of_exact_arithmetic(case: Case) -> None:
    """Whatever their options ask for, as they did when there were no drifts."""
    old = forged(case, of_the_first_version)
    assert "drifts" not in json.loads(from_bytes(old.certificate).certificate.text)
    found = verified(old)
    assert (found.arithmetic.name, found.drifts, found.options.arithmetic) == ("real", 0, "float32")
    arithmetic = from_bytes(case.certificate).certificate.arithmetic
    claimed = _refusal(old, _certificate(arithmetic=arithmetic))
    assert claimed.step == "network"
    assert _refusal(case, _certificate(document=CONSTANTS_ALONE)).step == "document"


def test_a_file_of_another_layout_is_served_for_its_constants(case: Case) -> None:
    assert of_this_layout(case.certificate) == case.certificate
    old = forged(case, _header(layout=DRIFT_LAYOUT - 1))
    served = replace(old, certificate=of_this_layout(old.certificate))
    found, known = verified(served), verified(case)
    assert (found.arithmetic.name, found.options.arithmetic, found.drifts) == ("real", "real", 0)
    assert "not covered" in found.arithmetic.statement and found.assumptions == list(REAL_ASSUMPTIONS)
    assert found.lipschitz_upper == known.lipschitz_upper
