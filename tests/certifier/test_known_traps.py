"""One test per trap in which bounds of slopes, structure and decisions are known to fall."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from certifier.documents import CertifyOptions, Preprocessing
from certifier.errors import UnsupportedNode
from tests.building import REAL, Model, certify_model, predictor_of, single


def _spectral(matrix) -> float:
    return float(np.linalg.norm(matrix, 2))


@pytest.mark.parametrize(
    ("operator", "opset", "steepest"),
    [("HardSwish", 18, 1.5), ("Mish", 18, 1.0884981612), ("Gelu", 20, 1.1289041451), ("Elu", 18, 3.0)],
)
def test_negative_slopes_count(operator, opset, steepest):
    """f(x) - x has the slope interval shifted by -1, whose steepest end is on the negative side."""
    model = Model(1, dtype=np.float32, opset=opset)
    attributes: dict[str, Any] = {"alpha": 3.0} if operator == "Elu" else {}
    value = model.add(operator, "x", **attributes)
    model.add("Sub", value, "x")
    upper = certify_model(model).certificate.lipschitz.upper
    reference = model.reference()
    grid = np.linspace(-8, 8, 400)[:, None]
    slopes = np.abs(np.diff(reference(grid)[:, 0]) / np.diff(grid[:, 0]))
    assert upper >= slopes.max()
    alone = Model(1, opset=opset)
    alone.then(operator, **attributes)
    assert certify_model(alone).certificate.lipschitz.upper >= steepest


@pytest.mark.parametrize("alpha", [-2.0, 3.0])
def test_leaky_slopes_beyond_one_count(alpha):
    """LeakyReLU is [min(1, a), max(1, a)], whatever the sign and size of a."""
    model = Model(2)
    model.then("LeakyRelu", alpha=alpha)
    assert certify_model(model).certificate.lipschitz.upper >= abs(alpha)


def test_attributes_that_a_rule_does_not_know_are_refused():
    """An attribute that is not understood may change everything."""
    model = Model(2)
    model.then("LayerNormalization", np.ones(2), axis=-1, stash_type=11)
    with pytest.raises(UnsupportedNode, match="stash_type"):
        certify_model(model)


@pytest.mark.parametrize("where", ["weight", "bias", "statistics"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(where, bad):
    """NaN passes some libraries' Cholesky; here it is refused before anything is factored."""
    model = Model(2)
    damaged = np.array([1.0, bad])
    if where == "weight":
        model.linear(np.stack([damaged, damaged]))
    elif where == "bias":
        model.linear(np.eye(2), damaged)
    else:
        model.then("BatchNormalization", np.ones(2), np.zeros(2), np.zeros(2), np.abs(damaged))
    with pytest.raises(UnsupportedNode, match="NaN or infinite"):
        certify_model(model)


def test_convolutions_are_not_multiplied_across_a_crop():
    """Symbols multiply only on one torus: a shift right, cut off, then a shift left has norm 1, not 0 or less."""
    model = Model(1, 40)
    model.then("Conv", np.array([[[1.0, 0.0, 0.0]]]), pads=[1, 1])
    model.then("Conv", np.array([[[0.0, 0.0, 1.0]]]), pads=[1, 1])
    model.then("Flatten")
    assert certify_model(model).certificate.lipschitz.upper >= 1.0


@pytest.mark.parametrize("width", [8, 40])
def test_a_convolution_straight_into_another_covers_the_dense_product(width):
    """With padding between them, at a size that is written out and at one that is not."""
    generator = np.random.default_rng(0)
    first, second = (single(generator.standard_normal((3, 3, 3, 3))) for _ in range(2))
    model = Model(3, width, width)
    for kernel in (first, second):
        model.then("Conv", kernel, pads=[1, 1, 1, 1])
    upper = certify_model(model, options=CertifyOptions(task="regression")).certificate.lipschitz.upper
    small = Model(3, 8, 8)
    for kernel in (first, second):
        small.then("Conv", kernel, pads=[1, 1, 1, 1])
    # The map on 8x8 is a compression of that on any larger grid but for its second padding; compare like with like.
    if width == 8:
        truth = _spectral(small.reference().jacobian(np.zeros(192), step=1.0))
        assert truth * (1 - 1e-12) <= upper <= truth * (1 + 1e-6)
    else:
        tap_sum = _spectral(second.sum((2, 3)) @ first.sum((2, 3)))
        assert upper >= 0.9 * tap_sum


def test_a_broadcast_operand_counts_as_often_as_it_is_read():
    """Adding one number to n entries stretches it √n-fold."""
    model = Model(1)
    wide = model.add("Concat", "x", "x", "x", "x", axis=1)
    model.add("Add", wide, "x")
    model.then("Flatten")
    upper = certify_model(model).certificate.lipschitz.upper
    assert 4.0 <= upper <= 4.0 * (1 + 1e-9)


def test_epsilon_of_layer_normalisation_is_inside_the_root():
    """max|γ|/√ε, attained at the centre; ε <= 0 is refused."""
    model = Model(4, opset=17)
    model.then("LayerNormalization", np.array([1.0, 3.0, 1.0, 1.0]), epsilon=1e-4)
    assert certify_model(model).certificate.lipschitz.upper >= 3.0 / math.sqrt(1.0e-4) * math.sqrt(0.75)
    for epsilon in (0.0, -1e-3):
        refused = Model(4, opset=17)
        refused.then("LayerNormalization", np.ones(4), epsilon=epsilon)
        with pytest.raises(UnsupportedNode, match="epsilon"):
            certify_model(refused)


