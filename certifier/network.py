"""graph -> network: the walk's terms up to what is certified, with the heads behind it cut off.

The network keeps two faces of one thing: `terms`, which are bounded, and `served`, the folded graph that the engine
runs.  Both come from the same walk over the nodes, so what is served is what was bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from certifier.errors import UnsupportedModel, UnsupportedNode
from certifier.flow import Head, Network
from certifier.graph import Graph, Node, Tensor
from certifier.heads import Blocked, Ending, ending
from certifier.limits import Limits
from certifier.patterns import with_composites
from certifier.reading.choosing import demand_ball
from certifier.reading.selecting import Addition, appended, joining
from certifier.reading.writing import write_onnx
from certifier.terms import Term
from certifier.walk import Walk, key_of


@dataclass(frozen=True, kw_only=True)
class Survey:
    """A graph as far as it can be bounded: the network, or all refusals that keep it from being one.

    `cut` are the nodes behind what is certified, `needed` those that the outputs depend on.
    """

    walk: Walk
    needed: tuple[Node, ...]
    cut: tuple[Node, ...]
    refusals: tuple[UnsupportedNode, ...]
    network: Network | None


def build_network(graph: Graph, *, limits: Limits, cut_head: bool) -> Network:
    """The network of a graph with one floating input; several outputs are joined into one vector.

    `cut_head` cuts off a trailing Softmax or LogSoftmax over the class axis, or a Sigmoid of a single output: none of
    them changes the real argmax or the side of the threshold.  Selections (ArgMax and the like) at an output are cut
    off in any case, since the values before them are all that can have a bound.
    Raises: UnsupportedModel, UnsupportedNode, MalformedModel, ResourceLimitExceeded.
    """
    found = survey(graph, limits=limits, cut_head=cut_head)
    if found.network is None:
        raise found.refusals[0]
    return found.network


def survey(graph: Graph, *, limits: Limits, cut_head: bool) -> Survey:
    """The same, with all refusals collected instead of raised one at a time.

    Raises: UnsupportedModel for what is the matter with the graph as a whole; MalformedModel, ResourceLimitExceeded.
    """
    source = _only_input(graph)
    nodes = needed_nodes(graph.nodes, graph.outputs)
    walk = Walk(graph, source, limits, nodes)
    for node in nodes:
        walk.visit(node)
    endings = _one_ending(walk, graph.outputs) if cut_head else None
    if endings is None:
        endings = [ending(walk, output, smooth=False, maximum=False) for output in graph.outputs]
    blocked = {key: refusal for each in endings if isinstance(each, Blocked) for key, refusal in each.refusals.items()}
    found = [each for each in endings if isinstance(each, Ending)]
    return Survey(
        walk=walk,
        needed=tuple(nodes),
        cut=tuple({key_of(node): node for each in found for node in each.cut}.values()),
        refusals=tuple(blocked[key] for key in walk.refusals if key in blocked),
        network=None if blocked else _network(walk, found, graph),
    )


def _only_input(graph: Graph) -> Tensor:
    if len(graph.inputs) != 1:
        names = ", ".join(f"{tensor.name} ({tensor.dtype})" for tensor in graph.inputs)
        raise UnsupportedModel(f"the graph has {len(graph.inputs)} inputs: {names}; a network has exactly one")
    demand_ball(graph.inputs[0])
    return graph.inputs[0]


def needed_nodes(nodes: Sequence[Node], outputs: Iterable[str]) -> list[Node]:
    """The nodes that the outputs depend on, in order."""
    wanted, needed = set(outputs), []
    for node in reversed(nodes):
        if wanted & set(node.outputs):
            needed.append(node)
            wanted.update(node.inputs)
    return needed[::-1]


def _one_ending(walk: Walk, outputs: Sequence[str]) -> list[Ending | Blocked] | None:
    """The endings of all outputs if they come to the same values once every head is cut off; None if they do not."""
    found = [ending(walk, output, smooth=True, maximum=len(outputs) > 1) for output in outputs]
    endings = [each for each in found if isinstance(each, Ending)]
    apart = {(each.values, each.negated) for each in endings}
    if len(endings) < len(found) or len(apart) != 1:
        return None
    # The largest of the logits is cut off only beside its place: alone it is what the model computes.
    if any(each.takes_maximum for each in endings) and not any(each.selects for each in endings):
        return None
    return found


def _network(walk: Walk, endings: Sequence[Ending], graph: Graph) -> Network:
    """The terms up to what the endings certify, and the nodes that compute it."""
    wanted = dict.fromkeys((value, each.negated) for each in endings for value in each.values)
    values = [_certified(walk, value, negated=negated) for value, negated in wanted]
    notes = [*graph.notes, *dict.fromkeys(note for each in endings for note in each.notes)]
    if len(values) < len(graph.outputs):
        notes.append(f"the outputs {', '.join(graph.outputs)} come to the same values, which are certified once")
    output = values[0]
    if len(values) > 1:
        notes.append(f"the values {', '.join(values)} are joined into one vector")
        output = _visit(walk, joining(values, opset=graph.opset, taken=walk.names | set(walk.constants)))
    if output == walk.source.name:
        output = _visit(walk, appended("Identity", output, opset=graph.opset, taken=walk.names | set(walk.constants)))
    if output not in walk.shapes:
        raise UnsupportedModel(f"the output {output!r} does not depend on the input")
    kept = tuple(needed_nodes(walk.kept, (output,)))
    served = replace(graph, nodes=kept, constants=walk.constants, outputs=(output,), inputs=(walk.source,))
    heads: list[Head] = [each.head for each in endings if each.head is not None]
    return Network(
        input=walk.source,
        output=output,
        output_shape=walk.shapes[output],
        terms=_reaching(with_composites(_reaching(walk.terms, output), walk.source), output),
        served=served,
        head=heads[0] if heads else None,
        joined=len(values) > 1,
        notes=tuple(notes),
    )


def _certified(walk: Walk, value: str, *, negated: bool) -> str:
    if not negated:
        return value
    taken = walk.names | set(walk.constants)
    return _visit(walk, appended("Neg", value, opset=walk.graph.opset, taken=taken))


def _visit(walk: Walk, addition: Addition) -> str:
    """The value that further nodes compute."""
    walk.constants.update(addition.constants)
    for node in addition.nodes:
        walk.names.update(node.outputs)
        walk.visit(node)
        refusal = walk.refusals.get(key_of(node))
        if refusal is not None:
            raise refusal
    return addition.output


def _reaching(terms: Sequence[Term], output: str) -> tuple[Term, ...]:
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
    return write_onnx(network.served, output_shapes=(network.output_shape,), output_dtypes=(dtype,))


def observable_model(network: Network) -> bytes:
    """The same graph with every value that a term bounds as an output, the network's own output first."""
    written = {name for node in network.served.nodes for name in node.outputs}
    terms = [term for term in network.terms if term.output in written]
    terms.sort(key=lambda term: term.output != network.output)
    return write_onnx(
        replace(network.served, outputs=tuple(term.output for term in terms)),
        output_shapes=[term.shape for term in terms],
        output_dtypes=[term.dtype for term in terms],
    )
