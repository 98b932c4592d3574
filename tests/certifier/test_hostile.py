"""Every hostile upload is refused by its code, within ten seconds and one gigabyte, by a process of its own."""

from __future__ import annotations

import functools
import io
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from certifier.limits import Limits
from tests.hostile.guard import CERTIFIED, Guard, Outcome, stored_upload
from tests.hostile.registry import REGISTRY, SHAPES
from tests.hostile.setstate import writing_module

GUARD = Guard(memory_bytes=2**30, cpu_seconds=10, limits=Limits())
SMALLEST_COUNT = 40


def _names(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Outcome]:
    """What became of every case, each read by a process of its own."""
    folder = tmp_path_factory.mktemp("hostile")
    for number, (_, case) in enumerate(REGISTRY.values()):
        (folder / str(number)).write_bytes(case.build())
    shapes = tuple(SHAPES.get(form) for form, _ in REGISTRY.values())
    before = _names(folder)
    produce = functools.partial(stored_upload, str(folder), shapes)
    ended = {name: next(GUARD.outcomes(produce, number, number + 1)) for number, name in enumerate(REGISTRY)}
    assert _names(folder) == before
    return ended


def test_every_case_is_refused_by_its_code_within_its_limits(outcomes: Mapping[str, Outcome]):
    wrong = {
        name: (outcome.ending, outcome.message)
        for name, outcome in outcomes.items()
        if outcome.ending != REGISTRY[name][1].code or outcome.cpu_seconds > GUARD.cpu_seconds
    }
    assert not wrong


def test_there_are_enough_cases_of_every_kind(record_property):
    refused = Counter(form for form, case in REGISTRY.values() if case.code != CERTIFIED)
    record_property("hostile cases", dict(refused))
    assert sum(refused.values()) >= SMALLEST_COUNT and all(count >= SMALLEST_COUNT // 4 for count in refused.values())
    harmless = [name for name, (_, case) in REGISTRY.items() if case.code == CERTIFIED]
    assert len(harmless) <= 3, "a case that is certified shows no refusal"


@pytest.mark.parametrize("inside", [False, True], ids=["the module", "a submodule"])
def test_a_module_that_writes_while_it_is_loaded_changes_nothing(inside: bool, tmp_path: Path):
    target = tmp_path / "written"
    data = writing_module(str(target), inside=inside)
    (tmp_path / "0").write_bytes(data)
    produce = functools.partial(stored_upload, str(tmp_path), ((1, 4),))
    (outcome,) = GUARD.outcomes(produce, 0, 1)
    assert outcome.ending == "unsupported_model" and "a state of its own making" in outcome.message
    assert not target.exists()
    # What the reader refused does happen where PyTorch loads the same bytes.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.load(io.BytesIO(data))
    assert target.exists()
