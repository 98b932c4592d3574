"""What is served: shapes, units, preprocessing with a request, and the engine's label against the exact network's."""

from __future__ import annotations

import numpy as np
import pytest

from certifier.certificates import LARGEST
from certifier.documents import CertifyOptions, Preprocessing
from certifier.errors import CertifierError, InvalidInput
from tests.building import REAL, Model, certify_model, predictor_of, single

GENERATOR = np.random.default_rng(0)
WEIGHTS = single(GENERATOR.standard_normal((3, 12)))
IMAGES = single(GENERATOR.random((4, 3, 2, 2)))


def _image_model() -> Model:
    model = Model(3, 2, 2)
    model.then("Flatten")
    model.linear(WEIGHTS)
    return model


def _linear_radius(image: np.ndarray, scale: np.ndarray) -> float:
    """The exact distance to the nearest tie of W (scale x) over unpreprocessed x."""
    rows = WEIGHTS * scale.reshape(1, -1)
    logits = rows @ image.reshape(-1)
    label = int(np.argmax(logits))
    others = [j for j in range(3) if j != label]
    return min((logits[label] - logits[j]) / np.linalg.norm(rows[label] - rows[j]) for j in others)


def test_the_radius_of_a_linear_classifier_is_the_distance_to_the_nearest_tie():
    rows = predictor_of(certify_model(_image_model(), options=REAL)).predict(IMAGES, epsilon=None, preprocessing=None)
    for image, row in zip(IMAGES, rows, strict=True):
        truth = _linear_radius(image, np.ones(12))
        assert row.radius is not None and truth * (1 - 1e-7) <= row.radius < truth


def test_certified_means_a_radius_above_epsilon():
    predictor = predictor_of(certify_model(_image_model()))
    radius = predictor.predict(IMAGES[:1], epsilon=None, preprocessing=None)[0].radius
    assert radius is not None
    for epsilon, expected in ((radius * 0.999, True), (radius, False), (radius * 1.001, False)):
        assert predictor.predict(IMAGES[:1], epsilon=epsilon, preprocessing=None)[0].certified is expected


def test_a_requests_preprocessing_divides_radii_by_its_stretch():
    """(scale x - mean)/std stretches at most by max|scale/std|; never are radii of the inner units served."""
    std = [0.25, 0.5, 2.0]
    preprocessing = Preprocessing(scale=0.5, mean=[0.1, 0.2, 0.3], std=std)
    predictor = predictor_of(certify_model(_image_model(), options=REAL))
    rows = predictor.predict(IMAGES, epsilon=None, preprocessing=preprocessing)
    scale = np.repeat(0.5 / np.array(std), 4)
    inner = (
        (0.5 * IMAGES - np.array([0.1, 0.2, 0.3]).reshape(1, 3, 1, 1)) / np.array(std).reshape(1, 3, 1, 1)
    ).reshape(4, -1)
    for row, values in zip(rows, inner, strict=True):
        logits = WEIGHTS @ values
        label = int(np.argmax(logits))
        gaps = [
            (logits[label] - logits[j]) / np.linalg.norm((WEIGHTS[label] - WEIGHTS[j]) * scale)
            for j in range(3)
            if j != label
        ]
        unscaled = [
            (logits[label] - logits[j]) / np.linalg.norm(WEIGHTS[label] - WEIGHTS[j]) for j in range(3) if j != label
        ]
        assert row.label == label and row.radius is not None
        assert row.radius <= min(gaps)
        assert row.radius == pytest.approx(min(unscaled) / 2.0, rel=1e-6)


def test_preprocessing_made_part_of_the_model_gives_the_exact_radius():
    preprocessing = Preprocessing(scale=0.5, std=[0.25, 0.5, 2.0])
    certified = certify_model(_image_model(), options=CertifyOptions(preprocessing=preprocessing, arithmetic="real"))
    rows = predictor_of(certified).predict(IMAGES, epsilon=None, preprocessing=None)
    for image, row in zip(IMAGES, rows, strict=True):
        truth = _linear_radius(image, np.repeat(0.5 / np.array([0.25, 0.5, 2.0]), 4))
        assert row.radius == pytest.approx(truth, rel=1e-6)
    with pytest.raises(InvalidInput, match="already"):
        predictor_of(certified).predict(IMAGES, epsilon=None, preprocessing=preprocessing)


