"""graph -> network: constants folded, rules applied, the trailing softmax cut off.

The network keeps two faces of one thing: `terms`, which are bounded, and `served`, the folded graph that the engine
runs.  Both come from the same walk over the nodes, so what is served is what was bounded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from certifier.errors import MalformedModel, UnsupportedModel, UnsupportedNode
from certifier.flow import Head, Network
from certifier.graph import FLOATING, Graph, Node, Tensor
from certifier.graph import Array as AnyArray
from certifier.limits import Limits
from certifier.patterns import MAY_BE_INNER, Surroundings, recognise
from certifier.reading.folding import FOLDABLE, fold
from certifier.reading.writing import write_onnx
from certifier.rules import registry
from certifier.terms import Term


def build_network(graph: Graph, *, limits: Limits, cut_head: bool) -> Network:
    """The network of a graph with one floating input and one output.

    `cut_head` cuts a trailing Softmax or LogSoftmax over the class axis, or a Sigmoid of a single output: none of
    them changes the real argmax or the side of the threshold.
    Raises: UnsupportedModel, UnsupportedNode, MalformedModel, ResourceLimitExceeded.
    """
    source = _only_input(graph)
    if len(graph.outputs) != 1:
        raise UnsupportedModel(
            f"the graph has {len(graph.outputs)} outputs ({', '.join(graph.outputs)}); a network needs exactly one"
        )
    nodes = _needed(graph)
    walk = _Walk(graph, source, limits, _readers(nodes))
    for node in nodes:
        walk.visit(node)
    output = graph.outputs[0]
    if output in walk.unbounded:
        raise walk.unbounded[output]
    head: Head = None
    notes = list(graph.notes)
    if cut_head:
        head, output, cut = _head(walk, output)
        if head is not None:
            notes.append(
                f"the trailing {cut[0].operator} is cut off: labels, margins and bounds speak of the logits before it, "
                "which it does not reorder"
            )
            walk.kept = walk.kept[: -len(cut)]
    if output not in walk.shapes:
        raise UnsupportedModel(f"the output {output!r} does not depend on the input")
    terms, kept = _reaching(walk.terms, output), walk.kept
    served = replace(graph, nodes=tuple(kept), constants=walk.constants, outputs=(output,), inputs=(source,))
    return Network(
        input=source,
        output=output,
        output_shape=walk.shapes[output],
        terms=terms,
        served=served,
        head=head,
        notes=tuple(notes),
    )


def _only_input(graph: Graph) -> Tensor:
    if len(graph.inputs) != 1:
        names = ", ".join(f"{tensor.name} ({tensor.dtype})" for tensor in graph.inputs)
        raise UnsupportedModel(f"the model has {len(graph.inputs)} inputs: {names}; a certificate needs exactly one")
    source = graph.inputs[0]
    if source.dtype not in FLOATING:
        raise UnsupportedModel(
            f"input {source.name!r} is of type {source.dtype}: there is no L2 ball around integers or strings; "
            "export the model from its first floating-point tensor on"
        )
    if math.prod(source.shape) == 0:
        raise UnsupportedModel(f"input {source.name!r} is empty")
    return source


def _needed(graph: Graph) -> list[Node]:
    """The nodes that the outputs depend on, in the graph's order."""
    wanted, needed = set(graph.outputs), []
    for node in reversed(graph.nodes):
        if wanted & set(node.outputs):
            needed.append(node)
            wanted.update(node.inputs)
    return needed[::-1]


def _readers(nodes: list[Node]) -> dict[str, set[str]]:
    """The first outputs of the nodes that read each value."""
    readers: dict[str, set[str]] = {}
    for node in nodes:
        for name in node.inputs:
            readers.setdefault(name, set()).add(node.outputs[0])
    return readers


