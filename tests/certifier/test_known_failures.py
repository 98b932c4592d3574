"""One test per published failure of Lipschitz certification: each must stay impossible."""

from __future__ import annotations

import math

import numpy as np
import pytest

from certifier.documents import CertifyOptions
from certifier.errors import CertifierError, UnsupportedNode
from tests.building import Model, certify_model, predictor_of, single


def _spectral(matrix) -> float:
    return float(np.linalg.norm(matrix, 2))


@pytest.mark.parametrize("size", [1e-200, 1e-300])
def test_tiny_float64_weights_never_give_a_zero_constant(size):
    """Normalising by `norm + 1e-9`, or squaring tiny weights until they underflow, certifies everything."""
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
