"""bytes, options -> the graph that is to be certified: what of a model the options choose, change and fix."""

from __future__ import annotations

from dataclasses import dataclass, replace

from certifier.documents import CertifyOptions, FixedInput, ModelFormat, TensorDescription
from certifier.graph import Graph, Tensor
from certifier.limits import Limits
from certifier.reading.choosing import with_inputs, with_joint_input
from certifier.reading.formats import read_model
from certifier.reading.preprocessing import with_preprocessing
from certifier.reading.selecting import with_outputs


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A graph of one input, and how the model's own inputs stand behind it.

    `inputs` are the perturbed ones as callers give them, in the order of a joint row; `read` is the graph with the
    chosen outputs before anything was put in front of it.
    """

    format: ModelFormat
    read: Graph
    graph: Graph
    inputs: tuple[TensorDescription, ...]
    fixed_inputs: tuple[FixedInput, ...]


def choose(data: bytes, *, options: CertifyOptions, limits: Limits) -> Choice:
    """Read a model and apply the options that decide what of it is certified.

    Raises: what `read_model` raises; InvalidInput for options that do not fit the model.
    """
    shape = None if options.input_shape is None else tuple(options.input_shape)
    model_format, graph = read_model(data, limits=limits, input_shape=shape)
    read = with_outputs(graph, options.outputs)
    graph, fixed = with_inputs(read, options.inputs, options.fixed_inputs, limits=limits)
    names = [tensor.name for tensor in graph.inputs]
    if options.preprocessing is not None:
        graph = with_preprocessing(graph, options.preprocessing)
    # Preprocessing changes shapes and names of its own making; callers know their input by the model's name.
    inputs = tuple(_describe(replace(tensor, name=name)) for name, tensor in zip(names, graph.inputs, strict=True))
    graph = with_joint_input(graph, limits=limits)
    return Choice(format=model_format, read=read, graph=graph, inputs=inputs, fixed_inputs=fixed)


def _describe(tensor: Tensor) -> TensorDescription:
    shape: list[int | None] = list(tensor.shape)
    if tensor.batch_axis:
        shape[0] = None
    return TensorDescription(name=tensor.name, dtype=tensor.dtype, shape=shape)
