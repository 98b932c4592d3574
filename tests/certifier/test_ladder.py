"""The ladder: every method reports what it proved, the smallest constant of each pair wins, nothing gets looser."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings

from certifier.bounds.joint import joint_form
from certifier.bounds.loops import loop_transformed
from certifier.bounds.multipliers import check_family
from certifier.bounds.product import ProductBound
from certifier.certificates import tighter
from certifier.documents import CertifyOptions
from certifier.ladder import Wish, climb
from certifier.limits import Budget
from certifier.progress import Telling
from certifier.search.state import SearchState
from certifier.terms import Activation
from tests.building import Model, certify_model, single
from tests.certifier.bounds.building import bounded, norms
from tests.certifier.test_soundness import keeps_its_promises
from tests.random_networks import image_networks, vector_networks


def _dense(seed: int = 0, *, layers: int = 3, width: int = 10, operator: str = "Relu") -> Model:
    generator = np.random.default_rng(seed)
    model = Model(6, opset=20)
    previous = 6
    for _ in range(layers):
        model.linear(single(generator.standard_normal((width, previous)) / np.sqrt(previous)))
        model.then(operator)
        previous = width
    model.linear(single(generator.standard_normal((4, previous))))
    return model


def test_every_method_reports_what_it_proved() -> None:
    certificate = certify_model(_dense(), options=CertifyOptions()).certificate
    assert [report.method for report in certificate.methods] == [
        "product",
        "loop_transform",
        "multipliers",
        "frequency",
    ]
    product, loop, tightest, unused = certificate.methods
    assert unused.upper is None and unused.reason is not None
    assert product.upper is not None and loop.upper is not None and tightest.upper is not None
    assert tightest.upper < loop.upper < product.upper
    assert certificate.lipschitz.method == "multipliers"
    assert certificate.lipschitz.upper == tightest.upper
    assert sum(report.pairs or 0 for report in certificate.methods) == 6
    assert certificate.pair_methods is not None and certificate.pairs is not None
    assert certificate.pair_methods[0][1] == "multipliers"
    assert product.mean_pair is not None and tightest.mean_pair is not None
    assert tightest.mean_pair < product.mean_pair


@pytest.mark.parametrize(
    ("method", "climbed"),
    [
        ("product", ["product"]),
        ("loop_transform", ["product", "loop_transform"]),
        ("multipliers", ["product", "multipliers", "frequency"]),
    ],
)
def test_a_method_is_climbed_from_the_product_of_norms(method: str, climbed: list[str]) -> None:
    options = CertifyOptions.model_validate({"method": method})
    certificate = certify_model(_dense(), options=options).certificate
    assert [report.method for report in certificate.methods] == climbed
    plain = certify_model(_dense(), options=CertifyOptions(method="product")).certificate
    assert certificate.pairs is not None and plain.pairs is not None
    assert (np.array(certificate.pairs) <= np.array(plain.pairs)).all()


def test_no_time_still_gives_the_best_that_was_proved() -> None:
    certificate = certify_model(_dense(), options=CertifyOptions(seconds=0)).certificate
    plain = certify_model(_dense(), options=CertifyOptions(method="product")).certificate
    assert certificate.lipschitz.upper <= plain.lipschitz.upper


def test_a_network_too_large_for_one_method_is_left_to_another() -> None:
    model = Model(3, 48, 48)
    model.then("Conv", single(np.random.default_rng(0).standard_normal((4, 3, 3, 3))), pads=[1, 1, 1, 1])
    model.then("Relu")
    model.then("GlobalAveragePool")
    model.then("Flatten")
    certificate = certify_model(model, options=CertifyOptions(method="multipliers")).certificate
    _, refused, frequency = certificate.methods
    assert refused.upper is None and refused.pairs is None
    assert refused.reason is not None and "entries" in refused.reason
    assert frequency.upper is not None


def test_an_affine_network_needs_no_search() -> None:
    model = Model(4)
    model.linear(single(np.random.default_rng(0).standard_normal((3, 4))))
    certificate = certify_model(model, options=CertifyOptions()).certificate
    assert all(report.reason is not None and "affine" in report.reason for report in certificate.methods[1:])


def test_the_next_version_starts_where_the_search_stood() -> None:
    first = certify_model(_dense(), options=CertifyOptions())
    assert {name.split("/")[0] for name in first.state.multipliers} == {"pairs", "whole"}
    again = SearchState.from_bytes(first.state.to_bytes())
    assert list(again.multipliers) == list(first.state.multipliers)
    second = certify_model(_dense(), options=CertifyOptions(), state=again)
    assert second.certificate.lipschitz.upper <= first.certificate.lipschitz.upper * (1 + 1e-4)


def test_a_witness_holds_the_families_that_something_needs_and_no_other() -> None:
    """Pairs are searched twice: the first families, which the second ones make superfluous, must not stay."""
    network, product = bounded(_dense())
    wish = Wish(method="multipliers", budget=Budget.of(20.0), classes=True, weights=None)
    climbed = climb(network, product, wish=wish, fresh_norms=norms, kept={}, telling=Telling(lambda progress: None))
    rung = next(rung for rung in climbed.rungs if rung.method == "multipliers")
    assert rung.witness is not None and rung.constants is not None
    form = joint_form(network, product.lipschitz_upper)
    families = sorted({name.split("/")[0] for name in rung.witness.arrays})
    counted = rung.witness.header["iterations"]
    assert isinstance(counted, dict) and set(counted) == set(families)
    assert any(name.endswith("again") for name in families)
    proofs = {family: check_family(form, rung.witness, family) for family in families}
    assert reduce(tighter, proofs.values()).upper == rung.constants.upper
    assert rung.constants.pairs is not None
    np.testing.assert_array_equal(reduce(tighter, proofs.values()).pairs, rung.constants.pairs)
    for family in families:
        rest = reduce(tighter, [proved for name, proved in proofs.items() if name != family])
        assert rest.pairs is not None and rest.outputs is not None and rung.constants.outputs is not None
        assert (
            rest.upper > rung.constants.upper
            or (rest.pairs > rung.constants.pairs).any()
            or (rest.outputs > rung.constants.outputs).any()
        ), family


def test_householder_activations_are_bounded_by_one() -> None:
    """z - 2v·relu(vᵀz) reflects or passes: the slopes' quadratic constraint sees it, norms add it up to 3."""
    generator = np.random.default_rng(0)
    vectors = np.zeros((4, 8))
    for pair, angle in enumerate(generator.uniform(0, 6, size=4)):
        vectors[pair, 2 * pair : 2 * pair + 2] = np.cos(angle), np.sin(angle)
    vectors = single(vectors)
    model = Model(8)
    along = model.add("Relu", model.add("MatMul", "x", vectors.T))
    model.add("Sub", "x", model.add("MatMul", along, single(2 * vectors)))
    upper = certify_model(model, options=CertifyOptions()).certificate.lipschitz.upper
    assert 1.0 <= upper <= 1.01


