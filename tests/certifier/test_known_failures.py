"""One test per published failure of Lipschitz certification: each must stay impossible."""

from __future__ import annotations

import math

import numpy as np
import pytest

from certifier.documents import CertifyOptions, Preprocessing
from certifier.errors import CertifierError, UnsupportedNode
from tests.building import Model, certify_model, predictor_of, single


def _spectral(matrix) -> float:
    return float(np.linalg.norm(matrix, 2))


@pytest.mark.parametrize("size", [1e-200, 1e-300])
def test_tiny_float64_weights_never_give_a_zero_constant(size):
    """Normalising by `norm + 1e-9`, or squaring tiny weights until they underflow, certifies everything (GloRo code)."""
    model = Model(3, dtype=np.float64)
    model.linear(np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0]]) * size)
    upper = certify_model(model).certificate.lipschitz.upper
    weights = np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0]]) * size / 2.0**-1074
    truth_in_steps = _spectral(weights)
    assert upper / 2.0**-1074 >= truth_in_steps * (1 - 1e-12) > 0


def test_denormal_float64_weights_never_give_a_zero_constant():
    """Amplified afterwards: 2^-1074 is the smallest number there is."""
    model = Model(2, dtype=np.float64)
    model.linear(2.0**-1074 * np.eye(2))
    model.then("Relu")
    model.linear(2.0**1000 * np.eye(2))
    model.then("Relu")
    model.linear(2.0**74 * np.eye(2))
    _bound_or_refusal(model, 1.0)


def test_denormal_float32_weights_never_give_a_zero_constant():
    """The same with weights that a float32 engine may flush to zero."""
    model = Model(2)
    weights = single(np.array([[1e-44, 3e-45], [0.0, 2e-44]]))
    model.linear(weights)
    assert certify_model(model).certificate.lipschitz.upper >= _spectral(weights / 2.0**-149) * 2.0**-149 > 0


@pytest.mark.parametrize(
    ("dtype", "count", "small", "large"), [(np.float64, 2, 2.0**-700, 2.0**700), (np.float32, 9, 2.0**-126, 2.0**126)]
)
def test_scales_that_underflow_together_keep_the_constant(dtype, count, small, large):
    """The product of the factors underflows in float64 although the network is the identity."""
    model = Model(2, dtype=dtype)
    for _ in range(count):
        model.then("Mul", np.array([small, small / 2]))
    for _ in range(count):
        model.then("Mul", np.array([large, large]))
    _bound_or_refusal(model, 1.0)


def test_folding_a_scale_into_a_convolution_never_underflows_to_zero():
    """A large convolution and the scales behind it become one kernel, whose products must not vanish."""
    model = Model(4, 20, 20)
    model.then("Conv", np.full((4, 4, 1, 1), 2.0**-140))
    for _ in range(7):
        model.then("Mul", np.full((4, 1, 1), 2.0**-140))
    model.then("Relu")
    for _ in range(10):
        model.then("Mul", np.full((4, 1, 1), 2.0**112))
        model.then("Relu")
    model.then("MaxPool", kernel_shape=[20, 20])
    model.then("Flatten")
    _bound_or_refusal(model, 4.0)


def test_a_factor_of_gemm_never_underflows_to_zero():
    """alpha B with both near the ends of their ranges."""
    model = Model(2, dtype=np.float64)
    model.then("Gemm", 2.0**-1000 * np.eye(2), alpha=2.0**-120)
    model.then("Relu")
    for scale in (2.0**1000, 2.0**120):
        model.then("Gemm", scale * np.eye(2))
        model.then("Relu")
    _bound_or_refusal(model, 1.0)


def _bound_or_refusal(model: Model, truth: float) -> None:
    """The real network's constant is `truth`; refusing it is sound too."""
    try:
        upper = certify_model(model).certificate.lipschitz.upper
    except CertifierError:
        return
    assert upper >= truth


