"""VGG-16 (Simonyan & Zisserman 2014, arXiv 1409.1556) and DenseNet-121 (Huang et al. 2016, arXiv 1608.06993)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def vgg(plan: Sequence[Sequence[int]], *, grid: int, hidden: int, classes: int) -> nn.Sequential:
    """Stages of 3x3 convolutions of the planned widths, each ended by a pooling; three dense layers, with dropout."""
    layers: list[nn.Module] = []
    inner = 3
    for stage in plan:
        for width in stage:
            layers += [nn.Conv2d(inner, width, 3, padding=1), nn.ReLU(inplace=True)]
            inner = width
        layers.append(nn.MaxPool2d(2, 2))
    layers += [nn.AdaptiveAvgPool2d(grid), nn.Flatten()]
    layers += [nn.Linear(inner * grid * grid, hidden), nn.ReLU(inplace=True), nn.Dropout()]
    layers += [nn.Linear(hidden, hidden), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(hidden, classes)]
    return nn.Sequential(*layers)


def normalised(inner: int, outer: int, kernel: int) -> nn.Sequential:
    """Normalisation, ReLU, then the convolution."""
    layer = nn.Conv2d(inner, outer, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(nn.BatchNorm2d(inner), nn.ReLU(inplace=True), layer)


class DenseLayer(nn.Module):
    """x and `growth` new channels computed from it."""

    def __init__(self, inner: int, growth: int) -> None:
        super().__init__()
        self.new = nn.Sequential(normalised(inner, 4 * growth, 1), normalised(4 * growth, growth, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.new(x)], 1)


class DenseNet(nn.Module):
    """Blocks in which every layer reads all earlier ones, with halving transitions between them."""

    def __init__(self, blocks: Sequence[int], *, growth: int, classes: int) -> None:
        super().__init__()
        inner = 2 * growth
        stem = nn.Conv2d(3, inner, 7, 2, 3, bias=False)
        layers: list[nn.Module] = [stem, nn.BatchNorm2d(inner), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
        for position, count in enumerate(blocks):
            for _ in range(count):
                layers.append(DenseLayer(inner, growth))
                inner += growth
            if position + 1 < len(blocks):
                layers += [normalised(inner, inner // 2, 1), nn.AvgPool2d(2, 2)]
                inner //= 2
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(inner), nn.ReLU(inplace=True))
        self.classifier = nn.Linear(inner, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(nn.functional.adaptive_avg_pool2d(self.features(x), (1, 1)), 1))
