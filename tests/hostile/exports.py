"""`.pt2` archives that nobody should open."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable

import torch
from torch import nn

from tests.certifier.reading.exporting import exported
from tests.hostile.case import Case


def _plain() -> bytes:
    torch.manual_seed(0)
    return exported(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), [torch.zeros(1, 4)])


PLAIN = _plain()
Members = dict[str, bytes]


def rebuilt(change: Callable[[Members], None]) -> bytes:
    with zipfile.ZipFile(io.BytesIO(PLAIN)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def named(members: Members, ending: str) -> str:
    return next(name for name in members if name.endswith(ending))


def with_json(ending: str, change: Callable[[dict], None]) -> bytes:
    def edit(members: Members) -> None:
        name = named(members, ending)
        value = json.loads(members[name])
        change(value)
        members[name] = json.dumps(value).encode()

    return rebuilt(edit)


def _weight(change: Callable[[dict], None]) -> bytes:
    return with_json("weights_config.json", lambda value: change(value["config"]["0.weight"]))


def _node(change: Callable[[dict], None]) -> bytes:
    return with_json("models/model.json", lambda value: change(value["graph_module"]["graph"]["nodes"][0]))


def replaced(ending: str, content: bytes) -> bytes:
    return rebuilt(lambda members: members.__setitem__(named(members, ending), content))


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
CASES: dict[str, Case] = {
    "truncated": Case("malformed_model", lambda: PLAIN[: len(PLAIN) // 2]),
    "only the magic": Case("malformed_model", lambda: b"PK\x03\x04"),
    "no members": Case("unknown_format", lambda: rebuilt(lambda members: members.clear())),
    "pickled weight": Case("unsupported_model", lambda: _weight(lambda payload: payload.update(use_pickle=True))),
    "pickle flag left out": Case("unsupported_model", lambda: _weight(lambda payload: payload.pop("use_pickle"))),
    "custom object": Case("unsupported_model", lambda: _weight(lambda payload: payload.update(tensor_meta=None))),
    "weight elsewhere": Case(
        "malformed_model", lambda: _weight(lambda payload: payload.update(path_name="../../etc/passwd"))
    ),
    "weight without bytes": Case("malformed_model", lambda: replaced("weights/weight_0", b"")),
    "weight of odd bytes": Case("malformed_model", lambda: replaced("weights/weight_0", b"x" * 49)),
    "negative size": Case("malformed_model", lambda: _meta("sizes", [{"as_int": -3}, {"as_int": 4}])),
    "huge size": Case("resource_limit_exceeded", lambda: _meta("sizes", HUGE)),
    "huge size without stride": Case("malformed_model", lambda: _meta("strides", [{"as_int": 0}, {"as_int": 2**62}])),
    "negative stride": Case("malformed_model", lambda: _meta("strides", [{"as_int": -4}, {"as_int": 1}])),
    "offset beyond": Case("malformed_model", lambda: _meta("storage_offset", {"as_int": 1})),
    "size as text": Case("malformed_model", lambda: _meta("sizes", [{"as_int": "3"}, {"as_int": 4}])),
    "fewer strides": Case("malformed_model", lambda: _meta("strides", [{"as_int": 1}])),
    "complex weight": Case("unsupported_model", lambda: _meta("dtype", 10)),
    "sparse weight": Case("unsupported_model", lambda: _meta("layout", 2)),
    "other schema": Case(
        "unsupported_model",
        lambda: with_json("models/model.json", lambda value: value["schema_version"].update(major=99)),
    ),
    "not JSON": Case("malformed_model", lambda: replaced("models/model.json", b"{")),
    "not UTF-8": Case("malformed_model", lambda: replaced("models/model.json", b"\xff\xfe{}")),
    "deep JSON": Case("malformed_model", lambda: replaced("models/model.json", b"[" * 10**6)),
    "JSON of another shape": Case("malformed_model", lambda: replaced("models/model.json", b"[]")),
    "half a character for a name": Case(
        "malformed_model", lambda: _node(lambda node: node.update(target="torch.ops.\ud800.run.default"))
    ),
    "numbers that are none": Case("malformed_model", lambda: replaced("models/model.json", b'{"schema_version": NaN}')),
    "twice-named member": Case("malformed_model", lambda: replaced("models/model.json", b'{"a": 1, "a": 2}')),
    "no format": Case("malformed_model", lambda: replaced("archive_format", b"pt3")),
    "other version": Case("unsupported_model", lambda: replaced("archive_version", b"7")),
    "big-endian": Case("unsupported_model", lambda: replaced("byteorder", b"big")),
    "two programs": Case(
        "unsupported_model", lambda: rebuilt(lambda members: members.update({"archive/models/other.json": b"{}"}))
    ),
    "compiled code": Case(
        "unsupported_model",
        lambda: rebuilt(lambda members: members.update({"archive/data/aotinductor/model/a.so": b"\x7fELF"})),
    ),
    "old format": Case(
        "unsupported_model",
        lambda: rebuilt(lambda members: members.update({"archive/serialized_exported_program.json": b"{}"})),
    ),
    "unknown operator": Case(
        "unsupported_node", lambda: _node(lambda node: node.update(target="torch.ops.aten.save.out"))
    ),
    "other namespace": Case(
        "unsupported_node", lambda: _node(lambda node: node.update(target="torch.ops.evil.run.default"))
    ),
    "Python function": Case("unsupported_node", lambda: _node(lambda node: node.update(target="os.system"))),
    "target is no text": Case("malformed_model", lambda: _node(lambda node: node.update(target=3))),
    "reads nothing": Case(
        "malformed_model", lambda: _node(lambda node: node["inputs"][0].update(arg={"as_tensor": {"name": "ghost"}}))
    ),
    "argument without tag": Case("malformed_model", lambda: _node(lambda node: node["inputs"][0].update(arg={}))),
    "argument of unknown tag": Case(
        "unsupported_node", lambda: _node(lambda node: node["inputs"][0].update(arg={"as_custom_obj": {"name": "x"}}))
    ),
    "too many arguments": Case(
        "unsupported_node", lambda: _node(lambda node: node["inputs"].extend([node["inputs"][0]] * 20))
    ),
    "result twice": Case(
        "malformed_model", lambda: _node(lambda node: node.update(outputs=[{"as_tensor": {"name": "input"}}]))
    ),
    "huge constant": Case(
        "resource_limit_exceeded",
        lambda: _node(
            lambda node: node.update(
                target="torch.ops.aten.ones.default", inputs=[{"arg": {"as_ints": [10**6, 10**6]}, "kind": 1}]
            )
        ),
    ),
    "huge range": Case(
        "resource_limit_exceeded",
        lambda: _node(
            lambda node: node.update(
                target="torch.ops.aten.arange.default", inputs=[{"arg": {"as_int": 10**15}, "kind": 1}]
            )
        ),
    ),
    "huge expansion": Case(
        "resource_limit_exceeded",
        lambda: _node(
            lambda node: node.update(
                target="torch.ops.aten.expand.default",
                inputs=[node["inputs"][0], {"arg": {"as_ints": [10**6, 10**6, 1, 4]}, "kind": 1}],
            )
        ),
    ),
    "endless number": Case("malformed_model", lambda: replaced("models/model.json", b'{"a": ' + b"9" * 10**5 + b"}")),
    "write to a number": Case(
        "unsupported_node",
        lambda: _node(
            lambda node: node.update(
                target="torch.ops.aten.add_.Tensor", inputs=[{"arg": {"as_int": 3}, "kind": 1}, node["inputs"][0]]
            )
        ),
    ),
    "numbers that square": Case(
        "unsupported_node",
        lambda: with_json("models/model.json", lambda value: value["graph_module"]["graph"].update(nodes=_squarings())),
    ),
    "buffer that changes": Case(
        "unsupported_model",
        lambda: with_json(
            "models/model.json",
            lambda value: value["graph_module"]["signature"]["output_specs"].append(
                {"buffer_mutation": {"arg": {"name": "relu"}, "buffer_name": "0.weight"}}
            ),
        ),
    ),
}
