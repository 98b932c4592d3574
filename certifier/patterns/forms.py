"""Scalar sub-graphs as exact formulas: a polynomial in x, or c x^p (offset + f(polynomial)).

Whatever the spelling, one function has one form.  Sums that could cancel are not forms, because the rounding of a
pattern is granted relative to its value: monomials never merge, and only 1 is added to a function's value.  What is
left of an exponential that overflows is 0, as it is of the sigmoid that it spells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from certifier.errors import UnsupportedNode
from certifier.graph import Node
from certifier.patterns.matching import Surroundings, hard_sigmoid_attributes
from certifier.rules import registry

Function = Literal["erf", "exp", "tanh", "sigmoid", "softplus", "tanh of softplus", "clip"]
DEGREE = 3
LARGEST_CONSTANT = 2**10
LARGEST_INNER = 2**6
"""What x may be multiplied by on the way; `certifier.proof.following` counts on it for overflow."""
NODES = 12
"""The longest spelling, so that the roundings of a match are few."""


@dataclass(frozen=True)
class Polynomial:
    """Σ coefficients[p] x^p, with no coefficient zero."""

    coefficients: Mapping[int, Fraction]

    @property
    def monomial(self) -> tuple[int, Fraction] | None:
        """(power, coefficient) of a single summand."""
        return next(iter(self.coefficients.items())) if len(self.coefficients) == 1 else None

    @property
    def number(self) -> Fraction | None:
        """The value of a constant polynomial."""
        return self.coefficients[0] if set(self.coefficients) == {0} else None


@dataclass(frozen=True)
class Called:
    """factor x^power (offset + function(argument)); `clip` is to [0, 1]."""

    factor: Fraction
    power: int
    offset: Literal[0, 1]
    function: Function
    argument: Polynomial

    @property
    def is_plain(self) -> bool:
        """function(argument) and nothing else."""
        return self.factor == 1 and self.power == 0 and self.offset == 0


Form = Polynomial | Called
_UNARY: dict[str, Function] = {
    "Erf": "erf",
    "Exp": "exp",
    "Tanh": "tanh",
    "Sigmoid": "sigmoid",
    "Softplus": "softplus",
}


class NoForm(Exception):
    """The sub-graph is none of the formulas."""


class Reader:
    """The form of values as functions of one `source`; `inner` gathers the nodes read."""

    def __init__(self, around: Surroundings, source: str) -> None:
        self.around, self.source = around, source
        self.inner: set[str] = set()
        self._known: dict[str, Form] = {source: Polynomial({1: Fraction(1)})}

    def value(self, name: str) -> Form:
        """The form of a value.  Raises: NoForm."""
        if name in self._known:
            return self._known[name]
        if name in self.around.constants:
            return self._number(name, typed=True)
        node = self.around.inner(name)
        if node is None or len(self.inner) >= NODES:
            raise NoForm
        self.inner.add(name)
        self._known[name] = _moderate(self.node(node))
        return self._known[name]

    def node(self, node: Node) -> Form:
        """The form of a node's output.  Raises: NoForm."""
        try:
            registry.find(node)
        except UnsupportedNode:
            raise NoForm from None
        if node.operator in _UNARY:
            return _call(_UNARY[node.operator], self.value(node.inputs[0]))
        if node.operator == "HardSigmoid":
            slope, shift = (Fraction(value) for value in hard_sigmoid_attributes(node))
            inside = self.value(node.inputs[0])
            if not isinstance(inside, Polynomial) or set(inside.coefficients) != {1}:
                raise NoForm
            return _call("clip", Polynomial({1: slope * inside.coefficients[1], 0: shift}))
        if node.operator == "Clip":
            return self._clip(node)
        if node.operator in ("Add", "Div", "Mul", "Pow", "Sub") and len(node.inputs) != 2:
            raise NoForm
        if node.operator == "Neg":
            return _product(_MINUS_ONE, self.value(node.inputs[0]))
        if node.operator == "Reciprocal":
            return _inverse(self.value(node.inputs[0]))
        if node.operator == "Pow":
            return _power(self.value(node.inputs[0]), self._number(node.inputs[1], typed=False))
        if node.operator in _BINARY:
            first, second = (self.value(name) for name in node.inputs)
            return _BINARY[node.operator](first, second)
        raise NoForm

    def _number(self, name: str, *, typed: bool) -> Polynomial:
        number = self.around.scalar(name, self.source, typed=typed)
        if number is None or not 1 / LARGEST_CONSTANT <= abs(number) <= LARGEST_CONSTANT:
            raise NoForm
        return Polynomial({0: Fraction(number)})

    def _clip(self, node: Node) -> Form:
        """Clip(p, 0, h) = h Clip(p/h, 0, 1)."""
        if node.since >= 11:
            if len(node.inputs) != 3:
                raise NoForm
            ends = [self.around.scalar(name, self.source, typed=True) for name in node.inputs[1:]]
        else:
            ends = [node.attributes.get("min"), node.attributes.get("max")]
        lower, upper = ends
        inside = self.value(node.inputs[0])
        if lower != 0 or not isinstance(upper, float) or not 1 / LARGEST_CONSTANT <= upper <= LARGEST_CONSTANT:
            raise NoForm
        height = Polynomial({0: Fraction(upper)})
        return _product(_call("clip", _quotient(inside, height)), height)


