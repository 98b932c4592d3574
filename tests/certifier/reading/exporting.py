"""Models of the installed torch as `.pt2` bytes, and graphs run by the engine: what the reading tests share."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnx.shape_inference
import onnxruntime
import torch
from torch import nn

from certifier.graph import Graph
from certifier.reading.writing import write_onnx


class Applied(nn.Module):
    """A module that is one function of its inputs."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs):  # the exporter asks for the signature of the call, not of the class
        return self.function(*inputs)


def exported(
    model: nn.Module, inputs: Sequence[torch.Tensor], *, batch: bool = False, decomposed: bool = False
) -> bytes:
    """The bytes that torch.export.save writes; `batch` leaves the size of axis 0 open."""
    dynamic = None
    if batch:
        axis = torch.export.Dim("batch")
        dynamic = tuple({0: axis} for _ in inputs)
        if isinstance(model, Applied):
            dynamic = (dynamic,)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(model.eval(), tuple(inputs), dynamic_shapes=dynamic)
        if decomposed:
            program = program.run_decompositions()
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
    return buffer.getvalue()


def engine(model: bytes) -> onnxruntime.InferenceSession:
    """A session that runs the nodes as they are."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_graph(graph: Graph, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of a graph as the engine computes them, whatever their element types and shapes are."""
    model = onnx.load_model_from_string(
        write_onnx(graph, output_shapes=((),) * len(graph.outputs), output_dtypes=("float32",) * len(graph.outputs))
    )
    # The declared outputs are what the test is about, so the engine is left to infer them.
    types = onnx.shape_inference.infer_shapes(_without_output_types(model)).graph.output
    for index, value in enumerate(types):
        model.graph.output[index].CopyFrom(value)
    session = engine(model.SerializeToString())
    feed = {tensor.name: array for tensor, array in zip(graph.inputs, inputs, strict=True)}
    return [np.asarray(value) for value in session.run(None, feed)]


def _without_output_types(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in copy.graph.output:
        value.ClearField("type")
    return copy
