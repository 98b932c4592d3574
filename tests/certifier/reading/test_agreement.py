"""What ATen's defaults and corner cases mean: read from both formats and served, they answer what PyTorch answers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from certifier.engine import Engine
from certifier.network import build_network, served_model
from certifier.reading.exported.reader import read_exported
from certifier.reading.writing import write_onnx
from tests.certifier.reading.exporting import Applied, exported
from tests.certifier.reading.torchscript_making import LIMITS, Shape, assert_same, read, scripted, traced

Function = Callable[[Tensor], Tensor]
ROWS: Shape = (1, 4, 6)
IMAGE: Shape = (1, 4, 7, 8)

ON_ROWS: dict[str, Function] = {
    "celu alpha": lambda x: F.celu(x, 0.5),
    "elu negative alpha": lambda x: F.elu(x, -1.3),
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "leaky_relu default slope": F.leaky_relu,
    "leaky_relu slope over one": lambda x: F.leaky_relu(x, 3.0),
    "softplus past its threshold": lambda x: F.softplus(20 * x, 2.0, 25),
    "logsigmoid far out": lambda x: F.logsigmoid(30 * x),
    "threshold at its value": lambda x: F.threshold(x, 0.5, 0.5),
    "softmin of a negative axis": lambda x: F.softmin(x, -2),
    "clamp with its bounds swapped": lambda x: x.clamp(0.7, -0.4) + x,
    "clamp without a minimum": lambda x: x.clamp(max=0.3),
    "clamp from minus infinity": lambda x: x.clamp(-math.inf, 1),
    "mean over several axes": lambda x: x.mean((-1, -2), keepdim=True) + x,
    "amax over two axes": lambda x: x.amax((1, -1)),
    "max with places": lambda x: x.max(1, keepdim=True).values,
    "chunk that does not divide": lambda x: torch.cat(x.chunk(4, -1)[::-1], -1),
    "split into given sizes": lambda x: torch.cat(x.split([1, 3, 2], -1)[::-1], -1),
    "tensor_split at negative places": lambda x: torch.tensor_split(x, (1, -2), 2)[1],
    "slices with steps and negative ends": lambda x: x[:, ::2, -3:-1],
    "an end past the axis": lambda x: x[:, None, 1:100:2, :-2],
    "lists of places": lambda x: x[:, [0, 1], [2, -1]],
    "narrow from a negative start": lambda x: x.narrow(-1, -4, 2),
    "movedim of several axes": lambda x: x.reshape(1, 2, 2, 3, 2).movedim((1, 2), (-1, -3)),
    "flatten in the middle": lambda x: x.reshape(1, 2, 2, 6).flatten(-3, -2),
    "expand with kept sizes": lambda x: x.unsqueeze(1).expand(-1, 3, -1, 6) * 2,
    "repeat with more axes": lambda x: x.repeat(2, 1, 1, 3),
    "roll of the flattened tensor": lambda x: x.roll(5),
    "roll of two axes": lambda x: x.roll((1, -2), (1, 2)),
    "stack along the last axis": lambda x: torch.stack([x, x * 2, -x], -1),
    "cat with double and with nothing": lambda x: torch.cat([x, torch.ones(1, 1, 6).double(), torch.zeros(0)], 1),
    "addmm alpha and beta": lambda x: torch.addmm(torch.ones(3), x[0], torch.ones(6, 3), beta=2, alpha=-0.5),
    "rsub alpha": lambda x: torch.rsub(x, 3, alpha=2),
    "add alpha": lambda x: torch.add(x, torch.ones(6), alpha=-3),
    "addcmul value": lambda x: torch.addcmul(x, torch.ones(6) * 3, x, value=-0.5),
    "an int8 tensor and an int64 number": lambda x: x * torch.arange(6, dtype=torch.int8).mul(torch.tensor(100)),
    "an uint8 tensor that overflows": lambda x: x * torch.tensor([200, 1, 2, 3, 4, 5], dtype=torch.uint8).add(100),
    "integers divided": lambda x: x * (torch.tensor([1, 2, 3, 4, 5, 6]) / 4),
    "integers with a remainder": lambda x: x * (torch.arange(-3, 3) % 4),
    "integers divided down": lambda x: x * torch.div(torch.arange(-3, 3), 4, rounding_mode="floor"),
    "integers divided towards zero": lambda x: x * torch.div(torch.arange(-9, 9, 3), -4, rounding_mode="trunc"),
    "attention by a scale": lambda x: F.scaled_dot_product_attention(x, 2 * x, x - 1, scale=0.3),
    "attention by a negative scale": lambda x: F.scaled_dot_product_attention(x, 2 * x, x - 1, scale=-0.3),
    "integers with fmod": lambda x: x * torch.arange(-3, 3).fmod(4),
    "truth values multiplied": lambda x: x * torch.tensor([True, False, True, True, False, True]),
    "a double without axes": lambda x: x * torch.tensor(0.1, dtype=torch.float64),
    "a double with axes": lambda x: x * torch.full((6,), 0.1, dtype=torch.float64),
    "there and back in double": lambda x: (x.double() * 0.1).float(),
    "layer_norm over two axes": lambda x: F.layer_norm(x, (4, 6), eps=0.1),
    "batch_norm eps": lambda x: F.batch_norm(x, torch.arange(4.0), torch.arange(4.0) + 1, eps=0.5),
    "view of what the sizes say": lambda x: x.view(x.size(0), -1) * x.shape[-1] ** -0.5,
    "a number beyond float32's integers": lambda x: x * 16777217,
    "tril and triu with diagonals": lambda x: x.tril(-1) + x.triu(2),
}

ON_IMAGES: dict[str, Function] = {
    "max_pool ceil": lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
    "max_pool dilated and ceil": lambda x: F.max_pool2d(x, 3, 2, 1, 2, ceil_mode=True),
    "max_pool whose last window is dropped": lambda x: F.max_pool2d(x, 2, 3, ceil_mode=True),
    "avg_pool without padding in the count": lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    "avg_pool with two strides": lambda x: F.avg_pool2d(x, (3, 2), (2, 1), (1, 0)),
    "adaptive bins that overlap": lambda x: F.adaptive_avg_pool2d(x, (5, 3)),
    "adaptive bins of more than there are": lambda x: F.adaptive_avg_pool2d(x, (9, 10)),
    "nearest to a size": lambda x: F.interpolate(x, size=(5, 11)),
    "nearest by two scales": lambda x: F.interpolate(x, scale_factor=(1.5, 0.6)),
    "nearest-exact to a size": lambda x: F.interpolate(x, size=(5, 11), mode="nearest-exact"),
    "bilinear to one line": lambda x: F.interpolate(x, size=(1, 16), mode="bilinear"),
    "bilinear with aligned corners": lambda x: F.interpolate(x, size=(5, 11), mode="bilinear", align_corners=True),
    "bilinear by the scale as given": lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear"),
    "bilinear by the scale of the sizes": lambda x: F.interpolate(
        x, scale_factor=1.7, mode="bilinear", recompute_scale_factor=True
    ),
    "bicubic": lambda x: F.interpolate(x, size=(9, 6), mode="bicubic"),
    "reflect": lambda x: F.pad(x, (1, 2, 3, 0), mode="reflect"),
    "padding that cuts": lambda x: F.pad(x, (-1, 2, 3, -2), value=1.5),
    "instance_norm eps": lambda x: F.instance_norm(x, eps=0.3),
}


class Overlapping(nn.Module):
    """Parameters that are strided, transposed and overlapping views of one storage."""

    def __init__(self) -> None:
        super().__init__()
        storage = torch.arange(60.0) / 9
        self.first = nn.Parameter(storage[:36].view(6, 6), requires_grad=False)
        self.second = nn.Parameter(storage[24:].view(6, 6).t(), requires_grad=False)
        self.third = nn.Parameter(storage[::10], requires_grad=False)
        self.hankel = nn.Parameter(storage.as_strided((5, 6), (2, 1), 3), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear((x @ self.first) @ self.second * 0.01 + self.third, self.hankel)


def channels_last(model: nn.Conv2d) -> nn.Module:
    """The convolution with its weights in another order of memory."""
    weight = model.weight.detach().contiguous(memory_format=torch.channels_last)
    model.weight = nn.Parameter(weight)
    assert not model.weight.is_contiguous()
    return model


def encoder(*, norm_first: bool, activation: str) -> nn.Module:
    """One layer of a transformer on rows."""
    layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, norm_first=norm_first, activation=activation)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, 0.3, 0.5)
    return layer


MODULES: dict[str, tuple[Callable[[], nn.Module], Shape]] = {
    "conv in channels_last": (lambda: channels_last(nn.Conv2d(4, 6, 3)), IMAGE),
    "conv reflecting": (lambda: nn.Conv2d(4, 2, 3, padding=(1, 2), padding_mode="reflect"), IMAGE),
    "transposed conv": (lambda: nn.ConvTranspose2d(4, 6, (3, 2), 3, 1, (1, 2), groups=2, dilation=2), IMAGE),
    "transposed conv in 3d": (lambda: nn.ConvTranspose3d(2, 2, 2, 2, output_padding=(1, 0, 1)), (1, 2, 3, 3, 3)),
    "batch norm without parameters": (lambda: nn.BatchNorm2d(4, affine=False, eps=0.3), IMAGE),
    "instance norm with statistics": (lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True), IMAGE),
    "group norm without parameters": (lambda: nn.GroupNorm(2, 4, affine=False, eps=0.2), IMAGE),
    "layer norm without bias": (lambda: nn.LayerNorm([7, 8], bias=False), IMAGE),
    "flatten and unflatten": (lambda: nn.Sequential(nn.Flatten(), nn.Unflatten(1, (4, -1, 8))), IMAGE),
    "softmax over channels": (nn.Softmax2d, IMAGE),
    "views of one storage": (Overlapping, (1, 6)),
    "encoder that normalises first": (lambda: encoder(norm_first=True, activation="gelu"), ROWS),
    "encoder that normalises last": (lambda: encoder(norm_first=False, activation="relu"), ROWS),
}


def assert_exported_same(model: nn.Module, shape: Shape) -> None:
    """The program, read statically and served, answers what the model answers."""
    generator = torch.Generator().manual_seed(2)
    data = exported(model, [torch.randn(shape, generator=generator)])
    network = build_network(read_exported(data, limits=LIMITS), limits=LIMITS, cut_head=False)
    rows = 2 * torch.randn((3, *shape), generator=generator)
    with torch.no_grad():
        wanted = np.stack([model(row).double().numpy().reshape(-1) for row in rows])
    got = Engine(served_model(network), network.input).run(rows.double().numpy().reshape(3, -1))
    assert np.abs(wanted).max() > 1e-3, "a model that answers nothing proves nothing"
    assert np.abs(got - wanted).max() <= 1e-5 * max(1.0, np.abs(wanted).max())


IN_HALF: dict[str, Function] = {
    "a number times": lambda x: x * 0.1,
    "a double without axes times": lambda x: torch.tensor(0.1, dtype=torch.float64) * x,
    "over a number": lambda x: x / 0.3,
    "a number over": lambda x: 0.3 / x,
    "plus a number": lambda x: x + 0.1,
    "a number minus": lambda x: 0.1 - x,
    "add alpha": lambda x: torch.add(x, x.flip(-1), alpha=0.1),
    "sub alpha": lambda x: torch.sub(x, x.flip(-1), alpha=0.1),
    "rsub alpha": lambda x: torch.rsub(x, 0.1, alpha=0.3),
    "two tensors": lambda x: x * x.flip(-1) - x / (x.flip(-1).abs() + 1),
    "addcmul value": lambda x: torch.addcmul(x, x.flip(-1), x, value=0.1),
    "addcdiv value": lambda x: torch.addcdiv(x, x.flip(-1), x.abs() + 1, value=0.1),
    "lerp": lambda x: torch.lerp(x, x.flip(-1), 0.1),
    "lerp past the middle": lambda x: torch.lerp(x, x.flip(-1), 0.7),
}
CASES = [*((name, function, ROWS) for name, function in ON_ROWS.items())]
CASES += [*((name, function, IMAGE) for name, function in ON_IMAGES.items())]
IDS = [name for name, _, _ in CASES]


@pytest.mark.parametrize(("function", "shape"), [case[1:] for case in CASES], ids=IDS)
def test_a_traced_function_is_served_as_pytorch_runs_it(function: Function, shape: Shape) -> None:
    assert_same(traced(Applied(function), shape), shape)


@pytest.mark.parametrize(("function", "shape"), [case[1:] for case in CASES], ids=IDS)
def test_an_exported_function_is_served_as_pytorch_runs_it(function: Function, shape: Shape) -> None:
    assert_exported_same(Applied(function).eval(), shape)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_served_as_pytorch_runs_it_from_each_format(name: str) -> None:
    torch.manual_seed(0)
    make, shape = MODULES[name]
    model = make().eval()
    assert_same(traced(model, shape), shape)
    if not isinstance(model, nn.TransformerEncoderLayer):
        # Scripting writes down both of its paths, with conditions on the tensors' device.
        assert_same(scripted(model), shape)
    assert_exported_same(model, shape)


@pytest.mark.parametrize("name", IN_HALF)
def test_half_precision_is_rounded_where_pytorch_rounds_it(name: str) -> None:
    """By the standard's reference, since the engine leaves out roundings between nodes."""
    x = torch.randn(1, 2000, generator=torch.Generator().manual_seed(4)).half()
    model = Applied(IN_HALF[name]).eval()
    wanted = model(x).double().numpy()
    for graph in (
        read(traced(model, (1, 2000), dtype=torch.float16), (1, 2000)),
        read_exported(exported(model, [x]), limits=LIMITS),
    ):
        data = write_onnx(graph, output_shapes=[wanted.shape], output_dtypes=["float16"])
        (got,) = ReferenceEvaluator(onnx.load_model_from_string(data)).run(None, {graph.inputs[0].name: x.numpy()})
        different = np.asarray(got, dtype=np.float64) != wanted
        # A fused multiply-add may round the other way where two halves are nearly as near.
        assert different.mean() <= 0.002
        np.testing.assert_allclose(np.asarray(got, dtype=np.float64), wanted, rtol=2.0**-10, atol=2.0**-14)
