"""sign(v) |v| and sign(v) relu(|v|), as PyTorch writes its Lp pooling: v itself, though sign alone jumps."""

from __future__ import annotations

import math

from certifier.graph import Node
from certifier.operators import Identity
from certifier.patterns.matching import Surroundings
from certifier.terms import Affine


def match(root: Node, around: Surroundings) -> Affine | None:
    """v, where `root` is the product of its sign and its magnitude: exact in floating point as well."""
    for sign, size in (root.inputs, root.inputs[::-1]):
        value, magnitude = _operand(sign, "Sign", around), size
        if (inside := _operand(magnitude, "Relu", around)) is not None:
            magnitude = inside
        if value is None or value not in around.shapes or _operand(magnitude, "Abs", around) != value:
            continue
        shape = around.shapes[value]
        return Affine(
            name=root.name,
            operator=root.operator,
            sources=(value,),
            output=root.outputs[0],
            shape=shape,
            dtype=around.dtypes[value],
            operators=(Identity(math.prod(shape)),),
            offset=None,
            offset_magnitude=None,
            arrangement="sum",
            roundings=0,
            swelling=1.0,
            amplification=1.0,
        )
    return None


def _operand(name: str, operator: str, around: Surroundings) -> str | None:
    node = around.inner(name)
    is_it = node is not None and node.operator == operator and len(node.inputs) == 1 and not node.attributes
    return node.inputs[0] if node is not None and is_it else None
