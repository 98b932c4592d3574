"""Normalisations in single steps: one constant for every spelling, and refusal of near misses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from certifier.errors import CertifierError
from tests.building import Model
from tests.certifier.patterns.checking import assert_bound, bounded, functions, network_of, number

EPSILON = float(np.float32(1e-3))
GAMMA, BETA = np.array([1.0, -2.0, 0.5, 1.5]), np.array([0.0, 1.0, -1.0, 0.25])
LAST, MIDDLE = np.array([-1]), np.array([1])
Spelling = Callable[[Model], object]


def mean(m: Model, x: str, axes: np.ndarray = LAST) -> str:
    return m.add("ReduceMean", x, axes, keepdims=1)


def centred(m: Model, axes: np.ndarray = LAST) -> str:
    return m.add("Sub", "x", mean(m, "x", axes))


def root(m: Model, z: str, axes: np.ndarray = LAST) -> str:
    return m.add("Sqrt", m.add("Add", mean(m, m.add("Mul", z, z), axes), number(EPSILON)))


def difference_written_twice(m: Model) -> None:
    m.add("Div", centred(m), root(m, centred(m)))


def scaled_before_the_quotient(m: Model) -> None:
    m.add("Div", m.add("Mul", GAMMA, centred(m)), root(m, centred(m)))


def by_tensorflow(m: Model) -> None:
    """inv = rsqrt(var + ε) γ; x inv + (β - mean inv), with a squared difference for the variance."""
    average = mean(m, "x")
    difference = m.add("Sub", "x", average)
    variance = mean(m, m.add("Mul", difference, difference))
    inverse = m.add("Mul", m.add("Reciprocal", m.add("Sqrt", m.add("Add", number(EPSILON), variance))), GAMMA)
    shift = m.add("Sub", BETA, m.add("Mul", average, inverse))
    m.add("Add", m.add("Mul", "x", inverse), shift)


def by_keras(m: Model) -> None:
    """-mean inv + β, then x inv + that."""
    average = mean(m, "x")
    power = m.add("Add", mean(m, m.add("Pow", centred(m), number(2.0))), number(EPSILON))
    inverse = m.add("Mul", m.add("Pow", power, number(-0.5)), GAMMA)
    shift = m.add("Add", m.add("Mul", m.add("Neg", average), inverse), BETA)
    m.add("Add", shift, m.add("Mul", inverse, "x"))


def without_kept_axes(m: Model) -> None:
    average = m.add("Unsqueeze", m.add("ReduceMean", "x", LAST, keepdims=0), LAST)
    z = m.add("Sub", "x", average)
    variance = m.add("ReduceMean", m.add("Mul", z, z), LAST, keepdims=0)
    m.add("Div", z, m.add("Unsqueeze", m.add("Sqrt", m.add("Add", variance, number(EPSILON))), LAST))


def quotient_of_one(m: Model) -> None:
    z = centred(m)
    m.add("Mul", m.add("Mul", z, m.add("Div", number(1.0), root(m, z))), GAMMA)


def over_the_middle(m: Model) -> None:
    """As channels first: over axis 1 of (1, 3, 4)."""
    z = centred(m, MIDDLE)
    m.add("Div", z, root(m, z, MIDDLE))


def over_all(m: Model) -> None:
    axes = np.array([1, 2])
    z = centred(m, axes)
    m.add("Div", z, root(m, z, axes))


def unbiased(m: Model) -> None:
    """An unbiased variance, as PyTorch's var gives it."""
    z = centred(m)
    variance = m.add("Div", m.add("Mul", mean(m, m.add("Mul", z, z)), number(4.0)), number(3.0))
    m.add("Div", z, m.add("Sqrt", m.add("Add", variance, number(EPSILON))))


def root_mean_square(m: Model) -> None:
    m.add("Mul", m.add("Div", "x", root(m, "x")), GAMMA)


def length(m: Model) -> None:
    """x/√(Σx² + ε), as L2 normalisation with its floor under the root."""
    total = m.add("ReduceSum", m.add("Mul", "x", "x"), LAST, keepdims=1)
    m.add("Div", "x", m.add("Sqrt", m.add("Add", total, number(EPSILON))))


def tensor_epsilon(m: Model) -> None:
    z = centred(m)
    power = m.add("Add", mean(m, m.add("Mul", z, z)), np.full((1, 1, 1), EPSILON))
    m.add("Div", z, m.add("Sqrt", power))


def entry_by_entry(m: Model) -> None:
    """x/√(x² + ε): every entry is a group of its own."""
    square = m.add("ReduceMean", m.add("Mul", "x", "x"), np.array([0]))
    m.add("Div", "x", m.add("Sqrt", m.add("Add", square, number(EPSILON))))


