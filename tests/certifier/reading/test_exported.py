"""Exported programs give the graph that torch runs, and hostile `.pt2` files end as typed errors."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from certifier.errors import CertifierError, UnsupportedModel, UnsupportedNode
from certifier.limits import Limits
from certifier.network import build_network, served_model
from certifier.reading.exported.reader import read_exported
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
        self.shift: torch.Tensor
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
        np.testing.assert_allclose(np.asarray(served), wanted[None], rtol=1e-5, atol=1e-5)


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
    expected = model.state_dict()["0.weight"].double().numpy()
    assert str(weight.dtype) == str(dtype).removeprefix("torch.") == graph.inputs[0].dtype
    np.testing.assert_array_equal(weight.astype(np.float64), expected)


def test_a_view_of_a_larger_storage_is_read_with_its_strides():
    class Strided(nn.Module):
        part: torch.Tensor

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
        (lambda x: x + torch.randn_like(x), "random"),
        (lambda x: x.argsort(-1), "discontinuous"),
        (lambda x: torch.fft.fft(x).real, "complex"),
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
        view = y.reshape(-1)
        y[0].relu_()
        return y + view.sum()

    with pytest.raises(UnsupportedNode, match="view"):
        read_exported(exported(Applied(function), [torch.ones(1, 3)]), limits=LIMITS)


def test_a_write_in_a_sub_graph_to_what_it_was_given_is_refused():
    def function(x):
        y = x + 1
        with torch.no_grad():
            y.mul_(2)
        return y

    with pytest.raises(UnsupportedNode, match="outer program"):
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
        calls: torch.Tensor

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
