"""Sigmoid, SiLU and GELU spelled by exponentials, quotients and 1 - erf; near-misses stay refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from certifier.elementwise import GELU_SLOPES, SILU_SLOPES
from certifier.errors import UnsupportedNode
from tests.building import Model, certify_model
from tests.certifier.patterns.checking import assert_bound, functions, network_of

ROOT = float(np.float32(np.sqrt(0.5)))


def number(value: float) -> np.ndarray:
    return np.array(value, dtype=np.float64)


def power(m: Model, rate: float) -> str:
    """1 + exp(-rate x)."""
    return m.add("Add", m.add("Exp", m.add("Mul", "x", number(-rate))), number(1))


def sigmoid_by_quotient(m: Model) -> None:
    m.add("Div", number(1), m.add("Add", number(1), m.add("Exp", m.add("Neg", "x"))))


def sigmoid_by_reciprocal(m: Model) -> None:
    m.add("Reciprocal", power(m, 2.0))


def sigmoid_of_a_quotient(m: Model) -> None:
    m.add("Div", number(3), m.add("Add", m.add("Exp", m.add("Div", "x", number(-4))), number(1)))


SIGMOIDS = [(sigmoid_by_quotient, 0.25), (sigmoid_by_reciprocal, 0.5), (sigmoid_of_a_quotient, 3 / 16)]


@pytest.mark.parametrize(("spelling", "slope"), SIGMOIDS)
def test_a_sigmoid_in_steps_has_the_slope_of_a_sigmoid(spelling: Callable[[Model], None], slope: float) -> None:
    model = Model(5)
    spelling(model)
    assert functions(network_of(model)) == ["sigmoid"]
    assert_bound(model, slope)


def silu_by_quotient(m: Model) -> None:
    m.add("Div", "x", power(m, 1.0))


def silu_by_reciprocal(m: Model) -> None:
    m.add("Mul", m.add("Reciprocal", power(m, 1.0)), "x")


def silu_by_a_gate(m: Model) -> None:
    m.add("Mul", "x", m.add("Div", number(1), power(m, 1.0)))


def gelu_by_the_complement(m: Model) -> None:
    """x/2 erfc(-x/√2), where there is no operator for erfc."""
    rest = m.add("Sub", number(1), m.add("Erf", m.add("Mul", "x", number(-ROOT))))
    m.add("Mul", m.add("Mul", "x", number(0.5)), rest)


OTHERS = [
    (silu_by_quotient, "swish", SILU_SLOPES[1]),
    (silu_by_reciprocal, "swish", SILU_SLOPES[1]),
    (silu_by_a_gate, "swish", SILU_SLOPES[1]),
    (gelu_by_the_complement, "gelu", GELU_SLOPES[1]),
]


@pytest.mark.parametrize(("spelling", "name", "slope"), OTHERS)
def test_gates_in_steps_have_the_slopes_of_their_functions(
    spelling: Callable[[Model], None], name: str, slope: float
) -> None:
    model = Model(5)
    spelling(model)
    assert functions(network_of(model))[-1] == name
    assert_bound(model, slope)


def falling(m: Model) -> None:
    """1 / (1 - exp(-x)) has a pole."""
    m.add("Reciprocal", m.add("Sub", number(1), m.add("Exp", m.add("Neg", "x"))))


def other_offset(m: Model) -> None:
    """Another number than 1 beside the exponential."""
    m.add("Reciprocal", m.add("Add", m.add("Exp", m.add("Neg", "x")), number(2)))


def read_elsewhere(m: Model) -> None:
    """The exponential is an addend of the output as well."""
    rest = m.add("Exp", m.add("Neg", "x"))
    m.add("Add", m.add("Reciprocal", m.add("Add", rest, number(1))), rest)


def softplus(m: Model) -> None:
    """log(1 + exp(x)) overflows in single precision where softplus does not."""
    m.add("Log", power(m, -1.0))


@pytest.mark.parametrize("spelling", [falling, other_offset, read_elsewhere, softplus])
def test_what_only_looks_alike_is_refused(spelling: Callable[[Model], None]) -> None:
    model = Model(5)
    spelling(model)
    with pytest.raises(UnsupportedNode):
        certify_model(model)
