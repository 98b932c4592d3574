"""The method as the ladder of bounds calls it: can it be used, and what does a witness prove.

A part of the network, from one value to another, is bounded at once.  Where one part is all, its constants are the
network's.  Where there are several (the beginning of a network has no form on a torus, or the whole would take too much
time), each has a proved constant, and the product of norms goes by that instead of by the norms inside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from certifier.bounds.product import ProductBound
from certifier.certificates import Constants, tighter
from certifier.errors import NotProved
from certifier.frequencies.lowering import Lowered
from certifier.frequencies.plans import Plan, Planner
from certifier.frequencies.views import NotCovered
from certifier.proof.frequency.checking import prove, prove_norm
from certifier.proof.frequency.steps import Bound
from certifier.proof.readout import MAXIMAL_OUTPUTS, MAXIMAL_PAIR_OUTPUTS
from certifier.proof.rounding import add_upper, mul_upper, norm_upper, sqrt_upper
from certifier.witness import Witness

METHOD = "frequency"
PARTS = "parts"
SQRT2_UPPER = float(sqrt_upper(2.0))


def check(planner: Planner, witness: Witness, *, before_step: Callable[[str], None] = lambda step: None) -> Constants:
    """The constants that the witness proves for the planner's network.

    Nothing but the parts' origins and ends and the multipliers is taken from the witness; the planner's norms prove
    what lies around the parts, and terms that have no form on a torus.  `before_step` may raise to end the proof.
    Raises: NotProved.
    """
    network, known = planner.network, dict[str, tuple[str, float]]()
    last: tuple[Plan, Bound] | None = None
    for plan, own in _parts(planner, witness, before_step):
        segments = plan.schedule.segments
        if plan.end == network.output and last is None:
            last = plan, prove(segments, own, before_step=before_step)
        elif plan.end in known or plan.end == network.output:
            raise NotProved(f"two parts lead to {plan.end!r}")
        else:
            norm = prove_norm(segments, own, before_step=before_step)
            known[plan.end] = plan.origin, float(mul_upper(norm, _repeats(plan.lowered)))
    if last is None:
        return ProductBound(network, planner.norms, known=known).constants()
    plan, bound = last
    if plan.origin == network.input.name:
        return _constants(plan.lowered, bound, 1.0, network.output_size)
    # All norms of the network are proved only where one of them is needed.
    product = ProductBound(network, planner.norms, known=known)
    before = product.lipschitz_upper(plan.origin)
    return tighter(product.constants(), _constants(plan.lowered, bound, before, network.output_size))


def _parts(planner: Planner, witness: Witness, before_step: Callable[[str], None]) -> list[tuple[Plan, Witness]]:
    """The plan of every part with what of the witness is its own.

    Raises: NotProved.
    """
    stated = witness.header.get(PARTS)
    if witness.method != METHOD or set(witness.header) != {PARTS} or not isinstance(stated, list) or not stated:
        raise NotProved("the witness is not one of this method")
    parts, used = [], 0
    for position, header in enumerate(stated):
        origin, end = (header.get("origin"), header.get("end")) if isinstance(header, Mapping) else (None, None)
        if not isinstance(origin, str) or not isinstance(end, str):
            raise NotProved("the witness names no origin or no end of a part")
        before_step(f"the form of part {position} on frequencies")
        try:
            plan = planner.plan(origin, end)
        except NotCovered as error:
            raise NotProved(f"the network is not covered from {origin!r} to {end!r}: {error}") from error
        if header != plan.header:
            raise NotProved("the witness was made for other tori or cuts")
        own = Witness(method=METHOD, header=plan.header, arrays=arrays_of_part(witness, position))
        used += len(own.arrays)
        parts.append((plan, own))
    if used != len(witness.arrays):
        raise NotProved("the witness holds arrays of no part")
    return parts


def arrays_of_part(witness: Witness, position: int) -> dict[str, np.ndarray]:
    """The arrays of one part, by the names that they have in a proof of it."""
    prefix = f"{position}/"
    return {name.removeprefix(prefix): array for name, array in witness.arrays.items() if name.startswith(prefix)}


def _repeats(lowered: Lowered) -> float:
    """An entry that is an output r times counts as often in the norm of all: the root of the largest r."""
    return float(sqrt_upper(float(np.bincount(lowered.output.all_indices).max())))


def _constants(lowered: Lowered, bound: Bound, before: float, count: int) -> Constants:
    """The bound of channels as constants of the network's outputs, in their order, times that of the origin."""
    indices = lowered.output.all_indices
    channel = indices // lowered.output.signal.points
    upper = float(mul_upper(mul_upper(bound.upper, _repeats(lowered)), before))
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
