"""One module of PyTorch in every format that is read."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping

import torch
from torch import nn

from tests.certifier.reading.exporting import exported
from tests.certifier.reading.torchscript_making import traced

Shape = tuple[int, ...]


def legacy_onnx(model: nn.Module, shape: Shape) -> bytes:
    """The file of the exporter that traces."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(), (torch.zeros(shape),), buffer, dynamo=False, opset_version=17, input_names=["x"],  # pyright: ignore
            dynamic_axes={"x": {0: "n"}},
        )  # fmt: skip
    return buffer.getvalue()


def dynamo_onnx(model: nn.Module, shape: Shape) -> bytes:
    """The file of the exporter that goes through torch.export."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model.eval(), (torch.zeros(shape),), dynamo=True, opset_version=18, input_names=["x"], verbose=False
        )
        assert program is not None
        return program.model_proto.SerializeToString()


FORMATS: Mapping[str, Callable[[nn.Module, Shape], bytes]] = {
    "traced": lambda model, shape: traced(model, shape),
    "exported": lambda model, shape: exported(model, [torch.zeros(shape)]),
    "legacy onnx": legacy_onnx,
    "dynamo onnx": dynamo_onnx,
}
