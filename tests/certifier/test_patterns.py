"""Exported sub-graphs are bounded as the function they spell; near-misses stay refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from mpmath import mp, mpf

from certifier.box import Box
from certifier.engine import Engine
from certifier.errors import UnsupportedNode
from certifier.flow import Network
from certifier.limits import Limits
from certifier.network import build_network, served_model
from certifier.patterns.activations import CLOSENESS, TANH_SENSITIVITY
from certifier.proof.execution import enclose
from certifier.proof.structure import schur_upper
from certifier.ranges import with_ranges
from certifier.reading.onnx import read_onnx
from certifier.terms import PRECISIONS, Activation, Contraction
from tests.building import Model, certify_bytes, certify_model

ROOT = float(np.float32(np.sqrt(2)))
INVERSE = float(np.float32(1 / np.sqrt(2)))
SLOPE = float(np.float32(np.sqrt(2 / np.pi)))
CUBIC = float(np.float32(0.044715))
EPSILON = float(np.float32(1e-5))


def number(value: float) -> np.ndarray:
    return np.array(value, dtype=np.float64)


def silu(m: Model, x: str) -> str:
    return m.add("Mul", x, m.add("Sigmoid", x))


def swish(m: Model, x: str) -> str:
    return m.add("Mul", m.add("Sigmoid", m.add("Mul", number(1.75), x)), x)


def gelu_div(m: Model, x: str) -> str:
    inner = m.add("Add", m.add("Erf", m.add("Div", x, number(ROOT))), number(1.0))
    return m.add("Mul", m.add("Mul", x, inner), number(0.5))


def gelu_mul(m: Model, x: str) -> str:
    inner = m.add("Add", number(1.0), m.add("Erf", m.add("Mul", x, number(INVERSE))))
    return m.add("Mul", m.add("Mul", number(0.5), x), inner)


def gelu_half_inside(m: Model, x: str) -> str:
    inner = m.add("Add", m.add("Erf", m.add("Mul", x, number(INVERSE))), number(1.0))
    return m.add("Mul", x, m.add("Mul", inner, number(0.5)))


def gelu_tanh(m: Model, x: str) -> str:
    cubic = m.add("Mul", m.add("Pow", x, number(3.0)), number(CUBIC))
    inner = m.add("Tanh", m.add("Mul", number(SLOPE), m.add("Add", x, cubic)))
    return m.add("Mul", m.add("Mul", x, number(0.5)), m.add("Add", inner, number(1.0)))


def gelu_tanh_by_products(m: Model, x: str) -> str:
    square = m.add("Mul", x, x)
    factor = m.add("Add", number(1.0), m.add("Mul", square, number(CUBIC)))
    inner = m.add("Tanh", m.add("Mul", m.add("Mul", x, factor), number(SLOPE)))
    return m.add("Mul", m.add("Mul", x, m.add("Add", inner, number(1.0))), number(0.5))


def hard_swish(m: Model, x: str) -> str:
    return m.add("Mul", x, m.add("HardSigmoid", x, alpha=1 / 6, beta=0.5))


def hard_swish_by_clip(m: Model, x: str) -> str:
    clipped = m.add("Clip", m.add("Add", x, number(3.0)), number(0.0), number(6.0))
    return m.add("Div", m.add("Mul", x, clipped), number(6.0))


def mish(m: Model, x: str) -> str:
    return m.add("Mul", x, m.add("Tanh", m.add("Softplus", x)))


ACTIVATIONS = {
    silu: (1.09984, 0), swish: (1.09984, 0), gelu_div: (1.12891, 1), gelu_mul: (1.12891, 0),
    gelu_half_inside: (1.12891, 0), gelu_tanh: (1.12900, 0), gelu_tanh_by_products: (1.12900, 1),
    hard_swish: (1.5, 0), hard_swish_by_clip: (1.5, 1), mish: (1.08850, 0),
}  # fmt: skip
"""Each spelling with the largest slope, and the affine terms that are left after it."""


def mean(m: Model, x: str) -> str:
    return m.add("ReduceMean", x, np.array([-1]), keepdims=1)


def root_of_power(m: Model, z: str, square: str = "Pow", epsilon: float = EPSILON) -> str:
    squared = m.add("Pow", z, number(2.0)) if square == "Pow" else m.add("Mul", z, z)
    return m.add("Sqrt", m.add("Add", mean(m, squared), number(epsilon)))


def layer_norm(m: Model, x: str) -> str:
    z = m.add("Sub", x, mean(m, x))
    normal = m.add("Div", z, root_of_power(m, z))
    return m.add("Add", m.add("Mul", normal, np.array([1.0, -2.0, 0.5, 1.5])), np.array([0.0, 1.0, -1.0, 0.25]))


def rms_norm(m: Model, x: str) -> str:
    return m.add("Mul", m.add("Reciprocal", root_of_power(m, x, "Mul")), x)


def rms_norm_by_power(m: Model, x: str) -> str:
    power = m.add("Add", mean(m, m.add("Mul", x, x)), number(EPSILON))
    return m.add("Mul", x, m.add("Pow", power, number(-0.5)))


def rms_norm_by_quotient(m: Model, x: str) -> str:
    return m.add("Mul", x, m.add("Div", number(1.0), root_of_power(m, x)))


NORMALISATIONS = {layer_norm: 2.0, rms_norm: 1.0, rms_norm_by_power: 1.0, rms_norm_by_quotient: 1.0}
Spelling = Callable[[Model, str], str]
every = pytest.mark.parametrize("spelling", [*ACTIVATIONS, *NORMALISATIONS], ids=lambda each: each.__name__)
activation = pytest.mark.parametrize("spelling", ACTIVATIONS, ids=lambda each: each.__name__)


def model_of(spelling: Spelling, *, dtype: Any = np.float32) -> Model:
    model = Model(4, dtype=dtype)
    spelling(model, model.add("Add", "x", np.array([0.0, 0.5, -0.25, 1.0])))
    return model


def bounded(network: Network) -> Network:
    """The network over all inputs; it refuses what only a pattern would bound."""
    return with_ranges(network, Box.everything(network.input_size), lambda operator, name: schur_upper(operator))


def network_of(model: Model):
    return build_network(read_onnx(model.data(), limits=Limits()), limits=Limits(), cut_head=False)


@every
def test_a_pattern_is_certified_and_no_secant_exceeds_its_bound(spelling):
    model = model_of(spelling)
    upper = certify_model(model).certificate.lipschitz.upper
    generator = np.random.default_rng(3)
    reference = model.reference(batched=True)
    for scale in (1e-3, 0.03, 1.0, 3.0, 30.0):
        x = scale * generator.standard_normal((400, 4))
        y = x + 10.0 ** generator.uniform(-5, 1, (400, 1)) * generator.standard_normal((400, 4))
        rise = np.linalg.norm(reference(y) - reference(x), axis=1)
        # Steps are at least 1e-5, so that the reference's own rounding is below 1e-9 of the rise allowed.
        assert (rise <= upper * np.linalg.norm(y - x, axis=1) * (1 + 1e-9)).all()


@activation
def test_a_pattern_is_one_activation_with_a_tight_bound(spelling):
    model = model_of(spelling)
    slope, left = ACTIVATIONS[spelling]
    terms = network_of(model).terms
    assert [type(term) for term in terms].count(Activation) == 1 and len(terms) == 2 + left
    assert slope * (1 - 2e-5) <= certify_model(model).certificate.lipschitz.upper <= slope * (1 + 2e-5)


@pytest.mark.parametrize("spelling", NORMALISATIONS, ids=lambda each: each.__name__)
def test_a_normalisation_is_one_contraction(spelling):
    model = model_of(spelling)
    assert [type(term) for term in network_of(model).terms].count(Contraction) == 1
    expected = NORMALISATIONS[spelling] / np.sqrt(EPSILON)
    assert certify_model(model).certificate.lipschitz.upper == pytest.approx(expected, rel=1e-6)


@every
def test_the_engine_stays_within_the_rounding_bound_of_the_original_nodes(spelling):
    """At most half the allowance is used, over all magnitudes, and the served nodes are the uploaded ones."""
    model = model_of(spelling)
    network = network_of(model)
    assert [node.operator for node in network.served.nodes] == [operator for operator, *_ in model.nodes]
    engine = Engine(served_model(network), network.input)
    generator = np.random.default_rng(5)
    sizes = np.concatenate([np.full(1500, 1.0), np.full(1500, 8.0), 10.0 ** generator.uniform(-30, 30, 1500)])
    rows = engine.cast(sizes[:, None] * generator.standard_normal((len(sizes), 4)))
    enclosure = enclose(network, rows, input_radius=np.zeros_like(rows), precisions=PRECISIONS, gains={})
    finite = np.isfinite(enclosure.radius)
    assert finite[:3000].all()
    difference = np.abs(engine.run(rows) - enclosure.centre)
    assert (difference[finite] <= 0.5 * enclosure.radius[finite]).all()


@pytest.mark.parametrize("spelling", [silu, gelu_tanh, hard_swish_by_clip, mish, layer_norm, rms_norm])
def test_double_precision_is_recognised_too(spelling):
    assert np.isfinite(certify_model(model_of(spelling, dtype=np.float64)).certificate.lipschitz.upper)


def read_elsewhere(m: Model) -> None:
    inner = m.add("Sigmoid", "x")
    m.add("Add", m.add("Mul", "x", inner), inner)


def gate(m: Model) -> None:
    m.linear(np.array([[1.0, 2.0], [0.5, -1.0]]).repeat(2, 0).repeat(2, 1))
    m.add("Mul", "x", m.then("Sigmoid"))


def different_values(m: Model) -> None:
    m.add("Mul", "x", m.add("Sigmoid", m.add("Tanh", "x")))


def two_inputs_of_one_product(m: Model) -> None:
    m.add("Mul", m.add("Relu", "x"), m.add("Sigmoid", m.add("Neg", "x")))


def another_root(m: Model) -> None:
    inner = m.add("Add", m.add("Erf", m.add("Div", "x", number(1.5))), number(1.0))
    m.add("Mul", "x", inner)


def another_one(m: Model) -> None:
    m.add("Mul", "x", m.add("Add", m.add("Erf", m.add("Div", "x", number(ROOT))), number(1.25)))


def another_cubic(m: Model) -> None:
    inner = m.add("Add", "x", m.add("Mul", m.add("Pow", "x", number(3.0)), number(0.0625)))
    m.add("Mul", "x", m.add("Add", m.add("Tanh", m.add("Mul", inner, number(SLOPE))), number(1.0)))


def another_clip(m: Model) -> None:
    m.add("Mul", "x", m.add("Clip", m.add("Add", "x", number(3.0)), number(-1.0), number(6.0)))


def no_epsilon(m: Model) -> None:
    z = m.add("Sub", "x", mean(m, "x"))
    m.add("Div", z, root_of_power(m, z, epsilon=0.0))


def negative_epsilon(m: Model) -> None:
    m.add("Div", "x", root_of_power(m, "x", epsilon=-1.0))


def another_power(m: Model) -> None:
    power = m.add("Add", mean(m, m.add("Pow", "x", number(4.0))), number(EPSILON))
    m.add("Div", "x", m.add("Sqrt", power))


def another_numerator(m: Model) -> None:
    m.add("Div", m.add("Add", "x", number(1.0)), root_of_power(m, "x"))


def inverted_quotient(m: Model) -> None:
    m.add("Div", root_of_power(m, "x"), "x")


def product_by_the_root(m: Model) -> None:
    m.add("Mul", root_of_power(m, "x"), "x")


def square(m: Model) -> None:
    m.add("Mul", "x", "x")


def square_through_a_sigmoid(m: Model) -> None:
    m.add("Mul", "x", m.add("Mul", "x", m.add("Sigmoid", "x")))


MISSES = [
    read_elsewhere, gate, different_values, two_inputs_of_one_product, another_root,
    another_one, another_cubic, another_clip, no_epsilon, negative_epsilon, another_power,
    another_numerator, inverted_quotient, product_by_the_root, square, square_through_a_sigmoid,
]  # fmt: skip


@pytest.mark.parametrize("near_miss", MISSES, ids=lambda each: each.__name__)
@pytest.mark.parametrize("cut_head", [False, True])
@pytest.mark.parametrize("ending", [None, "Relu", "Softmax"])
def test_a_near_miss_is_refused(near_miss, cut_head, ending):
    model = Model(4)
    near_miss(model)
    if ending:
        model.then(ending)
    with pytest.raises(UnsupportedNode):
        bounded(build_network(read_onnx(model.data(), limits=Limits()), limits=Limits(), cut_head=cut_head))


def test_a_refused_value_that_is_the_output_is_refused():
    model = Model(4)
    model.add("Pow", "x", number(2.0))
    with pytest.raises(UnsupportedNode, match="bounded slope only on bounded intervals"):
        certify_model(model)


def test_a_value_of_which_only_the_shape_is_read_needs_no_bound():
    model = Model(4)
    squared = model.add("Mul", "x", "x")
    model.add("Reshape", "x", model.add("Shape", squared))
    assert certify_model(model).certificate.lipschitz.upper == pytest.approx(1.0)


def test_patterns_nest():
    """SiLU of SiLU behind a LayerNorm: each is one term."""
    model = Model(4)
    silu(model, silu(model, layer_norm(model, "x")))
    assert len([t for t in network_of(model).terms if isinstance(t, (Activation, Contraction))]) == 3
    assert np.isfinite(certify_model(model).certificate.lipschitz.upper)


def test_the_sensitivity_of_the_tanh_slope_is_within_its_bound():
    """|∂D/∂b| b on a grid, at both ends of the admitted constants."""
    with mp.workdps(30):
        rate = mpmath.sqrt(2 / mp.pi)
        for share in (1 - 5 * CLOSENESS, 1 + 5 * CLOSENESS):
            b = mpf("0.044715") * rate * share

            def value(t, cubic):
                return t * (1 + mpmath.tanh(rate * t + cubic * t**3)) / 2

            for t in np.linspace(-8, 8, 129):
                step = mpf("1e-8")
                change = mpmath.diff(lambda s, c=b + step: value(s, c), t)
                change -= mpmath.diff(lambda s, c=b - step: value(s, c), t)
                assert abs(change) / (2 * step) * b <= TANH_SENSITIVITY


EXACT = {
    silu: lambda x: x / (1 + mpmath.exp(-x)),
    swish: lambda x: x / (1 + mpmath.exp(-mpf(1.75) * x)),
    gelu_half_inside: lambda x: x * (1 + mpmath.erf(x * mpf(INVERSE))) / 2,
    gelu_mul: lambda x: x * (1 + mpmath.erf(x * mpf(INVERSE))) / 2,
    gelu_tanh: lambda x: x * (1 + mpmath.tanh(mpf(SLOPE) * (x + mpf(CUBIC) * x**3))) / 2,
    hard_swish: lambda x: x * min(mpf(1), max(mpf(0), mpf(float(np.float32(1 / 6))) * x + mpf(0.5))),
    mish: lambda x: x * mpmath.tanh(mpmath.log1p(mpmath.exp(x))),
}
"""With the constants of the graph, not the ideal ones."""


@pytest.mark.parametrize("spelling", EXACT, ids=lambda each: each.__name__)
def test_slopes_and_values_hold_at_high_precision(spelling):
    """No secant with the graph's own constants leaves the interval; the value errs by float64's share."""
    model = Model(1)
    spelling(model, "x")
    (term,) = network_of(model).terms
    assert isinstance(term, Activation)
    function, formula = term.function, EXACT[spelling]
    generator = np.random.default_rng(7)
    x = np.concatenate([generator.normal(size=60) * 4, generator.choice([-1, 1], 90) * generator.uniform(0.5, 4, 90)])
    x = np.concatenate([x, [-40.0, -1e4, 40.0, 1e4, 0.0]])
    value, slope = function.evaluate(x), function.derivative(x)
    with mp.workdps(50):
        for point, own, rate in zip(x, value, slope, strict=True):
            exact = formula(mpf(float(point)))
            allowed = 2.0**-53 * (function.ulps * abs(exact) + function.absolute_ulps)
            assert abs(mpf(float(own)) - exact) <= allowed / 4
            for step in (mpf(10) ** -15, mpf(10) ** -3, mpf(1)):
                secant = (formula(mpf(float(point)) + step) - exact) / step
                assert mpf(float(function.slope_lower)) <= secant <= mpf(float(function.slope_upper))
            secant = (formula(mpf(float(point)) + mpf(10) ** -15) - exact) / mpf(10) ** -15
            assert abs(secant - mpf(float(rate))) <= 1e-9


@pytest.mark.parametrize("spelling", EXACT, ids=lambda each: each.__name__)
def test_values_and_derivatives_are_finite_for_every_magnitude_of_single_precision(spelling):
    model = Model(1)
    spelling(model, "x")
    (term,) = network_of(model).terms
    assert isinstance(term, Activation)
    x = np.concatenate([[0.0], *(sign * np.logspace(-45, 38, 500) for sign in (1, -1))])
    with np.errstate(all="raise", under="ignore"):
        assert np.isfinite(term.function.evaluate(x)).all() and np.isfinite(term.function.derivative(x)).all()


class RootMeanSquare(torch.nn.Module):
    """RMSNorm as language models write it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


