"""Exported programs give the graph that torch runs, and hostile `.pt2` files end as typed errors."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from certifier.errors import CertifierError, MalformedModel, ResourceLimitExceeded, UnsupportedModel, UnsupportedNode
from certifier.limits import Limits
from certifier.network import build_network, served_model
from certifier.reading.exported import read_exported
from tests.certifier.reading.exporting import Applied, engine, exported, run_graph

LIMITS = Limits()


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        out = self.relu(self.norm(self.first(x)))
        out = self.second(out)
        out += x
        return self.relu(out)


class Gelu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(12)
        self.inner = nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Dropout(0.1), nn.Linear(24, 12))

    def forward(self, x):
        return x + self.inner(self.norm(x))


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("shift", torch.arange(6.0), persistent=False)

    def forward(self, x):
        with torch.no_grad():
            scale = self.shift * 0.5
        return self.second(torch.relu(self.first(x))) + scale + torch.tensor([1.0, 2, 3, 4, 5, 6])


def _settled(model: nn.Module) -> nn.Module:
    """The model with statistics that are not those of a fresh one."""
    generator = torch.Generator().manual_seed(3)
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return model.eval()


def _networks() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    torch.manual_seed(0)
    return {
        "dense": (nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)), (5,)),
        "convolutional": (
            nn.Sequential(
                nn.Conv2d(3, 4, 3, stride=2, padding=1),
                nn.BatchNorm2d(4),
                nn.ReLU6(),
                Residual(),
                nn.MaxPool2d(2),
                Residual(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(4, 3),
            ),
            (3, 16, 16),
        ),
        "feed-forward with layer norm": (nn.Sequential(Gelu(), nn.LayerNorm(12), nn.Linear(12, 3)), (12,)),
        "three axes": (nn.Sequential(Gelu(), nn.Flatten(), nn.Linear(60, 3)), (5, 12)),
        "shared parameters": (Shared(), (6,)),
        "spectral norm": (
            nn.Sequential(
                nn.utils.parametrizations.spectral_norm(nn.Linear(5, 6)),
                nn.LeakyReLU(),
                nn.utils.spectral_norm(nn.Linear(6, 3)),
            ),
            (5,),
        ),
        "weight norm": (nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(5, 6)), nn.Linear(6, 3)), (5,)),
        "transposed": (
            nn.Sequential(
                nn.ConvTranspose2d(2, 3, 3, stride=2), nn.ELU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(108, 4)
            ),
            (2, 6, 6),
        ),
        "grouped": (
            nn.Sequential(nn.Conv1d(4, 8, 3, groups=2), nn.GroupNorm(2, 8), nn.SiLU(), nn.Flatten(), nn.Linear(56, 3)),
            (4, 9),
        ),
    }


NETWORKS = _networks()
UNBOUNDED_WITHOUT_PATTERNS = ("grouped",)


@pytest.mark.parametrize("decomposed", [False, True], ids=["exported", "decomposed"])
@pytest.mark.parametrize("batch", [False, True], ids=["one row", "any batch"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_graph_that_is_bounded_and_served_computes_what_torch_computes(name, batch, decomposed):
    model, shape = NETWORKS[name]
    model = _settled(model)
    rows = torch.randn(4, *shape, generator=torch.Generator().manual_seed(5))
    example = rows if batch else rows[:1]
    graph = read_exported(exported(model, [example], batch=batch, decomposed=decomposed), limits=LIMITS)
    assert graph.inputs[0].shape == (1, *shape)
    assert graph.inputs[0].batch_axis
    expected = model(rows).detach().numpy()
    for row, wanted in zip(rows.numpy(), expected, strict=True):
        (result,) = run_graph(graph, [row[None]])
        np.testing.assert_allclose(result, wanted[None], rtol=1e-5, atol=1e-5)
    if name in UNBOUNDED_WITHOUT_PATTERNS:
        return
    network = build_network(graph, limits=LIMITS, cut_head=False)
    flat = network.evaluate(rows.double().reshape(4, -1).numpy())
    np.testing.assert_allclose(flat, expected.reshape(4, -1), rtol=1e-5, atol=1e-5)
    session = engine(served_model(network))
    for row, wanted in zip(rows.numpy(), expected, strict=True):
        (served,) = session.run(None, {network.input.name: row[None]})
        np.testing.assert_allclose(served, wanted[None], rtol=1e-5, atol=1e-5)


def test_parameters_keep_their_names():
    model, _ = NETWORKS["convolutional"]
    graph = read_exported(exported(model, [torch.zeros(1, 3, 16, 16)]), limits=LIMITS)
    assert {"3.first.weight", "1.running_mean", "8.bias"} <= set(graph.constants)
    np.testing.assert_array_equal(graph.constants["3.first.weight"], model.state_dict()["3.first.weight"].numpy())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_weights_keep_their_element_type(dtype):
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).to(dtype)
    graph = read_exported(exported(model, [torch.zeros(1, 4, dtype=dtype)]), limits=LIMITS)
    weight = graph.constants["0.weight"]
    assert str(weight.dtype) == str(dtype).removeprefix("torch.") == graph.inputs[0].dtype
    np.testing.assert_array_equal(weight.astype(np.float64), model[0].weight.detach().double().numpy())


def test_a_view_of_a_larger_storage_is_read_with_its_strides():
    class Strided(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            whole = torch.arange(24.0).reshape(4, 6)
            self.register_buffer("part", whole.t()[1:5:2, ::3])

        def forward(self, x):
            return x @ self.part

    model = Strided()
    graph = read_exported(exported(model, [torch.zeros(1, 2)]), limits=LIMITS)
    np.testing.assert_array_equal(graph.constants["part"], model.part.numpy())


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: F.dropout(x, 0.5, training=True), "at random"),
        (lambda x: torch.linalg.inv(x @ x.mT), "linalg_inv"),
        (lambda x: F.batch_norm(x, None, None, training=True), "training"),
        (lambda x: torch.div(x, 2, rounding_mode="floor"), "discontinuous"),
    ],
)
def test_what_is_no_function_or_not_known_is_refused_by_name(function, reason):
    with pytest.raises(UnsupportedNode, match=reason):
        read_exported(exported(Applied(function), [torch.ones(1, 3, 4)]), limits=LIMITS)


def test_a_write_to_what_may_be_viewed_and_is_read_again_is_refused():
    def function(x):
        y = x + 1
        view = y.view(-1)
        y.relu_()
        return y + view.sum()

    with pytest.raises(UnsupportedNode, match="view"):
        read_exported(exported(Applied(function), [torch.ones(1, 3)]), limits=LIMITS)


def test_a_clone_does_not_see_writes_to_its_original():
    def function(x):
        y = x + 1
        kept = y.clone()
        y.mul_(3)
        return y + kept

    x = torch.tensor([[1.0, -2.0, 0.5]])
    graph = read_exported(exported(Applied(function), [x]), limits=LIMITS)
    np.testing.assert_allclose(run_graph(graph, [x.numpy()])[0], function(x).numpy())


def test_a_module_that_counts_its_calls_is_refused():
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x):
            self.calls.add_(1)
            return x * self.calls

    with pytest.raises(CertifierError, match="changes a parameter, a buffer"):
        read_exported(exported(Counting(), [torch.ones(1, 3)]), limits=LIMITS)


def test_open_sizes_other_than_the_batch_are_refused():
    axis = torch.export.Dim("width")
    program = torch.export.export(nn.ReLU(), (torch.ones(1, 5),), dynamic_shapes=({1: axis},))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    with pytest.raises(UnsupportedModel, match="axis 1"):
        read_exported(buffer.getvalue(), limits=LIMITS)


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
    with pytest.raises(CertifierError):
        read_exported(_replaced("weights/weight_0", content), limits=LIMITS)
    assert not target.exists()


def test_too_many_nodes_are_refused():
    def repeat(value):
        nodes = value["graph_module"]["graph"]["nodes"]
        nodes.extend([nodes[-1]] * 30)

    with pytest.raises(ResourceLimitExceeded, match="nodes"):
        read_exported(_with_json("models/model.json", repeat), limits=Limits(nodes=20))


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
