"""ConvNeXt-T (Liu et al. 2022, arXiv 2201.03545)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of (batch, channels, height, width)."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """x + scale f(x): a 7x7 convolution of each channel, then a normalised perceptron of every pixel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        # Training starts at 1e-6, at which a block would not show in the answers.
        self.scale = nn.Parameter(0.3 * torch.randn(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        pixels = self.norm(self.spatial(x).permute(0, 2, 3, 1))
        return x + self.scale * self.perceptron(pixels).permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """A patchifying stem, four stages with halving convolutions between them, and a normalised classifier."""

    def __init__(self, blocks: Sequence[int], widths: Sequence[int], *, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, 4), ChannelNorm(widths[0], eps=1e-6)]
        for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            if stage:
                inner = widths[stage - 1]
                layers += [ChannelNorm(inner, eps=1e-6), nn.Conv2d(inner, width, 2, 2)]
            layers += [ConvNeXtBlock(width) for _ in range(count)]
        self.features = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(widths[-1], eps=1e-6)
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.norm(self.features(x).mean((-2, -1))))
