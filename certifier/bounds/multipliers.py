"""Constants from multipliers: the search that finds them and the check that needs nothing but them.

A witness holds families of multipliers, one for what each was optimised for.  The check runs the precisions through
the network in floating point, lowers each of them a little, and proves every step on the way; where a step cannot be
proved there is no bound.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from threadpoolctl import threadpool_limits

from certifier.bounds.joint import JointForm, Slopes, Step
from certifier.certificates import Constants, tighter
from certifier.errors import NotProved
from certifier.proof.multipliers import (
    Form,
    LinearMap,
    implies,
    output_uppers,
    pair_uppers,
    readout_holds,
    through_norm,
    through_slopes,
    whole_upper_holds,
)
from certifier.proof.rounding import norm_upper, sqrt_upper
from certifier.search.multipliers.arrays import best_arrays
from certifier.search.multipliers.descent import Found, Parameters, search
from certifier.search.multipliers.objectives import Objective, outputs, pairs, whole
from certifier.search.multipliers.recursion import Chain, Recursion, Stage
from certifier.witness import Witness

Floats = NDArray[np.float64]

METHOD = "multipliers"
SLACKS = (1e-10, 1e-8, 1e-6, 1e-4, 1e-2)
"""By how much a precision is lowered so that its proof succeeds in floating point, the least that works."""
RATE = 0.1
NARROWEST = 1e-4
"""The search takes slope intervals at least this wide, relative to the steepest slope, so that η is not zero."""
MAXIMAL_FAMILIES = 512
ONE_THREAD = 1024
"""Up to this width of its steps a search is faster with one thread than with several."""


def check(form: JointForm, witness: Witness) -> Constants:
    """The constants that the witness' families of multipliers prove, the smallest for each output and pair.

    Raises: NotProved for a family that proves nothing or does not fit the network.
    """
    families = sorted({name.split("/")[0] for name in witness.arrays})
    if not families:
        raise NotProved("the witness has no multipliers")
    best = check_family(form, witness, families[0])
    for family in families[1:]:
        best = tighter(best, check_family(form, witness, family))
    return best


def check_family(form: JointForm, witness: Witness, family: str) -> Constants:
    """The constants that one family of the witness proves.

    Raises: NotProved for a family that proves nothing or does not fit the network.
    """
    multipliers = [
        witness.positive(f"{family}/{position}", (len(step.read.matrix) if isinstance(step.law, Slopes) else 1,))
        for position, step in enumerate(form.steps)
    ]
    return constants_of(proved_matrix(form, multipliers))


def proved_matrix(form: JointForm, multipliers: list[Floats]) -> Floats:
    """Q with |aᵀ(f(x) - f(y))|² <= aᵀQa ‖x - y‖² for every a, from one family of multipliers.

    Shapes: multipliers, per step, [n] for slopes and [1] for a stretch -> [c, c], exactly symmetric.
    Raises: NotProved, naming the step; ValueError for multipliers of another shape or sign.
    """
    if len(multipliers) != len(form.steps):
        raise ValueError(f"{len(multipliers)} families of multipliers for {len(form.steps)} steps")
    precision = np.eye(form.input_size)
    for step, family in zip(form.steps, multipliers, strict=True):
        precision = _continued(precision, step, family)
    return _readout(precision, form.readout)


def constants_of(matrix: Floats) -> Constants:
    """The constants that a proved Q carries."""
    outputs = output_uppers(matrix)
    # ‖f(x) - f(y)‖ is at most the root of the sum of the outputs' own bounds squared.
    upper = float(norm_upper(outputs, None))
    largest = float(np.linalg.eigvalsh(matrix)[-1])
    for slack in (1e-12, 1e-9, 1e-6):
        square = largest * (1.0 + slack * len(matrix))
        if square > 0 and whole_upper_holds(matrix, square):
            upper = min(upper, float(sqrt_upper(square)))
            break
    return Constants(upper=upper, outputs=np.minimum(outputs, upper), pairs=pair_uppers(matrix))


def _continued(precision: Floats, step: Step, family: Floats) -> Floats:
    """A precision of what stays alive behind the step, proved."""
    form = _form(precision, step, family)
    if not np.isfinite(form.error) or not np.isfinite(form.values).all():
        raise NotProved(f"the multipliers of node {step.name!r} are out of range")
    exact = _marginal(form.values, step.kept)
    if exact is not None:
        for slack in SLACKS:
            smaller = _symmetric(exact * (1.0 - slack))
            if implies(form, smaller, step.kept):
                return smaller
    raise NotProved(f"the multipliers of node {step.name!r} prove no bound")


def _form(precision: Floats, step: Step, family: Floats) -> Form:
    if isinstance(step.law, Slopes):
        if family.shape != step.law.lower.shape:
            raise ValueError(f"node {step.name!r} needs multipliers of shape {step.law.lower.shape}")
        lower, upper = step.law.lower, step.law.upper
        return through_slopes(precision, step.read, lower=lower, upper=upper, multipliers=family)
    if family.shape != (1,):
        raise ValueError(f"node {step.name!r} needs one multiplier")
    return through_norm(precision, step.read, constant=step.law.constant, multiplier=float(family[0]), size=step.size)


def _marginal(values: Floats, kept: NDArray[np.intp]) -> Floats | None:
    """About the Schur complement on `kept`; untrusted, and None where it cannot be computed."""
    dropped = np.setdiff1d(np.arange(len(values)), kept)
    if len(dropped) == 0:
        return values
    try:
        factor = cho_factor(values[np.ix_(dropped, dropped)], lower=True, check_finite=False)
    except np.linalg.LinAlgError:
        return None
    cross = values[np.ix_(dropped, kept)]
    return values[np.ix_(kept, kept)] - cross.T @ cho_solve(factor, cross, check_finite=False)


def _readout(precision: Floats, readout: LinearMap) -> Floats:
    """Q, proved."""
    try:
        factor = cho_factor(precision, lower=True, check_finite=False)
    except np.linalg.LinAlgError:
        raise NotProved("the last precision is not positive definite") from None
    matrix = readout.matrix @ cho_solve(factor, readout.matrix.T, check_finite=False)
    largest = float(np.max(np.diagonal(matrix), initial=0.0))
    for slack in SLACKS:
        raised = _symmetric(matrix * (1.0 + slack) + (slack * largest + 2.0**-900) * np.eye(len(matrix)))
        if readout_holds(precision, readout, raised):
            return raised
    raise NotProved("no bound of the outputs could be proved from the last precision")


def _symmetric(matrix: Floats) -> Floats:
    return (matrix + matrix.T) / 2


# -------------------------------------------------------------------------------------------------- search, untrusted


class Searching:
    """The search for families of multipliers within a time: for all pairs, for the whole, then pair by pair."""

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
        self.count = len(form.readout.matrix)
        # numpy and scipy bring a pool of threads each, which wait for one another in turns of small products.
        widest = max((len(step.read.matrix) for step in form.steps), default=0)
        self.threads = 1 if widest <= ONE_THREAD else None
        self.weights, self.classes, self.kept, self.progress = weights, classes, kept, progress
        self.arrays: dict[str, Floats] = {}
        self.parameters: dict[str, Floats] = {}
        self.iterations: dict[str, int] = {}

    def families(
        self, seconds: float, *, cost: Callable[[], float], is_worthwhile: Callable[[], bool]
    ) -> Iterator[str]:
        """Find family after family until the time is spent, yielding the name of each.

        `cost` is that of a proof in seconds; `is_worthwhile` decides whether single pairs get families of their own.
        """
        deadline = time.monotonic() + seconds
        shares: list[tuple[str, Objective, float]] = [("whole", whole(), 1.0)]
        if self.count > 1:
            common = pairs(self.weights) if self.classes else outputs()
            shares = [("pairs" if self.classes else "outputs", common, 0.6), ("whole", whole(), 0.8)]
        first: Found | None = None
        for name, objective, share in shares:
            left = deadline - time.monotonic() - cost()
            if first is not None and left <= 0:
                return
            found = self._find(name, objective, max(left * share, 0.0), None)
            first = first or found
            if found is not None:
                yield name
        if first is None or not self.classes or self.count < 3 or not is_worthwhile():
            return
        for t, j in self._important_pairs():
            left = deadline - time.monotonic() - cost()
            if left <= 0 or len(self.iterations) >= MAXIMAL_FAMILIES:
                return
            alone = np.zeros_like(self.weights)
            alone[t, j] = alone[j, t] = 1.0
            if self._find(f"pair {t} {j}", pairs(alone), left, first.parameters) is not None:
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

    def _find(self, name: str, objective: Objective, seconds: float, warm: Parameters | None) -> Found | None:
        self.progress(name)
        kept = [self.kept.get(f"{name}/{position}") for position in range(len(self.recursion.chain.stages))]
        usable = [each for each in kept if each is not None]
        if len(usable) == len(kept):
            warm = usable
        with threadpool_limits(self.threads):
            found = search(self.recursion, objective, seconds=seconds, rate=RATE, warm=warm, progress=None)
        if found is not None:
            self.iterations[name] = found.iterations
            for position, (family, point) in enumerate(zip(found.multipliers, found.parameters, strict=True)):
                self.arrays[f"{name}/{position}"] = family
                self.parameters[f"{name}/{position}"] = point
        return found


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
