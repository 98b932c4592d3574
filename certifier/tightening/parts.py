"""Which parts of a network to bound at once, where the whole would take too long.  Untrusted: any choice is sound."""

from __future__ import annotations

from collections.abc import Iterator

from certifier.errors import NotProved
from certifier.frequencies.plans import Plan, Planner, convolutions, part, spine
from certifier.frequencies.views import NotCovered
from certifier.terms import Affine

SMALLER = 4.0
"""How much less work each further attempt allows a single part."""
ATTEMPTS = 12
AT_LEAST = 2
"""Convolutions of a part: one alone has its norm already."""


def parts_between(planner: Planner, origin: str, end: str, work: float) -> list[Plan]:
    """Parts with as much to gain as there is, if all proofs together take no more than `work`, in order.

    Long parts gain more than short ones, and take more work.
    """
    try:
        network = part(planner.network, origin, end)
    except NotCovered:
        return []
    choice = _Choice(planner, spine(network))
    best: list[Plan] = []
    for attempt in range(ATTEMPTS):
        candidates = list(choice.parts(work / SMALLER**attempt))
        affordable = _affordable(planner, candidates, work)
        if _gain(planner, affordable) > _gain(planner, best):
            best = affordable
        if len(affordable) == len(candidates):
            break
    return best


def _affordable(planner: Planner, candidates: list[Plan], work: float) -> list[Plan]:
    """Those with the most to gain for their work, as long as there is any."""
    chosen: list[Plan] = []
    for plan in sorted(candidates, key=lambda each: -_gain(planner, [each]) / each.schedule.work):
        if plan.schedule.work <= work:
            chosen.append(plan)
            work -= plan.schedule.work
    return [plan for plan in candidates if plan in chosen]


def _gain(planner: Planner, plans: list[Plan]) -> int:
    """What there is to gain, in about equal shares: at every meeting of two convolutions."""
    inside = (part(planner.network, plan.origin, plan.end) for plan in plans)
    return sum(len(list(convolutions(network))) - 1 for network in inside)


class _Choice:
    """Parts between values of a network's spine, none of which takes more than a given work."""

    def __init__(self, planner: Planner, values: list[str]) -> None:
        self.planner, self.values = planner, values
        self.producers = {term.output: term for term in planner.network.terms}

    def parts(self, work: float) -> Iterator[Plan]:
        position = 0
        while position + 1 < len(self.values):
            longest, reached = self._longest(position, work)
            if longest is not None:
                yield longest
            elif self._is_affine(position + 1):
                yield from self._branches(self.values[position], self.values[position + 1], work)
            position = reached

    def _longest(self, position: int, work: float) -> tuple[Plan | None, int]:
        """The longest part from a value on that the work allows, and where it ends.

        A part neither begins nor ends in what a single constant says as well, such as an activation.
        """
        longest, reached = None, position + 1
        for further in range(position + 1, len(self.values)):
            if not self._is_affine(further):
                if further == position + 1:
                    break
                continue
            plan = self._planned(self.values[position], self.values[further], work)
            if plan is None:
                break
            if self._is_worthwhile(plan):
                longest, reached = plan, further
        return longest, reached

    def _branches(self, origin: str, end: str, work: float) -> Iterator[Plan]:
        """What meets in sums between the two, each from the origin on."""
        found = set[str]()
        for term in part(self.planner.network, origin, end).terms:
            if not isinstance(term, Affine) or len(term.sources) < 2:
                continue
            for source in term.sources:
                plan = None if source in found else self._planned(origin, source, work)
                if plan is not None and self._is_worthwhile(plan):
                    found.add(source)
                    yield plan

    def _planned(self, origin: str, end: str, work: float) -> Plan | None:
        try:
            plan = self.planner.plan(origin, end)
        except (NotCovered, NotProved):
            return None
        return plan if plan.schedule.work <= work else None

    def _is_affine(self, position: int) -> bool:
        return isinstance(self.producers[self.values[position]], Affine)

    def _is_worthwhile(self, plan: Plan) -> bool:
        inside = part(self.planner.network, plan.origin, plan.end)
        return len(list(convolutions(inside))) >= AT_LEAST
