"""Times of competitors taken turn by turn, so that a busy machine slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Timed:
    """The least wall-clock seconds over all rounds, and the value of the last."""

    seconds: float
    value: Any


def interleaved(competitors: Mapping[str, Callable[[], Any]], *, rounds: int) -> dict[str, Timed]:
    """Call every competitor once per round; the least time of each is what it costs without disturbance."""
    best: dict[str, Timed] = {}
    for _ in range(rounds):
        for name, call in competitors.items():
            started = time.perf_counter()
            value = call()
            seconds = time.perf_counter() - started
            before = best.get(name)
            best[name] = Timed(seconds=seconds if before is None else min(seconds, before.seconds), value=value)
    return best