@pytest.mark.parametrize("at_upload", [True, False])
def test_a_layout_moves_axes_and_changes_no_radius(at_upload):
    layout = Preprocessing(layout="NHWC")
    plain = predictor_of(certify_model(_image_model())).predict(IMAGES, epsilon=None, preprocessing=None)
    options = CertifyOptions(preprocessing=layout if at_upload else None)
    predictor = predictor_of(certify_model(_image_model(), options=options))
    moved = predictor.predict(IMAGES.transpose(0, 2, 3, 1), epsilon=None, preprocessing=None if at_upload else layout)
    assert [row.logits for row in moved] == [row.logits for row in plain]
    for row, other in zip(moved, plain, strict=True):
        assert row.radius == pytest.approx(other.radius, rel=1e-9)


@pytest.mark.parametrize(
    "inputs",
    [np.zeros((3, 2, 2)), np.zeros((1, 2, 2, 3)), np.zeros((0, 3, 2, 2)), np.zeros((1, 12)), np.array([["a"]])],
)
def test_inputs_of_another_shape_are_refused(inputs):
    with pytest.raises(InvalidInput):
        predictor_of(certify_model(_image_model())).predict(inputs, epsilon=None, preprocessing=None)


def test_numbers_that_double_precision_would_round_are_refused():
    """A radius around the rounded input would be none around what was sent."""
    model = Model(2)
    model.linear(np.eye(2))
    predictor = predictor_of(certify_model(model, options=REAL))
    assert predictor.predict(np.array([[2**53, 2**52]]), epsilon=None, preprocessing=None)[0].radius
    with pytest.raises(InvalidInput, match="inputs"):
        predictor.predict(np.array([[2**60 + 129, 2**60]]), epsilon=None, preprocessing=None)


@pytest.mark.parametrize("epsilon", [-1.0, np.nan, np.inf])
def test_an_epsilon_that_is_no_distance_is_refused(epsilon):
    with pytest.raises(InvalidInput, match="epsilon"):
        predictor_of(certify_model(_image_model())).predict(IMAGES, epsilon=epsilon, preprocessing=None)


def test_where_engine_and_exact_network_disagree_nothing_is_certified():
    """float32 rounds the small logit difference away; the exact network decides otherwise."""
    model = Model(2)
    model.linear([[1.0, 1.0], [1.0, 0.0]], [0.0, 2.0**-30])
    row = predictor_of(certify_model(model)).predict(np.array([[1.0, 2.0**-40]]), epsilon=None, preprocessing=None)[0]
    exact_label = 1
    assert row.label != exact_label and row.radius == 0.0 and row.because


def test_a_constant_classifier_never_flips():
    """Its pairs' constant is zero, so every radius is the largest number there is, whatever the preprocessing."""
    model = Model(2)
    model.linear([[1.0, 2.0], [1.0, 2.0]], [1.0, 0.0])
    predictor = predictor_of(certify_model(model, options=REAL))
    for preprocessing in (None, Preprocessing(std=[2.0])):
        row = predictor.predict(np.array([[1.0, 5.0]]), epsilon=None, preprocessing=preprocessing)[0]
        assert row.radius is not None and (row.radius == LARGEST or row.radius > 1e10)


def test_compare_reports_bound_difference_and_distance_side_by_side():
    predictor = predictor_of(certify_model(_image_model(), options=REAL))
    (comparison,) = predictor.compare(IMAGES[:1], IMAGES[1:2])
    apart = (IMAGES[0] - IMAGES[1]).reshape(-1)
    assert comparison.input_difference == pytest.approx(np.linalg.norm(apart))
    assert comparison.output_difference == pytest.approx(np.linalg.norm(WEIGHTS @ apart), rel=1e-5)
    assert comparison.output_difference_bound == pytest.approx(np.linalg.norm(WEIGHTS, 2) * np.linalg.norm(apart))
    for row, output in zip(WEIGHTS, comparison.outputs, strict=True):
        assert output.difference == pytest.approx(abs(row @ apart), rel=1e-4)
        assert output.bound >= abs(row @ apart)


@pytest.mark.parametrize("declared", [{"scale": 1e-46}, {"std": [1e-50]}, {"scale": 1e39}, {"mean": [1e39]}])
def test_preprocessing_that_the_models_type_cannot_hold_is_refused(declared):
    """A scale that single precision rounds to zero would certify every input."""
    options = CertifyOptions(preprocessing=Preprocessing(**declared))
    with pytest.raises(CertifierError):
        certify_model(_image_model(), options=options)


@pytest.mark.parametrize("size", [1e39, 1e308])
def test_compare_refuses_what_overflows(size):
    predictor = predictor_of(certify_model(_image_model()))
    with pytest.raises(InvalidInput):
        predictor.compare(np.full((1, 3, 2, 2), size), np.full((1, 3, 2, 2), -size))
