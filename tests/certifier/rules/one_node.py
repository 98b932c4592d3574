"""A model of one operator, run by the rule's terms, by the ONNX reference evaluator and by onnxruntime."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.defs
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from certifier import rules  # noqa: F401  (registers every rule)
from certifier.graph import Node
from certifier.limits import Limits
from certifier.rules import registry
from certifier.terms import PRECISIONS, Term

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class OneNode:
    """`inputs` are names in order, each in `shapes` (live) or in `constants`, or empty where missing."""

    operator: str
    opset: int
    inputs: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    constants: Mapping[str, Array]
    attributes: Mapping[str, Any]
    outputs: tuple[str, ...] = ("y",)

    @property
    def since(self) -> int:
        """The version that introduced the operator's meaning in this operator set."""
        return onnx.defs.get_schema(self.operator, self.opset).since_version

    def proto(self) -> onnx.NodeProto:
        return helper.make_node(self.operator, list(self.inputs), list(self.outputs), name="node", **self.attributes)

    def model(self, dtype: type) -> onnx.ModelProto:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        graph = helper.make_graph(
            [self.proto()],
            "one",
            [helper.make_tensor_value_info(name, kind, shape) for name, shape in self.shapes.items()],
            [helper.make_tensor_value_info(name, kind, None) for name in self.outputs if name],
            [numpy_helper.from_array(value.astype(dtype), name) for name, value in self.constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)

    def terms(self) -> tuple[Term, ...]:
        proto = self.proto()
        attributes: dict[str, object] = {}
        for attribute in proto.attribute:
            value = helper.get_attribute_value(attribute)
            attributes[attribute.name] = value.decode() if isinstance(value, bytes) else value
        node = Node(
            name="node",
            operator=self.operator,
            domain="",
            since=self.since,
            inputs=self.inputs,
            outputs=self.outputs,
            attributes=attributes,
        )
        site = registry.Site(node=node, shapes=self.shapes, constants=self.constants, dtype="float32", limits=Limits())
        return registry.find(node).apply(site)

    def evaluate(self, values: Mapping[str, Array]) -> Array:
        return self.run(values)[0]

    def run(self, values: Mapping[str, Array]) -> tuple[Array, Array]:
        """(value, stray of a float32 execution) of one row, in the output's shape."""
        at = PRECISIONS["float32"]
        known = {name: value.astype(np.float64).reshape(1, -1) for name, value in values.items()}
        radii = {name: np.zeros_like(value) for name, value in known.items()}
        terms = self.terms()
        for term in terms:
            read = [known[name] for name in term.sources]
            out = term.evaluate(*read)
            assert out.shape == (1, int(np.prod(term.shape)))
            radii[term.output] = term.stray(read, [radii[name] for name in term.sources], out, at)
            assert radii[term.output].shape == out.shape
            known[term.output] = out
        last = terms[-1]
        assert last.output == self.outputs[0]
        return known[last.output].reshape(last.shape), radii[last.output].reshape(last.shape)

    def reference(self, values: Mapping[str, Array]) -> Array:
        feeds = {name: value.astype(np.float64) for name, value in values.items()}
        return np.asarray(ReferenceEvaluator(self.model(np.float64)).run(None, feeds)[0])  # pyright: ignore

    def engine(self, values: Mapping[str, Array], *, dtype: type = np.float32) -> Array:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(
            self.model(dtype).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return np.asarray(session.run(None, {name: value.astype(dtype) for name, value in values.items()})[0])


def single(values: Array) -> Array:
    """The same numbers rounded to float32, as float64: exact inputs for both executions."""
    return np.asarray(values, dtype=np.float32).astype(np.float64)


def of_one_value(
    operator: str, opset: int, shape: tuple[int, ...], attributes: Mapping[str, Any], *constants: Array
) -> OneNode:
    """An operator of one live value `x`, followed by constants."""
    names = tuple(f"c{index}" for index in range(len(constants)))
    return OneNode(
        operator=operator,
        opset=opset,
        inputs=("x", *names),
        shapes={"x": shape},
        constants={name: single(value) for name, value in zip(names, constants, strict=True)},
        attributes=attributes,
    )