def test_a_gate_on_unbounded_input_is_refused():
    """The product of two live values has no global constant."""
    model = Model(3)
    # Of another value than x itself: x sigmoid(x) is one activation, SiLU, and has a constant.
    gate = model.add("Sigmoid", model.add("Neg", "x"))
    model.add("Mul", model.add("Relu", "x"), gate)
    with pytest.raises(UnsupportedNode, match="product"):
        certify_model(model)


def test_a_trailing_softmax_is_cut_off_and_the_margin_is_that_of_the_logits():
    """In float32 sigmoid(20) = sigmoid(30) = 1: decide on the logits."""
    model = Model(2)
    model.linear([[1.0, 0.0], [0.0, 1.0]])
    model.then("Softmax", axis=-1)
    certified = certify_model(model, options=REAL)
    row = predictor_of(certified).predict(np.array([[130.0, 120.0]]), epsilon=None, preprocessing=None)[0]
    assert row.logits == [130.0, 120.0] and row.radius == pytest.approx(10 / math.sqrt(2), rel=1e-6)
    assert any("cut off" in note for note in certified.certificate.notes)


@pytest.mark.parametrize("axis", [1, 2])
def test_a_softmax_over_part_of_the_outputs_is_not_cut_off(axis):
    """It reorders entries of different groups, so the argmax behind it is another."""
    model = Model(2, 2)
    model.then("Softmax", axis=axis)
    model.then("Flatten")
    inner = certify_model(model)
    assert not any("cut off" in note for note in inner.certificate.notes)
    bare = Model(2, 2)
    bare.then("Softmax", axis=axis)
    assert not any("cut off" in note for note in certify_model(bare).certificate.notes)


def test_a_regressor_has_no_radius():
    """Difference bounds only."""
    model = Model(2)
    model.linear([[1.0, 2.0]])
    certified = certify_model(model)
    row = predictor_of(certified).predict(np.array([[1.0, 1.0]]), epsilon=0.5, preprocessing=None)[0]
    assert certified.certificate.task == "regression"
    assert (row.label, row.radius, row.certified) == (None, None, None)
    assert row.output_bounds is not None and row.output_bounds.l2 >= 0.5 * math.sqrt(5)


def test_preprocessing_in_front_of_a_zero_padded_convolution_is_not_folded_into_its_bias():
    """The padding is zero after (x - mean)/std, so border outputs differ from a folded bias."""
    model = Model(1, 3, 3)
    model.then("Conv", np.ones((2, 1, 3, 3)) * np.array([1.0, -1.0]).reshape(2, 1, 1, 1), pads=[1, 1, 1, 1])
    model.then("Flatten")
    preprocessing = Preprocessing(mean=[0.5], std=[0.25])
    certified = certify_model(model, options=CertifyOptions(preprocessing=preprocessing))
    image = np.random.default_rng(0).random((1, 1, 3, 3)).astype(np.float32).astype(np.float64)
    expected = model.reference()((image - 0.5) / 0.25)
    row = predictor_of(certified).predict(image, epsilon=None, preprocessing=None)[0]
    assert np.allclose(row.logits, expected[0], atol=1e-4)
    plain = certify_model(model).certificate.lipschitz.upper
    assert certified.certificate.lipschitz.upper == pytest.approx(4 * plain, rel=1e-6)


def test_repeated_indices_of_gather_count():
    """An index that repeats r times counts √r."""
    model = Model(3)
    model.then("Gather", np.array([0, 0, 0, 2]), axis=1)
    upper = certify_model(model).certificate.lipschitz.upper
    assert math.sqrt(3) * (1 - 1e-15) <= upper <= math.sqrt(3) * (1 + 1e-9)


def test_concatenating_a_value_with_itself_counts_twice():
    """Concat(x, x) has norm √2."""
    model = Model(3)
    hidden = model.then("Relu")
    model.add("Concat", hidden, hidden, axis=1)
    upper = certify_model(model).certificate.lipschitz.upper
    assert math.sqrt(2) * (1 - 1e-15) <= upper <= math.sqrt(2) * (1 + 1e-9)


def test_a_value_minus_itself_is_bounded_by_nothing_below_zero():
    """x - x is zero: any bound >= 0 is sound, and the expansion finds (almost) 0; 2x - x is the identity."""
    model = Model(3)
    hidden = model.then("Relu")
    model.add("Sub", hidden, hidden)
    assert 0.0 <= certify_model(model).certificate.lipschitz.upper <= 2.0
    doubled = Model(3)
    hidden = doubled.then("Relu")
    twice = doubled.add("Add", hidden, hidden)
    doubled.add("Sub", twice, hidden)
    assert 1.0 <= certify_model(doubled).certificate.lipschitz.upper <= 3.0 * (1 + 1e-9)


def test_a_residual_connection_adds_its_two_ways():
    """x + g(x) is at most 1 + Lip(g), and here attains it."""
    model = Model(2)
    hidden = model.add("Relu", "x")
    model.add("Add", "x", hidden)
    upper = certify_model(model).certificate.lipschitz.upper
    assert 2.0 <= upper <= 2.0 * (1 + 1e-9)
