"""TopK of which only the values are read: the first entries in order, as GroupSort exports.

The places of the entries jump where entries change their order; the values themselves do not.  At an output of the
graph over a whole row it is a head, which is cut off elsewhere.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from certifier.graph import Node
from certifier.patterns.matching import Surroundings
from certifier.terms import Contraction
from certifier.vector_functions.sorting import Sorted

SINCE = (1, 10, 11, 24)
ATTRIBUTES = frozenset({"axis", "k", "largest", "sorted"})


def match(root: Node, around: Surroundings) -> Contraction | None:
    """The sorted values of a TopK whose places nobody reads."""
    source = root.inputs[0]
    shape = around.shapes.get(source)
    if shape is None or root.since not in SINCE or not set(root.attributes) <= ATTRIBUTES or not root.outputs[0]:
        return None
    if any(name in around.outputs or around.readers.get(name) for name in root.outputs[1:] if name):
        return None
    given = around.constants.get(root.inputs[1]) if len(root.inputs) > 1 else root.attributes.get("k")
    kept: list[Any] = np.asarray([] if given is None else given).reshape(-1).tolist()
    rank = len(shape)
    axis: int = root.attributes.get("axis", -1)  # pyright: ignore[reportAssignmentType]
    if len(kept) != 1 or not -rank <= axis < rank:
        return None
    axis, count = axis % rank, int(kept[0])
    if not 1 <= count <= shape[axis] or (root.outputs[0] in around.outputs and shape[axis] == math.prod(shape)):
        return None
    if not root.attributes.get("sorted", 1) and count > 1:
        return None
    function = Sorted(
        name="sorted",
        before=math.prod(shape[:axis]),
        count=shape[axis],
        after=math.prod(shape[axis + 1 :]),
        kept=count,
        largest=bool(root.attributes.get("largest", 1)),
    )
    return Contraction(
        name=root.name,
        operator=root.operator,
        sources=(source,),
        output=root.outputs[0],
        shape=(*shape[:axis], count, *shape[axis + 1 :]),
        dtype=around.dtypes[source],
        function=function,
    )
