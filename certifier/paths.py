"""How a value of a network hangs together linearly: the paths of affine maps between it and its nonlinear sources.

An *anchor* is the network's input, the output of a nonlinear term, or a value that is named one.  Between anchors
everything is affine, so a value is sum_a A_a z_a + b over its anchors; `expand` gives the A_a with all paths from the
same anchor added up, and `chain` only walks back to the nearest place where several sources meet.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from certifier.flow import Network
from certifier.operators import Identity, Operator, Sum, compose
from certifier.terms import Affine, Term

MAXIMAL_PATHS = 32
"""Beyond this many paths into one value they are no longer followed one by one; the step-wise bound remains."""


@dataclass(frozen=True, kw_only=True)
class Chain:
    """value = operator(source) + offset; `name` is that of the heaviest node on the way."""

    source: str
    operator: Operator
    name: str


class Paths:
    """The affine structure of one network."""

    def __init__(self, network: Network, anchors: Collection[str]) -> None:
        """`anchors` are affine values that are not to be looked through."""
        self.anchors = anchors
        self.producers: Mapping[str, Term] = {term.output: term for term in network.terms}
        self.input = network.input.name
        self.sizes = network.sizes

    def affine(self, value: str) -> Affine | None:
        """The affine term that computes `value`, or None for an anchor."""
        term = self.producers.get(value)
        return term if isinstance(term, Affine) and value not in self.anchors else None

    def chain(self, value: str) -> Chain:
        """The longest run of single-source affine maps that ends at `value`."""
        operators: list[Operator] = []
        name, heaviest = "", -1
        while (term := self.affine(value)) is not None and len(term.sources) == 1:
            operators.append(term.operators[0])
            if term.operators[0].fan_in > heaviest:
                name, heaviest = term.name, term.operators[0].fan_in
            value = term.sources[0]
        operator = compose(operators[::-1]) if operators else Identity(self.sizes[value])
        return Chain(source=value, operator=operator, name=name)

    def parts(self, value: str) -> list[Chain]:
        """The chains that meet in the many-source affine term of `value`, each with the term's own map on top."""
        term = self.affine(value)
        assert term is not None and len(term.sources) > 1
        chains = []
        for source, operator in zip(term.sources, term.operators, strict=True):
            below = self.chain(source)
            chains.append(
                Chain(
                    source=below.source,
                    operator=compose([below.operator, operator]),
                    name=below.name or term.name,
                )
            )
        return chains

    def expand(self, value: str) -> list[Chain] | None:
        """Every anchor below `value` with the sum of all paths from it, or None if there are too many paths."""
        collected: dict[str, list[Chain]] = {}
        pending = [Chain(source=value, operator=Identity(self.sizes[value]), name="")]
        paths = 0
        while pending:
            current = pending.pop()
            term = self.affine(current.source)
            if term is None:
                collected.setdefault(current.source, []).append(current)
                paths += 1
                if paths > MAXIMAL_PATHS:
                    return None
                continue
            if len(pending) > MAXIMAL_PATHS:
                return None
            for source, operator in zip(term.sources, term.operators, strict=True):
                pending.append(
                    Chain(
                        source=source,
                        operator=compose([operator, current.operator]),
                        name=current.name or (term.name if operator.fan_in else ""),
                    )
                )
        return [_merge(anchor, chains) for anchor, chains in collected.items()]


def _merge(anchor: str, chains: list[Chain]) -> Chain:
    if len(chains) == 1:
        return chains[0]
    name = next((chain.name for chain in chains if chain.name), "")
    return Chain(source=anchor, operator=Sum([chain.operator for chain in chains]), name=name)