TORCH = [
    torch.nn.SiLU(), torch.nn.GELU(), torch.nn.GELU(approximate="tanh"), torch.nn.Hardswish(), torch.nn.Mish(),
    torch.nn.LayerNorm(6), RootMeanSquare(),
]  # fmt: skip


@pytest.mark.parametrize(("opset", "dynamo"), [(13, False), (17, False), (18, True)])
@pytest.mark.parametrize("layer", TORCH, ids=repr)
def test_exports_of_torch_are_certified(layer, opset, dynamo, tmp_path):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(6, 6), layer, torch.nn.Linear(6, 3)).eval()
    path, example = tmp_path / "model.onnx", (torch.zeros(1, 6),)
    if dynamo:
        torch.onnx.export(
            network, example, path, dynamo=True, opset_version=opset, input_names=["x"], external_data=False
        )
    else:
        axes = {"x": {0: "n"}}
        torch.onnx.export(
            network, example, path, dynamo=False, opset_version=opset, input_names=["x"], dynamic_axes=axes
        )
    upper = certify_bytes(path.read_bytes()).certificate.lipschitz.upper
    x, y = torch.randn(2000, 6), torch.randn(2000, 6)
    with torch.no_grad():
        rise = (network(y) - network(x)).norm(dim=1) / (y - x).norm(dim=1)
    assert 0 < float(rise.max()) <= upper < np.inf
