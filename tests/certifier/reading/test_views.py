"""Writes in place through views: every tensor that sees the memory reads what PyTorch reads there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from certifier.errors import ResourceLimitExceeded, UnsupportedNode
from certifier.limits import Limits
from certifier.network import build_network
from certifier.reading.aten.views import VIEWS, View, Writes
from certifier.reading.emitting import Emitter
from certifier.reading.exported.reader import read_exported
from certifier.reading.torchscript.reader import read_torchscript
from tests.building import certify_bytes
from tests.certifier.reading.exporting import Applied, exported
from tests.certifier.reading.test_agreement import assert_exported_same
from tests.certifier.reading.torchscript_making import LIMITS, assert_same, scripted, traced

SHAPE = (1, 4, 6)


class Assigned(nn.Module):
    """Numbers, values with steps, and values computed in place, all written into slices."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(x)
        y[:, 0] = 0.5
        y[:, 1:3, ::2] = x[:, 0:2, ::2] * 2
        y[:, 3] += x[:, 0]
        y[..., -1].mul_(3)
        return y


class Seen(nn.Module):
    """Views taken before a write, of the tensor and of one another, are read after it."""

    def forward(self, x: Tensor) -> Tensor:
        y = x + 1
        first, second = y.transpose(1, 2), y[0]
        inner = first[:, 2:4].squeeze(0)
        second[1:3] *= -2
        before = inner * 1
        inner[0, 0] = 7
        y.add_(x)
        return first.transpose(1, 2) + second + before.sum() + y.view(2, 2, 6)[1, 0] + inner.mean()


class Filled(nn.Module):
    """A tensor of zeros, filled part by part."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.zeros(1, 6, 4)
        for place in range(4):
            y[:, :, place] = x[:, 3 - place]
        first, second = y.chunk(2, 1)
        first.copy_(second)
        second.unbind(1)[1].zero_()
        return y


class Input(nn.Module):
    """The input itself is written into, as a caller would notice; the function is one all the same."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.clone()
        x = y.permute(2, 0, 1)
        x[1:3].clamp_(min=0.1)
        x.narrow(0, 2, 3).select(-1, 0).neg_()
        return y


class Indexed(nn.Module):
    """Lists of places, on axes of which some are whole, and masks."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(x)
        y[:, [0, -1]] = x[:, 1:3] * 2
        y[0, torch.tensor([1, 2]), torch.tensor([[3], [-1]])] = x[0, :2, 0]
        y[:, :, torch.tensor([True, False, False, True, False, False])] += 1.5
        y[torch.ones(1, 4, dtype=torch.bool)] *= -1
        return y


MODULES: list[Callable[[], nn.Module]] = [Assigned, Seen, Filled, Input, Indexed]


@pytest.mark.parametrize("make", MODULES)
def test_writes_through_views_are_served_as_pytorch_runs_them(make: Callable[[], nn.Module]) -> None:
    model = make().eval()
    assert_same(traced(model, SHAPE), SHAPE)
    assert_same(scripted(model), SHAPE)
    assert_exported_same(model, SHAPE)


def test_a_decomposed_program_scatters_slices_with_steps() -> None:
    data = exported(Assigned(), [torch.zeros(SHAPE)], decomposed=True)
    network = build_network(read_exported(data, limits=LIMITS), limits=LIMITS, cut_head=False)
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    wanted = Assigned()(x).double().numpy().reshape(1, -1)
    np.testing.assert_allclose(network.evaluate(x.double().numpy().reshape(1, -1)), wanted, rtol=0, atol=1e-6)


def test_a_view_that_shows_an_entry_twice_is_not_written_through() -> None:
    """PyTorch refuses as well, so that only a hostile file does so."""
    emitter = Emitter(limits=Limits())
    base = emitter.input("x", dtype="float32", shape=(1, 3), batch_axis=True)
    value = emitter.input("v", dtype="float32", shape=(2, 3), batch_axis=False)
    view = View(operator="expand", arguments=[[2, 3]], keywords={}, part=None)
    with pytest.raises(UnsupportedNode, match="several times"):
        Writes().written(emitter, base, [view], value, operator="copy_", where="here")
    assert "reshape" not in VIEWS and "contiguous" not in VIEWS


def test_what_a_write_did_not_touch_is_read_as_before() -> None:
    """So that a bound does not pass through the other parts: here each is steep, and only one is read."""

    class Parts(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x * 1.0
            first, second = y.chunk(2, 1)
            first.mul_(100)
            return second * 2 + y[:, 2:] * 0.5

    x = torch.zeros(SHAPE)
    for data in (traced(Parts(), SHAPE), exported(Parts(), [x])):
        assert certify_bytes(data).certificate.lipschitz.upper == pytest.approx(2.5, rel=1e-9)


def test_chains_of_views_count_as_nodes() -> None:
    class Chained(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x + 1
            z = y
            for _ in range(30):
                z = z.view(-1).view(4, 6)
                z[0] = 1
            return y

    data, limits = traced(Chained(), SHAPE), Limits(nodes=400)
    with pytest.raises(ResourceLimitExceeded, match="nodes"):
        read_torchscript(data, limits=limits, input_shape=SHAPE)
    with pytest.raises(ResourceLimitExceeded, match="nodes"):
        read_exported(exported(Applied(Chained().forward), [torch.zeros(SHAPE)]), limits=limits)
