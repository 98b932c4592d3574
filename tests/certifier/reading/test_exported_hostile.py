"""Hostile `.pt2` files end as typed errors: one case per attack, then mutations."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from certifier.errors import CertifierError, MalformedModel, ResourceLimitExceeded, UnsupportedModel, UnsupportedNode
from certifier.limits import Limits
from certifier.reading.exported.reader import read_exported
from tests.certifier.reading.exporting import exported

LIMITS = Limits()


def _plain() -> bytes:
    torch.manual_seed(0)
    return exported(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), [torch.zeros(1, 4)])


PLAIN = _plain()
Members = dict[str, bytes]


def _rebuilt(change: Callable[[Members], None]) -> bytes:
    with zipfile.ZipFile(io.BytesIO(PLAIN)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _name(members: Members, ending: str) -> str:
    return next(name for name in members if name.endswith(ending))


def _with_json(ending: str, change: Callable[[dict], None]) -> bytes:
    def edit(members: Members) -> None:
        name = _name(members, ending)
        value = json.loads(members[name])
        change(value)
        members[name] = json.dumps(value).encode()

    return _rebuilt(edit)


def _weight(change: Callable[[dict], None]) -> bytes:
    return _with_json("weights_config.json", lambda value: change(value["config"]["0.weight"]))


def _node(change: Callable[[dict], None]) -> bytes:
    return _with_json("models/model.json", lambda value: change(value["graph_module"]["graph"]["nodes"][0]))


def _replaced(ending: str, content: bytes) -> bytes:
    return _rebuilt(lambda members: members.__setitem__(_name(members, ending), content))


def _squarings() -> list[dict]:
    def number(place: int) -> dict:
        return {"arg": {"as_sym_int": {"as_name": f"n{place}"} if place else {"as_int": 3}}, "kind": 1}

    return [
        {
            "target": "_operator.mul",
            "inputs": [number(place), number(place)],
            "outputs": [{"as_sym_int": {"as_name": f"n{place + 1}"}}],
        }
        for place in range(60)
    ]


def _meta(key: str, value: object) -> bytes:
    return _weight(lambda payload: payload["tensor_meta"].__setitem__(key, value))


HUGE = [{"as_int": 2**40}, {"as_int": 2**40}]
HOSTILE: dict[str, tuple[Callable[[], bytes], type[CertifierError]]] = {
    "truncated": (lambda: PLAIN[: len(PLAIN) // 2], MalformedModel),
    "only the magic": (lambda: b"PK\x03\x04", MalformedModel),
    "no members": (lambda: _rebuilt(lambda members: members.clear()), MalformedModel),
    "pickled weight": (lambda: _weight(lambda payload: payload.update(use_pickle=True)), UnsupportedModel),
    "pickle flag left out": (lambda: _weight(lambda payload: payload.pop("use_pickle")), UnsupportedModel),
    "custom object": (lambda: _weight(lambda payload: payload.update(tensor_meta=None)), UnsupportedModel),
    "weight elsewhere": (lambda: _weight(lambda payload: payload.update(path_name="../../etc/passwd")), MalformedModel),
    "weight without bytes": (lambda: _replaced("weights/weight_0", b""), MalformedModel),
    "weight of odd bytes": (lambda: _replaced("weights/weight_0", b"x" * 49), MalformedModel),
    "negative size": (lambda: _meta("sizes", [{"as_int": -3}, {"as_int": 4}]), MalformedModel),
    "huge size": (lambda: _meta("sizes", HUGE), ResourceLimitExceeded),
    "huge size without stride": (lambda: _meta("strides", [{"as_int": 0}, {"as_int": 2**62}]), MalformedModel),
    "negative stride": (lambda: _meta("strides", [{"as_int": -4}, {"as_int": 1}]), MalformedModel),
    "offset beyond": (lambda: _meta("storage_offset", {"as_int": 1}), MalformedModel),
    "size as text": (lambda: _meta("sizes", [{"as_int": "3"}, {"as_int": 4}]), MalformedModel),
    "fewer strides": (lambda: _meta("strides", [{"as_int": 1}]), MalformedModel),
    "complex weight": (lambda: _meta("dtype", 10), UnsupportedModel),
    "sparse weight": (lambda: _meta("layout", 2), UnsupportedModel),
    "other schema": (
        lambda: _with_json("models/model.json", lambda value: value["schema_version"].update(major=99)),
        UnsupportedModel,
    ),
    "not JSON": (lambda: _replaced("models/model.json", b"{"), MalformedModel),
    "not UTF-8": (lambda: _replaced("models/model.json", b"\xff\xfe{}"), MalformedModel),
    "deep JSON": (lambda: _replaced("models/model.json", b"[" * 10**6), MalformedModel),
    "JSON of another shape": (lambda: _replaced("models/model.json", b"[]"), MalformedModel),
    "twice-named member": (lambda: _replaced("models/model.json", b'{"a": 1, "a": 2}'), MalformedModel),
    "no format": (lambda: _replaced("archive_format", b"pt3"), MalformedModel),
    "other version": (lambda: _replaced("archive_version", b"7"), UnsupportedModel),
    "big-endian": (lambda: _replaced("byteorder", b"big"), UnsupportedModel),
    "two programs": (
        lambda: _rebuilt(lambda members: members.update({"archive/models/other.json": b"{}"})),
        UnsupportedModel,
    ),
    "compiled code": (
        lambda: _rebuilt(lambda members: members.update({"archive/data/aotinductor/model/a.so": b"\x7fELF"})),
        UnsupportedModel,
    ),
    "old format": (
        lambda: _rebuilt(lambda members: members.update({"archive/serialized_exported_program.json": b"{}"})),
        UnsupportedModel,
    ),
    "unknown operator": (lambda: _node(lambda node: node.update(target="torch.ops.aten.save.out")), UnsupportedNode),
    "other namespace": (lambda: _node(lambda node: node.update(target="torch.ops.evil.run.default")), UnsupportedNode),
    "Python function": (lambda: _node(lambda node: node.update(target="os.system")), UnsupportedNode),
    "target is no text": (lambda: _node(lambda node: node.update(target=3)), MalformedModel),
    "reads nothing": (
        lambda: _node(lambda node: node["inputs"][0].update(arg={"as_tensor": {"name": "ghost"}})),
        MalformedModel,
    ),
    "argument without tag": (lambda: _node(lambda node: node["inputs"][0].update(arg={})), MalformedModel),
    "argument of unknown tag": (
        lambda: _node(lambda node: node["inputs"][0].update(arg={"as_custom_obj": {"name": "x"}})),
        UnsupportedNode,
    ),
    "too many arguments": (
        lambda: _node(lambda node: node["inputs"].extend([node["inputs"][0]] * 20)),
        UnsupportedNode,
    ),
    "result twice": (
        lambda: _node(lambda node: node.update(outputs=[{"as_tensor": {"name": "input"}}])),
        MalformedModel,
    ),
    "huge constant": (
        lambda: _node(
            lambda node: node.update(
                target="torch.ops.aten.ones.default", inputs=[{"arg": {"as_ints": [10**6, 10**6]}, "kind": 1}]
            )
        ),
        ResourceLimitExceeded,
    ),
    "huge range": (
        lambda: _node(
            lambda node: node.update(
                target="torch.ops.aten.arange.default", inputs=[{"arg": {"as_int": 10**15}, "kind": 1}]
            )
        ),
        ResourceLimitExceeded,
    ),
    "huge expansion": (
        lambda: _node(
            lambda node: node.update(
                target="torch.ops.aten.expand.default",
                inputs=[node["inputs"][0], {"arg": {"as_ints": [10**6, 10**6, 1, 4]}, "kind": 1}],
            )
        ),
        ResourceLimitExceeded,
    ),
    "endless number": (lambda: _replaced("models/model.json", b'{"a": ' + b"9" * 10**5 + b"}"), MalformedModel),
    "write to a number": (
        lambda: _node(
            lambda node: node.update(
                target="torch.ops.aten.add_.Tensor", inputs=[{"arg": {"as_int": 3}, "kind": 1}, node["inputs"][0]]
            )
        ),
        UnsupportedNode,
    ),
    "numbers that square": (
        lambda: _with_json(
            "models/model.json", lambda value: value["graph_module"]["graph"].update(nodes=_squarings())
        ),
        UnsupportedNode,
    ),
    "buffer that changes": (
        lambda: _with_json(
            "models/model.json",
            lambda value: value["graph_module"]["signature"]["output_specs"].append(
                {"buffer_mutation": {"arg": {"name": "relu"}, "buffer_name": "0.weight"}}
            ),
        ),
        UnsupportedModel,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_with_a_typed_error(name):
    build, kind = HOSTILE[name]
    with pytest.raises(kind):
        read_exported(build(), limits=LIMITS)


def test_the_unchanged_archive_is_read():
    graph = read_exported(_rebuilt(lambda members: None), limits=LIMITS)
    assert [node.operator for node in graph.nodes] == ["Gemm", "Relu"]


def test_pickles_inside_are_never_read(tmp_path):
    target = tmp_path / "written"

    class Writing:
        def __reduce__(self):
            return (open, (str(target), "w"))

    content = pickle.dumps(Writing())
    assert read_exported(_replaced("sample_inputs/model.pt", content), limits=LIMITS).nodes
    # As raw numbers the pickle's bytes may fit or not; either way they are never unpickled.
    with contextlib.suppress(CertifierError):
        read_exported(_replaced("weights/weight_0", content), limits=LIMITS)
    assert not target.exists()


def test_too_many_nodes_are_refused():
    def repeat(value):
        nodes = value["graph_module"]["graph"]["nodes"]
        nodes.extend([nodes[-1]] * 30)

    with pytest.raises(ResourceLimitExceeded, match="nodes"):
        read_exported(_with_json("models/model.json", repeat), limits=Limits(nodes=20))


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
            name = _name(members, ending)
            members[name] = json.dumps(_mutated(json.loads(members[name]), generator)).encode()

        try:
            read_exported(_rebuilt(edit), limits=LIMITS)
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
