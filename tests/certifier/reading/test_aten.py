"""Every ATen operator that is read gives what PyTorch computes, as it is exported and after decomposition."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from certifier.errors import UnsupportedNode
from certifier.limits import Limits
from certifier.reading.exported.reader import read_exported
from tests.certifier.reading.exporting import Applied, exported, run_graph

T = torch.tensor
W = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(1))
V = torch.randn(4, 5, generator=torch.Generator().manual_seed(2))
IMAGE, MATRIX, LINE, VOLUME = (1, 4, 6, 6), (1, 3, 4), (1, 4, 9), (1, 4, 4, 6, 6)

Case = tuple[str, tuple[int, ...], Callable[..., object]]
CASES: list[Case] = [
    ("add", MATRIX, lambda x: torch.add(x, x * 2, alpha=3)),
    ("sub", MATRIX, lambda x: torch.sub(1.5, x) - torch.sub(x, 2, alpha=0.5)),
    ("rsub", MATRIX, lambda x: torch.rsub(x, 2.0, alpha=3)),
    ("mul integer", MATRIX, lambda x: x * 3 * T([1, 2, 3, 4])),
    ("mul zero-dimensional double", MATRIX, lambda x: x * T(2.5, dtype=torch.float64)),
    ("add wider tensor", MATRIX, lambda x: x + torch.ones(4, dtype=torch.float64)),
    ("div", MATRIX, lambda x: x / 3 + 1 / (x.abs() + 1)),
    ("neg abs", MATRIX, lambda x: -x.abs()),
    ("pow", MATRIX, lambda x: x**2 + x.abs().pow(1.5) + 2.0**x),
    ("roots", MATRIX, lambda x: x.abs().sqrt() + (x.abs() + 1).rsqrt() + x.exp() + (x.abs() + 1).log()),
    ("square expm1 log1p", MATRIX, lambda x: x.square() + x.expm1() + x.abs().log1p()),
    ("trigonometric", MATRIX, lambda x: x.sin() + x.cos() + x.atan() + x.asinh() + x.tan()),
    ("clamp", MATRIX, lambda x: x.clamp(-0.5, 0.5) + x.clamp_min(0.1) + x.clamp_max(0.2) + x.clamp(max=0)),
    ("clamp tensor", MATRIX, lambda x: x.clamp(min=T([0.0, 0.1, 0.2, 0.3]), max=T(0.25))),
    ("maximum", MATRIX, lambda x: torch.maximum(x, -x) + torch.minimum(x, x * 2) + torch.max(x, x.flip(1))),
    ("where", MATRIX, lambda x: torch.where(x > 0, x, x * 0.1) + torch.where(x <= 0.3, 1.0, 2.0)),
    ("compare", MATRIX, lambda x: ((x >= 0.1) & (x < 1) | (x == 2) | ~(x != 3)).float()),
    (
        "masked_fill",
        MATRIX,
        lambda x: x.masked_fill(x > 0, float("-1e9")).masked_fill(T([True, False, False, True]), 0),
    ),
    ("addcmul lerp", MATRIX, lambda x: torch.addcmul(x, x, x, value=0.5) + torch.lerp(x, x * 2, 0.25)),
    ("addcdiv", MATRIX, lambda x: torch.addcdiv(x, x, x.abs() + 1, value=0.5)),
    ("relu tanh sigmoid", MATRIX, lambda x: F.relu(x) + torch.tanh(x) + torch.sigmoid(x) + torch.erf(x)),
    ("relu6 hardtanh", MATRIX, lambda x: F.relu6(x * 4) + F.hardtanh(x, -0.5, 0.25)),
    ("leaky_relu", MATRIX, lambda x: F.leaky_relu(x, 0.3)),
    ("rrelu", MATRIX, lambda x: F.rrelu(x)),
    ("prelu", IMAGE, lambda x: F.prelu(x, T([0.1, -0.2, 0.3, 0.4])) + F.prelu(x, T([0.25]))),
    ("elu celu selu", MATRIX, lambda x: F.elu(x, 0.7) + F.celu(x, 1.3) + F.selu(x)),
    ("gelu", MATRIX, lambda x: F.gelu(x) + F.gelu(x, approximate="tanh")),
    ("silu mish", MATRIX, lambda x: F.silu(x) + F.mish(x)),
    ("hardswish hardsigmoid", MATRIX, lambda x: F.hardswish(x * 3) + F.hardsigmoid(x * 3)),
    ("softplus", MATRIX, lambda x: F.softplus(x * 9) + F.softplus(x, beta=2.5) + F.softsign(x) + F.logsigmoid(x)),
    ("shrink", MATRIX, lambda x: F.softshrink(x, 0.3) + F.hardshrink(x, 0.4) + F.tanhshrink(x)),
    ("threshold", MATRIX, lambda x: F.threshold(x, 0.1, 0.1) + F.threshold(x, 0.1, 5.0)),
    ("softmax", MATRIX, lambda x: F.softmax(x, 1) + F.log_softmax(x, -1) + F.softmin(x, 2)),
    ("index_put", MATRIX, lambda x: torch.index_put(x, (T([0, 0]), T([2, -3])), x[0, 1:3] * 2)),
    ("index_put one axis", MATRIX, lambda x: torch.index_put(x, (T([0]),), x[0, 0])),
    ("index_put accumulate", (3, 4), lambda x: torch.index_put(x, (T([1, 1]),), x[:2], accumulate=True)),
    ("sort", MATRIX, lambda x: x.sort(-1)[0] + torch.sort(x, dim=1, descending=True, stable=True)[0]),
    ("glu", MATRIX, lambda x: F.glu(x, -1)),
    ("linear", (1, 4), lambda x: F.linear(x, V.T, V[0]) + F.linear(x, V.T)),
    ("linear three axes", MATRIX, lambda x: F.linear(x, V.T, V[0])),
    ("matmul", MATRIX, lambda x: torch.matmul(x, V) + x @ V[:, 0:1]),
    ("bmm baddbmm", MATRIX, lambda x: torch.bmm(x, x.mT) + torch.baddbmm(x @ x.mT, x, x.mT, beta=0.5, alpha=2)),
    ("mm addmm t", (3, 4), lambda x: torch.mm(x, V) + torch.addmm(V[0], x, V, beta=0.5, alpha=2) + x.t().t() @ V),
    ("mv dot", (4,), lambda x: torch.mv(V.T, x) + torch.dot(x, V[:, 0])),
    ("einsum", MATRIX, lambda x: torch.einsum("bij,jk->bik", x, V)),
    ("attention", (1, 2, 4, 8), lambda x: F.scaled_dot_product_attention(x, x * 2, x + 1)),
    ("attention causal", (1, 2, 4, 8), lambda x: F.scaled_dot_product_attention(x, x, x * 3, is_causal=True)),
    (
        "attention with mask",
        (1, 2, 4, 8),
        lambda x: (
            F.scaled_dot_product_attention(x, x, x, attn_mask=torch.ones(4, 4).tril().bool(), scale=0.3)
            + F.scaled_dot_product_attention(x, x, x, attn_mask=torch.ones(4, 4).triu())
        ),
    ),
    ("conv2d", IMAGE, lambda x: F.conv2d(x, W, T([1.0, 2, 3, 4, 5, 6]), stride=2, padding=1, dilation=1)),
    ("conv2d groups", IMAGE, lambda x: F.conv2d(x, W[:, :2], groups=2, padding=(1, 2), dilation=(2, 1))),
    ("conv2d same", IMAGE, lambda x: F.conv2d(x, W, padding="same", dilation=2)),
    ("conv2d valid", IMAGE, lambda x: F.conv2d(x, W, padding="valid")),
    ("conv2d one image", IMAGE[1:], lambda x: F.conv2d(x, W)),
    ("conv1d", LINE, lambda x: F.conv1d(x, W[:, :, 0], stride=2, padding=1)),
    ("conv3d", VOLUME, lambda x: F.conv3d(x, W[:, :, None], padding=(0, 1, 1))),
    ("conv_transpose", IMAGE, lambda x: F.conv_transpose2d(x, W[:4], stride=2, padding=1, output_padding=1)),
    ("conv_transpose1d", LINE, lambda x: F.conv_transpose1d(x, W[:4, :, 0], stride=2, groups=2, dilation=2)),
    ("conv_transpose3d", VOLUME, lambda x: F.conv_transpose3d(x, W[:4, :, None], stride=(1, 2, 2))),
    ("batch_norm", IMAGE, lambda x: F.batch_norm(x, V[:, 0], V[:, 1].abs() + 0.1, V[:, 2], V[:, 3], eps=1e-3)),
    ("batch_norm plain", IMAGE, lambda x: F.batch_norm(x, V[:, 0], V[:, 1].abs() + 0.1)),
    ("batch_norm vector", (1, 4), lambda x: F.batch_norm(x, V[:, 0], V[:, 1].abs() + 0.1)),
    ("layer_norm", MATRIX, lambda x: F.layer_norm(x, (4,), V[:, 0], V[:, 1], 1e-3) + F.layer_norm(x, (3, 4))),
    ("rms_norm", MATRIX, lambda x: F.rms_norm(x, (4,), V[:, 0], 1e-3)),
    ("group_norm", IMAGE, lambda x: F.group_norm(x, 2, V[:, 0], V[:, 1], 1e-3) + F.group_norm(x, 4)),
    ("instance_norm", IMAGE, lambda x: F.instance_norm(x, weight=V[:, 0], bias=V[:, 1]) + F.instance_norm(x)),
    ("max_pool", IMAGE, lambda x: F.max_pool2d(x, 3, 2, 1) + F.max_pool2d(x, 2)),
    ("max_pool ceil", (1, 4, 7, 7), lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True)),
    ("max_pool ceil dropped", (1, 4, 6, 6), lambda x: F.max_pool2d(x, 2, 3, padding=1, ceil_mode=True)),
    ("max_pool dilated", (1, 4, 9, 9), lambda x: F.max_pool2d(x, 3, 2, 1, dilation=2)),
    ("max_pool1d", LINE, lambda x: F.max_pool1d(x, 3, 2)),
    ("max_pool3d", VOLUME, lambda x: F.max_pool3d(x, 2)),
    ("max_pool one image", IMAGE[1:], lambda x: F.max_pool2d(x, 2)),
    ("avg_pool", IMAGE, lambda x: F.avg_pool2d(x, 3, 2, 1) + F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)),
    ("avg_pool ceil", (1, 4, 7, 7), lambda x: F.avg_pool2d(x, 2, 2, ceil_mode=True)),
    ("avg_pool1d", LINE, lambda x: F.avg_pool1d(x, 3, 2, 1)),
    ("avg_pool3d", VOLUME, lambda x: F.avg_pool3d(x, 2)),
    ("adaptive_avg_pool", IMAGE, lambda x: F.adaptive_avg_pool2d(x, 1) + F.adaptive_avg_pool2d(x, (3, 2)).sum()),
    ("adaptive_avg_pool uneven", IMAGE, lambda x: F.adaptive_avg_pool2d(x, (4, 7))),
    ("adaptive_avg_pool kept", IMAGE, lambda x: F.adaptive_avg_pool2d(x, (None, 1))),
    ("adaptive_avg_pool1d", LINE, lambda x: F.adaptive_avg_pool1d(x, 3) + F.adaptive_avg_pool1d(x, 1)),
    ("adaptive_avg_pool3d", VOLUME, lambda x: F.adaptive_avg_pool3d(x, (3, 1, 4))),
    ("adaptive_max_pool", IMAGE, lambda x: F.adaptive_max_pool2d(x, 1) + F.adaptive_max_pool2d(x, 3).sum()),
    ("mean sum", IMAGE, lambda x: x.mean((2, 3), keepdim=True) + x.sum(1, keepdim=True) + x.mean() + x.sum()),
    ("mean dtype", IMAGE, lambda x: x.sum((-1,), dtype=torch.float64) + x.mean(-1)),
    ("amax amin", IMAGE, lambda x: x.amax((2, 3)) + x.amin(dim=(2, 3)) + x.max() + x.min()),
    ("max along", IMAGE, lambda x: x.max(1)[0] + x.min(dim=1, keepdim=False).values),
    ("argmax topk", MATRIX, lambda x: x.argmax(-1) + x.topk(2, 1)[0].sum(-1).sum() + x.argmin()),
    ("norms", MATRIX, lambda x: x.norm() + x.norm(dim=1) + torch.linalg.vector_norm(x, 1) + x.norm(p=float("inf"))),
    ("linalg norm", MATRIX, lambda x: torch.linalg.norm(x) + torch.linalg.norm(x, dim=1)),
    ("normalize", MATRIX, lambda x: F.normalize(x, dim=-1)),
    ("logsumexp cumsum prod", MATRIX, lambda x: x.logsumexp(1) + x.cumsum(1)[:, -1] + x.prod(1)),
    ("var std", MATRIX, lambda x: x.var(1) + x.std(1, unbiased=False) + torch.var_mean(x, 1, correction=0)[1]),
    ("any all", MATRIX, lambda x: (x > 0).any(1).float() + (x > -9).all().float()),
    ("view", MATRIX, lambda x: x.view(1, -1).reshape(1, 2, 6).flatten(1).unflatten(1, (3, 4)).view_as(x)),
    ("squeeze", (1, 1, 4, 1), lambda x: x.squeeze(1).squeeze(-1).unsqueeze(0).unsqueeze(-1) + x.squeeze((1, 3))),
    ("permute", IMAGE, lambda x: x.permute(0, 2, 3, 1).transpose(1, 3).movedim(1, -1).swapaxes(1, 2).contiguous()),
    ("expand repeat", (1, 1, 4), lambda x: x.expand(1, 3, -1) + x.expand_as(torch.zeros(1, 3, 4)) + x.repeat(1, 3, 1)),
    ("expand new axis", MATRIX, lambda x: x.expand(2, 1, 3, 4).sum(0) + x.tile(2)[..., :4]),
    ("flip roll", MATRIX, lambda x: x.flip(1, 2) + x.roll(2, 2) + x.roll((1, -1), (1, 2)) + x.roll(5)),
    ("pixel shuffle", (1, 8, 4, 4), lambda x: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 4)),
    ("channel shuffle", IMAGE, lambda x: F.channel_shuffle(x, 2)),
    ("cat stack", MATRIX, lambda x: torch.cat([x, x * 2, torch.zeros(0)], 1).sum() + torch.stack([x, -x], 1)),
    ("split", IMAGE, lambda x: x.split(3, 1)[1] + x.split([1, 2, 1], 1)[0] + x.chunk(2, 1)[1].sum(1, keepdim=True)),
    ("unbind tensor_split", IMAGE, lambda x: x.unbind(1)[2] + x.tensor_split(3, 1)[2].squeeze(1)),
    ("slice", IMAGE, lambda x: x[:, 1:, ::2, -3:-1] + x[:, :3, 3:, 2:-2] + x.narrow(1, 1, 3).narrow(2, 0, 3)[..., :2]),
    ("select", IMAGE, lambda x: x[:, 2] + x[:, -1] + x.select(1, 0)),
    (
        "index",
        IMAGE,
        lambda x: x[:, [2, 0]] + x.index_select(1, T([1, 3])) + x.gather(1, torch.ones(1, 2, 6, 6).long()),
    ),
    (
        "index_put by slices",
        IMAGE,
        lambda x: torch.slice_scatter(x, x[:, 1:3] * 2, 1, 1, 3).select_scatter(x[:, 0], 1, 2),
    ),
    ("triu", MATRIX, lambda x: x.triu() + x.tril(-1)),
    ("pad", IMAGE, lambda x: F.pad(x, (1, 2, 0, 1), value=0.5) + F.pad(x, (1, 2, 0, 1), mode="replicate")),
    ("pad reflect", IMAGE, lambda x: F.pad(x, (1, 2, 3, 1), mode="reflect") + F.pad(x, (1, 2, 3, 1), mode="circular")),
    ("pad negative", IMAGE, lambda x: F.pad(x, (-1, 2, 1, -2))),
    ("nearest", IMAGE, lambda x: F.interpolate(x, scale_factor=2)),
    (
        "nearest uneven",
        IMAGE,
        lambda x: F.interpolate(x, size=(7, 11)) + F.interpolate(x, size=(7, 11), mode="nearest-exact"),
    ),
    ("nearest scale", IMAGE, lambda x: F.interpolate(x, scale_factor=1.7)),
    ("nearest down", IMAGE, lambda x: F.interpolate(x, size=3) + F.interpolate(x, scale_factor=0.5)),
    ("bilinear", IMAGE, lambda x: F.interpolate(x, scale_factor=2, mode="bilinear")),
    ("bilinear aligned", IMAGE, lambda x: F.interpolate(x, size=(9, 4), mode="bilinear", align_corners=True)),
    ("bilinear scale", IMAGE, lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear")),
    ("bilinear one", IMAGE, lambda x: F.interpolate(x, size=(1, 3), mode="bilinear")),
    (
        "bicubic",
        IMAGE,
        lambda x: (
            F.interpolate(x, size=(9, 4), mode="bicubic")
            + F.interpolate(x, size=(9, 4), mode="bicubic", align_corners=True)
        ),
    ),
    ("linear upsampling", LINE, lambda x: F.interpolate(x, scale_factor=2, mode="linear")),
    ("trilinear", VOLUME, lambda x: F.interpolate(x, scale_factor=2, mode="trilinear")),
    (
        "dropout",
        MATRIX,
        lambda x: F.dropout(F.dropout1d(F.alpha_dropout(x, training=False), training=False), 0.5, False),
    ),
    ("conversions", MATRIX, lambda x: x.double().to(torch.float32).type_as(x).half().float().to(x)),
    ("copies", MATRIX, lambda x: x.clone().detach() + x.contiguous() + x.to("cpu")),
    (
        "constants",
        MATRIX,
        lambda x: x + torch.arange(4) + torch.ones(4) * 2 + torch.full((4,), 3.0) + torch.zeros_like(x),
    ),
    (
        "more constants",
        MATRIX,
        lambda x: x + x.new_ones(4) + torch.full_like(x, 2) + torch.arange(1, 9, 2) + T([1, 2, 3, 4]),
    ),
    ("embedding", MATRIX, lambda x: x + F.embedding(torch.arange(3), V)[:, :4]),
    ("in place", MATRIX, lambda x: (x + 0).mul_(2).relu_().add_(x).clamp_(max=1).sub_(0.5)),
    ("sizes", MATRIX, lambda x: x.view(x.shape[0], x.size(1) * x.size(-1)) * x.numel() * x.dim()),
    ("set by slice", MATRIX, lambda x: torch.zeros(1, 3, 4).copy_(x)),
]

DECOMPOSED_INTO_BATCH_STATISTICS_OR_NOISE = ("rrelu", "instance_norm")


def _compare(function: Callable[..., object], shape: tuple[int, ...], decomposed: bool) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(7))
    expected = function(x.clone())
    data = exported(Applied(function), [x.clone()], decomposed=decomposed)
    (result,) = run_graph(read_exported(data, limits=Limits()), [x.numpy()])
    assert isinstance(expected, torch.Tensor)
    wanted = expected.numpy()
    assert result.shape == wanted.shape
    assert result.dtype == wanted.dtype
    np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(("name", "shape", "function"), CASES, ids=[case[0] for case in CASES])
def test_an_operator_computes_what_torch_computes(name, shape, function):
    _compare(function, shape, decomposed=False)


@pytest.mark.parametrize(("name", "shape", "function"), CASES, ids=[case[0] for case in CASES])
def test_a_decomposed_operator_computes_what_torch_computes(name, shape, function):
    if name in DECOMPOSED_INTO_BATCH_STATISTICS_OR_NOISE:
        with pytest.raises(UnsupportedNode):
            _compare(function, shape, decomposed=True)
    else:
        _compare(function, shape, decomposed=True)
