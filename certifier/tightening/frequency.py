"""The search for multipliers on frequencies: which origin to begin from, and a descent.  Untrusted."""

from __future__ import annotations

import math

from certifier.bounds.product import ProductBound
from certifier.errors import NotProved
from certifier.flow import Network
from certifier.frequencies.lowering import NormUpper
from certifier.frequencies.method import METHOD
from certifier.frequencies.plans import Plan, plans
from certifier.frequencies.views import NotCovered
from certifier.limits import Budget
from certifier.proof.rounding import TINY, Float
from certifier.search.frequency import Found, Wish, descend
from certifier.witness import Witness

WORK_A_SECOND = 2.0e9
"""Products of complex numbers that a proof gets through in a second of one core, for the estimate of its time."""


def search(
    network: Network,
    product: ProductBound,
    *,
    budget: Budget,
    weights: Float | None = None,
    start: Witness | None = None,
) -> Witness:
    """The best witness found within the budget; nothing rests on it, `check` proves or refuses it.

    `weights` says how much each pair of outputs matters (None: all alike), `start` is a witness of this network or one
    like it.
    Shapes: weights (c, c), symmetric.
    Raises: NotProved where the network is not covered, or a proof would take longer than the search may.
    """
    affordable = _affordable(network, product.norms.norm_upper, max(budget.left(), 1.0))
    chosen, least = affordable[0], math.inf
    for plan in affordable if len(affordable) > 1 else ():
        # Where a descent begins tells which of the two will end lower, nearly always.
        found = _descended(plan, weights, start, budget.part(0.0))
        estimate = found.estimate + math.log(max(_before(plan, network, product), TINY))
        if estimate < least:
            chosen, least = plan, estimate
    found = _descended(chosen, weights, start, budget)
    return Witness(method=METHOD, header=chosen.header, arrays=found.arrays)


def _descended(plan: Plan, weights: Float | None, start: Witness | None, budget: Budget) -> Found:
    is_alike = start is not None and start.method == METHOD and start.header.get("origin") == plan.lowered.origin
    arrays = start.arrays if start is not None and is_alike else {}
    wish = Wish(weights=None if weights is None else plan.by_channel(weights), start=arrays)
    schedule = plan.schedule
    return descend(schedule.segments, numbers=schedule.numbers, wish=wish, budget=budget)


def _before(plan: Plan, network: Network, product: ProductBound) -> float:
    """The Lipschitz constant of the origin."""
    origin = plan.lowered.origin
    return 1.0 if origin == network.input.name else product.lipschitz_upper(origin)


def _affordable(network: Network, norm_upper: NormUpper, seconds: float) -> list[Plan]:
    """The first plan whose proof takes no longer than that, and where it has cuts, the first one without.

    Raises: NotProved if there is none.
    """
    found: list[Plan] = []
    try:
        for plan in plans(network, norm_upper):
            if plan.schedule.work > seconds * WORK_A_SECOND or (found and plan.lowered.cuts):
                continue
            found.append(plan)
            if not plan.lowered.cuts:
                break
    except NotCovered as error:
        raise NotProved(f"the network has no form on frequencies: {error}") from error
    if not found:
        raise NotProved("the proof on frequencies would take longer than the search may")
    return found
