"""Roots of weighted sums of squares, however they are spelled: tight constants, and refusal of near misses."""

from __future__ import annotations

import numpy as np
import pytest

from certifier.errors import CertifierError
from certifier.operators import Kronecker
from certifier.terms import PRECISIONS, REFERENCE
from certifier.vector_functions.weighted_norms import WeightedNorms
from tests.building import Model
from tests.certifier.patterns.checking import assert_bound, bounded, functions, network_of, number

LAST = np.array([-1])


def square(m: Model, x: str = "x") -> str:
    return m.add("Mul", x, x)


def pooled(m: Model) -> None:
    """As PyTorch exports LPPool2d(2, 2): the mean times the number of entries."""
    mean = m.add("AveragePool", m.add("Pow", "x", number(2.0)), kernel_shape=[2, 2], strides=[2, 2])
    m.add("Pow", m.add("Mul", mean, number(4.0)), number(0.5))


def pooled_with_epsilon(m: Model) -> None:
    mean = m.add("AveragePool", square(m), kernel_shape=[2, 2], strides=[2, 2])
    m.add("Sqrt", m.add("Add", m.add("Mul", number(4.0), mean), number(0.0625)))


def mean_pooled(m: Model) -> None:
    m.add("Sqrt", m.add("AveragePool", square(m), kernel_shape=[2, 2], strides=[2, 2]))


def overlapping(m: Model) -> None:
    m.add("Sqrt", m.add("AveragePool", square(m), kernel_shape=[2, 2], strides=[1, 1]))


def by_convolution(m: Model) -> None:
    ones = np.ones((2, 1, 2, 2))
    m.add("Sqrt", m.add("Conv", square(m), ones, strides=[2, 2], group=2))


def root_mean_square(m: Model) -> None:
    m.add("Sqrt", m.add("ReduceMean", square(m), LAST, keepdims=0))


def length(m: Model) -> None:
    m.add("Sqrt", m.add("ReduceSum", m.add("Pow", "x", number(2.0)), np.array([1, 2, 3]), keepdims=1))


def modulus(m: Model) -> None:
    m.add("Split", "x", np.array([1, 1]), outputs=("re", "im"), axis=1)
    m.add("Sqrt", m.add("Add", square(m, "re"), m.add("Pow", "im", number(2.0))))


def weighted_sum(m: Model) -> None:
    total = m.add("Mul", m.add("ReduceSum", square(m), LAST, keepdims=0), number(0.25))
    m.add("Sqrt", m.add("Add", number(0.5), total))


def magnitude(m: Model) -> None:
    m.add("Sqrt", square(m))


SPELLINGS = {
    pooled: 1.0, pooled_with_epsilon: 1.0, mean_pooled: 0.5, overlapping: 1.0, by_convolution: 1.0,
    root_mean_square: 0.5, length: 1.0, modulus: 1.0, weighted_sum: 0.5, magnitude: 1.0,
}  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda each: each.__name__)
def test_a_norm_has_the_root_of_its_largest_column_as_constant(spelling):
    model = Model(2, 4, 4)
    spelling(model)
    assert functions(network_of(model)) == ["weighted norm"]
    assert_bound(model, SPELLINGS[spelling])


def test_an_inner_value_that_is_read_elsewhere_keeps_a_term_of_its_own():
    """It is refused there, as the square of unbounded values, and what reads the root alone is not."""
    model = Model(4)
    total = model.add("ReduceSum", square(model), LAST, keepdims=1)
    root = model.add("Sqrt", total)
    assert functions(bounded(network_of(model))) == ["weighted norm"]
    model.add("Add", root, total)
    with pytest.raises(CertifierError, match="both depend on the input"):
        bounded(network_of(model))


def cubes(m: Model) -> None:
    m.add("Sqrt", m.add("ReduceSum", m.add("Pow", "x", number(3.0)), LAST))


def almost_squares(m: Model) -> None:
    m.add("Sqrt", m.add("ReduceSum", m.add("Pow", m.add("Abs", "x"), number(2.0 + 2.0**-20)), LAST))


def negative_weight(m: Model) -> None:
    m.add("Sqrt", m.add("Add", m.add("MatMul", square(m), np.array([[1.0], [1.0], [1.0], [-0.001]])), number(1.0)))


def negative_epsilon(m: Model) -> None:
    m.add("Sqrt", m.add("Add", m.add("ReduceSum", square(m), LAST), number(-1e-3)))


def another_power(m: Model) -> None:
    m.add("Pow", m.add("ReduceSum", square(m), LAST), number(0.5 - 2.0**-20))


def not_all_squares(m: Model) -> None:
    m.add("Sqrt", m.add("Add", square(m), m.add("Abs", "x")))


def two_different_factors(m: Model) -> None:
    m.add("Sqrt", m.add("Add", m.add("Mul", "x", m.add("Tanh", "x")), number(1.0)))


def half_precision_on_the_way(m: Model) -> None:
    m.add("Sqrt", m.add("Cast", m.add("Cast", square(m), to=10), to=1))


MISSES = [
    cubes, almost_squares, negative_weight, negative_epsilon, another_power, not_all_squares, two_different_factors,
    half_precision_on_the_way,
]  # fmt: skip


@pytest.mark.parametrize("near_miss", MISSES, ids=lambda each: each.__name__)
def test_a_near_miss_is_no_norm(near_miss):
    model = Model(4)
    near_miss(model)
    network = network_of(model)
    assert "weighted norm" not in functions(network)
    with pytest.raises(CertifierError):
        bounded(network)


def norms(*, offset: float = 0.0) -> WeightedNorms:
    weights = np.abs(np.random.default_rng(4).standard_normal((3, 5)))
    return WeightedNorms(
        name="n",
        weights=Kronecker(weights, before=1, after=1, weight_error=0.0),
        offset=np.full(3, offset),
        roundings=8,
        growth=float(weights.sum(axis=1).max()) + 1,
    )


@pytest.mark.parametrize("offset", [0.0, 0.25])
def test_what_a_norm_may_stray_by_covers_moves_and_single_precision(offset):
    function, generator = norms(offset=offset), np.random.default_rng(6)
    weights = function.weights
    assert isinstance(weights, Kronecker)
    for scale in (1e-30, 1e-3, 1.0, 1e10):
        x = (scale * generator.standard_normal((200, 5))).astype(np.float32).astype(np.float64)
        radius = scale * generator.uniform(0, 0.5, (200, 5))
        output = function.evaluate(x)
        at = PRECISIONS["float32"]
        with np.errstate(under="ignore"):
            moved = function.evaluate(x + generator.uniform(-1, 1, (200, 5)) * radius)
            single = np.sqrt(
                np.square(x.astype(np.float32)) @ weights.dense().T.astype(np.float32) + np.float32(offset)
            )
        assert (abs(moved - output) <= function.stray(x, radius, output, REFERENCE) * (1 + 1e-12)).all()
        assert (abs(single - output) <= function.stray(x, np.zeros_like(x), output, at)).all()
    huge = np.full((1, 5), 1e25)
    assert np.isinf(function.stray(huge, 0 * huge, function.evaluate(huge), PRECISIONS["float32"])).all()


def test_negative_weights_and_offsets_are_refused():
    with pytest.raises(ValueError, match="negative"):
        norms(offset=-1e-9)
    weights = Kronecker(np.array([[1.0, -1e-9]]), before=1, after=1, weight_error=0.0)
    with pytest.raises(ValueError, match="negative"):
        WeightedNorms(name="n", weights=weights, offset=np.zeros(1), roundings=1, growth=1.0)
