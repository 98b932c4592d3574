"""Products, quotients and powers of live values mean what ONNX says and keep to their stray."""

from __future__ import annotations

import numpy as np
import pytest

from certifier.errors import UnsupportedNode
from certifier.products import Bilinear
from tests.certifier.rules.one_node import OneNode
from tests.certifier.rules.oracle import Case, case, check

RNG = np.random.default_rng(3)


def single(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return (np.abs(RNG.standard_normal(shape)) + 0.5).astype(np.float32)


def of_two(operator: str, opset: int, first: np.ndarray, second: np.ndarray) -> Case:
    return Case(
        operator=operator, opset=opset, inputs={"x": first, "z": second}, live=("x", "z"), outputs=("y",), attributes={}
    )


BROADCASTS = [
    ((1, 3, 4), (1, 3, 4)),
    ((1, 3, 4), (1, 3, 1)),
    ((1, 1), (1, 3, 4)),
    ((1, 3, 1), (1, 1, 4)),
    ((4,), (1, 4)),
]


@pytest.mark.parametrize(("first", "second"), BROADCASTS)
@pytest.mark.parametrize("opset", [7, 13, 14])
def test_entrywise_products_and_quotients(first, second, opset):
    check(of_two("Mul", opset, single(*first), single(*second)))
    check(of_two("Div", opset, single(*first), positive(*second)))


MATRICES = [
    ((1, 3, 4), (1, 4, 2)),
    ((1, 2, 3, 4), (1, 2, 4, 5)),
    ((1, 2, 3, 4), (4, 5)),
    ((1, 1, 3, 4), (1, 2, 4, 5)),
    ((4,), (1, 4, 2)),
    ((1, 3, 4), (4,)),
    ((4,), (4,)),
]


@pytest.mark.parametrize(("first", "second"), MATRICES)
def test_matrix_products(first, second):
    (term,) = check(of_two("MatMul", 13, single(*first), single(*second)))
    assert isinstance(term, Bilinear) and term.factors is None


def test_a_square_reads_one_value_twice():
    site_inputs = OneNode(
        operator="Mul", opset=14, inputs=("x", "x"), shapes={"x": (1, 5)}, constants={}, attributes={}
    )
    (term,) = site_inputs.terms()
    assert isinstance(term, Bilinear) and term.sources == ("x", "x")
    x = RNG.standard_normal((1, 5))
    np.testing.assert_array_equal(term.evaluate(x, x), x * x)


@pytest.mark.parametrize(
    ("operator", "opsets"), [("Exp", (6, 13)), ("Log", (6, 13)), ("Sqrt", (6, 13)), ("Reciprocal", (6, 13))]
)
def test_functions_of_unbounded_slope(operator, opsets):
    for opset in opsets:
        check(case(operator, opset, positive(1, 6)))


@pytest.mark.parametrize("exponent", [2.0, 3.0, 4.0, 7.0, 0.5, -0.5, -1.0, -2.0, 1.5])
def test_constant_powers(exponent):
    check(case("Pow", 15, positive(1, 6), np.array([exponent], dtype=np.float32)))


@pytest.mark.parametrize("exponent", [2.0, 3.0])
def test_whole_powers_of_negative_values(exponent):
    check(case("Pow", 15, single(1, 6), np.array([exponent], dtype=np.float32)))


def test_a_constant_over_a_live_value():
    divisor = positive(1, 6)
    node = Case(
        operator="Div",
        opset=14,
        inputs={"c": single(1, 6), "x": divisor},
        live=("x",),
        outputs=("y",),
        attributes={},
    )
    check(node)


@pytest.mark.parametrize(
    ("exponent", "reason"),
    [
        (np.array([0.0], dtype=np.float32), "makes no power function"),
        (np.array([np.nan], dtype=np.float32), "makes no power function"),
        (np.array([65.0], dtype=np.float32), "not supported"),
        (np.array([1.0, 2.0], dtype=np.float32), "one exponent"),
    ],
)
def test_other_powers_are_refused(exponent, reason):
    with pytest.raises(UnsupportedNode, match=reason):
        case("Pow", 15, single(1, 2), exponent).terms()


def test_matrices_that_do_not_fit_are_refused():
    with pytest.raises(UnsupportedNode, match="do not match"):
        of_two("MatMul", 13, single(1, 3, 4), single(1, 3, 4)).terms()
    with pytest.raises(UnsupportedNode, match="do not broadcast"):
        of_two("MatMul", 13, single(3, 3, 4), single(2, 4, 4)).terms()
