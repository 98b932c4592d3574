"""The search for families of multipliers: for all pairs, for the whole, then pair by pair.  Untrusted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from certifier.bounds.joint import JointForm, Slopes, Step
from certifier.bounds.multipliers import MAXIMAL_FAMILIES, METHOD
from certifier.limits import Budget
from certifier.search.multipliers.arrays import best_arrays
from certifier.search.multipliers.descent import PATIENT, Found, Haste, Parameters, search
from certifier.search.multipliers.objectives import Objective, outputs, pairs, whole
from certifier.search.multipliers.polishing import Polishing
from certifier.search.multipliers.recursion import Chain, Recursion, Stage
from certifier.witness import Witness

Floats = NDArray[np.float64]

RATE = 0.1
DESCENT = 0.7
"""Of the time of a search, for descent; the rest is for polishing."""
NARROWEST = 1e-4
"""The search takes slope intervals at least this wide, relative to the steepest slope, so that η is not zero."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How far to go for one objective: the haste of descent, and evaluations while polishing (None: while it pays)."""

    haste: Haste | None
    evaluations: int | None


THOROUGH, FULL = Effort(haste=None, evaluations=None), Effort(haste=PATIENT, evaluations=None)
COARSE = Effort(haste=Haste(most=None, round=15, least=1e-2), evaluations=80)
QUICK = Effort(haste=Haste(most=10, round=10, least=0.0), evaluations=20)


class Searching:
    """The search for families of multipliers within a budget: for all pairs, for the whole, then pair by pair."""

    def __init__(
        self,
        form: JointForm,
        *,
        weights: Floats,
        classes: bool,
        kept: Mapping[str, Floats],
        progress: Callable[[str], None],
    ) -> None:
        """`weights` say how much each pair of outputs matters; `kept` are parameters of an earlier search.

        Shapes: weights [c, c], symmetric.
        """
        self.recursion = Recursion(chain_of(form), best_arrays())
        self.polishing = Polishing(self.recursion)
        self.count = len(form.readout.matrix)
        self.threads = form.threads
        self.weights, self.classes, self.kept, self.progress = weights, classes, kept, progress
        self.arrays: dict[str, Floats] = {}
        self.parameters: dict[str, Floats] = {}
        self.iterations: dict[str, int] = {}

    def families(
        self, budget: Budget, *, cost: Callable[[], float], is_worthwhile: Callable[[], bool]
    ) -> Iterator[str]:
        """Find family after family until the budget is spent, yielding the name of each.

        `cost` is that of a proof in seconds; `is_worthwhile` decides whether single pairs get families of their own.
        Those gain most, and most of it in a tenth of the full effort: so first comes a coarse point for all of them,
        then each in haste, then everything again.
        """
        single = self.classes and self.count > 2
        first: Found | None = None
        for name, objective, share in self._common():
            left = budget.left() - cost()
            if first is not None and left <= 0:
                return
            part = budget.part(max(left * share, 0.0))
            found = self._find(name, objective, part, COARSE if single else THOROUGH)
            first = first or found
            if found is not None:
                yield name
        if first is None or not single or not is_worthwhile():
            return
        starts: dict[tuple[int, int], Parameters] = {}
        for name, effort in (("pair {} {}", QUICK), ("pair {} {} again", FULL)):
            for t, j in self._important_pairs():
                left = budget.left() - cost()
                if left <= 0 or len(self.iterations) >= MAXIMAL_FAMILIES:
                    return
                alone = np.zeros_like(self.weights)
                alone[t, j] = alone[j, t] = 1.0
                self.progress(name.format(t, j))
                start = starts.get((t, j), first.parameters)
                found = self._search(pairs(alone), budget.part(left), start, effort)
                if found is None:
                    continue
                starts[t, j] = found.parameters
                self._keep(name.format(t, j), found)
                yield name.format(t, j)

    def _common(self) -> list[tuple[str, Objective, float]]:
        """Name, objective and share of the time left of the families that are not for one pair."""
        if self.count == 1:
            return [("whole", whole(), 1.0)]
        name, objective = ("pairs", pairs(self.weights)) if self.classes else ("outputs", outputs())
        return [(name, objective, 0.6), ("whole", whole(), 0.8)]

    def witness(self) -> Witness:
        """The multipliers of every family that was found and kept."""
        return Witness(method=METHOD, header={"iterations": dict(self.iterations)}, arrays=dict(self.arrays))

    def forget(self, family: str) -> None:
        """Leave a family out of the witness, because it proved nothing or nothing better."""
        self.iterations.pop(family, None)
        for name in [name for name in self.arrays if name.startswith(f"{family}/")]:
            del self.arrays[name]

    def _important_pairs(self) -> list[tuple[int, int]]:
        first, second = np.triu_indices(self.count, 1)
        order = np.argsort(-self.weights[first, second], kind="stable")
        return [(int(first[each]), int(second[each])) for each in order if self.weights[first[each], second[each]] > 0]

    def _find(self, name: str, objective: Objective, budget: Budget, effort: Effort) -> Found | None:
        """A family that is kept for the next search too.

        Nothing of single pairs is: their points are near, and there may be thousands of them.
        """
        self.progress(name)
        kept = [self.kept.get(f"{name}/{position}") for position in range(len(self.recursion.chain.stages))]
        usable = [each for each in kept if each is not None]
        warm = usable if len(usable) == len(kept) else None
        found = self._search(objective, budget, warm, effort)
        if found is not None:
            self._keep(name, found)
            for position, point in enumerate(found.parameters):
                self.parameters[f"{name}/{position}"] = point
        return found

    def _search(self, objective: Objective, budget: Budget, warm: Parameters | None, effort: Effort) -> Found | None:
        """By descent, polished; None if there was no usable point."""
        descending = budget.part(DESCENT * budget.left())
        with threadpool_limits(self.threads):
            found = search(self.recursion, objective, budget=descending, rate=RATE, warm=warm, haste=effort.haste)
            if found is None or budget.left() <= 0:
                return found
            return self.polishing.polish(found, objective, budget=budget, evaluations=effort.evaluations)

    def _keep(self, name: str, found: Found) -> None:
        self.iterations[name] = found.iterations
        for position, family in enumerate(found.multipliers):
            self.arrays[f"{name}/{position}"] = family


def chain_of(form: JointForm) -> Chain:
    """What the search sees of a joint form."""
    return Chain(size=form.input_size, stages=tuple(map(_stage, form.steps)), readout=form.readout.matrix)


def _stage(step: Step) -> Stage:
    if not isinstance(step.law, Slopes):
        constant = np.array(max(step.law.constant, 1e-30))
        return Stage(matrix=step.read.matrix, middle=None, half=constant, size=step.size, kept=step.kept)
    lower, upper = step.law.lower, step.law.upper
    steepest = np.maximum(np.abs(lower), np.abs(upper))
    narrowest = NARROWEST * np.maximum(steepest, 1e-6 * max(float(np.max(steepest, initial=0.0)), 1e-12))
    half = np.maximum((upper - lower) / 2, narrowest)
    return Stage(matrix=step.read.matrix, middle=(lower + upper) / 2, half=half, size=step.size, kept=step.kept)
