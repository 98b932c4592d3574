"""How far outputs move: for any change of an input within a distance, and between two inputs.

A change moves the exact outputs by no more than the proved constants times its length, and what is served lies around
the exact outputs by the rounding at either end.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from certifier.certificates import LARGEST, Constants, output_reach
from certifier.documents import OutputBounds, OutputComparison, OutputInterval, RowComparison
from certifier.proof.drifts import DriftsAt
from certifier.proof.execution import Enclosure
from certifier.proof.rounding import add_upper, mul_upper, norm_upper

Floats = NDArray[np.float64]


def output_bounds(
    constants: Constants, enclosure: Enclosure, around: DriftsAt | None, *, epsilon: float, stretch: float
) -> list[OutputBounds | None]:
    """Where the outputs of every row stay; None where a number could overflow on the way.

    `stretch` is by how much distances grow on the way from the caller's inputs, in whose units `epsilon` is, to those
    of the network; `around` are the drifts of the execution that serves, None for none.
    """
    distance = float(mul_upper(epsilon, stretch))
    centre = enclosure.centre
    reach = add_upper(output_reach(constants, distance, centre.shape[1]), enclosure.radius)
    lengths = np.full(len(reach), mul_upper(constants.upper, distance))
    if around is not None:
        drift = around.within(distance)
        # None of these is negative, and the sum of two such numbers rounds once.
        reach = np.nextafter(reach + drift[:, 1:], np.inf)
        # At both ends of the change.
        lengths = np.nextafter(lengths + 2.0 * drift[:, 0], np.inf)
    below, upper = add_upper(np.stack([-centre, centre]), reach)
    known = np.isfinite(reach).all(axis=1) & np.isfinite(lengths)
    return [
        OutputBounds(
            epsilon=epsilon,
            l2=length,
            intervals=[OutputInterval(lower=low, upper=high) for low, high in zip(lows, highs, strict=True)],
        )
        if holds
        else None
        for length, lows, highs, holds in zip(
            lengths.tolist(), (-below).tolist(), upper.tolist(), known.tolist(), strict=True
        )
    ]


def comparison(
    constants: Constants, x: Floats, y: Floats, outputs: tuple[Floats, Floats], rounding: Floats
) -> RowComparison:
    """The differences of two rows and of what was served for them, beside the proved bounds of the latter.

    `rounding` bounds, entry by entry, how far both answers together are from the exact ones.
    Shapes: x and y [n]; outputs [c] each, finite; rounding [c].
    """
    distance = float(_distance_upper(x, y))
    difference = outputs[0] - outputs[1]
    reach = add_upper(output_reach(constants, distance, difference.size), rounding)
    length = add_upper(mul_upper(constants.upper, distance), norm_upper(rounding, None))
    return RowComparison(
        input_difference=distance,
        output_difference=float(np.linalg.norm(difference)),
        # Answers are finite, so that no difference is larger than the largest number.
        output_difference_bound=min(float(length), LARGEST),
        outputs=[
            OutputComparison(difference=float(abs(gap)), bound=min(float(bound), LARGEST))
            for gap, bound in zip(difference, reach, strict=True)
        ],
    )


def _distance_upper(x: Floats, y: Floats) -> Floats:
    apart = np.abs(x - y)
    return norm_upper(np.where(apart > 0, np.nextafter(apart, np.inf), 0.0), None)
