"""Methods as a ladder: from the product of norms upward as far as the network and the time allow.

Every rung proves constants of its own; the smallest wins, for the whole, for every output and for every pair.  A rung
that fails or does not cover the network says why and costs nothing else.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from certifier.bounds import multipliers
from certifier.bounds.joint import JointForm, joint_form, obstacle
from certifier.bounds.loops import loop_transformed
from certifier.bounds.product import ProductBound
from certifier.certificates import Constants, tighter
from certifier.documents import Method, RungName
from certifier.errors import NotProved
from certifier.flow import Network
from certifier.frequencies import method as frequency
from certifier.frequencies.plans import Planner
from certifier.limits import Budget
from certifier.norms import Norms
from certifier.progress import Telling
from certifier.terms import Affine
from certifier.tightening import frequency as frequencies
from certifier.tightening.multipliers import Searching
from certifier.witness import Witness

Floats = NDArray[np.float64]
FREQUENCY: RungName = "frequency"
FREQUENCY_SHARE = 0.3
"""Of the time, for frequencies where the dense method covers the network as well."""
RUNGS: dict[Method, tuple[RungName, ...]] = {
    "product": ("product",),
    "loop_transform": ("product", "loop_transform"),
    "multipliers": ("product", "multipliers", "frequency"),
    "auto": ("product", "loop_transform", "multipliers", "frequency"),
}
"""The rungs that each choice climbs.  The product of norms is always among them: no answer is looser than it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Rung:
    """What one method proved, or why it proved nothing, and the seconds it took."""

    method: RungName
    constants: Constants | None
    seconds: float
    reason: str | None
    witness: Witness | None = None
    norms: Mapping[str, float] = field(default_factory=dict)
    """The proved norms that it rests on, by the digest of what they bound."""
    note: str | None = None
    """What a reader of the certificate should know of how it was found."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Climb:
    """The best constants of all rungs, the rungs, and search state for the next version."""

    constants: Constants
    rungs: tuple[Rung, ...]
    parameters: Mapping[str, Floats] = field(default_factory=dict)

    def needed(self) -> tuple[Rung, ...]:
        """The product, and every further rung without which some constant would be larger."""
        proved = [(rung, rung.constants) for rung in self.rungs if rung.constants is not None]
        positions = _needed([constants for _, constants in proved]) | {0}
        return tuple(rung for position, (rung, _) in enumerate(proved) if position in positions)

    def choice(self) -> NDArray[np.intp] | None:
        """Per pair, the position of the first rung that reached the smallest constant.  Shapes: [c, c]."""
        tables = [
            np.full_like(self.constants.pairs, np.inf)
            if rung.constants is None or rung.constants.pairs is None
            else rung.constants.pairs
            for rung in self.rungs
            if self.constants.pairs is not None
        ]
        return None if not tables else np.argmin(np.stack(tables), axis=0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Wish:
    """What to spend on tightness: the method, the time for searching, and which pairs matter how much.

    Shapes: weights [c, c], symmetric, or None for all alike.
    """

    method: Method
    budget: Budget
    """Where the search is called off, methods that have not begun are left out, and the one that runs proves what it
    found."""
    classes: bool
    weights: Floats | None


def climb(
    network: Network,
    product: ProductBound,
    *,
    wish: Wish,
    fresh_norms: Callable[[], Norms],
    kept: Mapping[str, Floats],
    telling: Telling,
) -> Climb:
    """The best constants that the wished rungs prove.  `fresh_norms` proves norms that are not to be reported.

    Raises: NotProved if not even the product of norms is finite.
    """
    started = time.monotonic()
    constants = product.constants()
    rungs = [Rung(method="product", constants=constants, seconds=time.monotonic() - started, reason=None)]
    telling.proved(constants)
    climber = _Climber(network, product, wish, fresh_norms, kept, telling)
    for name in climber.order(RUNGS[wish.method][1:]):
        begun = time.monotonic()
        reason = climber.obstacle(name)
        rung = Rung(method=name, constants=None, seconds=0.0, reason=reason)
        if reason is None:
            telling.method(name, name)
            try:
                rung = climber.climbed(name, constants)
                constants = constants if rung.constants is None else tighter(constants, rung.constants)
                telling.proved(constants)
            except NotProved as error:
                rung = replace(rung, reason=str(error))
        rungs.append(replace(rung, seconds=time.monotonic() - begun))
    if not np.isfinite(constants.upper):
        raise NotProved("the product of the layers' norms overflows, so there is no finite bound to return")
    rungs.sort(key=lambda rung: RUNGS[wish.method].index(rung.method))
    # The frequency method proves its norms among those of the product.
    rungs[0] = replace(rungs[0], norms=product.norms.leaves())
    return Climb(constants=constants, rungs=tuple(rungs), parameters=climber.parameters)


@dataclass(eq=False)
class _Climber:
    """What the rungs share: the network, and what is wished for."""

    network: Network
    product: ProductBound
    wish: Wish
    fresh_norms: Callable[[], Norms]
    kept: Mapping[str, Floats]
    telling: Telling
    parameters: dict[str, Floats] = field(default_factory=dict)

    def order(self, names: Sequence[RungName]) -> list[RungName]:
        """Frequencies come before what takes whatever time is left, where both can be tried."""
        return sorted(names, key=lambda name: (name == multipliers.METHOD, name == FREQUENCY))

    def obstacle(self, name: RungName) -> str | None:
        """Why a rung cannot be climbed; None if it can be tried."""
        self.wish.budget.left()
        if self.wish.budget.is_cut:
            return "the search was cancelled before"
        if all(isinstance(term, Affine) for term in self.network.terms):
            return "the network is affine: its norm is exact already"
        return frequencies.covers(self.network) if name == FREQUENCY else obstacle(self.network)

    def climbed(self, name: RungName, known: Constants) -> Rung:
        """The rung with what it proves.

        Raises: NotProved.
        """
        rung = Rung(method=name, constants=None, seconds=0.0, reason=None)
        budget = self.wish.budget
        if name == "loop_transform":
            bound = ProductBound(loop_transformed(self.network), self.fresh_norms(), expand_always=True)
            constants = bound.constants()
            # It rests on norms alone.
            nothing = Witness(method=name, header={}, arrays={})
            return replace(rung, constants=constants, witness=nothing, norms=bound.norms.leaves())
        if name == FREQUENCY:
            if obstacle(self.network) is None:
                # Small maps, for which the dense method has more to gain in what it is left.
                budget = budget.part(FREQUENCY_SHARE * budget.left())
            planner = Planner(self.network, self.product.norms)
            found = frequencies.search(planner, self.product, budget=budget, weights=self.wish.weights, kept=self.kept)
            self.parameters |= found.parameters
            proved = frequency.check(planner, found.witness)
            return replace(rung, constants=proved, witness=found.witness, note=found.note)
        form = joint_form(self.network, self.product.lipschitz_upper)
        proved, witness, parameters = _by_multipliers(form, known, self.wish, self.kept, self.telling)
        self.parameters |= parameters
        return replace(rung, constants=proved, witness=witness)


def _by_multipliers(
    form: JointForm,
    known: Constants,
    wish: Wish,
    kept: Mapping[str, Floats],
    telling: Telling,
) -> tuple[Constants, Witness, Mapping[str, Floats]]:
    """Families of multipliers within the budget, each proved at once and dropped where it gains nothing."""
    count = len(form.readout.matrix)
    weights = np.ones((count, count)) if wish.weights is None else wish.weights
    searching = Searching(
        form,
        weights=weights,
        classes=wish.classes,
        kept=kept,
        progress=lambda family: telling.method(multipliers.METHOD, family),
    )
    best: Constants | None = None
    proofs: dict[str, Constants] = {}
    proving = [0.0]

    def is_worthwhile() -> bool:
        """Pair by pair there is little to gain where all pairs together gained next to nothing."""
        return best is not None and _improves(tighter(best, known), known, by=1e-3)

    for family in searching.families(wish.budget, cost=lambda: proving[0], is_worthwhile=is_worthwhile):
        begun = time.monotonic()
        try:
            proved = multipliers.check_family(form, searching.witness(), family)
        except NotProved:
            searching.forget(family)
            continue
        finally:
            proving[0] = max(proving[0], time.monotonic() - begun)
        merged = proved if best is None else tighter(best, proved)
        if best is not None and not _improves(merged, best):
            searching.forget(family)
        else:
            best, proofs[family] = merged, proved
            telling.proved(tighter(best, known))
    if best is None:
        raise NotProved("no family of multipliers could be found and proved within the time")
    needed = _needed(list(proofs.values()))
    for position, family in enumerate(list(proofs)):
        if position not in needed:
            searching.forget(family)
    return best, searching.witness(), searching.parameters


def _needed(proved: Sequence[Constants]) -> set[int]:
    """Positions of constants without which some would be larger; of equals the earlier."""
    before = list(itertools.accumulate(proved, tighter))
    needed, behind = set[int](), list[Constants]()
    for position in reversed(range(len(proved))):
        rest = [*before[:position][-1:], *behind]
        if not rest or _improves(before[-1], functools.reduce(tighter, rest), by=0.0):
            needed.add(position)
            behind = [functools.reduce(tighter, [proved[position], *behind])]
    return needed


def _improves(new: Constants, old: Constants, by: float = 1e-9) -> bool:
    """Whether anything got smaller, by more than a rounding's worth."""
    margin = 1.0 - by
    if new.upper < margin * old.upper:
        return True
    for fresh, known in ((new.outputs, old.outputs), (new.pairs, old.pairs)):
        if fresh is not None and known is not None and bool((fresh < margin * known).any()):
            return True
    return False
