"""ResNet-18 and ResNet-50 (He et al. 2015, arXiv 1512.03385), the stride in the 3x3 convolution."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


def convolution(inner: int, outer: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution that keeps the size but for its stride, then a batch normalisation."""
    layer = nn.Conv2d(inner, outer, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outer))


class Block(nn.Module):
    """relu(x + f(x)); f is two 3x3 convolutions, or 1x1, 3x3, 1x1 to four times the width."""

    def __init__(self, inner: int, width: int, *, stride: int, bottleneck: bool) -> None:
        super().__init__()
        outer = 4 * width if bottleneck else width
        if bottleneck:
            steps = [
                convolution(inner, width, 1),
                nn.ReLU(),
                convolution(width, width, 3, stride=stride),
                nn.ReLU(),
                convolution(width, outer, 1),
            ]
        else:
            steps = [convolution(inner, width, 3, stride=stride), nn.ReLU(), convolution(width, outer, 3)]
        self.residual = nn.Sequential(*steps)
        same = stride == 1 and inner == outer
        self.shortcut = nn.Identity() if same else convolution(inner, outer, 1, stride=stride)
        self.outer = outer

    def forward(self, x: Tensor) -> Tensor:
        return (self.residual(x) + self.shortcut(x)).relu_()


class ResNet(nn.Module):
    """A stem, four stages of blocks and a linear classifier over the mean of the last features."""

    def __init__(self, blocks: Sequence[int], *, bottleneck: bool, width: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(convolution(3, width, 7, stride=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))
        stages: list[nn.Module] = []
        inner = width
        for stage, count in enumerate(blocks):
            for position in range(count):
                stride = 2 if stage > 0 and position == 0 else 1
                block = Block(inner, width * 2**stage, stride=stride, bottleneck=bottleneck)
                stages.append(block)
                inner = block.outer
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(inner, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(self.stages(self.stem(x))).flatten(1))
