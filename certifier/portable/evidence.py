"""network, evidence -> constants, proved without any search: what a verifier calls and nothing that it would not.

Every number of the evidence is tried, none is believed: norms are claims that are proved one by one, multipliers go
through the same checks as in the run that found them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from certifier.bounds import multipliers
from certifier.bounds.joint import joint_form, obstacle
from certifier.bounds.loops import loop_transformed
from certifier.bounds.product import ProductBound
from certifier.box import Box
from certifier.certificates import Constants, tighter
from certifier.documents import Task
from certifier.errors import NotProved
from certifier.executions import Derived, Execution
from certifier.flow import Network
from certifier.frequencies import method as frequency
from certifier.frequencies.plans import Planner
from certifier.limits import Deadline
from certifier.magnitudes import MagnitudeNorms
from certifier.portable.claims import ClaimedNorms
from certifier.proof.execution import Gains
from certifier.proof.rounding import mul_upper
from certifier.ranges import with_ranges
from certifier.tasks import with_loose_pairs
from certifier.witness import Witness

ROOM = 1.0 + 2.0**-20
"""Constants are written this much above what was proved: another machine adds up in another order."""
TOO_MUCH_ROOM = 1.0 + 2.0**-16


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Claimed norms by digest, and a witness for each further method."""

    norms: Mapping[str, float]
    witnesses: Mapping[str, Witness]


@dataclass(frozen=True, kw_only=True)
class Proved:
    """Constants, what the execution drifts, the product of norms, and how many claimed norms all of it rests on."""

    constants: Constants
    derived: Derived
    product: ProductBound
    norms: int


def written(constants: Constants) -> Constants:
    """Proved constants as they are written into a document."""
    return Constants(
        upper=float(mul_upper(constants.upper, ROOM)),
        outputs=None if constants.outputs is None else mul_upper(constants.outputs, ROOM),
        pairs=None if constants.pairs is None else mul_upper(constants.pairs, ROOM),
    )


def prove(
    network: Network, evidence: Evidence, *, box: Box, task: Task, execution: Execution, deadline: Deadline
) -> Proved:
    """The constants that the evidence proves for the network inside of the box, and the drifts of the execution.

    Raises: NotProved, UnsupportedNode; NotFinished at the first step that begins too late.
    """
    norms = ClaimedNorms(evidence.norms, before_proof=deadline.demand)
    network = with_ranges(network, box, norms.norm_upper)
    product = ProductBound(network, norms)
    constants, needed = product.constants(), 0
    for name, witness in evidence.witnesses.items():
        if name == "loop_transform":
            if witness.arrays:
                raise NotProved("the loop transformation rests on norms alone")
            apart = ClaimedNorms(evidence.norms, before_proof=deadline.demand)
            further = ProductBound(loop_transformed(network), apart, expand_always=True).constants()
            needed += apart.proved
        elif name == frequency.METHOD:
            further = frequency.check(Planner(network, norms), witness, before_step=deadline.demand)
        elif name == multipliers.METHOD:
            if (reason := obstacle(network)) is not None:
                raise NotProved(reason)
            form = joint_form(network, product.lipschitz_upper)
            further = multipliers.check(form, witness, before_step=deadline.demand)
        else:
            raise NotProved(f"there is no method {name!r}")
        constants = tighter(constants, further)
    if task == "classification" and constants.pairs is None:
        constants = with_loose_pairs(constants, network.output_size)
    gains: Gains = {} if execution.precisions is None else product.gains()
    magnitudes = MagnitudeNorms(before=lambda layer: deadline.demand(f"layer {layer!r}"))
    derived = execution.drifts(network, gains, norms, magnitudes.norm_upper)
    return Proved(constants=constants, derived=derived, product=product, norms=norms.proved + needed)


def difference(stated: Constants, proved: Constants) -> str | None:
    """Why the stated constants do not follow from the proved ones, or are not those; None if all is well."""
    tables = (
        ("the constant of the whole network", np.array([stated.upper]), np.array([proved.upper])),
        ("the constants of the outputs", stated.outputs, proved.outputs),
        ("the constants of the pairs", stated.pairs, proved.pairs),
    )
    for name, claimed, known in tables:
        if claimed is None and known is None:
            continue
        if claimed is None or known is None or claimed.shape != known.shape:
            return f"{name} are not of the network's size"
        # Written so that a NaN on either side fails.
        if not (known <= claimed).all():
            return f"{name}: smaller than what is proved"
        if not (claimed <= mul_upper(known, TOO_MUCH_ROOM)).all():
            return f"{name}: not those that the evidence proves"
    return None