_MINUS_ONE = Polynomial({0: Fraction(-1)})


def _negated(argument: Polynomial) -> Polynomial:
    return Polynomial({power: -each for power, each in argument.coefficients.items()})


def _moderate(form: Form) -> Form:
    """A form whose numbers are not far beyond those of x, nor so small that flushing them counts.  Raises: NoForm."""
    parts = form.coefficients.items() if isinstance(form, Polynomial) else [(form.power, form.factor)]
    if any(power > 0 and not 1 / LARGEST_CONSTANT <= abs(factor) <= LARGEST_INNER for power, factor in parts):
        raise NoForm
    return form


def _call(function: Function, argument: Form) -> Called:
    if isinstance(argument, Called):
        if function != "tanh" or argument.function != "softplus" or not argument.is_plain:
            raise NoForm
        return replace(argument, function="tanh of softplus")
    return Called(Fraction(1), 0, 0, function, argument)


def _sum(first: Form, second: Form) -> Form:
    if isinstance(first, Called) or isinstance(second, Called):
        called, number = (first, second) if isinstance(first, Called) else (second, first)
        if isinstance(called, Called) and isinstance(number, Polynomial) and called.is_plain and number.number == 1:
            return replace(called, offset=1)
        raise NoForm
    if set(first.coefficients) & set(second.coefficients):
        raise NoForm
    return Polynomial({**first.coefficients, **second.coefficients})


def _difference(first: Form, second: Form) -> Form:
    """p - q; and 1 - f(p) = 1 + f(-p) for an odd function."""
    if isinstance(second, Called):
        odd = second.function in ("erf", "tanh") and second.is_plain
        if not odd or not isinstance(first, Polynomial) or first.number != 1:
            raise NoForm
        return replace(second, offset=1, argument=_negated(second.argument))
    return _sum(first, _negated(second))


def _product(first: Form, second: Form) -> Form:
    if isinstance(first, Called):
        first, second = second, first
    if isinstance(first, Called):
        raise NoForm
    if first.monomial is None and isinstance(second, Polynomial):
        first, second = second, first
    if not isinstance(first, Polynomial) or first.monomial is None:
        raise NoForm
    power, factor = first.monomial
    if isinstance(second, Called):
        return replace(second, factor=factor * second.factor, power=_allowed(power + second.power))
    return Polynomial({_allowed(power + other): factor * each for other, each in second.coefficients.items()})


def _quotient(first: Form, second: Form) -> Form:
    return _product(_inverse(second), first)


def _inverse(form: Form) -> Form:
    """1 / c; and 1 / (1 + exp(p)) = sigmoid(-p)."""
    if isinstance(form, Called):
        if form.function != "exp" or form.offset != 1 or form.power != 0 or form.factor != 1:
            raise NoForm
        return Called(Fraction(1), 0, 0, "sigmoid", _negated(form.argument))
    if form.number is None:
        raise NoForm
    return Polynomial({0: 1 / form.number})


def _power(base: Form, exponent: Polynomial) -> Form:
    if not isinstance(base, Polynomial) or base.monomial is None or exponent.number not in (2, 3):
        raise NoForm
    power, factor = base.monomial
    count = int(exponent.number)
    return Polynomial({_allowed(power * count): factor**count})


def _allowed(power: int) -> int:
    if power > DEGREE:
        raise NoForm
    return power


_BINARY: dict[str, Callable[[Form, Form], Form]] = {
    "Add": _sum,
    "Div": _quotient,
    "Mul": _product,
    "Sub": _difference,
}
