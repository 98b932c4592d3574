"""network -> where a form on frequencies begins, and the order in which it is proved.

Where the beginning of a network has no form on a torus, a value behind it is the origin.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from certifier.flow import Network
from certifier.frequencies.lowering import Lowered, NormUpper, lower
from certifier.frequencies.scheduling import Schedule, scheduled
from certifier.frequencies.views import NotCovered
from certifier.operators import Adjoint, Composed, Convolution, Operator
from certifier.proof.rounding import Float
from certifier.terms import Activation, Affine
from certifier.witness import JSON

ATTEMPTS = 16
"""Origins that are tried, from the front."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """A form on frequencies from an origin on, with the order of its proof."""

    lowered: Lowered
    schedule: Schedule

    @property
    def tori(self) -> list[list[int]]:
        return [list(segment.sizes) for segment in self.schedule.segments]

    @property
    def header(self) -> dict[str, JSON]:
        return {"origin": self.lowered.origin, "tori": self.tori, "cuts": list(self.lowered.cuts)}

    def by_channel(self, weights: Float) -> Float:
        """Of pairs of channels of the last signal, added up where several outputs are entries of one."""
        signal, indices = self.lowered.output.signal, self.lowered.output.all_indices
        result = np.zeros((signal.channels, signal.channels))
        channel = indices // signal.points
        np.add.at(result, (channel[:, None], channel[None, :]), weights)
        return result


def plan_from(network: Network, origin: str, norm_upper: NormUpper) -> Plan:
    """The plan from one origin on.

    Raises: NotCovered.
    """
    lowered = lower(network, origin, norm_upper)
    return Plan(lowered=lowered, schedule=scheduled(lowered))


def plans(network: Network, norm_upper: NormUpper) -> Iterator[Plan]:
    """From every origin that leads to the output, the front first.

    Raises: NotCovered if there is none.
    """
    reasons: list[str] = []
    found = False
    for attempt, origin in enumerate(_origins(network)):
        if attempt == ATTEMPTS:
            break
        try:
            plan = plan_from(network, origin, norm_upper)
        except NotCovered as error:
            reasons.append(f"from {origin!r}: {error}")
            continue
        found = True
        yield plan
    if not found:
        raise NotCovered("; ".join(reasons) or "there is no convolution")


def _origins(network: Network) -> Iterator[str]:
    """The input, then every value that all that follows goes through, as long as a convolution follows."""
    last = max((i for i, term in enumerate(network.terms) if _has_convolution(term)), default=-1)
    if last < 0:
        return
    yield network.input.name
    alive = {network.input.name}
    for position, term in enumerate(network.terms):
        alive.add(term.output)
        alive -= {value for value in alive if network.last_reader.get(value, -1) <= position and value != term.output}
        if alive == {term.output} and position < last and not isinstance(term, Activation):
            yield term.output


def _has_convolution(term: object) -> bool:
    return isinstance(term, Affine) and any(_convolves(operator) for operator in term.operators)


def _convolves(operator: Operator) -> bool:
    if isinstance(operator, Composed):
        return any(_convolves(part) for part in operator.parts)
    return isinstance(operator, Convolution) or (isinstance(operator, Adjoint) and _convolves(operator.operator))