def test_tied_logits_get_radius_zero():
    """Equality does not certify (the tied logits of tobycmurray's report)."""
    model = Model(2)
    model.linear([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    row = predictor_of(certify_model(model)).predict(np.array([[3.0, 1.0]]), epsilon=0.0, preprocessing=None)[0]
    assert (row.radius, row.certified) == (0.0, False)
    assert row.because is not None and "tied" in row.because


def test_infinite_logits_never_certify():
    """Logits that overflow are refused; nothing is certified about them."""
    model = Model(2)
    model.linear(single([[1e38, 1e38], [0.0, 1.0]]))
    predictor = predictor_of(certify_model(model))
    with pytest.raises(CertifierError, match="overflow"):
        predictor.predict(np.array([[1e30, 1e30]]), epsilon=None, preprocessing=None)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_inputs_that_are_not_finite_are_refused(bad):
    """NaN compares false with everything, so it must be refused before anything is compared."""
    model = Model(2)
    model.linear(np.eye(2))
    predictor = predictor_of(certify_model(model))
    with pytest.raises(CertifierError, match="NaN or infinite"):
        predictor.predict(np.array([[1.0, bad]]), epsilon=None, preprocessing=None)


@pytest.mark.parametrize("operator", ["Exp", "Log", "Sqrt", "Reciprocal", "Det", "Sign", "Round", "Floor"])
def test_an_operator_without_a_constant_is_refused_by_name(operator):
    """Unknown layers taken as 1-Lipschitz with a warning."""
    model = Model(2, 2)
    model.then("Relu")
    if operator == "Det":
        model.then("Det")
    else:
        model.then(operator)
    with pytest.raises(UnsupportedNode) as refused:
        certify_model(model)
    assert refused.value.operator == operator


def test_max_pooling_with_overlap_counts_its_windows():
    """Max-pooling is not always 1-Lipschitz: 3x3 windows at stride 2 share pixels between four."""
    model = Model(1, 7, 7)
    model.then("MaxPool", kernel_shape=[3, 3], strides=[2, 2])
    model.then("Flatten")
    upper = certify_model(model).certificate.lipschitz.upper
    spike = np.zeros(49)
    spike[2 * 7 + 2] = 1.0
    attained = np.linalg.norm(model.reference()(np.stack([spike, 0 * spike])).T @ [1.0, -1.0])
    assert attained == pytest.approx(2.0)
    assert 2.0 <= upper <= 2.0 * (1 + 1e-9)


def test_power_iteration_is_never_sold_as_a_bound():
    """Ten iterations miss a spectrum without a gap by per cents; the proved bound may not."""
    generator = np.random.default_rng(3)
    left, _ = np.linalg.qr(generator.standard_normal((60, 60)))
    right, _ = np.linalg.qr(generator.standard_normal((60, 60)))
    weights = single(left @ np.diag(np.linspace(0.9, 1.0, 60)) @ right)
    model = Model(60)
    model.linear(weights)
    truth = _spectral(weights)
    upper = certify_model(model).certificate.lipschitz.upper
    assert truth * (1 - 1e-13) <= upper <= truth * (1 + 1e-8)


def test_the_torus_of_the_inputs_size_is_not_taken():
    """circ(n) for zero padding: kernel [1, -1] on 3 points has norm 1.802, on the torus of 3 points 1.732."""
    model = Model(1, 3)
    model.then("Conv", np.array([[[1.0, -1.0]]]), pads=[1, 1])
    model.then("Flatten")
    dense = np.array([[-1.0, 0, 0], [1, -1, 0], [0, 1, -1], [0, 0, 1]])
    assert certify_model(model).certificate.lipschitz.upper >= _spectral(dense) * (1 - 1e-14) > 1.8


def test_a_large_convolution_is_bounded_on_a_padded_torus():
    """The same beyond the size up to which convolutions are written out."""
    model = Model(1, 1200)
    model.then("Conv", np.array([[[1.0, -1.0]]]), pads=[1, 1])
    upper = certify_model(model, options=CertifyOptions(task="regression")).certificate.lipschitz.upper
    # The matrix is the difference operator with Dirichlet ends: norm 2 cos(pi / (2 (n + 1))).
    truth = 2 * math.cos(math.pi / (2 * 1201))
    assert truth * (1 - 1e-14) <= upper <= 2.0 * (1 + 1e-9)


def test_a_transposed_convolution_takes_the_torus_of_its_output():
    """Kernel [1, 1, 0, -1] on two inputs: norm 2.0; the torus of its own input gives 1.0."""
    model = Model(1, 2)
    model.then("ConvTranspose", np.array([[[1.0, 1.0, 0.0, -1.0]]]))
    model.then("Flatten")
    dense = np.array([[1, 0], [1, 1], [0, 1], [-1, 0], [0, -1.0]])
    assert certify_model(model).certificate.lipschitz.upper >= _spectral(dense) * (1 - 1e-14)


def test_margin_over_the_constant_of_the_whole_vector_is_not_the_radius():
    """f(x) = (x, -x)/√2 has L = 1 and margin √2 x, but flips at distance x."""
    model = Model(1, dtype=np.float64)
    half = 1 / math.sqrt(2)
    model.linear([[half], [-half]])
    row = predictor_of(certify_model(model)).predict(np.array([[1.0]]), epsilon=None, preprocessing=None)[0]
    assert row.radius is not None and row.margin is not None and row.margin == pytest.approx(math.sqrt(2))
    assert 1.0 - 1e-8 < row.radius < 1.0


def test_the_radius_is_strictly_below_the_distance_of_the_tie():
    """At exactly min margin/L a tie is possible: logits (x, 0) tie at distance x."""
    model = Model(1, dtype=np.float64)
    model.linear([[1.0], [0.0]])
    predictor = predictor_of(certify_model(model))
    for start in (1.0, 3.0, 0.1, 7e-300):
        row = predictor.predict(np.array([[start]]), epsilon=start, preprocessing=None)[0]
        assert row.radius is not None and row.radius < start and row.certified is False


@pytest.mark.parametrize(
    ("operator", "opset", "steepest"),
    [("HardSwish", 18, 1.5), ("Mish", 18, 1.0884981612), ("Gelu", 20, 1.1289041451), ("Elu", 18, 3.0)],
)
def test_negative_slopes_count(operator, opset, steepest):
    """f(x) - x has the slope interval shifted by -1, whose steepest end is on the negative side."""
    model = Model(1, dtype=np.float32, opset=opset)
    attributes = {"alpha": 3.0} if operator == "Elu" else {}
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
    gate = model.add("Sigmoid", "x")
    model.add("Mul", "x", gate)
    with pytest.raises(UnsupportedNode, match="product"):
        certify_model(model)


def test_a_trailing_softmax_is_cut_off_and_the_margin_is_that_of_the_logits():
    """In float32 sigmoid(20) = sigmoid(30) = 1: decide on the logits."""
    model = Model(2)
    model.linear([[1.0, 0.0], [0.0, 1.0]])
    model.then("Softmax", axis=-1)
    certified = certify_model(model)
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
