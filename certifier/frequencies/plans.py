"""network -> forms on frequencies of its parts, and the order in which each is proved.

A part leads from one value, the origin, to another, its end, that depends on nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from certifier.bounds.comparators import with_comparators
from certifier.flow import Network
from certifier.frequencies.lowering import Lowered, lower
from certifier.frequencies.scheduling import Schedule, scheduled
from certifier.frequencies.views import NotCovered
from certifier.operators import Adjoint, Composed, Convolution, Operator
from certifier.proof.norms import ProvedNorms
from certifier.proof.rounding import Float
from certifier.terms import Affine
from certifier.witness import JSON


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """A form on frequencies of the part from an origin to an end, with the order of its proof."""

    end: str
    lowered: Lowered
    schedule: Schedule

    @property
    def origin(self) -> str:
        return self.lowered.origin

    @property
    def header(self) -> dict[str, JSON]:
        tori: list[JSON] = [list(segment.sizes) for segment in self.schedule.segments]
        return {"origin": self.origin, "end": self.end, "tori": tori, "cuts": list(self.lowered.cuts)}

    def by_channel(self, weights: Float) -> Float:
        """Of pairs of channels of the last signal, added up where several outputs are entries of one."""
        signal, indices = self.lowered.output.signal, self.lowered.output.all_indices
        result = np.zeros((signal.channels, signal.channels))
        channel = indices // signal.points
        np.add.at(result, (channel[:, None], channel[None, :]), weights)
        return result


class Planner:
    """The plans of one network, each made once; `norms` proves the norms of terms that have no form on a torus."""

    def __init__(self, network: Network, norms: ProvedNorms) -> None:
        self.network, self.norms = network, norms
        self._compared = with_comparators(network)
        self._made: dict[tuple[str, str], Plan | NotCovered] = {}

    def plan(self, origin: str, end: str) -> Plan:
        """The plan from one value to another; of an end that is not the network's output nothing but its norm.

        Raises: NotCovered; NotProved where a norm that is needed is not proved.
        """
        made = self._made.get((origin, end))
        if made is None:
            try:
                self._demand_values(origin, end)
                made = self._planned(origin, end)
            except NotCovered as error:
                made = error
            self._made[origin, end] = made
        if isinstance(made, NotCovered):
            raise made
        return made

    def _demand_values(self, *names: str) -> None:
        """Parts lead between values of the network itself, not between those inside of its comparators."""
        for name in names:
            if name not in self.network.sizes:
                raise NotCovered(f"the network has no value {name!r}")

    def _planned(self, origin: str, end: str) -> Plan:
        lowered = lower(part(self._compared, origin, end), origin, self.norms.norm_upper)
        return Plan(end=end, lowered=lowered, schedule=scheduled(lowered, norm_only=end != self.network.output))


def part(network: Network, origin: str, end: str) -> Network:
    """The network from the value `origin` to the value `end`.

    Raises: NotCovered where the end depends on something else too, or not on the origin.
    """
    producers = {term.output: term for term in network.terms}
    if end == origin or end not in producers:
        raise NotCovered(f"nothing leads from {origin!r} to {end!r}")
    wanted, pending = set[str](), [end]
    while pending:
        value = pending.pop()
        if value == origin or value in wanted:
            continue
        if value not in producers:
            raise NotCovered(f"{end!r} also depends on what lies before {origin!r}")
        wanted.add(value)
        pending.extend(producers[value].sources)
    terms = tuple(term for term in network.terms if term.output in wanted)
    shape = network.input.shape if origin == network.input.name else producers[origin].shape
    start = replace(network.input, name=origin, shape=shape)
    return replace(network, input=start, output=end, output_shape=producers[end].shape, terms=terms)


def spine(network: Network) -> list[str]:
    """The input, every value that all that follows goes through, and the output."""
    values, alive = [network.input.name], {network.input.name}
    for position, term in enumerate(network.terms):
        alive.add(term.output)
        alive -= {value for value in alive if network.last_reader.get(value, -1) <= position and value != term.output}
        if alive == {term.output}:
            values.append(term.output)
    return values


def convolutions(network: Network) -> Iterator[str]:
    """The values that convolutions compute, in order."""
    for term in network.terms:
        if isinstance(term, Affine) and any(_convolves(operator) for operator in term.operators):
            yield term.output


def _convolves(operator: Operator) -> bool:
    if isinstance(operator, Composed):
        return any(_convolves(part) for part in operator.parts)
    return isinstance(operator, Convolution) or (isinstance(operator, Adjoint) and _convolves(operator.operator))
