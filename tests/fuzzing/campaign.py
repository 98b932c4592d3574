"""A campaign: which mutant has which number, what became of each, and which endings are faults of ours."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from certifier.limits import Limits
from tests.fuzzing.mutations import mutant
from tests.hostile.guard import FORBIDDEN, KILLED, UNTYPED, Guard, Outcome, Upload

GUARD = Guard(
    memory_bytes=2**30,
    cpu_seconds=10,
    limits=Limits(model_bytes=2**24, elements=2**18, value_elements=2**18, nodes=1000, seconds=60),
)
BATCH = 500
"""Mutants that share a process."""


class Campaign:
    """Mutants of the seeds, numbered from 0."""

    def __init__(self, *, seed: int) -> None:
        # Imported here, because every child imports the program that it belongs to, and none may hold PyTorch.
        from tests.fuzzing.seeds import seeds

        self._seed, self.seeds = seed, tuple(seeds())

    def form(self, number: int) -> str:
        """The format that mutant `number` was made of."""
        return self.seeds[number % len(self.seeds)].form

    def mutant(self, number: int) -> Upload:
        """Mutant `number`."""
        return mutant(self.seeds, self._seed, number)

    def run(self, start: int, stop: int) -> Iterator[tuple[int, Outcome]]:
        """Mutants `start` to `stop` and what became of them."""
        produce = functools.partial(mutant, self.seeds, self._seed)
        for first in range(start, stop, BATCH):
            yield from enumerate(GUARD.outcomes(produce, first, min(first + BATCH, stop)), first)


@dataclass
class Tally:
    """How many mutants of each format ended how."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    slowest: float = 0.0
    faults: int = 0

    def add(self, form: str, outcome: Outcome) -> str | None:
        """Count one; the fault that it shows, if it shows one."""
        self.counts[form, outcome.ending] += 1
        self.slowest = max(self.slowest, outcome.cpu_seconds)
        fault = fault_of(outcome)
        self.faults += fault is not None
        return fault

    def table(self) -> str:
        """The counts as a Markdown table."""
        forms = sorted({form for form, _ in self.counts})
        lines = [f"| ending | {' | '.join(forms)} | together |", "|---|" + "---:|" * (len(forms) + 1)]
        for ending in sorted({ending for _, ending in self.counts}):
            row = [self.counts[form, ending] for form in forms]
            lines.append(f"| `{ending}` | {' | '.join(f'{count:,}' for count in [*row, sum(row)])} |")
        totals = [sum(count for (each, _), count in self.counts.items() if each == form) for form in forms]
        lines.append(f"| all | {' | '.join(f'{count:,}' for count in [*totals, sum(totals)])} |")
        return "\n".join(lines) + f"\n\nFaults: {self.faults}; the slowest took {self.slowest:.1f} s of processor time."


def fault_of(outcome: Outcome) -> str | None:
    """What is wrong with an ending; None for a certificate or a typed refusal in time."""
    if outcome.ending in (UNTYPED, KILLED, FORBIDDEN) or outcome.cpu_seconds > GUARD.cpu_seconds:
        return f"{outcome.ending} after {outcome.cpu_seconds:.1f} s: {outcome.message}"
    return None
