"""Refined radii through the real `certify`: never smaller, never flipped inside, and honest about where they fail."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from certifier.box import Box
from certifier.documents import CertifyOptions, InputBox, Preprocessing
from certifier.refinement import local_margins, margin_goals
from tests.building import Model, certify_model, predictor_of, single
from tests.certifier.local_balls import network_and_gains, points_of

SECONDS = 60.0


def _network(seed: int, *, outputs: int = 3) -> Model:
    generator = np.random.default_rng(seed)
    model = Model(5)
    for rows, columns in ((12, 5), (12, 12), (outputs, 12)):
        model.linear(single(generator.standard_normal((rows, columns)) / 2), single(generator.standard_normal(rows)))
        if rows == 12:
            model.then("Relu")
    return model


def _rows(count: int = 6) -> np.ndarray:
    return single(np.random.default_rng(9).standard_normal((count, 5)))


@pytest.mark.parametrize("arithmetic", ["real", "float32"])
@pytest.mark.parametrize("seed", range(3))
def test_no_attack_succeeds_inside_a_refined_radius(arithmetic, seed):
    model = _network(seed)
    options = CertifyOptions(method="product", arithmetic=arithmetic)
    predictor = predictor_of(certify_model(model, options=options))
    network, _ = network_and_gains(model)
    x = _rows()
    plain = predictor.predict(x, epsilon=None, preprocessing=None)
    refined = predictor.predict(x, epsilon=0.1, preprocessing=None, refine=True, refine_seconds=SECONDS)
    assert [row.radius_method for row in plain] == ["global"] * len(x)
    assert sum(row.radius_method == "local" for row in refined) >= 4
    for row, before, after in zip(x, plain, refined, strict=True):
        assert before.radius is not None and after.radius is not None and after.label is not None
        assert after.radius >= before.radius and (after.radius > before.radius) == (after.radius_method == "local")
        assert after.certified is (after.radius > 0.1)
        assert (after.unrefined is None) == (after.radius_method == "local")
        rivals = [j for j in range(3) if j != after.label]
        coefficients = np.eye(3)[after.label] - np.eye(3)[rivals]
        points = points_of(network, row, after.radius, coefficients, seed)
        if arithmetic == "real":
            # The engine rounds, and may flip where the reals do not.
            reached = set(network.evaluate(points).argmax(axis=1))
        else:
            reached = {each.label for each in predictor.predict(points, epsilon=None, preprocessing=None)}
        assert reached == {after.label}
        # Radii are worth having: an attack that goes further succeeds soon.
        if after.radius_method == "local":
            farther = points_of(network, row, 6.0 * after.radius, coefficients, seed)
            assert {each.label for each in predictor.predict(farther, epsilon=None, preprocessing=None)} != {
                after.label
            }


def test_float32_radii_are_below_those_of_the_reals():
    model, x = _network(0), _rows()
    radii = {}
    for arithmetic in ("real", "float32"):
        options = CertifyOptions(method="product", arithmetic=arithmetic, refine=True, refine_seconds=SECONDS)
        predictor = predictor_of(certify_model(model, options=options))
        radii[arithmetic] = [row.radius for row in predictor.predict(x, epsilon=None, preprocessing=None)]
    ratios = np.array(radii["float32"]) / np.array(radii["real"])
    assert (ratios >= 0.9).all() and (ratios <= 1.01).all()


@pytest.mark.parametrize("task", ["multiclass", "binary"])
def test_what_an_engine_may_drift_is_taken_off_every_goal(task):
    """Both parts, those that grow with the radius too, for the pair at hand."""
    fixed, growth = np.array([[9.0, 0.25, 0.5], [0.125, 9.0, 2.0]]), np.array([[9.0, 1.0, 2.0], [3.0, 9.0, 4.0]])
    around: Any = SimpleNamespace(pairs=lambda label: (fixed, growth), outputs=lambda: (fixed[:, 1:2], growth[:, 1:2]))
    decider: Any = SimpleNamespace(task=task, threshold_logit=(0.0, 0.0))
    goals = margin_goals(decider, np.array([0, 1]), 3, around)
    taken = fixed[:, 1:2] if task == "binary" else np.array([[0.25, 0.5], [0.125, 2.0]])
    assert (goals.constants < -taken).all() and goals.constants == pytest.approx(-taken, rel=1e-12)
    assert (goals.growth == (growth[:, 1:2] if task == "binary" else [[1.0, 2.0], [3.0, 4.0]])).all()


def test_a_huge_bias_that_only_float32_feels_takes_the_radius_away():
    """(W x + 1e9) - 1e9: the reals keep their radius, an engine of 24 digits has none to speak of."""
    generator = np.random.default_rng(1)
    model = Model(5)
    model.linear(single(generator.standard_normal((3, 5))), np.full(3, 2.0**30))
    model.then("Relu")
    model.linear(np.eye(3), np.full(3, -(2.0**30)))
    x = _rows(3)
    radii = {}
    for arithmetic in ("real", "float32"):
        options = CertifyOptions(method="product", arithmetic=arithmetic, refine=True, refine_seconds=SECONDS)
        predictor = predictor_of(certify_model(model, options=options))
        rows = predictor.predict(x, epsilon=None, preprocessing=None)
        radii[arithmetic] = [row.radius for row in rows]
    assert max(radii["float32"]) == 0.0 and min(radii["real"]) >= 0.0


@pytest.mark.parametrize("threshold", [0.5, 0.9])
def test_binary_classifiers_are_refined(threshold):
    model = _network(4, outputs=1)
    options = CertifyOptions(method="product", task="binary", threshold=threshold)
    predictor = predictor_of(certify_model(model, options=options))
    network, _ = network_and_gains(model)
    x, theta = _rows(), np.log(threshold / (1 - threshold))
    refined = predictor.predict(x, epsilon=None, preprocessing=None, refine=True, refine_seconds=SECONDS)
    assert any(row.radius_method == "local" for row in refined)
    for row, each in zip(x, refined, strict=True):
        assert each.radius is not None and each.label is not None
        side = np.array([[1.0 if each.label else -1.0]])
        outputs = network.evaluate(points_of(network, row, each.radius, side, 4))[:, 0]
        assert ((outputs > theta) == bool(each.label)).all()


def test_a_requests_preprocessing_divides_refined_radii_too():
    model, x = _network(5), _rows()
    predictor = predictor_of(certify_model(model))
    asked = {"epsilon": None, "refine": True, "refine_seconds": SECONDS}
    plain = predictor.predict(x, preprocessing=None, **asked)
    doubled = predictor.predict(x / 2, preprocessing=Preprocessing(scale=2.0), **asked)
    for one, two in zip(plain, doubled, strict=True):
        assert one.radius is not None and two.radius == pytest.approx(one.radius / 2, rel=0.05)


def test_rows_without_time_keep_the_global_radius_and_say_so():
    predictor = predictor_of(certify_model(_network(6)))
    plain = predictor.predict(_rows(), epsilon=None, preprocessing=None)
    late = predictor.predict(_rows(), epsilon=None, preprocessing=None, refine=True, refine_seconds=0.0)
    for before, after in zip(plain, late, strict=True):
        assert before.radius == after.radius and after.radius_method == "global"
        assert after.unrefined is not None and "time" in after.unrefined


def test_terms_without_a_local_form_are_named_where_nothing_was_gained():
    """A layer normalisation between two linear maps: its constant is all that is known, and it may be enough."""
    generator = np.random.default_rng(7)
    model = Model(5, opset=20)
    model.linear(single(generator.standard_normal((6, 5))))
    model.then("LayerNormalization", np.ones(6), np.zeros(6), epsilon=0.5)
    model.linear(single(generator.standard_normal((3, 6))))
    predictor = predictor_of(certify_model(model, options=CertifyOptions(method="product", arithmetic="real")))
    for row in predictor.predict(_rows(), epsilon=None, preprocessing=None, refine=True, refine_seconds=SECONDS):
        assert row.radius_method == "local" or (row.unrefined is not None and "LayerNormalization" in row.unrefined)


def test_regressors_have_nothing_to_refine():
    model = _network(8)
    options = CertifyOptions(method="product", task="regression", refine=True)
    for row in predictor_of(certify_model(model, options=options)).predict(_rows(), epsilon=0.1, preprocessing=None):
        assert row.radius is None and row.radius_method is None and row.unrefined is None


def test_rows_outside_of_the_box_stay_uncertified_and_others_profit_from_it():
    model = _network(0)
    options = CertifyOptions(method="product", input_box=InputBox(lower=-1.0, upper=1.0), refine=True)
    predictor = predictor_of(certify_model(model, options=options))
    x = np.clip(_rows(), -1.0, 1.0)
    x[0, 0] = 1.5
    rows = predictor.predict(x, epsilon=None, preprocessing=None, refine_seconds=SECONDS)
    assert rows[0].radius == 0.0 and rows[0].because is not None and "outside" in rows[0].because
    assert any(row.radius_method == "local" for row in rows[1:])


def test_local_margins_are_those_of_every_point():
    network, gains = network_and_gains(_network(2))
    x, radii = _rows(), np.array([0.0, 0.01, 0.1, 0.3, 1.0, 3.0])
    target = network.evaluate(x).argmax(axis=1)
    box = Box.everything(network.input_size)
    margins = local_margins(network, x, radii, target, gains=gains, box=box)
    for row in range(len(x)):
        assert margins[row, target[row]] == np.inf
        coefficients = np.eye(3)[target[row]] - np.delete(np.eye(3), target[row], axis=0)
        outputs = network.evaluate(points_of(network, x[row], radii[row], coefficients, row))
        gaps = outputs[:, target[row], None] - outputs
        assert (np.delete(gaps, target[row], axis=1) >= np.delete(margins[row], target[row])[None] - 1e-12).all()
    here = network.evaluate(x[:1])
    exact = here[0, target[0]] - np.delete(here[0], target[0])
    assert np.delete(margins[0], target[0]) == pytest.approx(exact, abs=1e-9)
