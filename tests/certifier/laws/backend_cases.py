"""The node cases of the ONNX backend tests, run through reading, rules and evaluation."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

from certifier.errors import CertifierError
from certifier.graph import FLOATING
from certifier.limits import Limits
from certifier.network import build_network
from certifier.reading.onnx import read_onnx
from certifier.rules.registry import support
from certifier.terms import PRECISIONS

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one output of one case: the expected numbers, a refusal with its reason, or neither."""

    case: str
    operator: str
    output: str
    status: Literal["passed", "refused", "wrong"]
    reason: str


@dataclass(frozen=True, kw_only=True)
class Single:
    """One output of a case as a model of its own: the first floating input is live, all others are constant."""

    case: str
    operator: str
    output: str
    model: bytes
    live: Array
    expected: Array
    rtol: float
    atol: float


@cache
def singles() -> tuple[Single, ...]:
    """Every output of every case of a supported operator."""
    supported = {entry.operator for entry in support() if entry.supported}
    with warnings.catch_warnings():
        # Some cases are generated with overflow and division by zero on purpose.
        warnings.simplefilter("ignore")
        cases: list[Any] = list(collect_testcases(None))
    return tuple(
        _single(case, position)
        for case in cases
        if len(case.model.graph.node) == 1
        and case.model.graph.node[0].domain in ("", "ai.onnx")
        and case.model.graph.node[0].op_type in supported
        for position in range(len(case.data_sets[0][1]))
    )


@cache
def outcomes() -> tuple[Outcome, ...]:
    """What becomes of each."""
    return tuple(map(_outcome_of, singles()))


def _outcome_of(single: Single) -> Outcome:
    try:
        graph = read_onnx(single.model, limits=Limits())
        network = build_network(graph, limits=Limits(), cut_head=False)
    except CertifierError as error:
        status, reason = "refused", str(error).split("): ", 1)[-1]
    else:
        computed = network.evaluate(np.asarray(single.live, dtype=np.float64).reshape(1, -1))
        reason = _difference(
            computed.reshape(network.output_shape), single.expected, rtol=single.rtol, atol=single.atol
        )
        status = "wrong" if reason else "passed"
    return Outcome(case=single.case, operator=single.operator, output=single.output, status=status, reason=reason)


def _single(case: Any, position: int) -> Single:
    inputs, outputs = case.data_sets[0]
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    kept = model.graph.output[position]
    del model.graph.output[:]
    model.graph.output.append(kept)
    if model.graph.node[0].op_type != "Split":
        # Optional outputs that nobody asks for; a Split's outputs say into how many parts it splits.
        names = model.graph.node[0].output
        del names[list(names).index(kept.name) + 1 :]
    inputs = [numpy_helper.to_array(v) if isinstance(v, onnx.TensorProto) else v for v in inputs]
    live = next((i for i, value in enumerate(inputs) if _is_floating(value)), 0)
    for value, given in zip(case.model.graph.input, inputs, strict=True):
        if value.name != case.model.graph.input[live].name and not isinstance(given, list) and given is not None:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(given), value.name))
    expected = outputs[position]
    return Single(
        case=case.name,
        operator=model.graph.node[0].op_type,
        output=kept.name,
        model=model.SerializeToString(),
        live=inputs[live] if inputs else np.zeros(0),
        expected=np.asarray(numpy_helper.to_array(expected) if isinstance(expected, onnx.TensorProto) else expected),
        rtol=case.rtol,
        atol=case.atol,
    )


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
