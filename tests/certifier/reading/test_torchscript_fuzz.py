"""Damaged archives never surprise: whatever bytes are changed, the answer is a graph or a typed refusal."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from certifier.errors import CertifierError
from certifier.graph import Graph
from certifier.limits import Limits
from certifier.reading.torchscript.reader import read_torchscript
from tests.certifier.reading.torchscript_making import archived, members, scripted, traced

COUNT = int(os.environ.get("LIPCERT_FUZZ", "300"))
LIMITS = Limits(elements=2**20, value_elements=2**20, nodes=500)
SHAPE = (1, 4)


def seeds() -> list[bytes]:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2)).eval()
    return [traced(model, SHAPE), scripted(model), scripted(model, frozen=True)]


SEEDS = seeds()


def attempt(data: bytes) -> None:
    try:
        graph = read_torchscript(data, limits=LIMITS, input_shape=SHAPE)
    except CertifierError as error:
        assert str(error)
    else:
        assert isinstance(graph, Graph)


Edit = tuple[int, int, bytes]
EDITS = st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 12), st.binary(max_size=12)), min_size=1, max_size=6)


def edited(data: bytes, edits: list[Edit]) -> bytes:
    """`data` with pieces replaced: position, length of what goes, and what comes."""
    for position, length, piece in edits:
        at = position % (len(data) + 1)
        data = data[:at] + piece + data[at + length :]
    return data


@settings(max_examples=COUNT)
@given(st.sampled_from(SEEDS), EDITS)
def test_damaged_archives_are_read_or_refused(data: bytes, edits: list[Edit]):
    attempt(edited(data, edits))


@settings(max_examples=COUNT)
@given(st.sampled_from(SEEDS), st.integers(0, 100), EDITS)
def test_damaged_members_are_read_or_refused(data: bytes, which: int, edits: list[Edit]):
    content = members(data)
    name = sorted(content)[which % len(content)]
    attempt(archived({**content, name: edited(content[name], edits)}))


WORDS = """torch ops prim CONSTANTS c0 self x forward relu add linear view size cat append annotate range while for if
in return getattr int None True inf ( ) [ ] { } , . : = - -1 0 1 9223372036854775807 "a" weight bias training __torch__
slice select reshape copy_ relu_ expand ones stack chunk""".split()

REWRITES = st.tuples(st.integers(0, 2**12), st.integers(0, 3), st.lists(st.sampled_from(WORDS), max_size=4))


@settings(max_examples=COUNT)
@given(
    st.sampled_from(SEEDS),
    st.integers(0, 100),
    st.lists(
        st.tuples(st.integers(0, 2**12), st.integers(0, 3), st.lists(st.sampled_from(WORDS), max_size=4)), max_size=5
    ),
)
def test_rewritten_programs_are_read_or_refused(data: bytes, which: int, edits: list[tuple[int, int, list[str]]]):
    content = members(data)
    sources = sorted(name for name in content if name.endswith(".py"))
    name = sources[which % len(sources)]
    words = content[name].decode().split(" ")
    for position, length, pieces in edits:
        at = position % (len(words) + 1)
        words[at : at + length] = pieces
    attempt(archived({**content, name: " ".join(words).encode()}))


@pytest.mark.parametrize("data", SEEDS)
def test_the_undamaged_archives_are_read(data: bytes):
    assert read_torchscript(data, limits=LIMITS, input_shape=SHAPE).nodes
