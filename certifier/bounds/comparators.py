"""Sorting as comparators: differences, their magnitudes, and sums, which multipliers see through.

max(a, b) = (a + b)/2 + |a - b|/2 and min(a, b) = (a + b)/2 - |a - b|/2, so a comparator is affine but for one absolute
value, and a group is sorted by `count` rounds of comparators of neighbours (odd-even transposition).  The rewritten
network computes the same function over the reals: what sorting keeps, the sums, is linear in it, where a constant of
the whole group would forget it.  With equal multipliers a comparator gives ‖Δh‖ <= ‖Δy‖ again: nothing is lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from certifier.elementwise import absolute
from certifier.flow import Network, unused
from certifier.operators import Kronecker
from certifier.terms import Activation, Affine, Contraction, Term
from certifier.vector_functions.extremes import EntrywiseExtreme
from certifier.vector_functions.sorting import Sorted

Floats = NDArray[np.float64]
LARGEST_GROUP = 4
"""Groups up to this size are taken apart; n entries need n(n-1)/2 comparators."""


@dataclass(frozen=True, kw_only=True)
class _Groups:
    """[before, count, after]: the middle axis is sorted, and the first `kept` entries are the result."""

    before: int
    count: int
    after: int
    kept: int
    largest: bool

    @classmethod
    def of(cls, term: Contraction) -> _Groups | None:
        """Those of a term that sorts small groups, or takes the largest or smallest of each."""
        function = term.function
        if isinstance(function, Sorted):
            found = cls(
                before=function.before, count=function.count, after=function.after, kept=function.kept,
                largest=function.largest,
            )  # fmt: skip
        elif isinstance(function, EntrywiseExtreme):
            # `count` vectors, one after the other.
            found = cls(
                before=1, count=function.count, after=math.prod(term.shape), kept=1, largest=function.largest
            )  # fmt: skip
        else:
            return None
        return found if 2 <= found.count <= LARGEST_GROUP else None

    def rounds(self) -> Iterator[tuple[Floats, Floats, Floats]]:
        """(D, P, Q) per round: the next groups are P y + Q |D y|.  Shapes: [p, count], [count, count], [count, p]."""
        for turn in range(self.count):
            pairs = [(first, first + 1) for first in range(turn % 2, self.count - 1, 2)]
            if not pairs:
                continue
            differences = np.zeros((len(pairs), self.count))
            means, shares = np.eye(self.count), np.zeros((self.count, len(pairs)))
            for position, (first, second) in enumerate(pairs):
                differences[position, [first, second]] = 1.0, -1.0
                means[np.ix_([first, second], [first, second])] = 0.5
                shares[[first, second], position] = (0.5, -0.5) if self.largest else (-0.5, 0.5)
            yield differences, means, shares


def with_comparators(network: Network) -> Network:
    """The same function over the reals with small sorted groups as comparators; only its constants are to be used."""
    terms: list[Term] = []
    taken = {network.input.name, *(term.output for term in network.terms)}
    for term in network.terms:
        groups = _Groups.of(term) if isinstance(term, Contraction) else None
        terms += [term] if groups is None or not isinstance(term, Contraction) else _compared(term, groups, taken)
    return replace(network, terms=tuple(terms))


def _compared(term: Contraction, groups: _Groups, taken: set[str]) -> list[Term]:
    terms: list[Term] = []
    now, rounds = term.sources[0], list(groups.rounds())
    for turn, (differences, means, shares) in enumerate(rounds):
        is_last = turn == len(rounds) - 1
        kept = groups.kept if is_last else groups.count
        apart, magnitude, after = (unused(f"{term.output} ({word} {turn})", taken) for word in ("d", "m", "s"))
        after = term.output if is_last else after
        terms += [
            _linear(term, groups, {now: differences}, apart),
            Activation(
                name=term.name,
                operator=term.operator,
                sources=(apart,),
                output=magnitude,
                shape=(groups.before, len(differences), groups.after),
                dtype=term.dtype,
                function=absolute(),
            ),
            _linear(term, groups, {now: means[:kept], magnitude: shares[:kept]}, after),
        ]
        now = after
    return terms


def _linear(term: Contraction, groups: _Groups, parts: dict[str, Floats], output: str) -> Affine:
    operators = [
        Kronecker(matrix, before=groups.before, after=groups.after, weight_error=0.0) for matrix in parts.values()
    ]
    return Affine(
        name=term.name,
        operator=term.operator,
        sources=tuple(parts),
        output=output,
        shape=term.shape if output == term.output else (groups.before, len(next(iter(parts.values()))), groups.after),
        dtype=term.dtype,
        operators=tuple(operators),
        offset=None,
        offset_magnitude=None,
        arrangement="sum",
        roundings=0,
        swelling=1.0,
        amplification=1.0,
    )
