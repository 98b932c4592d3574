"""Functions of unbounded slope: a constant only on bounded ranges, which `certifier.ranges` finds or refuses."""

from __future__ import annotations

import numpy as np

from certifier import steep
from certifier.operators import Diagonal
from certifier.rules.building import activation, linear
from certifier.rules.registry import Site, rule
from certifier.terms import Term


@rule("Exp", since=(6, 13))
def exponential(site: Site) -> tuple[Term, ...]:
    """e^x; slope e^x, bounded where x is bounded above."""
    return (activation(site, steep.exponential()),)


@rule("Log", since=(6, 13))
def logarithm(site: Site) -> tuple[Term, ...]:
    """log x; slope 1/x, bounded where x is bounded away from zero."""
    return (activation(site, steep.logarithm()),)


@rule("Sqrt", since=(6, 13))
def square_root(site: Site) -> tuple[Term, ...]:
    """√x; slope 1/(2√x), bounded where x is bounded away from zero."""
    return (activation(site, steep.square_root()),)


@rule("Reciprocal", since=(6, 13))
def reciprocal(site: Site) -> tuple[Term, ...]:
    """1/x; slope -1/x², bounded where x is bounded away from zero."""
    return (activation(site, steep.reciprocal()),)


def scaled_reciprocal(site: Site, factor: np.ndarray, shape: tuple[int, ...]) -> tuple[Term, ...]:
    """c/x for a constant c that broadcasts to x of the same shape as the result."""
    if site.shape(1) != shape:
        raise site.refuse("a constant divided by a smaller value that depends on the input is not supported")
    inverse = f"{site.node.outputs[0]}/inverse"
    scale = Diagonal(np.broadcast_to(factor, shape).reshape(-1), weight_error=0.0)
    return (
        activation(site, steep.reciprocal(), index=1, output=inverse),
        linear(site, scale, shape=shape, source=inverse),
    )


def constant_power(site: Site, exponent: float, shape: tuple[int, ...]) -> tuple[Term, ...]:
    """x^p for one number p other than 0 and 1."""
    if site.shape(0) != shape:
        raise site.refuse("a power that also broadcasts is not supported")
    try:
        function = steep.power(exponent)
    except ValueError as error:
        raise site.refuse(str(error)) from None
    return (activation(site, function),)
