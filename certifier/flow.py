"""The network that is bounded: ordered terms between one input and one output, for one input row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from certifier.graph import Graph, Tensor
from certifier.terms import Affine, Term

Array = NDArray[Any]
Head = Literal["softmax", "sigmoid", None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """Ordered terms from `input` to `output`, for one input row.

    `head` names the trailing function that was cut off: the outputs here are the logits before it.  `joined` tells
    whether the output is several values of the model one after another.
    """

    input: Tensor
    output: str
    output_shape: tuple[int, ...]
    terms: tuple[Term, ...]
    served: Graph
    head: Head
    joined: bool
    notes: tuple[str, ...]

    @property
    def input_size(self) -> int:
        """Entries of one input row."""
        return math.prod(self.input.shape)

    @property
    def output_size(self) -> int:
        """Entries of one output row."""
        return math.prod(self.output_shape)

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """Entries of every value, by name."""
        return {
            self.input.name: self.input_size,
            **{term.output: math.prod(term.shape) for term in self.terms},
        }

    @cached_property
    def last_reader(self) -> Mapping[str, int]:
        """The position of the last term that reads a value."""
        return {source: position for position, term in enumerate(self.terms) for source in term.sources}

    def walk(self, x: Array) -> Iterator[tuple[Term, tuple[Array, ...], Array]]:
        """Every term with the values it read and the value it wrote, dropping values that nobody reads any more."""
        values = {self.input.name: x}
        for position, term in enumerate(self.terms):
            read = tuple(values[source] for source in term.sources)
            value = term.evaluate(*read)
            yield term, read, value
            values[term.output] = value
            for source in term.sources:
                if self.last_reader[source] == position and source != self.output:
                    values.pop(source, None)

    def evaluate(self, x: Array) -> Array:
        """f(x) in float64, each step rounded to nearest.  Shapes: [B, input_size] -> [B, output_size]."""
        out = x
        for term, _, value in self.walk(x):
            if term.output == self.output:
                out = value
        return out

    @cached_property
    def multiplications(self) -> int:
        """About how many products one evaluation of one row takes; what searches measure their effort by."""
        return sum(
            operator.fan_in * operator.rows
            for term in self.terms
            if isinstance(term, Affine)
            for operator in term.operators
        )

    def linearised(self, x: Array) -> Linearisation:
        """f around the rows of `x`, for searches.  Shapes: x [B, n]."""
        steps, out = [], x
        for term, read, value in self.walk(x):
            steps.append((term, read))
            if term.output == self.output:
                out = value
        return Linearisation(network=self, x=x, value=out, steps=steps)


@dataclass(frozen=True, kw_only=True, eq=False)
class Linearisation:
    """f at some rows, evaluated once, and its derivative there as often as it is asked for.

    Shapes: x [B, n]; value [B, c].
    """

    network: Network
    x: Array
    value: Array
    steps: Sequence[tuple[Term, tuple[Array, ...]]]
    """Every term with the values that it read."""

    def pullback(self, gradient: Array) -> Array:
        """J(x)^T gradient.  Shapes: [B, c] -> [B, n]."""
        gradients: dict[str, Array] = {self.network.output: gradient}
        for term, read in reversed(self.steps):
            incoming = gradients.pop(term.output, None)
            if incoming is None:
                continue
            for source, part in zip(term.sources, term.pullback(incoming, *read), strict=True):
                gradients[source] = gradients[source] + part if source in gradients else part
        return gradients.get(self.network.input.name, np.zeros_like(self.x))


def unused(name: str, taken: set[str]) -> str:
    """The name, or one like it that is not taken; taken from now on."""
    while name in taken:
        name += "'"
    taken.add(name)
    return name
