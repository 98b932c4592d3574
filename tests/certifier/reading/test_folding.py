"""Constants computed ahead of time are those that the engine computes from the same nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.defs
import onnx.shape_inference
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from certifier.graph import Node
from certifier.limits import Limits
from certifier.reading.folding import fold
from tests.certifier.reading.exporting import engine

OPSET = 23
RANDOM = np.random.default_rng(0)
ROW = RANDOM.normal(size=(1, 4)).astype(np.float32)
IMAGE = RANDOM.normal(size=(1, 4, 5, 6)).astype(np.float32)
ONES, SLOPES = np.ones(6, np.float32), np.array([0.1, 0.2, 0.3, 0.4], np.float32)

CASES: list[tuple[str, list[NDArray[Any]], dict[str, Any]]] = [
    *((name, [ROW], {}) for name in ("Atan", "Cos", "Elu", "HardSigmoid", "HardSwish", "LogSoftmax", "Mish", "Selu")),
    *((name, [ROW], {}) for name in ("Sin", "Softsign", "Tan", "ReduceLogSumExp", "IsNaN", "LpNormalization")),
    ("ReduceLogSum", [np.abs(ROW)], {}),
    ("Celu", [ROW], {"alpha": 2.0}),
    ("Gelu", [ROW], {}),
    ("Gelu", [ROW], {"approximate": "tanh"}),
    ("PRelu", [ROW, SLOPES], {}),
    ("ArgMax", [ROW], {"axis": 1}),
    ("ArgMin", [ROW], {"axis": 1}),
    ("TopK", [ROW, np.array([2])], {}),
    ("LayerNormalization", [IMAGE, 2 * ONES, ONES], {"epsilon": 1e-3}),
    ("LayerNormalization", [IMAGE, np.ones((4, 5, 6), np.float32)], {"axis": 1}),
    ("RMSNormalization", [IMAGE, ONES], {}),
    ("InstanceNormalization", [IMAGE, SLOPES, SLOPES], {}),
    ("GroupNormalization", [IMAGE, SLOPES, SLOPES], {"num_groups": 2}),
    ("GlobalAveragePool", [IMAGE], {}),
    ("GlobalMaxPool", [IMAGE], {}),
]


@pytest.mark.parametrize(("operator", "inputs", "attributes"), CASES)
def test_what_is_folded_is_what_the_engine_computes(
    operator: str, inputs: list[NDArray[Any]], attributes: dict[str, Any]
) -> None:
    values = {f"i{position}": value for position, value in enumerate(inputs)}
    outputs = ("first", "second") if operator == "TopK" else ("first",)
    node = Node(
        name="n", operator=operator, domain="", since=onnx.defs.get_schema(operator, OPSET, "").since_version,
        inputs=tuple(values), outputs=outputs, attributes=attributes,
    )  # fmt: skip
    folded = fold(node, values, opset=OPSET, limits=Limits())
    graph = helper.make_graph(
        [helper.make_node(operator, list(values), list(outputs), **attributes)],
        "one",
        [],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    session = engine(onnx.shape_inference.infer_shapes(model).SerializeToString())
    for name, wanted in zip(outputs, map(np.asarray, session.run(None, {})), strict=True):
        assert (folded[name].shape, folded[name].dtype) == (wanted.shape, wanted.dtype)
        assert np.allclose(folded[name], wanted, rtol=1e-5, atol=1e-6)
