"""Mutated uploads are certified or refused: nothing else escapes, nothing is written, no process dies."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzzing.campaign import GUARD, Campaign, Tally, fault_of
from tests.fuzzing.protobufs import parsed, written
from tests.hostile.guard import CERTIFIED, FORBIDDEN, KILLED, UNTYPED, Outcome, Upload

SEED = 2
"""Not the one of `make fuzz`, so that the two see other mutants."""


@pytest.fixture(scope="module")
def campaign() -> Campaign:
    return Campaign(seed=SEED)


def test_mutants_are_certified_or_refused(campaign: Campaign):
    tally, faults = Tally(), {}
    for number, outcome in campaign.run(0, 400):
        fault = tally.add(campaign.form(number), outcome)
        if fault:
            faults[number] = fault
    assert not faults
    # Mutants that were all refused at the door, or not damaged at all, would show nothing.
    endings = Counter[str]()
    for (_, ending), count in tally.counts.items():
        endings[ending] += count
    assert 20 < endings[CERTIFIED] < 200 and len(endings) >= 5


def test_a_mutant_is_told_by_its_number(campaign: Campaign):
    assert all(campaign.mutant(number).data == campaign.mutant(number).data for number in range(200))
    assert len({campaign.mutant(number).data for number in range(100)}) > 90


def test_protobufs_are_written_as_they_were_read(campaign: Campaign):
    """Without a change, the mutator gives back the model: what it damages is what it means to damage."""
    whole = [seed.data for seed in campaign.seeds if seed.form == "onnx"]
    assert whole
    for data in whole:
        fields = parsed(data)
        assert fields and written(fields) == data


def _good(number: int) -> Upload:
    return Upload(data=b"GIF89a", input_shape=None, method="product")


def _breaks(number: int) -> Upload:
    raise MemoryError


def _writes(number: int) -> Upload:
    Path("written").write_bytes(b"")
    return _good(number)


def _starts(number: int) -> Upload:
    os.system("true")
    return _good(number)


@pytest.mark.parametrize("fault", [_breaks, _writes, _starts])
def test_the_guard_tells_a_dead_child_and_goes_on(fault: Callable[[int], Upload]):
    assert [outcome.ending for outcome in GUARD.outcomes(fault, 0, 2)] == [KILLED, KILLED]
    assert [outcome.ending for outcome in GUARD.outcomes(_good, 0, 2)] == ["unknown_format", "unknown_format"]


@pytest.mark.parametrize("ending", [UNTYPED, KILLED, FORBIDDEN])
def test_bad_endings_are_faults(ending):
    bad = Outcome(ending=ending, message="", cpu_seconds=0.0, peak_bytes=0)
    late = Outcome(ending="malformed_model", message="", cpu_seconds=11.0, peak_bytes=0)
    assert fault_of(bad) and fault_of(late)
