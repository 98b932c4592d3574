"""Hostile `.pt2` files end as typed errors: one case per attack, then mutations."""

from __future__ import annotations

import contextlib
import json
import pickle

import numpy as np
import pytest

from certifier.errors import CertifierError, ResourceLimitExceeded
from certifier.limits import Limits
from certifier.reading.exported.reader import read_exported
from tests.hostile.exports import PLAIN, Members, named, rebuilt, replaced, with_json

LIMITS = Limits()


def test_the_unchanged_archive_is_read():
    graph = read_exported(rebuilt(lambda members: None), limits=LIMITS)
    assert [node.operator for node in graph.nodes] == ["Gemm", "Relu"]


def test_pickles_inside_are_never_read(tmp_path):
    target = tmp_path / "written"

    class Writing:
        def __reduce__(self):
            return (open, (str(target), "w"))

    content = pickle.dumps(Writing())
    assert read_exported(replaced("sample_inputs/model.pt", content), limits=LIMITS).nodes
    # As raw numbers the pickle's bytes may fit or not; either way they are never unpickled.
    with contextlib.suppress(CertifierError):
        read_exported(replaced("weights/weight_0", content), limits=LIMITS)
    assert not target.exists()


def test_too_many_nodes_are_refused():
    def repeat(value):
        nodes = value["graph_module"]["graph"]["nodes"]
        nodes.extend([nodes[-1]] * 30)

    with pytest.raises(ResourceLimitExceeded, match="nodes"):
        read_exported(with_json("models/model.json", repeat), limits=Limits(nodes=20))


def _mutated(value: object, generator: np.random.Generator) -> object:
    """`value` with one part, drawn at random, replaced by something else."""
    others = (
        None,
        True,
        -1,
        0,
        2**70,
        1.5,
        "",
        "Infinity",
        "../x",
        [],
        {},
        [[]],
        {"as_int": 5},
        [{"as_tensor": {"name": "x"}}],
    )
    if isinstance(value, dict) and value and generator.random() < 0.9:
        key = list(value)[int(generator.integers(len(value)))]
        if generator.random() < 0.1:
            return {name: part for name, part in value.items() if name != key}
        return {**value, key: _mutated(value[key], generator)}
    if isinstance(value, list) and value and generator.random() < 0.9:
        place = int(generator.integers(len(value)))
        if generator.random() < 0.1:
            return value[:place] + value[place + 1 :]
        return [*value[:place], _mutated(value[place], generator), *value[place + 1 :]]
    return others[int(generator.integers(len(others)))]


def test_mutated_programs_never_escape_as_other_errors():
    generator = np.random.default_rng(1)
    refused = 0
    for _ in range(1500):
        ending = ("models/model.json", "weights_config.json")[int(generator.integers(2))]

        def edit(members: Members, ending: str = ending) -> None:
            name = named(members, ending)
            members[name] = json.dumps(_mutated(json.loads(members[name]), generator)).encode()

        try:
            read_exported(rebuilt(edit), limits=LIMITS)
        except CertifierError:
            refused += 1
    assert 300 < refused < 1500


def test_damaged_bytes_never_escape_as_other_errors():
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        data = bytearray(PLAIN)
        for place in generator.integers(0, len(data), 3):
            data[place] = int(generator.integers(0, 256))
        try:
            read_exported(bytes(data), limits=LIMITS)
        except CertifierError:
            refused += 1
    assert refused > 200
