"""Operators applied one after another -> graph: what a reader of traced or exported programs writes into.

Every node is an operator of the ONNX standard at one operator-set version.  The shape of every value is known as soon
as it is made, and a value that depends on constants alone is evaluated at once, so that shapes and indices computed by
the program are plain arrays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.defs
import onnx.shape_inference
from onnx import helper, numpy_helper

from certifier.errors import MalformedModel, UnsupportedNode
from certifier.graph import Array, Graph, Node, Tensor
from certifier.limits import Limits
from certifier.reading.folding import FOLDABLE, fold
from certifier.reading.writing import make_node

OPSET = 21
_IR_VERSION = 10
"""The IR version that came with operator set 21."""
_LARGEST_DATA = 4096
"""Constants of more elements are never shapes, axes, pads or scales, which shape inference has to see."""

_SHAPED_AS_FIRST = frozenset(("GroupNormalization",))
"""Operators without shape inference of their own, whose output is like their first input."""


@dataclass(frozen=True, kw_only=True)
class Ref:
    """A tensor value: `shape` is that of one input row, `dtype` is numpy's name of its element type."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


class Emitter:
    """Collects inputs, constants and nodes, and demands the limits of each as it is made."""

    def __init__(self, *, limits: Limits) -> None:
        self.limits = limits
        self._nodes: list[Node] = []
        self._inputs: list[Tensor] = []
        self._constants: dict[str, Array] = {}
        self._names: set[str] = set()
        self._node_names: set[str] = set()
        self._elements = 0
        self._suffixes: dict[str, int] = {}

    def input(self, name: str, *, dtype: str, shape: tuple[int, ...], batch_axis: bool) -> Ref:
        """A tensor that the caller of the model provides; see `certifier.graph.Tensor`.

        Raises: ResourceLimitExceeded, MalformedModel for a negative size.
        """
        ref = Ref(name=self._fresh(name, self._names), shape=tuple(shape), dtype=dtype)
        self._demand_value(ref, f"input {name!r}")
        self._inputs.append(Tensor(name=ref.name, dtype=dtype, shape=ref.shape, batch_axis=batch_axis))
        return ref

    def constant(self, value: Array, name: str) -> Ref:
        """A known array, called `name` if nothing else is called so.

        Raises: ResourceLimitExceeded.
        """
        array = np.asarray(value)
        self._elements += array.size
        self.limits.demand("elements", self._elements, f"constant {name!r}")
        ref = Ref(name=self._fresh(name, self._names), shape=tuple(array.shape), dtype=str(array.dtype))
        self._constants[ref.name] = array
        return ref

    def node(
        self,
        operator: str,
        inputs: Sequence[Ref | None],
        attributes: Mapping[str, object],
        *,
        outputs: int,
        name: str,
    ) -> tuple[Ref, ...]:
        """The outputs of one standard operator; constants where all its inputs are constants.

        Raises: ResourceLimitExceeded; MalformedModel if the inputs do not fit the operator; UnsupportedNode if the
        size of an output depends on values that are not known.
        """
        self.limits.demand("nodes", len(self._nodes) + 1, name)
        node_name = self._fresh(name, self._node_names)
        names = [self._fresh(name if outputs == 1 else f"{name}.{index}", self._names) for index in range(outputs)]
        node = Node(
            name=node_name,
            operator=operator,
            domain="",
            since=onnx.defs.get_schema(operator, OPSET, "").since_version,
            inputs=tuple(ref.name if ref is not None else "" for ref in inputs),
            outputs=tuple(names),
            attributes={key: _as_stored(value) for key, value in attributes.items()},
        )
        given = [ref for ref in inputs if ref is not None]
        if given and operator in FOLDABLE and all(ref.name in self._constants for ref in given):
            return self._folded(node)
        refs = self._inferred(node, given)
        for ref in refs:
            self._demand_value(ref, f"node {node_name!r} ({operator})")
        self._nodes.append(node)
        return refs

    def value(self, ref: Ref) -> Array | None:
        """The array of a constant, or None if `ref` depends on the model's input."""
        return self._constants.get(ref.name)

    def graph(self, outputs: Sequence[Ref]) -> Graph:
        """The graph of what `outputs` depend on; all inputs are kept."""
        inputs = {tensor.name for tensor in self._inputs}
        named = [
            self.node("Identity", [ref], {}, outputs=1, name=f"{ref.name}/output")[0] if ref.name in inputs else ref
            for ref in outputs
        ]
        wanted, nodes = {ref.name for ref in named}, list[Node]()
        for node in reversed(self._nodes):
            if wanted & set(node.outputs):
                nodes.append(node)
                wanted.update(node.inputs)
        return Graph(
            nodes=tuple(nodes[::-1]),
            inputs=tuple(self._inputs),
            outputs=tuple(ref.name for ref in named),
            constants={name: value for name, value in self._constants.items() if name in wanted},
            opset=OPSET,
            ir_version=_IR_VERSION,
        )

    def _folded(self, node: Node) -> tuple[Ref, ...]:
        values = fold(node, self._constants, opset=OPSET, limits=self.limits)
        refs = []
        for name, value in values.items():
            self._names.discard(name)
            refs.append(self.constant(value, name))
        return tuple(refs)

    def _inferred(self, node: Node, given: Sequence[Ref]) -> tuple[Ref, ...]:
        if node.operator in _SHAPED_AS_FIRST:
            return (Ref(name=node.outputs[0], shape=given[0].shape, dtype=given[0].dtype),)
        try:
            types = onnx.shape_inference.infer_node_outputs(
                onnx.defs.get_schema(node.operator, OPSET, ""),
                make_node(node),
                {ref.name: _type(ref) for ref in given},
                {ref.name: numpy_helper.from_array(data) for ref in given if (data := self._data(ref)) is not None},
                None,
                [helper.make_opsetid("", OPSET)],
                _IR_VERSION,
            )
        except Exception as error:  # shape inference raises several unrelated kinds of error
            reason = next(iter(str(error).strip().splitlines()), "")
            raise MalformedModel(f"node {node.name!r} ({node.operator}): its inputs do not fit: {reason}") from error
        refs = []
        for name in node.outputs:
            kind = types[name].tensor_type if name in types else None
            if kind is None or not kind.HasField("shape") or not all(d.HasField("dim_value") for d in kind.shape.dim):
                raise UnsupportedNode(node.name, node.operator, "the shape of its output cannot be told ahead of time")
            shape = tuple(dim.dim_value for dim in kind.shape.dim)
            refs.append(Ref(name=name, shape=shape, dtype=str(helper.tensor_dtype_to_np_dtype(kind.elem_type))))
        return tuple(refs)

    def _data(self, ref: Ref) -> Array | None:
        value = self._constants.get(ref.name)
        return value if value is not None and value.size <= _LARGEST_DATA else None

    def _demand_value(self, ref: Ref, where: str) -> None:
        if any(size < 0 for size in ref.shape):
            raise MalformedModel(f"{where}: a size is negative: {list(ref.shape)}")
        self.limits.demand("value_elements", ref.size, where)

    def _fresh(self, wanted: str, taken: set[str]) -> str:
        if not wanted.isprintable():
            # Lone surrogates, which JSON can spell, have no UTF-8 and so no place in a model that is served.
            raise MalformedModel(f"the name {wanted!r} is not printable text")
        name = wanted or "value"
        while name in taken:
            # Counted per name: many values of one name must not cost a search each.
            self._suffixes[wanted] = self._suffixes.get(wanted, 0) + 1
            name = f"{wanted}_{self._suffixes[wanted]}"
        taken.add(name)
        return name


def _as_stored(value: object) -> object:
    """An attribute as the standard stores it, numbers in single precision: what is bounded is what is served."""
    if isinstance(value, float):
        with np.errstate(over="ignore"):
            return float(np.float32(value))
    return value


def _type(ref: Ref) -> onnx.TypeProto:
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(array_dtype(ref.dtype)), list(ref.shape))


def array_dtype(dtype: str) -> np.dtype[np.generic]:
    """numpy's element type called `dtype`, bfloat16 included."""
    return helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16) if dtype == "bfloat16" else np.dtype(dtype)
