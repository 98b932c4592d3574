"""Enclosures hold: the exact network and every float32 execution lie within the computed radius."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings

from certifier.bounds.product import ProductBound
from certifier.engine import Engine
from certifier.limits import Limits
from certifier.network import build_network, served_model
from certifier.norms import Norms
from certifier.proof.execution import enclose
from certifier.reading.onnx import read_onnx
from certifier.search.attack import EXACT
from certifier.search.hints import CarriedVectors
from certifier.search.state import SearchState
from certifier.terms import PRECISIONS, REFERENCE
from certifier.vector_functions.normalising import Normalisation
from tests.building import SEAL, Model, certify_model, predictor_of, single
from tests.random_networks import image_networks, vector_networks


def _enclosed(model: Model, rows: np.ndarray, *, exact: bool):
    network = build_network(read_onnx(model.data(), limits=Limits()), limits=Limits(), cut_head=False)
    norms = Norms(state=SearchState(), seal=SEAL, carried=CarriedVectors({}), progress=lambda layer: None)
    gains = ProductBound(network, norms).gains()
    precisions = EXACT if exact else PRECISIONS
    enclosure = enclose(network, rows, input_radius=np.zeros_like(rows), precisions=precisions, gains=gains)
    return network, enclosure


def _exact_linear(weights: list[np.ndarray], biases: list[np.ndarray], row: np.ndarray, *, relu: bool):
    """W_l relu(… W_1 x + b_1 …) + b_l over the rationals."""
    value = [Fraction(float(entry)) for entry in row]
    for position, (matrix, bias) in enumerate(zip(weights, biases, strict=True)):
        value = [
            sum((Fraction(float(w)) * v for w, v in zip(line, value, strict=True)), Fraction(float(b)))
            for line, b in zip(matrix, bias, strict=True)
        ]
        if relu and position + 1 < len(weights):
            value = [max(v, Fraction(0)) for v in value]
    return value


@pytest.mark.parametrize("hostile", [1.0, 2.0**40, 2.0**55])
@pytest.mark.parametrize("seed", range(4))
def test_the_exact_network_lies_within_the_enclosure(seed, hostile):
    """Hostile biases, added and taken away again, make float64 forget the input (Murray 2026)."""
    generator = np.random.default_rng(seed)
    model = Model(3, dtype=np.float64)
    weights = [generator.standard_normal((3, 3)) for _ in range(3)]
    biases = [np.full(3, hostile), generator.standard_normal(3), generator.standard_normal(3)]
    biases[1] -= weights[1] @ np.full(3, hostile)
    for position, (matrix, bias) in enumerate(zip(weights, biases, strict=True)):
        model.linear(matrix, bias)
        if position < 2:
            model.then("Relu")
    rows = generator.standard_normal((5, 3))
    _, enclosure = _enclosed(model, rows, exact=True)
    for row, centre, radius in zip(rows, enclosure.centre, enclosure.radius, strict=True):
        exact = _exact_linear(weights, biases, row, relu=True)
        for value, middle, reach in zip(exact, centre, radius, strict=True):
            assert abs(value - Fraction(float(middle))) <= Fraction(float(reach))
    assert (enclosure.radius < 1e-10 * hostile).all()


def test_adding_and_taking_away_a_large_number_certifies_nothing_false():
    """(x + 2^60) - 2^60 is x over the reals and 0 or 256 in float64: the radius may not rest on either."""
    model = Model(1, dtype=np.float64)
    value = model.add("Add", "x", np.array([2.0**60]))
    value = model.add("Sub", value, np.array([2.0**60]))
    model.add("Concat", value, model.add("Neg", value), axis=1)
    predictor = predictor_of(certify_model(model))
    for point in (3.9, 130.0, 200.0, 1e6):
        row = predictor.predict(np.array([[point]]), epsilon=None, preprocessing=None)[0]
        assert row.radius is not None and row.radius < point
        assert row.label == 0 or row.radius == 0.0


@settings(max_examples=60)
@given(vector_networks(layers=6))
def test_the_engine_lies_within_the_enclosure_of_vector_networks(example):
    _engine_is_enclosed(*example)


@settings(max_examples=40)
@given(image_networks(layers=4))
def test_the_engine_lies_within_the_enclosure_of_image_networks(example):
    _engine_is_enclosed(*example)


def _engine_is_enclosed(model: Model, seed: int) -> None:
    """float32 against float64, and the reference in float64 against both."""
    rows = single(np.random.default_rng(seed).standard_normal((3, int(np.prod(model.row_shape)))))
    network, loose = _enclosed(model, rows, exact=False)
    _, tight = _enclosed(model, rows, exact=True)
    served = Engine(served_model(network), network.input).run(rows)
    assert (np.abs(served - loose.centre) <= loose.radius).all()
    reference = model.reference(batched=True)(rows)
    # The reference strays by rounding of its own, of the same size; it rounds 1/6 and √(2/π) to single precision.
    inexact = {operator for operator, *_ in model.nodes} & {"HardSwish", "Gelu"}
    assert (np.abs(reference - tight.centre) <= 2 * tight.radius + (1e-5 if inexact else 1e-13)).all()
    assert (tight.radius <= loose.radius).all()


def test_an_enclosure_is_never_nan():
    """Where the centre overflows the radius is infinite."""
    model = Model(2, dtype=np.float64)
    model.linear(np.array([[1e200, 1e200], [1e200, 0.0]]))
    model.then("Relu")
    model.linear(np.array([[1.0, -1.0], [1.0, 1.0]]))
    _, enclosure = _enclosed(model, np.array([[1e200, 1e200], [1e-300, 0.0]]), exact=True)
    assert not np.isnan(enclosure.radius).any()
    assert np.isinf(enclosure.radius[0]).any()


@pytest.mark.parametrize("magnitude", [1.0, 1e-60, 1e-90, 1e-140])
def test_errors_whose_squares_underflow_are_counted(magnitude):
    """x·x, where no length may be computed from the squares of the errors as they are."""
    model = Model(1)
    model.add("Mul", "x", "x")
    network = build_network(read_onnx(model.data(), limits=Limits()), limits=Limits(), cut_head=False)
    rows = magnitude * np.random.default_rng(0).uniform(1, 2, (50, 1))
    enclosure = enclose(network, rows, input_radius=np.zeros_like(rows), precisions=EXACT, gains={})
    assert (enclosure.radius <= 1e-13 * np.abs(enclosure.centre)).all()
    for row, centre, radius in zip(rows, enclosure.centre, enclosure.radius, strict=True):
        exact = Fraction(float(row[0])) ** 2
        assert abs(exact - Fraction(float(centre[0]))) <= Fraction(float(radius[0]))


def test_radii_whose_squares_underflow_move_a_normalisation():
    function = Normalisation(name="layer", groups=1, scale=np.ones(4), shift=np.zeros(4), epsilon=1.0, centred=True)
    x, radius = 1e-172 * np.array([[4.0, 1.0, 2.0, -7.0]]), 1e-172 * np.ones((1, 4))
    moved = function.evaluate(x + radius * [[1, -1, 1, -1]]) - function.evaluate(x)
    output = function.evaluate(x)
    stray = function.stray(x, radius, output, REFERENCE)
    length = function.stray_length(x, radius, 2 * radius[:, :1], output, REFERENCE)
    assert (stray >= 0.99 * np.abs(moved)).all() and (stray <= 2e-172 * 1.01).all()
    assert length >= 2e-172 and length <= 2.1e-172
