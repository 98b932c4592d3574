"""Softmax of masked scores: minus infinity, chosen or added at constant places, leaves those out of the softmax.

No rule bounds a value that holds infinities, so they are bounded together with the softmax that takes them away; any
other reader of such a value is refused.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from certifier.errors import UnsupportedNode
from certifier.graph import Node
from certifier.patterns.matching import PRECISIONS, Surroundings
from certifier.rules import registry
from certifier.terms import Contraction
from certifier.vector_functions.softmaxes import MaskedSoftmax

Mask = NDArray[np.bool_]


def match(root: Node, around: Surroundings) -> Contraction | None:
    """The softmax over what a constant mask lets through, if it lets through anything of every row."""
    inner = around.inner(root.inputs[0])
    # Before version 13 a softmax runs over all axes from one on.
    if inner is None or root.since < 13 or not set(root.attributes) <= {"axis"}:
        return None
    found = _masked(inner, around)
    if found is None:
        return None
    source, allowed = found
    shape, rank = allowed.shape, allowed.ndim
    axis: int = root.attributes.get("axis", -1)  # pyright: ignore[reportAssignmentType]
    if not -rank <= axis < rank or not allowed.any(axis=axis).all():
        return None
    axis %= rank
    function = MaskedSoftmax(
        name="masked softmax",
        before=math.prod(shape[:axis]),
        count=shape[axis],
        after=math.prod(shape[axis + 1 :]),
        allowed=allowed.reshape(-1),
    )
    return Contraction(
        name=root.name,
        operator=root.operator,
        sources=(source,),
        output=root.outputs[0],
        shape=shape,
        dtype=around.dtypes[source],
        function=function,
    )


def _masked(node: Node, around: Surroundings) -> tuple[str, Mask] | None:
    """The scores that `node` masks, and where it lets them through."""
    live = [name for name in node.inputs if name in around.shapes]
    if len(live) != 1 or around.dtypes[live[0]] not in PRECISIONS:
        return None
    try:
        registry.find(node)
    except UnsupportedNode:
        return None
    source, constants = live[0], around.constants
    if any(name not in constants for name in node.inputs if name != source):
        return None
    if node.operator == "Where" and node.inputs[0] != source:
        chosen = np.asarray(constants[node.inputs[0]], dtype=bool)
        is_first = node.inputs[1] == source
        other = np.asarray(constants[node.inputs[2 if is_first else 1]], dtype=np.float64)
        let_through = chosen if is_first else ~chosen
        left_out = ~let_through & np.isneginf(other)
    elif node.operator == "Add":
        (mask,) = (np.asarray(constants[name], dtype=np.float64) for name in node.inputs if name != source)
        let_through, left_out = mask == 0, np.isneginf(mask)
    else:
        return None
    # Any other number would be a score of its own, or be added to one.
    if not (let_through | left_out).all() or not left_out.any():
        return None
    shape = around.shapes[source]
    try:
        allowed = np.broadcast_to(let_through & ~left_out, shape)
    except ValueError:
        return None
    return source, allowed
