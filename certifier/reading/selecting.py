"""Which outputs of a model are certified: one of them, or several side by side as one vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx.defs

from certifier.errors import InvalidInput
from certifier.graph import Graph, Node


def with_outputs(graph: Graph, wanted: Sequence[str] | None) -> Graph:
    """The graph with the wanted outputs only (None: all); several are flattened and joined into one vector.

    Raises: InvalidInput for a name that is no output of the graph, or is given twice.
    """
    names = graph.outputs if wanted is None else tuple(wanted)
    for name in names:
        if name not in graph.outputs:
            raise InvalidInput("options.outputs", f"{name!r} is none of the outputs {', '.join(graph.outputs)}")
    if not names or len(set(names)) < len(names):
        raise InvalidInput("options.outputs", "name every wanted output once")
    notes = graph.notes
    if set(names) != set(graph.outputs):
        dropped = ", ".join(name for name in graph.outputs if name not in names)
        notes = (*notes, f"certified for the outputs {', '.join(names)} only; not for {dropped}")
    if len(names) == 1:
        return replace(graph, outputs=names, notes=notes)
    return _joined(replace(graph, notes=(*notes, f"the outputs {', '.join(names)} are joined into one vector")), names)


def _joined(graph: Graph, names: tuple[str, ...]) -> Graph:
    taken = {name for node in graph.nodes for name in (*node.inputs, *node.outputs)} | set(graph.constants)
    taken |= {tensor.name for tensor in graph.inputs}
    prefix = "joined_outputs"
    while any(name.startswith(prefix) for name in taken):
        prefix += "_"
    shape = f"{prefix}_shape"
    parts = tuple(f"{prefix}_{position}" for position in range(len(names)))
    reshapes = [_node(graph, "Reshape", (name, shape), part, {}) for name, part in zip(names, parts, strict=True)]
    concat = _node(graph, "Concat", parts, prefix, {"axis": 1})
    constants = {**graph.constants, shape: np.array([1, -1], dtype=np.int64)}
    return replace(graph, nodes=(*graph.nodes, *reshapes, concat), outputs=(prefix,), constants=constants)


def _node(graph: Graph, operator: str, inputs: tuple[str, ...], output: str, attributes: dict[str, object]) -> Node:
    return Node(
        name=output,
        operator=operator,
        domain="",
        since=onnx.defs.get_schema(operator, graph.opset, "").since_version,
        inputs=inputs,
        outputs=(output,),
        attributes=attributes,
    )