class _Walk:
    """One pass over the nodes: folds constants, recognises patterns, applies rules, and keeps what is to be served.

    `unbounded` holds the values of nodes that no rule bounds alone, each with the refusal to raise if the output
    depends on it.  They have neither shape nor term, and only a pattern that bounds them away may read them.
    """

    def __init__(self, graph: Graph, source: Tensor, limits: Limits, readers: dict[str, set[str]]) -> None:
        self.graph, self.limits, self.readers = graph, limits, readers
        self.unbounded: dict[str, UnsupportedNode] = {}
        self.producers: dict[str, Node] = {}
        self.constants: dict[str, AnyArray] = dict(graph.constants)
        self.shapes: dict[str, tuple[int, ...]] = {source.name: source.shape}
        self.dtypes: dict[str, str] = {source.name: source.dtype}
        self.terms: list[Term] = []
        self.kept: list[Node] = []
        self.elements = sum(value.size for value in graph.constants.values())
        self.names = {name for each in graph.nodes for name in (*each.inputs, *each.outputs)} | {source.name}

    def visit(self, node: Node) -> None:
        """Fold the node or apply its rule."""
        live = [name for name in node.inputs if name in self.shapes]
        unbounded = [name for name in node.inputs if name in self.unbounded]
        unknown = [
            name
            for name in node.inputs
            if name and name not in self.shapes and name not in self.constants and name not in self.unbounded
        ]
        if unknown:
            raise UnsupportedNode(node.name, node.operator, f"reads {unknown[0]!r}, which nothing before it computes")
        if self._recognise(node):
            return
        if unbounded:
            self._postpone(node, self.unbounded[unbounded[0]])
        elif node.domain == "" and node.operator in ("Shape", "Size") and live:
            self._fold_shape(node)
        elif not live and (node.operator in FOLDABLE or node.inputs):
            self._keep(fold(node, self.constants, opset=self.graph.opset, limits=self.limits), node)
        else:
            try:
                self._apply(node, live)
            except UnsupportedNode as refusal:
                if node.domain != "" or node.operator not in MAY_BE_INNER:
                    raise
                self._postpone(node, refusal)

    def _recognise(self, node: Node) -> bool:
        around = Surroundings(
            producers=self.producers,
            readers=self.readers,
            outputs=set(self.graph.outputs),
            shapes=self.shapes,
            dtypes=self.dtypes,
            constants=self.constants,
            opset=self.graph.opset,
            limits=self.limits,
        )
        term = recognise(node, around)
        if term is not None:
            self._add(node, (term,))
        return term is not None

    def _postpone(self, node: Node, refusal: UnsupportedNode) -> None:
        """Refuse later, if no pattern takes the node in."""
        for name in filter(None, node.outputs):
            self._demand_fresh(name, node)
            self.unbounded[name] = refusal
        self._serve(node)

    def _serve(self, node: Node) -> None:
        self.kept.append(node)
        self.producers[node.outputs[0]] = node

    def _demand_fresh(self, name: str, node: Node) -> None:
        """No two values share a name, not even a model's tensor and one that a rule made up."""
        known = name in self.shapes or name in self.constants or name in self.unbounded
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

    def _keep(self, folded: dict[str, AnyArray], node: Node) -> None:
        for name, value in folded.items():
            self._demand_fresh(name, node)
            self.elements += value.size
            self.limits.demand("elements", self.elements, f"node {node.name!r}")
        self.constants.update(folded)

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

    def _add(self, node: Node, terms: Sequence[Term]) -> None:
        for term in terms:
            self._demand_fresh(term.output, node)
            self.limits.demand("value_elements", math.prod(term.shape), f"node {node.name!r}")
            if min(term.shape, default=1) < 1:
                raise UnsupportedNode(node.name, node.operator, "computes an empty tensor")
            self.shapes[term.output], self.dtypes[term.output] = term.shape, term.dtype
        self.terms.extend(terms)
        self._serve(node)


_RESHAPING = ("Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")
"""What may follow a head without changing its numbers or their order."""


def _head(walk: _Walk, output: str) -> tuple[Head, str, list[Node]]:
    """The trailing function that may be cut, the value before it, and the nodes from it to the end."""
    cut: list[Node] = []
    value = output
    for last in reversed(walk.kept):
        if last.outputs[0] != value or last.domain != "" or last.inputs[0] not in walk.shapes:
            break
        cut.insert(0, last)
        value = last.inputs[0]
        if last.operator not in _RESHAPING:
            head = _head_kind(last, walk.shapes[value])
            return (head, value, cut) if head is not None else (None, output, [])
    return None, output, []


def _head_kind(node: Node, shape: tuple[int, ...]) -> Head:
    if node.operator in ("Softmax", "LogSoftmax"):
        default = -1 if node.since >= 13 else 1
        axis = int(node.attributes.get("axis", default)) % max(len(shape), 1)  # pyright: ignore[reportArgumentType]
        spans = shape[axis] if node.since >= 13 else math.prod(shape[axis:])
        # Over all outputs at once: only then is the argmax over the row unchanged.
        return "softmax" if spans == math.prod(shape) else None
    if node.operator == "Sigmoid" and math.prod(shape) == 1:
        return "sigmoid"
    return None


def _reaching(terms: list[Term], output: str) -> tuple[Term, ...]:
    """The terms that `output` depends on."""
    wanted, kept = {output}, []
    for term in reversed(terms):
        if term.output in wanted:
            kept.append(term)
            wanted.update(term.sources)
    return tuple(kept[::-1])


def served_model(network: Network) -> bytes:
    """The graph that was bounded, as ONNX for one input row."""
    dtype = next((term.dtype for term in network.terms if term.output == network.output), network.input.dtype)
    return write_onnx(network.served, output_shapes=(network.output_shape,), output_dtype=dtype)
