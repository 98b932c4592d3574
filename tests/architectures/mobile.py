"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381) and EfficientNet-B0 (Tan & Le 2019, arXiv 1905.11946)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Stage(NamedTuple):
    """`count` inverted residuals: how far they expand, their width, the first one's stride, the kernel."""

    expansion: int
    width: int
    count: int
    stride: int
    kernel: int


class Attention(nn.Module):
    """Squeeze and excite: x times a gate per channel, computed from the channels' means."""

    def __init__(self, width: int, squeezed: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.gate = nn.Sequential(nn.Conv2d(width, squeezed, 1), nn.SiLU(), nn.Conv2d(squeezed, width, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.pool(x))


def step(inner: int, outer: int, kernel: int, activation: type[nn.Module], *, stride: int = 1, groups: int = 1):
    """Convolution, normalisation, activation."""
    layer = nn.Conv2d(inner, outer, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outer), activation())


class InvertedResidual(nn.Module):
    """Expand, convolve each channel, optionally gate, project; added to x where the shapes agree."""

    def __init__(self, inner: int, stage: Stage, *, stride: int, activation: type[nn.Module], excite: bool) -> None:
        super().__init__()
        hidden = inner * stage.expansion
        steps: list[nn.Module] = []
        if stage.expansion != 1:
            steps.append(step(inner, hidden, 1, activation))
        steps.append(step(hidden, hidden, stage.kernel, activation, stride=stride, groups=hidden))
        if excite:
            steps.append(Attention(hidden, max(1, inner // 4)))
        steps.append(step(hidden, stage.width, 1, nn.Identity))
        self.steps = nn.Sequential(*steps)
        self.residual = stride == 1 and inner == stage.width

    def forward(self, x: Tensor) -> Tensor:
        return x + self.steps(x) if self.residual else self.steps(x)


class Mobile(nn.Module):
    """A stem, stages of inverted residuals, a last 1x1 convolution and a classifier over its means."""

    def __init__(
        self, stages: Sequence[Stage], *, stem: int, last: int, classes: int, activation: type[nn.Module], excite: bool
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [step(3, stem, 3, activation, stride=2)]
        inner = stem
        for stage in stages:
            for position in range(stage.count):
                stride = stage.stride if position == 0 else 1
                layers.append(InvertedResidual(inner, stage, stride=stride, activation=activation, excite=excite))
                inner = stage.width
        layers.append(step(inner, last, 1, activation))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.mean(self.features(x), dim=(2, 3)))


MOBILENET_V2 = (
    Stage(1, 16, 1, 1, 3),
    Stage(6, 24, 2, 2, 3),
    Stage(6, 32, 3, 2, 3),
    Stage(6, 64, 4, 2, 3),
    Stage(6, 96, 3, 1, 3),
    Stage(6, 160, 3, 2, 3),
    Stage(6, 320, 1, 1, 3),
)
EFFICIENTNET_B0 = (
    Stage(1, 16, 1, 1, 3),
    Stage(6, 24, 2, 2, 3),
    Stage(6, 40, 2, 2, 5),
    Stage(6, 80, 3, 2, 3),
    Stage(6, 112, 3, 1, 5),
    Stage(6, 192, 4, 2, 5),
    Stage(6, 320, 1, 1, 3),
)


def narrowed(stages: Sequence[Stage], divisor: int) -> tuple[Stage, ...]:
    """The same stages with fewer channels."""
    return tuple(stage._replace(width=max(2, stage.width // divisor)) for stage in stages)
