"""Looking backwards from a node: what surrounds it, whether a set of nodes is closed, and what the nodes compute."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from certifier.errors import CertifierError
from certifier.graph import Array, Node
from certifier.limits import Limits
from certifier.reading.folding import fold

Floats = NDArray[np.float64]

PRECISIONS = ("float32", "float64")
"""What patterns are recognised in: in half precision their intermediate values overflow too early."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a walk over a graph knows when it reaches a node.

    `shapes` and `dtypes` hold only live values that have a bound; `producers` holds every live node so far, in order,
    by its first output; `readers` holds the first outputs of all nodes that read a value.
    """

    producers: Mapping[str, Node]
    readers: Mapping[str, Set[str]]
    outputs: Set[str]
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    constants: Mapping[str, Array]
    opset: int
    limits: Limits

    def inner(self, name: str) -> Node | None:
        """The node that computes the live value `name` as its only output, of the standard's own operators."""
        node = self.producers.get(name)
        return node if node is not None and node.domain == "" and len(node.outputs) == 1 else None

    def scalar(self, name: str, source: str, *, typed: bool) -> float | None:
        """The one finite number of a constant that broadcasts to `source`; `typed`: of the same type as it."""
        value = self.constants.get(name)
        if value is None or value.size != 1 or value.ndim > len(self.shapes[source]):
            return None
        if value.dtype.kind not in "fiu" or (typed and value.dtype.name != self.dtypes[source]):
            return None
        number = float(value.reshape(-1)[0])
        return number if np.isfinite(number) else None

    def is_closed(self, inner: Set[str], root: Node) -> bool:
        """No value of `inner` is read outside of `inner` and `root`, nor is it an output of the graph."""
        allowed = set(inner) | {root.outputs[0]}
        return not inner & self.outputs and all(self.readers.get(name, set()) <= allowed for name in inner)

    def replay(self, inner: Set[str], root: Node, source: str, samples: Floats) -> Floats | None:
        """What the nodes compute at `samples`, in float64 by the standard's reference; None if it cannot tell."""
        nodes = [node for name, node in self.producers.items() if name in inner] + [root]
        values: dict[str, Array] = {source: samples}
        for node in nodes:
            for name in node.inputs:
                if name in self.constants:
                    values[name] = _widened(self.constants[name])
            try:
                values.update(_evaluated(node, values, self))
            except (CertifierError, KeyError):
                return None
        return np.asarray(values[root.outputs[0]], dtype=np.float64)


def _widened(value: Array) -> Array:
    return value.astype(np.float64) if value.dtype.kind == "f" else value


def _evaluated(node: Node, values: Mapping[str, Array], around: Surroundings) -> dict[str, Array]:
    if node.operator == "HardSigmoid":
        alpha, beta = hard_sigmoid_attributes(node)
        return {node.outputs[0]: np.clip(alpha * np.asarray(values[node.inputs[0]], dtype=float) + beta, 0.0, 1.0)}
    if node.operator == "Erf":
        # The standard's reference rounds it to single precision.
        return {node.outputs[0]: special.erf(np.asarray(values[node.inputs[0]], dtype=float))}
    return fold(node, values, opset=around.opset, limits=around.limits)


def hard_sigmoid_attributes(node: Node) -> tuple[float, float]:
    """alpha and beta of max(0, min(1, alpha x + beta)); the standard's default is 0.2 in single precision."""
    alpha, beta = node.attributes.get("alpha", float(np.float32(0.2))), node.attributes.get("beta", 0.5)
    return float(alpha), float(beta)  # pyright: ignore[reportArgumentType]
