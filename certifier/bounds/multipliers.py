"""Constants from multipliers: the check, which needs nothing but them.

A witness holds families of multipliers, one for what each was optimised for.  The check runs the precisions through
the network in floating point, lowers each of them a little, and proves every step on the way; where a step cannot be
proved there is no bound.
"""

from __future__ import annotations

from collections.abc import Callable

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
from certifier.witness import Witness

Floats = NDArray[np.float64]
Progress = Callable[[str], None]
"""Told of every step before it is proved; may raise to end the proof."""

METHOD = "multipliers"
MAXIMAL_FAMILIES = 512
"""Of one witness: each is proved through the whole network."""
SLACKS = (1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
"""By how much a precision is lowered so that its proof succeeds in floating point, the least that works."""


def check(form: JointForm, witness: Witness, *, before_step: Progress = lambda step: None) -> Constants:
    """The constants that the witness' families of multipliers prove, the smallest for each output and pair.

    Raises: NotProved for a family that proves nothing or does not fit the network, or for too many of them.
    """
    families = sorted({name.split("/")[0] for name in witness.arrays})
    if not families:
        raise NotProved("the witness has no multipliers")
    if len(families) > MAXIMAL_FAMILIES:
        raise NotProved(f"the witness has {len(families)} families of multipliers, more than {MAXIMAL_FAMILIES}")
    if set(witness.arrays) != {f"{family}/{position}" for family in families for position in range(len(form.steps))}:
        raise NotProved("the witness does not have one array per family and step, and no other")
    best = check_family(form, witness, families[0], before_step=before_step)
    for family in families[1:]:
        best = tighter(best, check_family(form, witness, family, before_step=before_step))
    return best


def check_family(
    form: JointForm, witness: Witness, family: str, *, before_step: Progress = lambda step: None
) -> Constants:
    """The constants that one family of the witness proves.

    Raises: NotProved for a family that proves nothing or does not fit the network.
    """
    multipliers = [
        witness.positive(f"{family}/{position}", (len(step.read.matrix) if isinstance(step.law, Slopes) else 1,))
        for position, step in enumerate(form.steps)
    ]
    with threadpool_limits(form.threads):
        return constants_of(proved_matrix(form, multipliers, before_step=before_step))


def proved_matrix(form: JointForm, multipliers: list[Floats], *, before_step: Progress = lambda step: None) -> Floats:
    """Q with |aᵀ(f(x) - f(y))|² <= aᵀQa ‖x - y‖² for every a, from one family of multipliers.

    Shapes: multipliers, per step, [n] for slopes and [1] for a stretch -> [c, c], exactly symmetric.
    Raises: NotProved, naming the step; ValueError for multipliers of another shape or sign.
    """
    if len(multipliers) != len(form.steps):
        raise ValueError(f"{len(multipliers)} families of multipliers for {len(form.steps)} steps")
    precision = np.eye(form.input_size)
    for step, family in zip(form.steps, multipliers, strict=True):
        before_step(f"node {step.name!r}")
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
