"""One pass over a graph: constants folded, patterns recognised, rules applied, refusals collected.

A node that has no bound writes unknown values, and so does every node that reads one.  What becomes of them is decided
later: a pattern may take them in, a head may be cut off before them, and the rest is refused (`certifier.heads`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from certifier.errors import MalformedModel, UnsupportedNode
from certifier.graph import Array, Graph, Node, Tensor
from certifier.limits import Limits
from certifier.patterns import Surroundings, recognise
from certifier.reading.emitting import array_dtype
from certifier.reading.folding import FOLDABLE, fold
from certifier.rules import registry
from certifier.terms import Term

How = Literal["folded", "rule", "pattern", "refused", "skipped"]
"""What the walk did with a node; `skipped` reads an unknown value, so nothing is known of it either."""


class Walk:
    """What is known of the values of a graph, node by node.

    `shapes` and `dtypes` hold live values that have a bound, `constants` those that do not depend on the input, and
    `unknown` all others.  `refusals` says why a node wrote unknown values, by its key; nodes that only read unknown
    values have none.
    """

    def __init__(self, graph: Graph, source: Tensor, limits: Limits, nodes: Sequence[Node]) -> None:
        self.graph, self.limits, self.source = graph, limits, source
        self.readers = _readers(nodes)
        self.unknown: set[str] = set()
        self.refusals: dict[str, UnsupportedNode] = {}
        self.how: dict[str, How] = {}
        self.made_by: dict[str, Node] = {}
        self.producers: dict[str, Node] = {}
        self.constants: dict[str, Array] = dict(graph.constants)
        self.shapes: dict[str, tuple[int, ...]] = {source.name: source.shape}
        self.dtypes: dict[str, str] = {source.name: source.dtype}
        self.terms: list[Term] = []
        self.kept: list[Node] = []
        self.elements = sum(value.size for value in graph.constants.values())
        self.names = {name for each in graph.nodes for name in (*each.inputs, *each.outputs)} | {source.name}

    def visit(self, node: Node) -> None:
        """Fold the node, recognise a pattern that ends in it, apply its rule, or note why there is no bound.

        Raises: MalformedModel, ResourceLimitExceeded; UnsupportedNode for a node that reads what nothing computes.
        """
        live = [name for name in node.inputs if name in self.shapes]
        for name in filter(None, node.inputs):
            if not (name in self.shapes or name in self.constants or name in self.unknown):
                raise UnsupportedNode(node.name, node.operator, f"reads {name!r}, which nothing before it computes")
        if self._recognise(node):
            self.how[key_of(node)] = "pattern"
        elif any(name in self.unknown for name in node.inputs):
            self._write_unknown(node, "skipped")
        else:
            try:
                self._bound(node, live)
            except UnsupportedNode as refusal:
                self.refusals[key_of(node)] = refusal
                self._write_unknown(node, "refused")

    def _bound(self, node: Node, live: list[str]) -> None:
        if node.domain == "" and node.operator in ("Shape", "Size") and live:
            self._fold_shape(node)
        elif node.domain == "" and node.operator == "CastLike" and live == [node.inputs[1]]:
            # Only the type of what is live is read.
            value = self.constants[node.inputs[0]].astype(array_dtype(self.dtypes[node.inputs[1]]))
            self._keep({node.outputs[0]: value}, node)
        elif not live and (node.operator in FOLDABLE or node.inputs):
            self._keep(fold(node, self.constants, opset=self.graph.opset, limits=self.limits), node)
        else:
            self._apply(node, live)

    @property
    def around(self) -> Surroundings:
        """What patterns look at."""
        return Surroundings(
            producers=self.producers,
            readers=self.readers,
            outputs=set(self.graph.outputs),
            shapes=self.shapes,
            dtypes=self.dtypes,
            constants=self.constants,
            opset=self.graph.opset,
            limits=self.limits,
        )

    def _recognise(self, node: Node) -> bool:
        term = recognise(node, self.around)
        if term is not None:
            self._add(node, (term,))
        return term is not None

    def _write_unknown(self, node: Node, how: How) -> None:
        for name in filter(None, node.outputs):
            self._demand_fresh(name, node)
        self.unknown.update(filter(None, node.outputs))
        self.how[key_of(node)] = how
        self._serve(node)

    def _serve(self, node: Node) -> None:
        self.kept.append(node)
        self.producers[node.outputs[0]] = node
        self.made_by.update(dict.fromkeys(filter(None, node.outputs), node))

    def _demand_fresh(self, name: str, node: Node) -> None:
        """No two values share a name, not even a model's tensor and one that a rule made up."""
        known = name in self.shapes or name in self.constants or name in self.unknown
        if known or (name in self.names and name not in node.outputs):
            raise MalformedModel(f"node {node.name!r}: the name {name!r} is used for two different values")

    def _fold_shape(self, node: Node) -> None:
        shape = np.array(self.shapes[node.inputs[0]], dtype=np.int64)
        if node.operator == "Size":
            value = np.array(math.prod(shape.tolist()), dtype=np.int64)
        else:
            rank = len(shape)
            start = int(node.attributes.get("start", 0))  # pyright: ignore[reportArgumentType]
            end = int(node.attributes.get("end", rank))  # pyright: ignore[reportArgumentType]
            value = shape[slice(start, end)]
        self._keep({node.outputs[0]: value}, node)

    def _keep(self, folded: Mapping[str, Array], node: Node) -> None:
        for name, value in folded.items():
            self._demand_fresh(name, node)
            self.elements += value.size
            self.limits.demand("elements", self.elements, f"node {node.name!r}")
        self.constants.update(folded)
        self.how[key_of(node)] = "folded"

    def _apply(self, node: Node, live: list[str]) -> None:
        entry = registry.find(node)
        dtypes = {self.dtypes[name] for name in live}
        if len(dtypes) > 1:
            raise MalformedModel(f"node {node.name!r} mixes {' and '.join(sorted(dtypes))}")
        site = registry.Site(
            node=node,
            shapes={name: self.shapes[name] for name in live},
            constants={name: self.constants[name] for name in node.inputs if name in self.constants},
            dtype=dtypes.pop() if dtypes else "float32",
            limits=self.limits,
        )
        try:
            terms = entry.apply(site)
        except (ValueError, IndexError, OverflowError, MemoryError) as error:
            # Shapes that do not fit one another surface as numpy errors inside a rule.
            raise UnsupportedNode(node.name, node.operator, f"its shapes or attributes do not fit: {error}") from error
        self._add(node, terms)
        self.how[key_of(node)] = "rule"

    def _add(self, node: Node, terms: Sequence[Term]) -> None:
        for term in terms:
            self._demand_fresh(term.output, node)
            self.limits.demand("value_elements", math.prod(term.shape), f"node {node.name!r}")
            if min(term.shape, default=1) < 1:
                raise UnsupportedNode(node.name, node.operator, "computes an empty tensor")
        for term in terms:
            self.shapes[term.output], self.dtypes[term.output] = term.shape, term.dtype
        self.terms.extend(terms)
        self._serve(node)


def key_of(node: Node) -> str:
    """What tells nodes apart: the first value that they write, since names may repeat."""
    return next(filter(None, node.outputs), node.name)


def _readers(nodes: Sequence[Node]) -> dict[str, set[str]]:
    """The first outputs of the nodes that read each value."""
    readers: dict[str, set[str]] = {}
    for node in nodes:
        for name in node.inputs:
            readers.setdefault(name, set()).add(node.outputs[0])
    return readers
