"""Arithmetic rules mean what ONNX says under every broadcast, keep to their stray, and refuse by reason."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from certifier.errors import UnsupportedNode
from certifier.operators import Rearrange
from certifier.rules import registry
from certifier.terms import Activation, Affine, Contraction
from tests.certifier.rules.one_node import OneNode, of_one_value, single

RNG = np.random.default_rng(0)
BINARY = ("Add", "Sub", "Mul", "Div")
VARIADIC = ("Sum", "Mean", "Max", "Min")
OPSETS = {"Add": (7, 13, 14), "Sub": (7, 13, 14), "Mul": (7, 13, 14), "Div": (7, 13, 14)}
OPSETS |= {"Sum": (7, 8, 13), "Mean": (7, 8, 13), "Max": (7, 8, 12, 13), "Min": (7, 8, 12, 13)}
SHAPES = [
    ((1, 3, 4), (1, 3, 4)),
    ((1, 3, 4), (4,)),
    ((1, 3, 4), (3, 1)),
    ((1, 3, 4), ()),
    ((1, 3, 1), (1, 1, 4)),
    ((4,), (1, 3, 4)),
    ((1, 1), (1, 3, 4)),
    ((1, 3, 4), (1, 1, 1)),
]


def node_of(operator: str, opset: int, operands: list[tuple[str, tuple[int, ...]]], constants: set[int]) -> OneNode:
    """Operands `(name, shape)` in order; those numbered in `constants` get random values away from zero."""
    fixed = {}
    for index in constants:
        name, shape = operands[index]
        values = RNG.uniform(0.3, 2.0, size=shape) * RNG.choice([-1.0, 1.0], size=shape)
        fixed[name] = single(values)
    return OneNode(
        operator=operator,
        opset=opset,
        inputs=tuple(name for name, _ in operands),
        shapes={name: shape for index, (name, shape) in enumerate(operands) if index not in constants},
        constants=fixed,
        attributes={},
    )


def reference(node: OneNode, values: dict[str, np.ndarray]) -> np.ndarray:
    """The ONNX reference, whose Mean adds into its first operand and so cannot broadcast that one."""
    if node.operator != "Mean":
        return node.reference(values)
    known = {**values, **node.constants}
    return np.mean(np.broadcast_arrays(*(known[name] for name in node.inputs)), axis=0)


def check(node: OneNode) -> None:
    """Value, shape and stray on ordinary, cancelling and widely scaled inputs."""
    for scale in (1.0, 1e-20, 1e15):
        values = {name: single(RNG.normal(size=shape) * scale) for name, shape in node.shapes.items()}
        values = {name: np.where(RNG.random(value.shape) < 0.2, 0.0, value) for name, value in values.items()}
        value, stray = node.run(values)
        expected, executed = reference(node, values), node.engine(values).astype(np.float64)
        assert value.shape == expected.shape == executed.shape
        # Constants of any size may cancel, so that entries err in proportion to the largest number at hand.
        size = max(scale, np.abs(expected[np.isfinite(expected)]).max(initial=0.0))
        np.testing.assert_allclose(value, expected, rtol=1e-14, atol=1e-14 * size)
        assert np.isfinite(stray).all()
        assert (np.abs(executed - value) <= stray).all()


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("constant", [0, 1])
@pytest.mark.parametrize("operator", BINARY)
def test_one_live_and_one_constant_operand(operator, constant, shapes):
    if operator == "Div" and constant == 0:
        return  # refused; see below
    for opset in OPSETS[operator]:
        check(node_of(operator, opset, [("a", shapes[0]), ("b", shapes[1])], {constant}))


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("operator", ["Add", "Sub", "Max", "Min", "Sum", "Mean"])
def test_two_live_operands(operator, shapes):
    check(node_of(operator, 13, [("a", shapes[0]), ("b", shapes[1])], set()))


@pytest.mark.parametrize("operator", VARIADIC)
def test_any_number_of_live_and_constant_operands(operator):
    shapes = [(1, 3, 4), (4,), (3, 1), (1, 1, 4)]
    operands = [(name, shape) for name, shape in zip("abcd", shapes, strict=True)]
    for count in (1, 2, 3, 4):
        for constants in itertools.chain.from_iterable(
            itertools.combinations(range(count), size) for size in range(count)
        ):
            check(node_of(operator, 13, operands[:count], set(constants)))


@pytest.mark.parametrize("operator", VARIADIC)
def test_older_versions_of_variadic_operators(operator):
    for opset in OPSETS[operator]:
        check(node_of(operator, opset, [("a", (1, 5)), ("b", (1, 5)), ("c", (1, 5))], {1}))


@pytest.mark.parametrize(("operator", "opset"), [("Neg", 7), ("Neg", 13)])
def test_negation(operator, opset):
    check(of_one_value(operator, opset, (1, 3, 4), {}))


@pytest.mark.parametrize("opset", [7, 12, 13, 15])
def test_first_power_is_the_identity(opset):
    node = of_one_value("Pow", opset, (1, 3, 1), {}, np.ones((1, 4)))
    x = {"x": single(RNG.normal(size=(1, 3, 1)))}
    np.testing.assert_array_equal(node.evaluate(x), np.broadcast_to(x["x"], (1, 3, 4)))


@pytest.mark.parametrize(("operator", "expected"), [("Add", 2.0), ("Sub", 0.0)])
def test_the_same_operand_twice_is_two_parts(operator, expected):
    node = OneNode(operator=operator, opset=14, inputs=("a", "a"), shapes={"a": (1, 6)}, constants={}, attributes={})
    (term,) = node.terms()
    assert isinstance(term, Affine) and term.sources == ("a", "a") and len(term.operators) == 2
    x = {"a": single(RNG.normal(size=(1, 6)))}
    np.testing.assert_array_equal(node.evaluate(x), expected * x["a"])


def test_a_broadcast_live_operand_is_counted_as_often_as_it_is_read():
    (term,) = node_of("Add", 14, [("a", (1, 1, 4)), ("b", (1, 3, 4))], {1}).terms()
    assert isinstance(term, Affine)
    (operator,) = term.operators
    assert isinstance(operator, Rearrange)
    np.testing.assert_array_equal(operator.counts, np.full(4, 3))


def test_the_stack_of_an_extreme_has_disjoint_rows_and_moves_numbers_only():
    stacked, chosen = node_of("Max", 13, [("a", (1, 1, 4)), ("b", (1, 3, 4))], set()).terms()
    assert isinstance(stacked, Affine) and stacked.arrangement == "stack" and stacked.is_exact
    assert isinstance(chosen, Contraction) and chosen.function.constant_upper == 1.0
    ones = [operator.absolute().forward(np.ones((1, operator.columns))) for operator in stacked.operators]
    assert not np.any(ones[0] * ones[1])


@pytest.mark.parametrize("operator", ["Max", "Min"])
def test_an_extreme_never_expands_and_pulls_back_to_the_chosen(operator):
    terms = node_of(operator, 13, [("a", (1, 3)), ("b", (1, 3)), ("c", (1, 3))], set()).terms()
    function = next(term for term in terms if isinstance(term, Contraction)).function
    x, y = RNG.normal(size=(500, 9)), RNG.normal(size=(500, 9))
    moved = np.linalg.norm(function.evaluate(x) - function.evaluate(y), axis=1)
    assert (moved <= np.linalg.norm(x - y, axis=1)).all()
    gradient = RNG.normal(size=(500, 3))
    np.testing.assert_allclose(
        (function.pullback(gradient, x) * x).sum(axis=1), (gradient * function.evaluate(x)).sum(axis=1)
    )


def test_a_constant_bound_is_one_exact_activation():
    (term,) = node_of("Min", 13, [("a", (1, 3)), ("b", (3,)), ("c", ())], {1, 2}).terms()
    assert isinstance(term, Activation)
    assert (term.function.slope_lower, term.function.slope_upper, term.function.ulps) == (0.0, 1.0, 0.0)


def test_division_states_the_error_of_its_inverse_unless_it_is_exact():
    for divisor, error in ((3.0, 2.0**-52), (8.0, 0.0), (-0.5, 0.0)):
        (term,) = of_one_value("Div", 14, (1, 4), {}, np.array(divisor)).terms()
        assert isinstance(term, Affine)
        assert term.operators[0].weight_error == error


def live(operator: str) -> OneNode:
    return node_of(operator, 13, [("a", (1, 3)), ("b", (1, 3))], set())


REFUSED = [
    (of_one_value("Div", 14, (1, 3), {}, np.array([1.0, 0.0, 2.0])), "division by zero"),
    (of_one_value("Div", 14, (1, 3), {}, np.array(np.inf)), "NaN or infinite"),
    (of_one_value("Mul", 14, (1, 3), {}, np.array(np.nan)), "NaN or infinite"),
    (of_one_value("Add", 14, (1, 3), {}, np.array([np.inf, 0, 0])), "NaN or infinite"),
    (of_one_value("Max", 13, (1, 3), {}, np.array(np.nan)), "NaN or infinite"),
    (of_one_value("Add", 14, (1, 3), {}, np.zeros(4)), "do not broadcast"),
    (live("Pow"), "exponent"),
]


@pytest.mark.parametrize(("node", "reason"), REFUSED)
def test_refusals_name_the_node_and_the_reason(node, reason):
    with pytest.raises(UnsupportedNode, match=reason) as caught:
        node.terms()
    assert caught.value.node == "node" and caught.value.operator == node.operator


def test_every_version_in_the_support_table_has_a_case():
    cases = [(operator, opset) for operator, opsets in OPSETS.items() for opset in opsets]
    cases += [("Neg", 7), ("Neg", 13), ("Pow", 7), ("Pow", 12), ("Pow", 13), ("Pow", 15)]
    tested = {(operator, of_one_value(operator, opset, (1,), {}).since) for operator, opset in cases}
    operators = {operator for operator, _ in cases}
    listed = {
        (entry.operator, int(version))
        for entry in registry.support()
        if entry.operator in operators
        for version in entry.versions.split(", ")
    }
    assert listed == tested
