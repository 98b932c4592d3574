"""Programs of PyTorch that return classes: the logits before them are certified, from every format alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from certifier import CertifyOptions
from tests.building import certify_bytes, predictor_of
from tests.certifier.reading.exporting import exported
from tests.certifier.reading.torchscript_making import scripted, traced


class ArgMax(nn.Module):
    def forward(self, z: torch.Tensor):
        return z.argmax(1)


class Maximum(nn.Module):
    def forward(self, z: torch.Tensor):
        largest, place = torch.max(torch.softmax(z, dim=1), 1)
        return largest, place


class Top(nn.Module):
    def forward(self, z: torch.Tensor):
        values, places = torch.topk(z, 2)
        return values, places


class Both(nn.Module):
    def forward(self, z: torch.Tensor):
        return z, torch.argmax(z, dim=-1, keepdim=True)


class Smallest(nn.Module):
    def forward(self, z: torch.Tensor):
        return torch.min(z, dim=1)[1]


def network(head: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3), head).eval()


@pytest.mark.parametrize("form", ["traced", "scripted", "exported"])
@pytest.mark.parametrize("head", [ArgMax, Maximum, Top, Both, Smallest])
def test_the_logits_before_a_class_are_certified(head: type[nn.Module], form: str) -> None:
    model = network(head())
    data = {
        "traced": lambda: traced(model, (1, 4)),
        "scripted": lambda: scripted(model),
        "exported": lambda: exported(model, [torch.zeros(1, 4)], batch=False),
    }[form]()
    certified = certify_bytes(data, options=CertifyOptions(input_shape=[1, 4]))
    assert (certified.certificate.task, certified.certificate.classes) == ("classification", 3)
    rows = np.random.default_rng(0).standard_normal((16, 4)).astype(np.float32)
    with torch.no_grad():
        answer = model(torch.from_numpy(rows))
    classes = answer if isinstance(answer, torch.Tensor) else answer[1]
    wanted = classes.reshape(16, -1)[:, 0].tolist()
    got = predictor_of(certified).predict(rows.astype(np.float64), epsilon=None, preprocessing=None)
    assert [row.label for row in got] == wanted
