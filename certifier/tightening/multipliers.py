"""The search for families of multipliers: for all pairs, for the whole, then pair by pair.  Untrusted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from certifier.bounds.joint import JointForm, Slopes, Step
from certifier.bounds.multipliers import MAXIMAL_FAMILIES, METHOD
from certifier.limits import Budget
from certifier.search.multipliers.arrays import best_arrays
from certifier.search.multipliers.descent import Found, Parameters, search
from certifier.search.multipliers.objectives import Objective, outputs, pairs, whole
from certifier.search.multipliers.polishing import Polishing
from certifier.search.multipliers.recursion import Chain, Recursion, Stage
from certifier.witness import Witness

Floats = NDArray[np.float64]

RATE = 0.1
DESCENT = 0.7
"""Of the time of a single pair, for descent; the rest is for polishing."""
NARROWEST = 1e-4
"""The search takes slope intervals at least this wide, relative to the steepest slope, so that η is not zero."""
ONE_THREAD = 1024
"""Up to this width of its steps a search is faster with one thread than with several."""


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
        # numpy and scipy bring a pool of threads each, which wait for one another in turns of small products.
        widest = max((len(step.read.matrix) for step in form.steps), default=0)
        self.threads = 1 if widest <= ONE_THREAD else None
        self.weights, self.classes, self.kept, self.progress = weights, classes, kept, progress
        self.arrays: dict[str, Floats] = {}
        self.parameters: dict[str, Floats] = {}
        self.iterations: dict[str, int] = {}

    def families(
        self, budget: Budget, *, cost: Callable[[], float], is_worthwhile: Callable[[], bool]
    ) -> Iterator[str]:
        """Find family after family until the budget is spent, yielding the name of each.

        `cost` is that of a proof in seconds; `is_worthwhile` decides whether single pairs get families of their own.
        """
        # Pairs gain more from multipliers of their own than from better common ones, so time is left for them.
        single = self.classes and self.count > 2
        shares: list[tuple[str, Objective, float]] = [("whole", whole(), 1.0)]
        if self.count > 1:
            common = pairs(self.weights) if self.classes else outputs()
            shares = [("pairs" if self.classes else "outputs", common, 0.6), ("whole", whole(), 0.8)]
        first: Found | None = None
        for name, objective, share in shares:
            left = budget.left() - cost()
            if first is not None and left <= 0:
                return
            found = self._find(name, objective, budget.part(max(left * share, 0.0)), None, thorough=not single)
            first = first or found
            if found is not None:
                yield name
        if first is None or not single or not is_worthwhile():
            return
        for t, j in self._important_pairs():
            left = budget.left() - cost()
            if left <= 0 or len(self.iterations) >= MAXIMAL_FAMILIES:
                return
            alone = np.zeros_like(self.weights)
            alone[t, j] = alone[j, t] = 1.0
            if self._find_pair(f"pair {t} {j}", pairs(alone), budget.part(left), first.parameters):
                yield f"pair {t} {j}"

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

    def _find(
        self, name: str, objective: Objective, budget: Budget, warm: Parameters | None, *, thorough: bool
    ) -> Found | None:
        self.progress(name)
        kept = [self.kept.get(f"{name}/{position}") for position in range(len(self.recursion.chain.stages))]
        usable = [each for each in kept if each is not None]
        if len(usable) == len(kept):
            warm = usable
        with threadpool_limits(self.threads):
            found = search(self.recursion, objective, budget=budget, rate=RATE, warm=warm, thorough=thorough)
        if found is not None:
            self._keep(name, found)
            for position, point in enumerate(found.parameters):
                self.parameters[f"{name}/{position}"] = point
        return found

    def _find_pair(self, name: str, objective: Objective, budget: Budget, warm: Parameters) -> bool:
        """Whether a family for one pair was found: by descent from the point for all, and polished.

        Nothing of it is kept for another search: that point is near, and there may be thousands of pairs.
        """
        self.progress(name)
        descending = budget.part(DESCENT * budget.left())
        with threadpool_limits(self.threads):
            found = search(self.recursion, objective, budget=descending, rate=RATE, warm=warm, thorough=False)
            if found is None:
                return False
            self._keep(name, self.polishing.polish(found, objective, budget=budget))
        return True

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
