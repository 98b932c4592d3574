"""Preprocessing as nodes in front of a graph, so that it is bounded and served with the rest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx.defs

from certifier.documents import Layout, Preprocessing
from certifier.errors import InvalidInput
from certifier.graph import FLOATING, Array, Graph, Node, Tensor

_CHANNEL_COUNTS = (1, 3, 4)
_TRANSPOSITIONS = {("NHWC", "NCHW"): (0, 3, 1, 2), ("NCHW", "NHWC"): (0, 2, 3, 1)}


def with_preprocessing(graph: Graph, preprocessing: Preprocessing) -> Graph:
    """The graph of x -> g((scale * x - mean) / std), channel by channel, in the caller's axis order.

    Raises: InvalidInput if the values do not fit the graph's input.
    """
    if len(graph.inputs) != 1 or graph.inputs[0].dtype not in FLOATING:
        raise InvalidInput("preprocessing", "applies to one perturbed floating-point input")
    inner = graph.inputs[0]
    constants: dict[str, Array] = {}
    steps: list[tuple[str, dict[str, object], Array | None]] = []
    shape = inner.shape
    perm = input_permutation(inner, preprocessing.layout)
    if perm is not None:
        shape = tuple(shape[axis] for axis in np.argsort(perm))
        steps.append(("Transpose", {"perm": perm}, None))
    dtype = np.float64 if inner.dtype == "float64" else np.float32
    if preprocessing.scale != 1.0:
        steps.append(("Mul", {}, _held(np.array(preprocessing.scale), dtype, "preprocessing.scale")))
    for operator, values, field in (("Sub", preprocessing.mean, "mean"), ("Div", preprocessing.std, "std")):
        if values:
            field = f"preprocessing.{field}"
            steps.append((operator, {}, _held(channel_values(inner, values, field), dtype, field)))
    if not steps:
        return graph
    taken = {inner.name} | set(graph.constants) | {name for node in graph.nodes for name in node.outputs}
    outer_name = _fresh("preprocessing_input", taken)
    nodes, current = [], outer_name
    for position, (operator, attributes, operand) in enumerate(steps):
        name = _fresh(f"preprocessing_{operator.lower()}", taken)
        inputs: tuple[str, ...] = (current,)
        if operand is not None:
            operand_name = _fresh(f"{name}_value", taken)
            constants[operand_name] = operand
            inputs = (current, operand_name)
        output = inner.name if position == len(steps) - 1 else _fresh(f"{name}_output", taken)
        since = onnx.defs.get_schema(operator, graph.opset, "").since_version
        nodes.append(
            Node(
                name=name,
                operator=operator,
                domain="",
                since=since,
                inputs=inputs,
                outputs=(output,),
                attributes=attributes,
            )
        )
        current = output
    outer = Tensor(name=outer_name, dtype=inner.dtype, shape=shape, batch_axis=inner.batch_axis)
    return replace(
        graph,
        nodes=(*nodes, *graph.nodes),
        inputs=(outer,),
        constants={**graph.constants, **constants},
        notes=(
            *graph.notes,
            f"the declared preprocessing, rounded to {np.dtype(dtype).name}, is part of the network: radii are in the "
            "units of raw inputs",
        ),
    )


def model_layout(tensor: Tensor) -> Layout | None:
    """The axis order of an image input, told from where 1, 3 or 4 channels stand; None if that does not tell."""
    if len(tensor.shape) != 4:
        return None
    first, last = tensor.shape[1] in _CHANNEL_COUNTS, tensor.shape[3] in _CHANNEL_COUNTS
    if first == last:
        return None
    return "NCHW" if first else "NHWC"


def input_permutation(tensor: Tensor, layout: Layout | None) -> tuple[int, ...] | None:
    """The transposition from the caller's axis order to the model's, or None where they agree.

    A model whose own order cannot be told from its shape is taken to be channels-first.
    Raises: InvalidInput if the model takes no images.
    """
    if layout is None:
        return None
    if len(tensor.shape) != 4:
        raise InvalidInput("preprocessing.layout", f"needs an image input, but the model takes {list(tensor.shape)}")
    return _TRANSPOSITIONS.get((layout, model_layout(tensor) or "NCHW"))


def channel_values(inner: Tensor, values: list[float], field: str) -> np.ndarray:
    """One value for all entries or one per channel, shaped to broadcast against the model's input.

    Raises: InvalidInput if their number does not fit.
    """
    own = model_layout(inner)
    given = np.array(values, dtype=np.float64)
    if given.size == 1:
        return given.reshape(())
    if len(inner.shape) < 3:
        raise InvalidInput(field, f"has {given.size} values, but the model's input {list(inner.shape)} has no channels")
    axis = len(inner.shape) - 1 if own == "NHWC" else 1
    if inner.shape[axis] != given.size:
        raise InvalidInput(field, f"has {given.size} values, but the input has {inner.shape[axis]} channels")
    aligned = [1] * len(inner.shape)
    aligned[axis] = given.size
    return given.reshape(aligned)


def _held(values: np.ndarray, dtype: type[np.floating], field: str) -> np.ndarray:
    """The values in the model's type, where it holds them to within rounding.

    Raises: InvalidInput for a value that would become infinite, zero or subnormal.
    """
    with np.errstate(over="ignore", under="ignore"):
        held = values.astype(dtype)
    lost = ~np.isfinite(held) | ((np.abs(held) < np.finfo(dtype).tiny) & (values != 0))
    if lost.any():
        raise InvalidInput(field, f"holds {values[lost].flat[0]}, which {np.dtype(dtype).name} does not represent")
    return held


def _fresh(wanted: str, taken: set[str]) -> str:
    name = wanted
    while name in taken:
        name += "_"
    taken.add(name)
    return name
