"""Which outputs of a model are certified, and the nodes that put several values side by side as one vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np
import onnx.defs

from certifier.errors import InvalidInput
from certifier.graph import Array, Graph, Node


def with_outputs(graph: Graph, wanted: Sequence[str] | None) -> Graph:
    """The graph with the wanted outputs only (None: all), in the order that they are named in.

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
    return replace(graph, outputs=names, notes=notes)


@dataclass(frozen=True, kw_only=True)
class Addition:
    """Nodes to be added behind others, the constants that they read, and the value that they compute."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    output: str


def joining(names: Sequence[str], *, opset: int, taken: Set[str]) -> Addition:
    """The values `names`, flattened, one after another."""
    prefix = fresh("joined_outputs", taken)
    shape = f"{prefix}_shape"
    parts = tuple(f"{prefix}_{position}" for position in range(len(names)))
    reshapes = [
        standard_node(opset, "Reshape", (name, shape), part, {}) for name, part in zip(names, parts, strict=True)
    ]
    concat = standard_node(opset, "Concat", parts, prefix, {"axis": 1})
    return Addition(nodes=(*reshapes, concat), constants={shape: np.array([1, -1], dtype=np.int64)}, output=prefix)


def appended(operator: str, name: str, *, opset: int, taken: Set[str]) -> Addition:
    """One operator of one value."""
    output = fresh(f"{operator.lower()}_output", taken)
    return Addition(nodes=(standard_node(opset, operator, (name,), output, {}),), constants={}, output=output)


def fresh(wanted: str, taken: Set[str]) -> str:
    """A name that no other one begins with."""
    while any(name.startswith(wanted) for name in taken):
        wanted += "_"
    return wanted


def standard_node(
    opset: int, operator: str, inputs: tuple[str, ...], output: str, attributes: Mapping[str, object]
) -> Node:
    """One operator of the ONNX standard, called after its output."""
    return Node(
        name=output,
        operator=operator,
        domain="",
        since=onnx.defs.get_schema(operator, opset, "").since_version,
        inputs=inputs,
        outputs=(output,),
        attributes=attributes,
    )
