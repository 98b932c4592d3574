"""segments, multipliers -> constants: what a certificate of this method rests on, with the steps that it is made of."""

from collections.abc import Callable, Sequence

import numpy as np

from certifier.errors import NotProved
from certifier.proof.frequencies import Torus
from certifier.proof.frequency.state import State
from certifier.proof.frequency.steps import Bound, Linear, Segment
from certifier.proof.rounding import Float, mul_upper
from certifier.witness import Witness


def multiplier_name(segment: int, step: int) -> str:
    """The witness' array of the multipliers t, one per channel of an activation."""
    return f"multipliers/{segment}/{step}"


def restart_name(segment: int) -> str:
    """The witness' array of the variances d, one per channel of the state where a segment ends in a restart."""
    return f"restarts/{segment}"


def prove(
    segments: Sequence[Segment], witness: Witness, *, before_step: Callable[[str], None] = lambda step: None
) -> Bound:
    """The constants that the witness proves for the network of these segments; `before_step` may raise to end.

    Raises: NotProved, also for a witness that lacks arrays or has others.
    """
    return _last_state(segments, witness, before_step).bound()


def prove_norm(
    segments: Sequence[Segment], witness: Witness, *, before_step: Callable[[str], None] = lambda step: None
) -> float:
    """The constant of all signals of the last state together, and nothing else.

    Raises: as `prove`.
    """
    return _last_state(segments, witness, before_step).norm_upper()


def _last_state(segments: Sequence[Segment], witness: Witness, before_step: Callable[[str], None]) -> State:
    expected: set[str] = set()
    state, before = None, None
    for position, segment in enumerate(segments):
        state = State.diagonal(Torus(segment.sizes), _variances(segment, before))
        for number, step in enumerate(segment.steps):
            before_step(f"step {number} of segment {position} on frequencies")
            if isinstance(step, Linear):
                state = state.mapped(step)
                continue
            name = multiplier_name(position, number)
            expected.add(name)
            state = state.activated(step, witness.positive(name, (len(step.lower),)))
        if position + 1 < len(segments):
            name = restart_name(position)
            expected.add(name)
            before = state.restarted(witness.positive(name, (state.channels,)))
    if state is None or set(witness.arrays) != expected:
        raise NotProved("the witness does not have one array per activation and per restart, and no other")
    return state


def _variances(segment: Segment, before: Float | None) -> Float:
    if before is None:
        return segment.squares
    inherited = np.where(segment.sources >= 0, before[segment.sources], np.max(before))
    return mul_upper(segment.squares, inherited)
