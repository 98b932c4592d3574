"""The architectures by name: narrow members for quick tests, and the published shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from tests.architectures.convnext import ConvNeXt
from tests.architectures.mobile import EFFICIENTNET_B0, MOBILENET_V2, Mobile, narrowed
from tests.architectures.plain import DenseNet, vgg
from tests.architectures.residual import ResNet
from tests.architectures.transformers import Bert, VisionTransformer

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A model to make, the shape of one input of a batch of one, and the box of inputs where it needs one."""

    make: Callable[[], nn.Module]
    shape: Shape
    box: tuple[float, float] | None = None

    def model(self) -> nn.Module:
        """The model with random weights and running statistics, in inference mode; always the same one."""
        generator = torch.random.get_rng_state()
        try:
            torch.manual_seed(0)
            model = self.make()
            for layer in model.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    _randomise(layer)
                if isinstance(layer, nn.Conv2d):
                    # He's initialisation, so that answers depend on the input through all layers.
                    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        finally:
            torch.random.set_rng_state(generator)
        return model.eval()

    def rows(self, count: int) -> torch.Tensor:
        """Inputs of the box, or normal ones, in single precision.  Shapes: [count, *shape]."""
        generator = torch.Generator().manual_seed(1)
        if self.box is None:
            return torch.randn((count, *self.shape), generator=generator)
        return torch.rand((count, *self.shape), generator=generator) * (self.box[1] - self.box[0]) + self.box[0]


def _randomise(layer: nn.BatchNorm2d) -> None:
    assert layer.running_mean is not None and layer.running_var is not None
    layer.running_mean.normal_(0.0, 0.1)
    layer.running_var.uniform_(0.8, 1.2)
    nn.init.uniform_(layer.weight, 0.8, 1.2)
    nn.init.normal_(layer.bias, 0.0, 0.1)


NARROW: Mapping[str, Architecture] = {
    "ResNet-18": Architecture(
        make=lambda: ResNet([2, 1, 1], bottleneck=False, width=4, classes=10), shape=(1, 3, 16, 16)
    ),
    "ResNet-50": Architecture(make=lambda: ResNet([1, 2], bottleneck=True, width=4, classes=10), shape=(1, 3, 16, 16)),
    "VGG-16": Architecture(
        make=lambda: vgg([[8, 8], [8, 8], [16, 16, 16]], grid=2, hidden=32, classes=10), shape=(1, 3, 16, 16)
    ),
    "MobileNetV2": Architecture(
        make=lambda: Mobile(
            narrowed(MOBILENET_V2[:3], 8), stem=4, last=32, classes=10, activation=nn.ReLU6, excite=False
        ),
        shape=(1, 3, 16, 16),
    ),
    "DenseNet-121": Architecture(make=lambda: DenseNet([2, 2, 2], growth=4, classes=10), shape=(1, 3, 16, 16)),
    "EfficientNet-B0": Architecture(
        make=lambda: Mobile(
            narrowed(EFFICIENTNET_B0[:3], 8), stem=4, last=32, classes=10, activation=nn.SiLU, excite=True
        ),
        shape=(1, 3, 16, 16),
        box=(0.0, 1.0),
    ),
    "ConvNeXt-T": Architecture(make=lambda: ConvNeXt([1, 1, 1], [4, 8, 16], classes=10), shape=(1, 3, 32, 32)),
    "ViT": Architecture(
        make=lambda: VisionTransformer(image=16, patch=8, width=32, heads=4, hidden=64, depth=2, classes=10),
        shape=(1, 3, 16, 16),
    ),
    "BERT": Architecture(
        make=lambda: Bert(tokens=8, width=32, heads=4, hidden=64, depth=2, classes=2), shape=(1, 8, 32)
    ),
}

PUBLISHED: Mapping[str, Architecture] = {
    "ResNet-18": Architecture(
        make=lambda: ResNet([2, 2, 2, 2], bottleneck=False, width=64, classes=1000), shape=(1, 3, 224, 224)
    ),
    "ResNet-50": Architecture(
        make=lambda: ResNet([3, 4, 6, 3], bottleneck=True, width=64, classes=1000), shape=(1, 3, 224, 224)
    ),
    "VGG-16": Architecture(
        make=lambda: vgg([[64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3], grid=7, hidden=4096, classes=1000),
        shape=(1, 3, 224, 224),
    ),
    "MobileNetV2": Architecture(
        make=lambda: Mobile(MOBILENET_V2, stem=32, last=1280, classes=1000, activation=nn.ReLU6, excite=False),
        shape=(1, 3, 224, 224),
    ),
    "DenseNet-121": Architecture(
        make=lambda: DenseNet([6, 12, 24, 16], growth=32, classes=1000), shape=(1, 3, 224, 224)
    ),
    "EfficientNet-B0": Architecture(
        make=lambda: Mobile(EFFICIENTNET_B0, stem=32, last=1280, classes=1000, activation=nn.SiLU, excite=True),
        shape=(1, 3, 224, 224),
        box=(0.0, 1.0),
    ),
    "ConvNeXt-T": Architecture(
        make=lambda: ConvNeXt([3, 3, 9, 3], [96, 192, 384, 768], classes=1000), shape=(1, 3, 224, 224)
    ),
    "ViT-Ti/16": Architecture(
        make=lambda: VisionTransformer(image=224, patch=16, width=192, heads=3, hidden=768, depth=12, classes=1000),
        shape=(1, 3, 224, 224),
    ),
    "BERT-Mini": Architecture(
        make=lambda: Bert(tokens=128, width=256, heads=4, hidden=1024, depth=4, classes=2), shape=(1, 128, 256)
    ),
}
