"""Whether the engine's linear layers are classical sums (A3), seen from outside on the very shapes that a network has.

Every weight becomes 0 or 1 such that each output selects one input.  A classical sum of products, in any order and
with or without fused multiply-add, then gives that input bit for bit, since all else that it adds is 0.  Kernels that
mix inputs first (Winograd, Fourier, Strassen) or round factors to a narrower type lose bits, because the inputs differ
by many binades and use all bits of their type.  Which kernel an engine chooses depends on shapes and attributes, which
stay those of the network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from certifier.engine import DTYPES, Engine
from certifier.flow import Network
from certifier.graph import Graph, Node, Tensor
from certifier.limits import Limits
from certifier.network import build_network, served_model

Shape = tuple[int, ...]
LARGEST_WEIGHT = 2**20
"""Entries of a layer's weights; of larger layers a part is looked at, whose kernels are the same."""
UNSCALED: dict[str, dict[str, object]] = {"Conv": {}, "ConvTranspose": {}, "MatMul": {}, "Gemm": {"alpha": 1.0}}
"""The operators that are looked at, and attributes without which they would scale what they select."""
ADMITTED = Limits(nodes=2**62, elements=2**62, value_elements=2**62)
"""The network was within its limits, and so are its layers."""
BINADES = {"float16": 4.0, "float32": 20.0, "float64": 20.0}
"""Inputs lie between 2^-b and 2^b, so that nothing overflows or underflows."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """How many layers were looked at, and in words the first whose kernel is no classical sum."""

    looked_at: int
    failed: str | None


def look_at_kernels(network: Network, *, seed: int) -> Finding:
    """Runs every linear layer of the served graph, once for each shape, with weights that select.

    Layers of two live operands, or in a type that the engine cannot be fed, are left out.
    """
    generator = np.random.default_rng(seed)
    looked_at = 0
    for node, graph in selecting_layers(network, generator):
        layer = build_network(graph, limits=ADMITTED, cut_head=False)
        source = layer.input
        engine = Engine(served_model(layer), source)
        reach = BINADES[source.dtype]
        magnitudes = np.exp2(generator.uniform(-reach, reach, layer.input_size))
        row = engine.cast((magnitudes * generator.choice((-1.0, 1.0), layer.input_size))[None])
        looked_at += 1
        wrong = np.flatnonzero(engine.run(row)[0] != layer.evaluate(row)[0])
        if wrong.size:
            failed = (
                f"node {node.name!r} ({node.operator}): the engine's kernel is no classical sum of products, as "
                f"assumption A3 has it: {wrong.size} of its outputs lose bits of the one input that they select"
            )
            return Finding(looked_at=looked_at, failed=failed)
    return Finding(looked_at=looked_at, failed=None)


def selecting_layers(network: Network, generator: np.random.Generator) -> Iterator[tuple[Node, Graph]]:
    """One linear layer of every kind with a graph of its own, in which its weights select."""
    served = network.served
    inside = {term.output: (term.shape, term.dtype) for term in network.terms}
    inside[network.input.name] = (network.input.shape, network.input.dtype)
    seen: set[str] = set()
    for node in served.nodes:
        live = [name for name in node.inputs[:2] if name in inside]
        if node.operator not in UNSCALED or len(live) != 1:
            continue
        (shape, dtype), place = inside[live[0]], 1 - node.inputs.index(live[0])
        weights = served.constants.get(node.inputs[place])
        if weights is None or dtype not in DTYPES:
            continue
        kind = f"{node.operator} {sorted(node.attributes.items())} {shape} {dtype} {place} {weights.shape}"
        if kind not in seen:
            seen.add(kind)
            chosen = _selecting(node, weights.shape, place, generator).astype(weights.dtype)
            source = Tensor(name=live[0], dtype=dtype, shape=shape, batch_axis=shape[:1] == (1,))
            # An offset would hide bits of what is selected; old products must have one.
            offset = {name: np.zeros(1, weights.dtype) for name in node.inputs[2:] if node.operator == "Gemm" and name}
            inputs = (*node.inputs[:2], *offset)
            alone = replace(node, inputs=inputs, attributes=dict(node.attributes) | UNSCALED[node.operator])
            constants = {node.inputs[place]: chosen, **offset}
            yield (
                node,
                replace(served, nodes=(alone,), inputs=(source,), outputs=node.outputs[:1], constants=constants),
            )


def _selecting(node: Node, shape: Shape, place: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Weights of 0 and 1 with one 1 in each of the sums that an output is; fewer outputs where weights are many."""
    rank, sizes = len(shape), list(shape)
    group = node.attributes.get("group", 1)
    assert isinstance(group, int)
    if node.operator == "Conv":
        summed, outputs = tuple(range(1, rank)), 0
    elif node.operator == "ConvTranspose":
        summed, outputs = (0, *range(2, rank)), 1
    else:
        is_turned = bool(node.attributes.get("transB" if place else "transA", 0))
        # The second factor of a product is summed along its rows, the first along its columns.
        rows, columns = rank - 2, rank - 1
        along, outputs = (rows, columns) if bool(place) != is_turned else (columns, rows)
        summed = (max(along, 0),)
    if group == 1 and rank > 1:
        sizes[outputs] = max(1, min(sizes[outputs], LARGEST_WEIGHT * sizes[outputs] // math.prod(shape)))
    # Groups of a transposed convolution lie behind one another where its inputs do, each with all outputs.
    parts = group if node.operator == "ConvTranspose" else 1
    sizes[0] //= parts
    kept = [axis for axis in range(rank) if axis not in summed]
    order = (*kept, *summed)
    chosen = [_one_each([sizes[axis] for axis in order], len(kept), generator) for _ in range(parts)]
    return np.concatenate([each.transpose(np.argsort(order)) for each in chosen])


def _one_each(sizes: list[int], kept: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Zeros, and for every place on the first `kept` axes a 1 somewhere on the others."""
    sums, summands = math.prod(sizes[:kept]), math.prod(sizes[kept:])
    chosen = np.zeros((sums, summands))
    chosen[np.arange(sums), generator.integers(summands, size=sums)] = 1.0
    return chosen.reshape(sizes)