STEEPEST = 1 / np.sqrt(EPSILON)
SPELLINGS = {
    difference_written_twice: 1.0, scaled_before_the_quotient: 2.0, by_tensorflow: 2.0, by_keras: 2.0,
    without_kept_axes: 1.0, quotient_of_one: 2.0, over_the_middle: 1.0, over_all: 1.0, unbiased: 1.0,
    root_mean_square: 2.0, length: 1.0, tensor_epsilon: 1.0, entry_by_entry: 1.0,
}  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda each: each.__name__)
def test_a_normalisation_has_one_constant_in_every_spelling(spelling):
    model = Model(3, 4)
    spelling(model)
    if spelling is not entry_by_entry:
        assert functions(network_of(model))[0].endswith("normalisation") and len(functions(network_of(model))) == 1
    assert_bound(model, SPELLINGS[spelling] * STEEPEST)


def test_what_reads_the_root_too_has_a_bound_of_its_own():
    model = Model(4)
    z = centred(model)
    deviation = root(model, z)
    model.add("Add", model.add("Div", z, deviation), deviation)
    assert sorted(functions(network_of(model))) == ["normalisation", "weighted norm"]
    network = bounded(network_of(model))
    assert network.output_size == 4


def variance(m: Model, epsilon: float | np.ndarray = EPSILON, axes: np.ndarray = LAST) -> str:
    return m.add("Add", mean(m, m.add("Mul", centred(m), centred(m)), axes), number(0.0) + epsilon)


def epsilon_outside(m: Model) -> None:
    z = centred(m)
    m.add("Div", z, m.add("Add", m.add("Sqrt", mean(m, m.add("Mul", z, z))), number(EPSILON)))


def negative_epsilon(m: Model) -> None:
    m.add("Div", centred(m), m.add("Sqrt", variance(m, -EPSILON)))


def zero_epsilon(m: Model) -> None:
    m.add("Div", centred(m), m.add("Sqrt", variance(m, 0.0)))


def vanishing_epsilon(m: Model) -> None:
    m.add("Div", centred(m), m.add("Sqrt", variance(m, 2.0**-120)))


def several_epsilons(m: Model) -> None:
    m.add("Div", centred(m), m.add("Sqrt", variance(m, np.array([[EPSILON], [EPSILON], [2 * EPSILON]]))))


def numerator_less_another_mean(m: Model) -> None:
    m.add("Div", centred(m, MIDDLE), root(m, centred(m)))


def numerator_off_by_a_thousandth(m: Model) -> None:
    m.add("Div", m.add("Sub", "x", m.add("Mul", mean(m, "x"), number(1.001))), root(m, centred(m)))


def shifted_numerator(m: Model) -> None:
    m.add("Div", m.add("Add", centred(m), number(1e-3)), root(m, centred(m)))


def fourth_power(m: Model) -> None:
    z = m.add("Pow", centred(m), number(4.0))
    m.add("Div", centred(m), m.add("Sqrt", m.add("Add", mean(m, z), number(EPSILON))))


def reciprocal_without_root(m: Model) -> None:
    m.add("Div", m.add("Mul", "x", "x"), variance(m))


def another_gamma_in_the_shift(m: Model) -> None:
    average = mean(m, "x")
    inverse = m.add("Reciprocal", root(m, centred(m)))
    shift = m.add("Mul", average, m.add("Mul", inverse, np.full(4, 1.001)))
    m.add("Sub", m.add("Mul", "x", m.add("Mul", inverse, np.ones(4))), shift)


def half_precision_on_the_way(m: Model) -> None:
    z = centred(m)
    square = m.add("Cast", m.add("Cast", m.add("Mul", z, z), to=10), to=1)
    m.add("Div", z, m.add("Sqrt", m.add("Add", mean(m, square), number(EPSILON))))


MISSES = [
    epsilon_outside, negative_epsilon, zero_epsilon, vanishing_epsilon, several_epsilons,
    numerator_less_another_mean, numerator_off_by_a_thousandth, shifted_numerator, fourth_power,
    reciprocal_without_root, another_gamma_in_the_shift, half_precision_on_the_way,
]  # fmt: skip


@pytest.mark.parametrize("near_miss", MISSES, ids=lambda each: each.__name__)
def test_a_near_miss_is_no_normalisation(near_miss):
    model = Model(3, 4)
    near_miss(model)
    network = network_of(model)
    assert not any(name.endswith("normalisation") for name in functions(network))
    with pytest.raises(CertifierError):
        bounded(network)
