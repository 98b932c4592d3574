"""The node cases of the ONNX backend tests, run through reading, rules and evaluation."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

from certifier.errors import CertifierError
from certifier.graph import FLOATING
from certifier.limits import Limits
from certifier.network import build_network
from certifier.reading.onnx import read_onnx
from certifier.rules.registry import support
from certifier.terms import PRECISIONS


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one output of one case: the expected numbers, a refusal with its reason, or neither."""

    case: str
    operator: str
    output: str
    status: Literal["passed", "refused", "wrong"]
    reason: str


@cache
def outcomes() -> tuple[Outcome, ...]:
    """One outcome for every output of every case of a supported operator."""
    supported = {entry.operator for entry in support() if entry.supported}
    with warnings.catch_warnings():
        # Some cases are generated with overflow and division by zero on purpose.
        warnings.simplefilter("ignore")
        cases: list[Any] = list(collect_testcases(None))
    return tuple(
        outcome
        for case in cases
        if len(case.model.graph.node) == 1
        and case.model.graph.node[0].domain in ("", "ai.onnx")
        and case.model.graph.node[0].op_type in supported
        for outcome in _outcomes_of(case)
    )


def _outcomes_of(case: Any) -> Iterator[Outcome]:
    operator = case.model.graph.node[0].op_type
    inputs, outputs = case.data_sets[0]
    for position, expected in enumerate(outputs):
        name = case.model.graph.output[position].name
        try:
            computed = _evaluate(case.model, inputs, position)
            target = numpy_helper.to_array(expected) if isinstance(expected, onnx.TensorProto) else expected
        except CertifierError as error:
            reason = str(error).split("): ", 1)[-1]
            yield Outcome(case=case.name, operator=operator, output=name, status="refused", reason=reason)
            continue
        wrong = _difference(computed, np.asarray(target), rtol=case.rtol, atol=case.atol)
        yield Outcome(
            case=case.name, operator=operator, output=name, status="wrong" if wrong else "passed", reason=wrong
        )


def _evaluate(model: onnx.ModelProto, inputs: list[Any], position: int) -> np.ndarray:
    """Output number `position` as a tensor, where the first floating input is live and all others are constant."""
    single = onnx.ModelProto()
    single.CopyFrom(model)
    kept = single.graph.output[position]
    del single.graph.output[:]
    single.graph.output.append(kept)
    if single.graph.node[0].op_type != "Split":
        # Optional outputs that nobody asks for; a Split's outputs say into how many parts it splits.
        outputs = single.graph.node[0].output
        del outputs[list(outputs).index(kept.name) + 1 :]
    inputs = [numpy_helper.to_array(v) if isinstance(v, onnx.TensorProto) else v for v in inputs]
    live = next((i for i, value in enumerate(inputs) if _is_floating(value)), 0)
    for value, given in zip(model.graph.input, inputs, strict=True):
        if value.name != model.graph.input[live].name and not isinstance(given, list) and given is not None:
            single.graph.initializer.append(numpy_helper.from_array(np.asarray(given), value.name))
    graph = read_onnx(single.SerializeToString(), limits=Limits())
    network = build_network(graph, limits=Limits(), cut_head=False)
    x = np.asarray(inputs[live], dtype=np.float64).reshape(1, -1)
    return network.evaluate(x).reshape(network.output_shape)


def _is_floating(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.name in FLOATING


def _difference(computed: np.ndarray, expected: np.ndarray, *, rtol: float, atol: float) -> str:
    if computed.shape != expected.shape:
        return f"shape {computed.shape} instead of {expected.shape}"
    # The cases' own tolerance is finer than one rounding to bfloat16, which the float64 evaluation does not make.
    rounding = 2 * PRECISIONS[expected.dtype.name].unit if expected.dtype.name in PRECISIONS else 0.0
    exact = expected.astype(np.float64)
    if np.allclose(computed, exact, rtol=max(rtol, rounding), atol=atol, equal_nan=True):
        return ""
    return f"off by {np.nanmax(abs(computed - exact))}"
