"""The one representation every format is read into: a frozen, topologically ordered graph of operators.

Shapes are those of one input row: the batch axis, where there is one, is 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]

FLOATING = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A named tensor at the border of the graph.

    `batch_axis` tells whether axis 0 counts rows (then `shape[0] == 1`); otherwise the whole tensor is one row.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    batch_axis: bool

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one row as callers give it, without the batch axis."""
        return self.shape[1:] if self.batch_axis else self.shape


@dataclass(frozen=True, kw_only=True)
class Node:
    """One operator application; `since` is the operator-set version that introduced its present meaning."""

    name: str
    operator: str
    domain: str
    since: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Nodes in topological order between named inputs and outputs, with the constants they read."""

    nodes: tuple[Node, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Array]
    opset: int
    ir_version: int
    notes: tuple[str, ...] = field(default=())
