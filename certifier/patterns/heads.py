"""A trailing Softmax or LogSoftmax in single steps: the logits before it, which it does not reorder.

    exp(z) / Σ exp(z)      z - log Σ exp(z)      z - ReduceLogSumExp(z)      z = v, or v less one number for the row

Division by a sum of exponentials, the exponential and shifts by one number keep the order of a row's entries, whatever
the shift is; the nodes and the function are evaluated side by side all the same.
"""

from __future__ import annotations

import math
from collections.abc import Set

import numpy as np
from scipy import special

from certifier.graph import Node
from certifier.patterns.matching import Surroundings

CLOSENESS = 1e-9
_MOST_NODES = 12


class _Reader:
    """Looks backwards from one node and gathers the nodes that it passes."""

    def __init__(self, around: Surroundings) -> None:
        self.around, self.inner = around, set[str]()

    def made_by(self, name: str, *operators: str) -> Node | None:
        """The node that computes `name`, if it is one of `operators`."""
        node = self.around.inner(name)
        if node is None or node.operator not in operators:
            return None
        self.inner.add(name)
        return node

    def is_number(self, name: str) -> bool:
        """Whether a value has one entry."""
        if name in self.around.shapes:
            return math.prod(self.around.shapes[name]) == 1
        return name in self.around.constants and self.around.constants[name].size == 1

    def exponential_summed(self, name: str) -> str | None:
        """z, where the value is the one number Σ exp(z)."""
        node = self.made_by(name, "ReduceSum")
        power = None if node is None or not self.is_number(name) else self.made_by(node.inputs[0], "Exp")
        return None if power is None else power.inputs[0]

    def logarithm_of_sum(self, name: str) -> str | None:
        """v, where the value is the one number log Σ exp(v), or m + log Σ exp(v - m) for one number m."""
        if not self.is_number(name):
            return None
        if (whole := self.made_by(name, "ReduceLogSumExp")) is not None:
            return whole.inputs[0]
        if (logarithm := self.made_by(name, "Log")) is not None:
            return self.exponential_summed(logarithm.inputs[0])
        total = self.made_by(name, "Add")
        for shift, rest in () if total is None else (total.inputs, total.inputs[::-1]):
            shifted = self.logarithm_of_sum(rest) if rest != name else None
            difference = None if shifted is None else self.made_by(shifted, "Sub")
            if difference is None or difference.inputs[1] != shift:
                continue
            if shift in self.around.constants or self.made_by(shift, "ReduceMax") is not None:
                return difference.inputs[0]
        return None

    def without_shift(self, name: str) -> str:
        """v, where the value is v less one number."""
        node = self.around.inner(name)
        if node is None or node.operator != "Sub" or not self.is_number(node.inputs[1]) or self.is_number(name):
            return name
        self.inner.add(name)
        if node.inputs[1] not in self.around.constants:
            largest = self.made_by(node.inputs[1], "ReduceMax", "ReduceMean")
            if largest is None or largest.inputs[0] != node.inputs[0]:
                self.inner.discard(name)
                return name
        return node.inputs[0]


def before_softmax(root: Node, around: Surroundings) -> tuple[str, Set[str]] | None:
    """The logits v of a Softmax or LogSoftmax over all of v that ends in `root`, and its inner values; or None."""
    reader = _Reader(around)
    if root.domain != "" or root.operator not in ("Div", "Mul", "Sub") or len(root.inputs) != 2:
        return None
    first, second = root.inputs
    if root.operator == "Sub":
        inside = reader.logarithm_of_sum(second)
        if inside is None or inside not in (first, reader.without_shift(first)):
            return None
        logits, expected = (first if inside == first else inside), special.log_softmax
    else:
        power, inside = None, None
        for numerator, rest in ((first, second), (second, first)) if root.operator == "Mul" else ((first, second),):
            inverse = reader.made_by(rest, "Reciprocal") if root.operator == "Mul" else None
            total = rest if root.operator == "Div" else inverse.inputs[0] if inverse is not None else None
            if total is not None and (inside := reader.exponential_summed(total)) is not None:
                power = reader.made_by(numerator, "Exp")
                break
        if power is None or power.inputs[0] != inside:
            return None
        logits, expected = power.inputs[0], special.softmax
    source = reader.without_shift(logits)
    shape = around.shapes.get(source)
    if shape is None or math.prod(shape) < 2 or len(reader.inner) > _MOST_NODES:
        return None
    for seed, scale in enumerate((0.1, 1.0, 5.0)):
        samples = scale * np.random.default_rng(seed).standard_normal(shape)
        computed = around.replay(set(reader.inner), root, source, samples)
        wanted = expected(samples.reshape(-1)).reshape(shape)
        if computed is None or computed.shape != shape or not np.allclose(computed, wanted, rtol=0, atol=CLOSENESS):
            return None
    return source, reader.inner
