"""The architectures by name: narrow members for quick tests, and the published shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from tests.architectures.residual import ResNet
from tests.architectures.transformers import Bert, VisionTransformer

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A model to make, and the shape of one input of a batch of one."""

    make: Callable[[], nn.Module]
    shape: Shape

    def model(self) -> nn.Module:
        """The model with random weights and running statistics, in inference mode; always the same one."""
        generator = torch.random.get_rng_state()
        try:
            torch.manual_seed(0)
            model = self.make()
            for layer in model.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    _randomise(layer)
        finally:
            torch.random.set_rng_state(generator)
        return model.eval()

    def rows(self, count: int) -> torch.Tensor:
        """Normal inputs in single precision.  Shapes: [count, *shape]."""
        return torch.randn((count, *self.shape), generator=torch.Generator().manual_seed(1))


def _randomise(layer: nn.BatchNorm2d) -> None:
    assert layer.running_mean is not None and layer.running_var is not None
    layer.running_mean.normal_(0.0, 0.1)
    layer.running_var.uniform_(0.5, 1.5)
    nn.init.uniform_(layer.weight, 0.5, 1.5)
    nn.init.normal_(layer.bias, 0.0, 0.1)


NARROW: Mapping[str, Architecture] = {
    "ResNet-18": Architecture(
        make=lambda: ResNet([2, 2, 2, 2], bottleneck=False, width=8, classes=10), shape=(1, 3, 32, 32)
    ),
    "ViT": Architecture(
        make=lambda: VisionTransformer(image=32, patch=8, width=32, heads=4, hidden=64, depth=2, classes=10),
        shape=(1, 3, 32, 32),
    ),
    "BERT": Architecture(
        make=lambda: Bert(tokens=8, width=32, heads=4, hidden=64, depth=2, classes=2), shape=(1, 8, 32)
    ),
}