# ------------------------------------------------------------------------------------------- the loop transformation


@pytest.mark.parametrize("operator", ["Relu", "Gelu", "Neg", "LeakyRelu", "Abs"])
def test_the_transformed_network_computes_the_same(operator: str) -> None:
    network, _ = bounded(_dense(operator=operator))
    transformed = loop_transformed(network)
    x = np.random.default_rng(0).standard_normal((5, 6))
    ends = []
    for each in (network, transformed):
        *_, (_, _, last) = each.walk(x)
        ends.append(last)
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("operator", ["Relu", "Gelu", "LeakyRelu", "Abs", "Mish"])
def test_no_secant_of_a_remainder_leaves_its_slopes_and_some_come_near(operator: str) -> None:
    network, _ = bounded(_dense(operator=operator))
    rests = [
        term.function
        for term in loop_transformed(network).terms
        if isinstance(term, Activation) and term.function.name.endswith("minus its mean slope")
    ]
    x, y = np.random.default_rng(0).normal(scale=3.0, size=(2, 4000, 1))
    for rest in rests:
        secants = (rest.evaluate(x) - rest.evaluate(y)) / (x - y)
        lower, upper = np.asarray(rest.slope_lower), np.asarray(rest.slope_upper)
        room = 1e-9 * (1 + np.abs(x) + np.abs(y)) / np.abs(x - y)
        assert ((lower <= secants + room) & (secants - room <= upper)).all()
        assert (secants.min(axis=0) <= 0.9 * lower).all() and (secants.max(axis=0) >= 0.9 * upper).all()
    assert rests


def test_a_chain_of_two_layers_gives_the_published_formula() -> None:
    """L = |m| ‖W2 W1‖ + η ‖W2‖ ‖W1‖ with m = η = 1/2 for ReLU, for the pre-activations of Fazlyab et al. (2023)."""
    generator = np.random.default_rng(1)
    first, second = single(generator.standard_normal((5, 4))), single(generator.standard_normal((3, 5)))
    model = Model(4)
    model.linear(first)
    model.then("Relu")
    model.linear(second)
    network, _ = bounded(model)
    bound = ProductBound(loop_transformed(network), norms(), expand_always=True)
    expected = np.linalg.norm(second @ first, 2) / 2 + np.linalg.norm(second, 2) * np.linalg.norm(first, 2) / 2
    # Output by output the sum may be smaller still than that of the norms.
    assert bound.constants().upper <= expected * (1 + 1e-8)
    assert bound.lipschitz_upper(network.output) == pytest.approx(expected, rel=1e-8)


def test_a_negative_mean_slope_counts_with_its_magnitude() -> None:
    """h = -y for slopes [-1, -1]: with m instead of |m| the bound would be negative."""
    model = Model(3)
    model.linear(2.0 * np.eye(3))
    model.then("PRelu", np.full(3, -1.0))
    model.then("Neg")
    network, product = bounded(model)
    bound = ProductBound(loop_transformed(network), norms(), expand_always=True)
    assert bound.constants().upper >= 2.0
    assert product.constants().upper >= 2.0


# ------------------------------------------------------------------------------------------------ random networks


@settings(max_examples=15)
@given(vector_networks(layers=5))
def test_vector_networks_keep_their_promises_on_every_rung(example):
    model, seed = example
    keeps_its_promises(model, seed, options=CertifyOptions(seconds=0.3, arithmetic="real"))


@settings(max_examples=10)
@given(image_networks(layers=4))
def test_image_networks_keep_their_promises_on_every_rung(example):
    model, seed = example
    keeps_its_promises(model, seed, options=CertifyOptions(seconds=0.3, arithmetic="real"))
