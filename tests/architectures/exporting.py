"""A model's bytes in each format that PyTorch writes."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable

import torch
from torch import nn

Shape = tuple[int, ...]


def torchscript(model: nn.Module, x: torch.Tensor) -> bytes:
    """`torch.jit.trace`, saved."""
    script = torch.jit.trace(model, x, check_trace=False)
    assert isinstance(script, torch.jit.ScriptModule)
    buffer = io.BytesIO()
    torch.jit.save(script, buffer)
    return buffer.getvalue()


def program(model: nn.Module, x: torch.Tensor) -> bytes:
    """`torch.export`, saved."""
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(model, (x,)), buffer)
    return buffer.getvalue()


def onnx_by_tracing(model: nn.Module, x: torch.Tensor, *, folded: bool = False) -> bytes:
    """The exporter over TorchScript; `folded`, as it does by itself, rounds batch normalisations into convolutions."""
    buffer = io.BytesIO()
    mode = torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE
    # This exporter takes a buffer, which the signature of both leaves out.
    torch.onnx.export(model, (x,), buffer, dynamo=False, training=mode)  # pyright: ignore[reportArgumentType]
    return buffer.getvalue()


def onnx_by_export(model: nn.Module, x: torch.Tensor, *, folded: bool = False) -> bytes:
    """The exporter over `torch.export`; `folded` as above."""
    written = torch.onnx.export(model, (x,), dynamo=True, verbose=False, optimize=folded)
    assert written is not None
    return written.model_proto.SerializeToString()


FORMATS: dict[str, Callable[[nn.Module, torch.Tensor], bytes]] = {
    "TorchScript, traced": torchscript,
    "torch.export": program,
    "ONNX, dynamo=False": onnx_by_tracing,
    "ONNX, dynamo=True": onnx_by_export,
}


FOLDED: dict[str, Callable[[nn.Module, torch.Tensor], bytes]] = {
    "ONNX, dynamo=False, folded": lambda model, x: onnx_by_tracing(model, x, folded=True),
    "ONNX, dynamo=True, folded": lambda model, x: onnx_by_export(model, x, folded=True),
}


def exported(model: nn.Module, example: torch.Tensor | Shape, format: str) -> bytes:
    """The model in one of `FORMATS` or `FOLDED`, exported at `example` or its shape, without the exporters' remarks."""
    x = example if isinstance(example, torch.Tensor) else torch.zeros(example)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return (FORMATS | FOLDED)[format](model.eval(), x)
    finally:
        logging.disable(logging.NOTSET)
