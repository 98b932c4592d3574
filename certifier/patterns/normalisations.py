"""LayerNorm and RMSNorm as exporters decompose them: z/√(mean z² + ε) for z = x - mean x, or z = x.

Scale and shift that follow are affine maps of their own.  The mean is over the last axes, ε a positive constant, and
the quotient a Div by the root or a Mul by its reciprocal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certifier.errors import UnsupportedNode
from certifier.graph import Node
from certifier.patterns.matching import PRECISIONS, Surroundings
from certifier.rules import registry
from certifier.terms import Contraction
from certifier.vector_functions.normalising import Normalisation

Array = NDArray[Any]


class _Mismatch(Exception):
    """The nodes are no normalisation."""


def match(root: Node, around: Surroundings) -> Contraction | None:
    """The normalisation that ends in `root`, centred if its source is, else by the root mean square."""
    for index in (0, 1) if root.operator == "Mul" else (0,):
        search = _Search(around, root)
        try:
            spread = search.variance(index)
        except _Mismatch:
            continue
        for centred in (True, False):
            term = search.term(root.inputs[index], spread, centred=centred)
            if term is not None:
                return term
    return None


@dataclass(frozen=True)
class _Spread:
    """mean(z²) + epsilon over the axes from `axis` on, and the nodes from z to the root."""

    inner: frozenset[str]
    axes: tuple[int, ...]
    epsilon: float


class _Search:
    """One attempt at reading a normalisation backwards from its root."""

    def __init__(self, around: Surroundings, root: Node) -> None:
        self.around, self.root = around, root
        self.inner: set[str] = set()

    def variance(self, index: int) -> _Spread:
        """What input number `index` of the root is divided by.  Raises: _Mismatch."""
        source = self.root.inputs[index]
        if source not in self.around.shapes or self.around.dtypes[source] not in PRECISIONS:
            raise _Mismatch
        divisor = self.root.inputs[1 - index]
        power = self._root_of(divisor, source, inverse=self.root.operator == "Mul")
        add = self._node(power, "Add")
        epsilons = [self.around.scalar(name, source, typed=True) for name in add.inputs]
        known = [number for number in epsilons if number is not None]
        if len(known) != 1 or not known[0] > 2.0**-100:
            raise _Mismatch
        mean = self._node(add.inputs[epsilons.index(None)], "ReduceMean")
        axes = self._axes(mean, source)
        square = self._node(mean.inputs[0], "Mul", "Pow")
        if square.inputs[0] != source:
            raise _Mismatch
        if square.operator == "Mul" and square.inputs[1] != source:
            raise _Mismatch
        if square.operator == "Pow" and self.around.scalar(square.inputs[1], source, typed=False) != 2:
            raise _Mismatch
        return _Spread(frozenset(self.inner), axes, known[0])

    def _root_of(self, name: str, source: str, *, inverse: bool) -> str:
        """The value whose root, or one over its root, `name` is."""
        if not inverse:
            return self._node(name, "Sqrt").inputs[0]
        node = self._node(name, "Reciprocal", "Div", "Pow")
        if node.operator == "Pow":
            if self.around.scalar(node.inputs[1], source, typed=False) != -0.5:
                raise _Mismatch
            return node.inputs[0]
        if node.operator == "Div" and self.around.scalar(node.inputs[0], source, typed=True) != 1:
            raise _Mismatch
        return self._node(node.inputs[-1], "Sqrt").inputs[0]

    def _node(self, name: str, *operators: str) -> Node:
        node = self.around.inner(name)
        if node is None or node.operator not in operators:
            raise _Mismatch
        if node.operator in ("Sqrt", "Reciprocal"):
            if node.attributes or len(node.inputs) != 1:
                raise _Mismatch
        else:
            try:
                registry.find(node)
            except UnsupportedNode:
                raise _Mismatch from None
            if node.operator != "ReduceMean" and len(node.inputs) != 2:
                raise _Mismatch
        self.inner.add(name)
        return node

    def _axes(self, mean: Node, source: str) -> tuple[int, ...]:
        """The axes of a mean that keeps its rank: the last ones, all of them given.  Raises: _Mismatch."""
        rank = len(self.around.shapes[source])
        if mean.attributes.get("keepdims", 1) != 1:
            raise _Mismatch
        given: Any = mean.attributes.get("axes")
        if given is None and len(mean.inputs) == 2:
            given = self.around.constants.get(mean.inputs[1])
        axes = np.asarray([] if given is None else given).reshape(-1).tolist()
        if not axes or not all(-rank <= axis < rank for axis in axes):
            raise _Mismatch
        last = tuple(sorted(axis % rank for axis in axes))
        if last != tuple(range(rank - len(last), rank)):
            raise _Mismatch
        return last

    def term(self, value: str, spread: _Spread, *, centred: bool) -> Contraction | None:
        """The normalisation of the value before centring, or of `value` itself, if the nodes agree with it."""
        self.inner, source = set(spread.inner), value
        if centred:
            try:
                source = self._uncentred(value, spread)
            except _Mismatch:
                return None
        shape = self.around.shapes[source]
        if not self.around.is_closed(self.inner, self.root):
            return None
        size, count = math.prod(shape), math.prod(shape[axis] for axis in spread.axes)
        function = Normalisation(
            name="normalisation" if centred else "root mean square normalisation",
            groups=size // count,
            scale=np.ones(size),
            shift=np.zeros(size),
            epsilon=spread.epsilon,
            centred=centred,
        )
        if not self._agrees(source, function):
            return None
        return Contraction(
            name=self.root.name,
            operator=self.root.operator,
            sources=(source,),
            output=self.root.outputs[0],
            shape=shape,
            dtype=self.around.dtypes[source],
            function=function,
        )

    def _uncentred(self, value: str, spread: _Spread) -> str:
        """x, where `value` is x minus its mean over the same axes.  Raises: _Mismatch."""
        difference = self._node(value, "Sub")
        source = difference.inputs[0]
        mean = self._node(difference.inputs[1], "ReduceMean")
        if source not in self.around.shapes or mean.inputs[0] != source:
            raise _Mismatch
        if self.around.dtypes[source] not in PRECISIONS or self._axes(mean, source) != spread.axes:
            raise _Mismatch
        return source

    def _agrees(self, source: str, function: Normalisation) -> bool:
        """The nodes and the function give the same values at random inputs, small to large."""
        generator = np.random.default_rng(0)
        shape = self.around.shapes[source]
        for size in (1e-3, 1.0, 1e3):
            sample = size * generator.standard_normal(shape)
            computed = self.around.replay(self.inner, self.root, source, sample)
            if computed is None or computed.shape != shape:
                return False
            expected = function.evaluate(sample.reshape(1, -1)).reshape(shape)
            if not np.all(abs(computed - expected) <= 2.0**-36 * (1 + abs(expected))):
                return False
        return True
