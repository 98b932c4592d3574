"""The search for multipliers on frequencies: which parts to bound at once, and a descent for each.  Untrusted."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

from certifier.bounds.product import ProductBound
from certifier.errors import NotProved
from certifier.flow import Network
from certifier.frequencies.method import METHOD, PARTS
from certifier.frequencies.plans import Plan, Planner, convolutions, spine
from certifier.frequencies.views import NotCovered
from certifier.limits import Budget
from certifier.proof.rounding import TINY, Float
from certifier.search.frequency import Found, Wish, descend
from certifier.terms import Activation
from certifier.tightening.parts import parts_between
from certifier.witness import JSON, Witness

WORK_A_SECOND = 3.0e9
"""Products of complex numbers that a proof gets through in a second of one core, for the estimate of its time."""
PROVING = 0.25
"""Of the time, the most that proofs may be expected to take."""
EVALUATIONS = 2.0
"""Of a part: by the search, as it will be proved, and by the proof."""
ORIGINS = 16
"""That are tried for the part that ends in the output, from the front."""


@dataclass(frozen=True, kw_only=True)
class Searched:
    """A witness, and where the searches stood, for the next version of the network: arrays by part and name."""

    witness: Witness
    parameters: Mapping[str, Float]
    iterations: int
    note: str | None
    """In words, where not the whole network was bounded at once."""


def covers(network: Network) -> str | None:
    """None if the method may bound the network, or in words why it cannot."""
    return None if any(True for _ in convolutions(network)) else "there is no convolution"


def search(
    planner: Planner,
    product: ProductBound,
    *,
    budget: Budget,
    weights: Float | None = None,
    kept: Mapping[str, Float] | None = None,
) -> Searched:
    """The best witness found within the budget, which is to last for its proof too.

    Nothing rests on it: `check` proves or refuses it.
    `weights` says how much each pair of outputs matters (None: all alike), `kept` is what an earlier search of this
    network or one like it left as `parameters`.
    Shapes: weights (c, c), symmetric.
    Raises: NotProved where the network is not covered, or a proof would take longer than the search may.
    """
    begin = _Begin(planner.network.output, weights, kept or {})
    plans = _chosen(planner, product, begin, PROVING * max(budget.left(), 1.0) * WORK_A_SECOND)
    headers: list[JSON] = []
    arrays, parameters, iterations = dict[str, Float](), dict[str, Float](), 0
    remaining, pending, pace = sum(plan.schedule.work for plan in plans), 0.0, 1.0 / WORK_A_SECOND
    for plan in plans:
        # A part is evaluated once as it will be proved, which takes about as long; the rest is left for descents.
        work, left = plan.schedule.work, budget.left()
        if headers and (budget.is_cut or (pending + EVALUATIONS * work) * pace > left):
            continue
        granted = max(left - (pending + EVALUATIONS * remaining) * pace, 0.0) * work / remaining
        begun = time.monotonic()
        found = begin.descended(plan, budget.part(granted))
        pace = max(pace, (time.monotonic() - begun - granted) / work)
        remaining -= work
        iterations += found.iterations
        parameters |= {_kept_name(plan, name): array for name, array in found.arrays.items()}
        if plan.end != planner.network.output and found.estimate >= _norms_between(product, plan):
            continue
        pending += work
        arrays |= {f"{len(headers)}/{name}": array for name, array in found.arrays.items()}
        headers.append(plan.header)
    if not headers:
        raise NotProved("no part of the network has a smaller constant than by its norms")
    witness = Witness(method=METHOD, header={PARTS: headers}, arrays=arrays)
    note = None
    if len(headers) > 1 or plans[-1].end != planner.network.output or len(plans) > 1:
        note = (
            f"the method on frequencies bounded {len(headers)} parts of the network one by one, as form and time "
            "allowed, and multiplied; more seconds may give smaller constants"
        )
    return Searched(witness=witness, parameters=parameters, iterations=iterations, note=note)


@dataclass(frozen=True)
class _Begin:
    """What every descent is for, and where it begins."""

    output: str
    weights: Float | None
    kept: Mapping[str, Float]

    def descended(self, plan: Plan, budget: Budget) -> Found:
        is_last = plan.end == self.output
        prefix = _kept_name(plan, "")
        start = {name.removeprefix(prefix): each for name, each in self.kept.items() if name.startswith(prefix)}
        wish = Wish(
            weights=plan.by_channel(self.weights) if is_last and self.weights is not None else None,
            norm_only=not is_last,
            start=start,
        )
        schedule = plan.schedule
        return descend(schedule.segments, numbers=schedule.numbers, wish=wish, budget=budget)


def _norms_between(product: ProductBound, plan: Plan) -> float:
    """The logarithm of what the product of norms multiplies by from the origin to the end."""
    before, after = (max(product.lipschitz_upper(value), TINY) for value in (plan.origin, plan.end))
    return math.log(after) - math.log(before)


def _kept_name(plan: Plan, name: str) -> str:
    return f"{METHOD}|{plan.origin}|{plan.end}|{name}"


def _chosen(planner: Planner, product: ProductBound, begin: _Begin, work: float) -> list[Plan]:
    """The part that ends in the output, if one may, with parts before it; else parts of the whole.

    Raises: NotProved if there is none.
    """
    network = planner.network
    last, reasons = _last_parts(planner, work)
    if len(last) > 1:
        # Where a descent begins tells which of the two will end lower, nearly always.
        last.sort(key=lambda plan: _promise(plan, product, begin))
    if last:
        before = parts_between(planner, network.input.name, last[0].origin, work - last[0].schedule.work)
        return [*before, last[0]]
    parts = parts_between(planner, network.input.name, network.output, work)
    if not parts:
        raise NotProved("the network has no form on frequencies that could be proved: " + "; ".join(reasons))
    return parts


def _promise(plan: Plan, product: ProductBound, begin: _Begin) -> float:
    before = 1.0 if plan.origin == product.network.input.name else product.lipschitz_upper(plan.origin)
    return begin.descended(plan, Budget.of(0.0)).estimate + math.log(max(before, TINY))


def _last_parts(planner: Planner, work: float) -> tuple[list[Plan], list[str]]:
    """The first part that ends in the output and that the work allows, and where it has cuts, the first one without.

    With reasons why others are none.
    """
    found, reasons, network = list[Plan](), list[str](), planner.network
    producers = {term.output: term for term in network.terms}
    remaining = set(convolutions(network))
    tried = 0
    for value in spine(network):
        remaining -= _before(network, value)
        if not remaining or tried == ORIGINS:
            break
        if isinstance(producers.get(value), Activation):
            continue
        tried += 1
        try:
            plan = planner.plan(value, network.output)
        except NotCovered as error:
            reasons.append(f"from {value!r}: {error}")
            continue
        if plan.schedule.work > work:
            reasons.append(f"from {value!r}: its proof would take longer than the search may")
        elif not found or not plan.lowered.cuts:
            found.append(plan)
            if not plan.lowered.cuts:
                break
    return found, reasons


def _before(network: Network, value: str) -> set[str]:
    """The values that are computed no later than this one."""
    values = set[str]()
    if value != network.input.name:
        for term in network.terms:
            values.add(term.output)
            if term.output == value:
                break
    return values
