"""The method as the ladder of bounds calls it: can it be used, and what does a witness prove.

Where the beginning of a network has no form on a torus, a value behind it is the origin: its own Lipschitz constant, by
the product of norms, stands for everything before, and multiplies what is proved from there on.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from certifier.bounds.product import ProductBound
from certifier.certificates import Constants
from certifier.errors import NotProved
from certifier.flow import Network
from certifier.frequencies.lowering import Lowered
from certifier.frequencies.plans import plan_from, plans
from certifier.frequencies.views import NotCovered
from certifier.proof.frequency.checking import prove
from certifier.proof.frequency.steps import Bound
from certifier.proof.norms import ProvedNorms
from certifier.proof.readout import MAXIMAL_OUTPUTS, MAXIMAL_PAIR_OUTPUTS
from certifier.proof.rounding import add_upper, mul_upper, norm_upper, sqrt_upper
from certifier.witness import Witness

METHOD = "frequency"
SQRT2_UPPER = float(sqrt_upper(2.0))


def covers(network: Network) -> str | None:
    """None if the method can bound the network, or in words why it cannot."""
    try:
        next(plans(network, lambda operator, name: 1.0))
    except NotCovered as error:
        return str(error)
    return None


def check(
    network: Network, witness: Witness, norms: ProvedNorms, *, before_step: Callable[[str], None] = lambda step: None
) -> Constants:
    """The constants that the witness proves for the network.

    Nothing but the origin's name and the multipliers is taken from the witness; `norms` proves the norms of what lies
    before the origin, and of terms that have no form on a torus.  `before_step` may raise to end the proof.
    Raises: NotProved.
    """
    origin = witness.header.get("origin")
    if witness.method != METHOD or not isinstance(origin, str) or origin not in network.sizes:
        raise NotProved("the witness is not one of this method for this network")
    try:
        plan = plan_from(network, origin, norms.norm_upper)
    except NotCovered as error:
        raise NotProved(f"the network is not covered from {origin!r} on: {error}") from error
    if dict(witness.header) != plan.header:
        raise NotProved("the witness was made for other tori or cuts")
    # All norms of the network are proved only where one of them is needed.
    before = 1.0 if origin == network.input.name else ProductBound(network, norms).lipschitz_upper(origin)
    bound = prove(plan.schedule.segments, witness, before_step=before_step)
    return _constants(plan.lowered, bound, before, network.output_size)


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
