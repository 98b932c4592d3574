"""Softmax and LogSoftmax in single steps: the constants of the whole, and refusal of near misses."""

from __future__ import annotations

import numpy as np
import pytest

from certifier.errors import CertifierError
from certifier.patterns.softmaxes import SmallLogSoftmax, SmallSoftmax
from certifier.terms import PRECISIONS, REFERENCE
from tests.building import Model, certify_model
from tests.certifier.patterns.checking import assert_bound, bounded, functions, network_of, number

LAST = np.array([-1])


def total(m: Model, x: str, axes: np.ndarray = LAST) -> str:
    return m.add("ReduceSum", x, axes, keepdims=1)


def shifted(m: Model, axes: np.ndarray = LAST) -> str:
    return m.add("Sub", "x", m.add("ReduceMax", "x", axes, keepdims=1))


def plain(m: Model) -> None:
    power = m.add("Exp", "x")
    m.add("Div", power, total(m, power))


def less_the_maximum(m: Model) -> None:
    power = m.add("Exp", shifted(m))
    m.add("Div", power, total(m, power))


def by_reciprocal(m: Model) -> None:
    power = m.add("Exp", shifted(m))
    m.add("Mul", m.add("Reciprocal", total(m, power)), power)


def over_the_middle(m: Model) -> None:
    axes = np.array([1])
    power = m.add("Exp", shifted(m, axes))
    m.add("Div", power, total(m, power, axes))


def over_both(m: Model) -> None:
    axes = np.array([1, 2])
    power = m.add("Exp", shifted(m, axes))
    m.add("Div", power, total(m, power, axes))


def without_kept_axes(m: Model) -> None:
    """The maximum and the sum are reduced away and put back."""
    largest = m.add("Unsqueeze", m.add("ReduceMax", "x", LAST, keepdims=0), LAST)
    power = m.add("Exp", m.add("Sub", "x", largest))
    m.add("Div", power, m.add("Unsqueeze", m.add("ReduceSum", power, LAST, keepdims=0), LAST))


SOFTMAXES = [plain, less_the_maximum, by_reciprocal, over_the_middle, over_both, without_kept_axes]


def log_plain(m: Model) -> None:
    m.add("Sub", "x", m.add("Log", total(m, m.add("Exp", "x"))))


def log_less_the_maximum(m: Model) -> None:
    argument = shifted(m)
    m.add("Sub", argument, m.add("Log", total(m, m.add("Exp", argument))))


def log_by_log_sum_exp(m: Model) -> None:
    largest = m.add("ReduceMax", "x", LAST, keepdims=1)
    power = m.add("Exp", m.add("Sub", "x", largest))
    m.add("Sub", "x", m.add("Add", largest, m.add("Log", total(m, power))))


LOGARITHMS = [log_plain, log_less_the_maximum, log_by_log_sum_exp]


@pytest.mark.parametrize("spelling", SOFTMAXES, ids=lambda each: each.__name__)
def test_a_softmax_has_the_constant_of_softmax(spelling):
    model = Model(3, 4)
    spelling(model)
    assert functions(network_of(model)) == ["softmax"]
    assert_bound(model, 0.5)


@pytest.mark.parametrize("spelling", LOGARITHMS, ids=lambda each: each.__name__)
def test_a_log_softmax_has_the_constant_of_log_softmax(spelling):
    model = Model(3, 4)
    spelling(model)
    assert functions(network_of(model)) == ["log softmax"]
    assert_bound(model, 2.0)


@pytest.mark.parametrize("spelling", [plain, less_the_maximum])
def test_attention_of_normalised_values_is_bounded_through_a_softmax_in_steps(spelling):
    """The range of a softmax is known, so what is multiplied by it has a bound."""
    model = Model(3, 4)
    spelling(model)
    weights = model.output
    model.add("Mul", weights, model.add("Tanh", "x"))
    assert np.isfinite(certify_model(model).certificate.lipschitz.upper)


def another_sum(m: Model) -> None:
    power = m.add("Exp", "x")
    m.add("Div", power, total(m, power, np.array([1])))
    m.then("Mul", number(2.0))
    m.add("Div", power, m.add("ReduceMean", power, LAST, keepdims=1))


def sum_over_another_axis(m: Model) -> None:
    power = m.add("Exp", "x")
    largest = m.add("Reshape", total(m, power, np.array([1])), np.array([1, 4, 1]))
    m.add("Div", power, largest)


def sum_with_an_offset(m: Model) -> None:
    power = m.add("Exp", "x")
    m.add("Div", power, m.add("Add", total(m, power), number(1e-3)))


def sum_of_another_power(m: Model) -> None:
    m.add("Div", m.add("Exp", "x"), total(m, m.add("Exp", m.add("Mul", "x", number(1.001)))))


def scaled_sum(m: Model) -> None:
    power = m.add("Exp", "x")
    m.add("Div", power, m.add("Mul", total(m, power), number(1.001)))


def power_of_two(m: Model) -> None:
    power = m.add("Exp", "x")
    m.add("Mul", power, m.add("Pow", total(m, power), number(-2.0)))


MISSES = [
    another_sum, sum_over_another_axis, sum_with_an_offset, sum_of_another_power, scaled_sum, power_of_two,
]  # fmt: skip


@pytest.mark.parametrize("near_miss", MISSES, ids=lambda each: each.__name__)
def test_a_near_miss_is_no_softmax(near_miss):
    model = Model(4, 4)
    near_miss(model)
    with pytest.raises(CertifierError):
        bounded(network_of(model))


def log_of_a_smaller_share(m: Model) -> None:
    logarithm = m.add("Log", total(m, m.add("Exp", "x")))
    m.add("Sub", "x", m.add("Mul", logarithm, number(0.999)))


def log_with_another_maximum(m: Model) -> None:
    largest = m.add("ReduceMax", "x", np.array([1]), keepdims=1)
    power = m.add("Exp", m.add("Sub", "x", largest))
    m.add("Sub", "x", m.add("Add", largest, m.add("Log", total(m, power, LAST))))


@pytest.mark.parametrize("near_miss", [log_of_a_smaller_share, log_with_another_maximum])
def test_a_near_miss_is_no_log_softmax(near_miss):
    model = Model(4, 4)
    near_miss(model)
    assert "log softmax" not in functions(network_of(model))
    with pytest.raises(CertifierError):
        bounded(network_of(model))


def test_a_maximum_over_other_entries_is_not_left_out():
    """Softmax of x less the maximum over another axis is softmax of that difference: both parts count."""
    model = Model(3, 3)
    power = model.add("Exp", shifted(model, np.array([1])))
    model.add("Div", power, total(model, power))
    assert certify_model(model).certificate.lipschitz.upper > 0.5


@pytest.mark.parametrize("kind", [SmallSoftmax, SmallLogSoftmax])
def test_without_the_maximum_an_engine_is_bounded_for_moderate_entries_only(kind):
    function = kind(name="s", before=1, count=3, after=1)
    x = np.array([[1.0, -2.0, 63.0], [1.0, -2.0, 80.0], [-80.0, 0.0, 1.0]])
    zero, output = np.zeros_like(x), function.evaluate(x)
    single = function.stray(x, zero, output, PRECISIONS["float32"])
    assert np.isfinite(single[0]).all() and np.isinf(single[1:]).all()
    assert np.isinf(function.stray(x, zero + 2, output, PRECISIONS["float32"])).all()
    assert np.isfinite(function.stray(x, zero, output, REFERENCE)).all()
