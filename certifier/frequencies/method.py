"""The method as the ladder of bounds calls it: can it be used, search for a witness, check one.

Where the beginning of a network has no form on a torus, a value behind it is the origin: its own Lipschitz constant, by
the product of norms, stands for everything before, and multiplies what is proved from there on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from certifier.bounds.product import ProductBound
from certifier.certificates import Constants
from certifier.errors import NotProved
from certifier.flow import Network
from certifier.frequencies.lowering import Lowered, NormUpper, lower
from certifier.frequencies.scheduling import Schedule, scheduled
from certifier.frequencies.views import NotCovered
from certifier.norms import Norms
from certifier.operators import Adjoint, Composed, Convolution, Operator
from certifier.proof.frequency.checking import prove
from certifier.proof.frequency.steps import Bound
from certifier.proof.readout import MAXIMAL_OUTPUTS, MAXIMAL_PAIR_OUTPUTS
from certifier.proof.rounding import TINY, Float, add_upper, mul_upper, norm_upper, sqrt_upper
from certifier.search.frequency import Found, Wish, descend
from certifier.terms import Activation, Affine
from certifier.witness import JSON, Witness

METHOD = "frequency"
Progress = Callable[[float], None]
"""Called with the share of the search that is done."""

ATTEMPTS = 16
"""Origins that are tried, from the front."""
WORK_A_SECOND = 2.0e9
"""Products of complex numbers that a proof gets through in a second of one core, for the estimate of its time."""
SQRT2_UPPER = float(sqrt_upper(2.0))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Plan:
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


def covers(network: Network) -> str | None:
    """None if the method can bound the network, or in words why it cannot."""
    try:
        next(_plans(network, lambda operator, name: 1.0))
    except NotCovered as error:
        return str(error)
    return None


def search(
    network: Network,
    product: ProductBound,
    *,
    seconds: float,
    seed: int,
    progress: Progress | None = None,
    weights: Float | None = None,
    start: Witness | None = None,
) -> Witness:
    """The best witness found in about `seconds`; nothing rests on it, `check` proves or refuses it.

    `weights` says how much each pair of outputs matters (None: all alike), `start` is a witness of this network or one
    like it.  The search is a descent from a fixed start, so `seed` changes nothing.
    Shapes: weights (c, c), symmetric.
    Raises: NotProved where the network is not covered, or a proof would take longer than the search may.
    """
    del seed
    report = progress or (lambda share: None)
    plans = _affordable(network, product.norms.norm_upper, max(seconds, 1.0))
    chosen, least = plans[0], math.inf
    for plan in plans if len(plans) > 1 else ():
        # Where a descent begins tells which of the two will end lower, nearly always.
        found = _descended(plan, weights, start, 0.0, report)
        estimate = found.estimate + math.log(max(_before(plan, network, product), TINY))
        if estimate < least:
            chosen, least = plan, estimate
    found = _descended(chosen, weights, start, seconds, report)
    return Witness(method=METHOD, header=chosen.header, arrays=found.arrays)


def check(network: Network, witness: Witness, norms: Norms) -> Constants:
    """The constants that the witness proves for the network.

    Nothing but the origin's name and the multipliers is taken from the witness; `norms` proves the norms of what lies
    before the origin, and of terms that have no form on a torus.
    Raises: NotProved.
    """
    origin = witness.header.get("origin")
    if witness.method != METHOD or not isinstance(origin, str) or origin not in network.sizes:
        raise NotProved("the witness is not one of this method for this network")
    try:
        plan = _plan(network, origin, norms.norm_upper)
    except NotCovered as error:
        raise NotProved(f"the network is not covered from {origin!r} on: {error}") from error
    if witness.header.get("tori") != plan.tori:
        raise NotProved("the witness was made for other tori")
    # All norms of the network are proved only where one of them is needed.
    before = 1.0 if origin == network.input.name else ProductBound(network, norms).lipschitz_upper(origin)
    return _constants(plan.lowered, prove(plan.schedule.segments, witness), before, network.output_size)


def _descended(plan: _Plan, weights: Float | None, start: Witness | None, seconds: float, report: Progress) -> Found:
    is_alike = start is not None and start.method == METHOD and start.header.get("origin") == plan.lowered.origin
    arrays = start.arrays if start is not None and is_alike else {}
    wish = Wish(weights=None if weights is None else plan.by_channel(weights), start=arrays)
    schedule = plan.schedule
    return descend(schedule.segments, numbers=schedule.numbers, wish=wish, seconds=max(seconds, 0.0), progress=report)


def _before(plan: _Plan, network: Network, product: ProductBound) -> float:
    """The Lipschitz constant of the origin."""
    origin = plan.lowered.origin
    return 1.0 if origin == network.input.name else product.lipschitz_upper(origin)


def _affordable(network: Network, norm_upper: NormUpper, seconds: float) -> list[_Plan]:
    """The first plan whose proof takes no longer than that, and where it has cuts, the first one without.

    Raises: NotProved if there is none.
    """
    plans: list[_Plan] = []
    try:
        for plan in _plans(network, norm_upper):
            if plan.schedule.work > seconds * WORK_A_SECOND or (plans and plan.lowered.cuts):
                continue
            plans.append(plan)
            if not plan.lowered.cuts:
                break
    except NotCovered as error:
        raise NotProved(f"the network has no form on frequencies: {error}") from error
    if not plans:
        raise NotProved("the proof on frequencies would take longer than the search may")
    return plans


def _plan(network: Network, origin: str, norm_upper: NormUpper) -> _Plan:
    lowered = lower(network, origin, norm_upper)
    return _Plan(lowered=lowered, schedule=scheduled(lowered))


def _plans(network: Network, norm_upper: NormUpper) -> Iterator[_Plan]:
    """From every origin that leads to the output, the front first.

    Raises: NotCovered if there is none.
    """
    reasons: list[str] = []
    found = False
    for attempt, origin in enumerate(_origins(network)):
        if attempt == ATTEMPTS:
            break
        try:
            plan = _plan(network, origin, norm_upper)
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


def _constants(lowered: Lowered, bound: Bound, before: float, count: int) -> Constants:
    """The bound of channels as constants of the network's outputs, in their order, times that of the origin."""
    indices = lowered.output.all_indices
    channel = indices // lowered.output.signal.points
    # An entry that is an output r times counts as often in the norm of all.
    repeats = float(sqrt_upper(float(np.bincount(indices).max())))
    upper = float(mul_upper(mul_upper(bound.upper, repeats), before))
    if count > MAXIMAL_OUTPUTS:
        return Constants(upper=upper, outputs=None, pairs=None)
    outputs = np.minimum(mul_upper(bound.outputs[channel], before), upper)
    upper = min(upper, float(norm_upper(outputs, None)))
    pairs = None
    if count <= MAXIMAL_PAIR_OUTPUTS:
        pairs = np.minimum(add_upper(outputs[:, None], outputs[None, :]), mul_upper(SQRT2_UPPER, upper))
        if bound.pairs is not None:
            pairs = np.minimum(pairs, mul_upper(bound.pairs[np.ix_(channel, channel)], before))
        np.fill_diagonal(pairs, 0.0)
    return Constants(upper=upper, outputs=outputs, pairs=pairs)
