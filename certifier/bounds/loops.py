"""The loop transformation: every activation becomes its mean slope and a remainder of half the slope's width.

φ(y) = m y + ψ(y) with ψ of slopes in [-η, η], m = (α+β)/2, η = (β-α)/2, is an identity, so a network rewritten with it
computes the same function; the product bound then adds up, for every remainder, the paths from it through the linear
parts.  For [0, 1] slopes in a chain that is the bound of Fazlyab et al. (2023).

Nothing rests on m: any m with [α - m, β - m] as the remainder's slopes, rounded outward, is sound.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from certifier.flow import Network, unused
from certifier.operators import Diagonal, Identity
from certifier.terms import Activation, Affine, Elementwise, Term


def loop_transformed(network: Network) -> Network:
    """The same function with every activation of two-sided slopes split; only its constants are to be used."""
    terms: list[Term] = []
    taken = {network.input.name, *(term.output for term in network.terms)}
    for term in network.terms:
        if isinstance(term, Activation):
            remainder = unused(f"{term.output} (remainder)", taken)
            terms += _split(term, remainder)
        else:
            terms.append(term)
    return replace(network, terms=tuple(terms))


def _split(term: Activation, remainder: str) -> list[Term]:
    size = int(np.prod(term.shape))
    lower = np.broadcast_to(np.asarray(term.function.slope_lower, dtype=np.float64), (size,))
    upper = np.broadcast_to(np.asarray(term.function.slope_upper, dtype=np.float64), (size,))
    middle = lower / 2 + upper / 2
    function = term.function
    rest = Elementwise(
        name=f"{function.name} minus its mean slope",
        evaluate=lambda x: function.evaluate(x) - middle * x,
        derivative=lambda x: function.derivative(x) - middle,
        slope_lower=np.nextafter(lower - middle, -np.inf),
        slope_upper=np.nextafter(upper - middle, np.inf),
        ulps=np.inf,
        absolute_ulps=np.inf,
    )
    return [
        replace(term, output=remainder, function=rest),
        Affine(
            name=term.name,
            operator=term.operator,
            sources=(term.sources[0], remainder),
            output=term.output,
            shape=term.shape,
            dtype=term.dtype,
            operators=(Diagonal(middle, weight_error=0.0), Identity(size)),
            offset=None,
            offset_magnitude=None,
            arrangement="sum",
            roundings=0,
            swelling=1.0,
            amplification=1.0,
        ),
    ]
