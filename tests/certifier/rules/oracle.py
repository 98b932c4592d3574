"""One node run three ways: by its rule, by the ONNX reference evaluator and by onnxruntime in float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from certifier.graph import Node
from certifier.limits import Limits
from certifier.proof.execution import SLACK
from certifier.rules import registry
from certifier.rules.registry import Site
from certifier.terms import PRECISIONS, Contraction, Term

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A node with its inputs in order; those named in `live` depend on the model's input, "" is left out."""

    operator: str
    opset: int
    inputs: Mapping[str, Array]
    live: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    @property
    def proto(self) -> onnx.NodeProto:
        names = [name if not name.startswith("_") else "" for name in self.inputs]
        return helper.make_node(self.operator, names, list(self.outputs), name="node", **self.attributes)

    def node(self) -> Node:
        """The node as the reader would give it."""
        values = {a.name: helper.get_attribute_value(a) for a in self.proto.attribute}
        return Node(
            name="node",
            operator=self.operator,
            domain="",
            since=onnx.defs.get_schema(self.operator, self.opset).since_version,
            inputs=tuple(self.proto.input),
            outputs=self.outputs,
            attributes={
                name: value.decode() if isinstance(value, bytes) else tuple(value) if _is_list(value) else value
                for name, value in values.items()
            },
        )

    def terms(self) -> tuple[Term, ...]:
        """What the rule makes of the node.  Raises: what the rule raises."""
        node = self.node()
        site = Site(
            node=node,
            shapes={name: self.inputs[name].shape for name in self.live},
            constants={name: v for name, v in self.inputs.items() if name not in self.live and name in node.inputs},
            dtype="float32",
            limits=Limits(),
        )
        return registry.find(node).apply(site)

    def model(self, outputs: Sequence[onnx.ValueInfoProto] | None = None) -> onnx.ModelProto:
        given = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for name, v in self.inputs.items()
            if name in self.live
        ]
        constants = [
            numpy_helper.from_array(v, name)
            for name, v in self.inputs.items()
            if name not in self.live and not name.startswith("_")
        ]
        wanted = [helper.make_empty_tensor_value_info(name) for name in self.outputs]
        graph = helper.make_graph([self.proto], "case", given, list(outputs or wanted), constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)

    def reference(self) -> dict[str, Array]:
        """The outputs by the reference evaluator, in the inputs' own precision."""
        values = {name: self.inputs[name] for name in self.live}
        results: Any = ReferenceEvaluator(self.model()).run(None, values)
        return dict(zip(self.outputs, results, strict=True))

    def engine(self) -> dict[str, Array]:
        """The outputs by onnxruntime on the CPU, in float32."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        kind = onnx.TensorProto.FLOAT
        typed = [helper.make_tensor_value_info(name, kind, None) for name in self.outputs]
        session = onnxruntime.InferenceSession(
            self.model(typed).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        values = {name: self.inputs[name] for name in self.live}
        results: Any = session.run(None, values)
        return dict(zip(self.outputs, results, strict=True))


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def case(
    operator: str,
    opset: int,
    x: Array,
    *constants: Array | None,
    outputs: tuple[str, ...] = ("y",),
    attributes: Mapping[str, Any] | None = None,
) -> Case:
    """A node whose first input `x` is live and whose others are constant (None: left out)."""
    inputs = {"x": x}
    for position, value in enumerate(constants, start=1):
        inputs[f"c{position}" if value is not None else f"_{position}"] = np.empty(0) if value is None else value
    return Case(
        operator=operator,
        opset=opset,
        inputs=inputs,
        live=("x",),
        outputs=outputs,
        attributes=attributes or {},
    )


def evaluate(terms: Sequence[Term], values: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Every value and its stray in float32, from one row per input."""
    known = {name: np.asarray(value, dtype=np.float64).reshape(1, -1) for name, value in values.items()}
    radii = {name: np.zeros_like(value) for name, value in known.items()}
    for term in terms:
        read = [known[name] for name in term.sources]
        out = term.evaluate(*read)
        radii[term.output] = SLACK * term.stray(
            read, [radii[name] for name in term.sources], out, PRECISIONS[term.dtype]
        )
        known[term.output] = out
    return known, radii


def check(the_case: Case, *, by_reference: bool = True, by_engine: bool = True) -> tuple[Term, ...]:
    """The rule means what the reference means, in shape and value, and the engine stays within the stray."""
    terms = the_case.terms()
    shapes = {term.output: term.shape for term in terms}
    known, radii = evaluate(terms, {name: the_case.inputs[name] for name in the_case.live})
    for run, is_used in ((the_case.reference, by_reference), (the_case.engine, by_engine)):
        if not is_used:
            continue
        for name, expected in run().items():
            assert expected.shape == shapes[name], (name, expected.shape, shapes[name])
            distance = abs(known[name].reshape(-1) - expected.reshape(-1).astype(np.float64))
            size = abs(expected).max(initial=0.0)
            assert distance.max(initial=0.0) <= 1e-5 * size + 1e-6, f"{name}: off by {distance.max()}"
            if run == the_case.engine:
                assert (distance <= radii[name].reshape(-1)).all(), "the engine strays further than its bound"
                assert radii[name].max(initial=0.0) <= 1e-3 * (1 + size), "the stray is useless"
    _check_pullbacks(terms, known)
    return terms


def _check_pullbacks(terms: Sequence[Term], known: Mapping[str, Array]) -> None:
    """<g, J d> = <J^T g, d>, by a central difference."""
    rng = np.random.default_rng(7)
    for term in terms:
        read = [known[name] for name in term.sources]
        gradient = rng.standard_normal(known[term.output].shape)
        directions = [rng.standard_normal(value.shape) for value in read]
        step = 1e-6
        ahead = term.evaluate(*(v + step * d for v, d in zip(read, directions, strict=True)))
        behind = term.evaluate(*(v - step * d for v, d in zip(read, directions, strict=True)))
        slope = float(np.sum(gradient * (ahead - behind)) / (2 * step))
        back = term.pullback(gradient, *read)
        assert [b.shape for b in back] == [v.shape for v in read]
        expected = float(sum(np.sum(b * d) for b, d in zip(back, directions, strict=True)))
        assert abs(slope - expected) <= 1e-4 * (1 + abs(expected)) * np.sqrt(gradient.size)


def constant_of(terms: Sequence[Term]) -> float:
    """The proved constant of the only contraction among `terms`."""
    (found,) = [term for term in terms if isinstance(term, Contraction)]
    return found.function.constant_upper


def steepest_difference(term: Term, size: int, *, rounds: int) -> float:
    """The largest ||F(x) - F(y)|| / ||x - y|| over random pairs near and far: below every sound constant."""
    rng = np.random.default_rng(11)
    best = 0.0
    for scale in (1e-3, 0.1, 1.0, 10.0):
        x = rng.standard_normal((rounds, size))
        y = x + scale * rng.standard_normal((rounds, size)) * (rng.random((rounds, size)) < 0.3)
        apart = np.linalg.norm(x - y, axis=1)
        there = np.linalg.norm(term.evaluate(x) - term.evaluate(y), axis=1)
        best = max(best, float(np.max(there[apart > 0] / apart[apart > 0])))
    return best
