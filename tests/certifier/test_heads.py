"""What is cut off before an output: selections over the whole row, and nothing that would change what is certified."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from certifier import CertifyOptions
from certifier.documents import Certificate
from certifier.errors import UnsupportedNode
from tests.building import Array, certify_bytes, predictor_of

WEIGHTS = np.array([[3.0, 0.0, 1.0], [0.0, 4.0, -1.0], [1.0, 1.0, 2.0]], dtype=np.float32)
INT, FLOAT, STRING = TensorProto.INT64, TensorProto.FLOAT, TensorProto.STRING
Step = tuple[str, Sequence[str], Sequence[str], dict[str, Any]]


def model(
    steps: Sequence[Step], outputs: dict[str, Any], *, constants: dict[str, Array] | None = None, opset: int = 17
) -> bytes:
    """x -> z = x W, and then `steps`; outputs by name with an element type, a type or None for floats."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"])]
    for operator, reads, writes, attributes in steps:
        domain, _, name = operator.rpartition("/")
        nodes.append(helper.make_node(name, list(reads), list(writes), domain=domain, **attributes))
    values = []
    for name, kind in outputs.items():
        if isinstance(kind, onnx.TypeProto):
            values.append(helper.make_value_info(name, kind))
        else:
            values.append(helper.make_tensor_value_info(name, kind or FLOAT, None))
    arrays = {"w": WEIGHTS, **(constants or {})}
    graph = helper.make_graph(
        nodes,
        "heads",
        [helper.make_tensor_value_info("x", FLOAT, ["N", 3])],
        values,
        [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    made = helper.make_model(graph, opset_imports=imports, ir_version=8)
    # The checker wants the rank of every output, which shape inference mostly knows.
    for value, known in zip(made.graph.output, onnx.shape_inference.infer_shapes(made).graph.output, strict=True):
        if known.type.tensor_type.HasField("shape"):
            value.CopyFrom(known)
        elif value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.dim.add()
    return made.SerializeToString()


def labelled_with_probabilities() -> bytes:
    """What converters of classical pipelines write: a label from a table of names, and a list of maps."""
    kind = helper.make_sequence_type_proto(
        helper.make_map_type_proto(STRING, helper.make_tensor_type_proto(FLOAT, [])),
    )
    steps: list[Step] = [
        ("Softmax", ["z"], ["p"], {"axis": 1}),
        ("ArgMax", ["p"], ["place"], {"axis": 1}),
        ("ai.onnx.ml/ArrayFeatureExtractor", ["names", "place"], ["picked"], {}),
        ("Reshape", ["picked", "flat"], ["label"], {}),
        ("ai.onnx.ml/ZipMap", ["p"], ["probability"], {"classlabels_strings": ["cat", "dog", "emu"]}),
    ]
    names = {"names": np.array(["cat", "dog", "emu"], dtype=object), "flat": np.array([-1], dtype=np.int64)}
    return model(steps, {"label": STRING, "probability": kind}, constants=names)


def certificate(data: bytes, **options: Any) -> Certificate:
    return certify_bytes(data, options=CertifyOptions.model_validate(options)).certificate


def assert_the_logits(found: Certificate) -> None:
    """The certificate is that of z, and a classifier's."""
    truth = float(np.linalg.norm(WEIGHTS.astype(np.float64), 2))
    assert (found.task, found.classes) == ("classification", 3)
    assert truth * (1 - 1e-12) <= found.lipschitz.upper <= truth * (1 + 1e-8)
    assert any("cut off" in note for note in found.notes)


def test_a_classical_pipeline_is_certified_once_and_for_its_logits() -> None:
    data = labelled_with_probabilities()
    certified = certify_bytes(data)
    assert_the_logits(certified.certificate)
    assert any("label, probability come to the same values" in note for note in certified.certificate.notes)
    rows = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    labels, _ = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": rows})
    answers = predictor_of(certified).predict(rows.astype(np.float64), epsilon=None, preprocessing=None)
    assert [("cat", "dog", "emu")[row.label or 0] for row in answers] == list(np.asarray(labels))


@pytest.mark.parametrize("output", ["label", "probability"])
def test_each_output_of_the_pipeline_comes_to_the_same_logits(output: str) -> None:
    assert_the_logits(certificate(labelled_with_probabilities(), outputs=[output]))


SELECTIONS: dict[str, tuple[list[Step], dict[str, Any]]] = {
    "ArgMax": ([("ArgMax", ["z"], ["o"], {"axis": -1})], {"o": INT}),
    "ArgMax without its axis": ([("ArgMax", ["z"], ["o"], {"axis": 1, "keepdims": 0})], {"o": INT}),
    "Hardmax": ([("Hardmax", ["z"], ["o"], {})], {"o": None}),
    "TopK": ([("TopK", ["z", "two"], ["v", "o"], {})], {"v": None, "o": INT}),
    "the first place of TopK": ([("TopK", ["z", "one"], ["v", "o"], {})], {"o": INT}),
    "a cast": ([("ArgMax", ["z"], ["a"], {"axis": 1}), ("Cast", ["a"], ["o"], {"to": STRING})], {"o": STRING}),
    "one hot": (
        [("ArgMax", ["z"], ["a"], {"axis": 1}), ("OneHot", ["a", "three", "switch"], ["o"], {})],
        {"o": None},
    ),
    "softmax first": ([("Softmax", ["z"], ["p"], {}), ("ArgMax", ["p"], ["o"], {"axis": 1})], {"o": INT}),
    "log-probabilities beside": (
        [("LogSoftmax", ["z"], ["p"], {}), ("ArgMax", ["z"], ["o"], {"axis": 1})],
        {"p": None, "o": INT},
    ),
    "the logits beside": ([("ArgMax", ["z"], ["o"], {"axis": 1})], {"z": None, "o": INT}),
    "the maximum beside": (
        [("ReduceMax", ["z"], ["m"], {"axes": [1]}), ("ArgMax", ["z"], ["o"], {"axis": 1})],
        {"m": None, "o": INT},
    ),
    "an encoder of labels": (
        [
            ("ArgMax", ["z"], ["a"], {"axis": 1}),
            ("ai.onnx.ml/LabelEncoder", ["a"], ["o"], {"keys_int64s": [0, 1, 2], "values_strings": ["a", "b", "c"]}),
        ],
        {"o": STRING},
    ),
}
NUMBERS = {
    "one": np.array([1]),
    "two": np.array([2]),
    "three": np.array([3]),
    "switch": np.array([0.0, 1.0], dtype=np.float32),
}


@pytest.mark.parametrize("case", SELECTIONS)
def test_a_selection_over_the_whole_row_is_cut_off(case: str) -> None:
    steps, outputs = SELECTIONS[case]
    found = certificate(model(steps, outputs, constants=NUMBERS))
    assert_the_logits(found)
    assert "of what it selects, the first place alone" in str(found.notes) or "TopK" not in case


@pytest.mark.parametrize(
    "step", [("ArgMin", ["z"], ["o"], {"axis": 1}), ("TopK", ["z", "one"], ["v", "o"], {"largest": 0})]
)
def test_where_the_smallest_is_selected_the_negated_values_are_certified(step: Step) -> None:
    data = model([step], {"o": INT}, constants=NUMBERS)
    certified = certify_bytes(data)
    assert_the_logits(certified.certificate)
    rows = np.random.default_rng(1).standard_normal((20, 3)).astype(np.float32)
    (labels,) = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": rows})
    answers = predictor_of(certified).predict(rows.astype(np.float64), epsilon=None, preprocessing=None)
    assert [row.label for row in answers] == np.asarray(labels).reshape(-1).tolist()
    assert any("negated" in note for note in certified.certificate.notes)


REFUSED: dict[str, tuple[list[Step], dict[str, Any], str]] = {
    "over the rows": ([("ArgMax", ["z"], ["o"], {"axis": 0})], {"o": INT}, "ArgMax"),
    "over a part": (
        [("Concat", ["z", "z"], ["c"], {"axis": 1}), ("Reshape", ["c", "halves"], ["r"], {}),
         ("ArgMax", ["r"], ["o"], {"axis": 2})],
        {"o": INT},
        "a part of",
    ),
    "added to the logits": (
        [("ArgMax", ["z"], ["a"], {"axis": 1}), ("Cast", ["a"], ["f"], {"to": FLOAT}), ("Add", ["z", "f"], ["o"], {})],
        {"o": None},
        "ArgMax",
    ),
    "gathers from the input": (
        [("ArgMax", ["z"], ["a"], {"axis": 1, "keepdims": 0}), ("Gather", ["x", "a"], ["o"], {"axis": 1})],
        {"o": None},
        "ArgMax",
    ),
    "two selections of different values": (
        [("Relu", ["x"], ["r"], {}), ("ArgMax", ["z"], ["a"], {"axis": 1}), ("ArgMax", ["r"], ["b"], {"axis": 1}),
         ("Add", ["a", "b"], ["o"], {})],
        {"o": INT},
        "ArgMax",
    ),
    "the largest and the smallest of one": (
        [("ArgMin", ["z"], ["a"], {"axis": 1}), ("ArgMax", ["z"], ["b"], {"axis": 1}), ("Add", ["a", "b"], ["o"], {})],
        {"o": INT},
        "ArgMin",
    ),
    "computes with all that TopK selects": (
        [("TopK", ["z", "two"], ["v", "i"], {}), ("Cast", ["i"], ["p"], {"to": FLOAT}), ("Exp", ["p"], ["o"], {})],
        {"o": None},
        "other entries than the largest",
    ),
    "rounds the values themselves": ([("Cast", ["z"], ["o"], {"to": INT})], {"o": INT}, "discontinuous"),
    "draws lots": (
        [("ArgMax", ["z"], ["a"], {"axis": 1}), ("RandomUniform", [], ["u"], {"shape": [1, 1]}),
         ("Cast", ["a"], ["f"], {"to": FLOAT}), ("Mul", ["f", "u"], ["o"], {})],
        {"o": None},
        "ArgMax",
    ),
    "a comparison of several": ([("Greater", ["z", "half"], ["o"], {})], {"o": TensorProto.BOOL}, "Greater"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_head_of_one_classifier_is_refused(case: str) -> None:
    steps, outputs, reason = REFUSED[case]
    constants = {**NUMBERS, "half": np.array(0.5, dtype=np.float32), "halves": np.array([1, 2, 3])}
    with pytest.raises(UnsupportedNode, match=reason) as caught:
        certificate(model(steps, outputs, constants=constants))
    assert caught.value.remedy


def test_the_maximum_alone_is_what_the_model_computes() -> None:
    found = certificate(model([("ReduceMax", ["z"], ["o"], {"axes": [1]})], {"o": None}))
    assert (found.task, found.classes) == ("regression", 1)


def test_a_regressor_keeps_its_softmax_but_no_selection() -> None:
    """The label has no bound of its own whatever the task, and the probabilities are what is asked for."""
    found = certificate(labelled_with_probabilities(), task="regression")
    truth = float(np.linalg.norm(WEIGHTS.astype(np.float64), 2))
    assert (found.task, found.classes) == ("regression", 3)
    assert found.lipschitz.upper <= 0.5 * truth * (1 + 1e-8)


def test_a_label_beside_other_values_is_certified_with_them() -> None:
    """Not the same values, so joined: nothing is dropped silently."""
    steps: list[Step] = [("ArgMax", ["z"], ["label"], {"axis": 1}), ("Relu", ["x"], ["features"], {})]
    found = certificate(model(steps, {"label": INT, "features": None}))
    truth = float(np.linalg.norm(np.vstack([WEIGHTS.T.astype(np.float64), np.eye(3)]), 2))
    assert (found.task, found.classes) == ("regression", 6)
    assert truth * (1 - 1e-12) <= found.lipschitz.upper <= truth * (1 + 1e-8)


def test_behind_a_suppression_the_boxes_and_scores_are_certified() -> None:
    steps: list[Step] = [
        ("Reshape", ["scaled", "boxes_shape"], ["boxes"], {}),
        ("Reshape", ["z", "scores_shape"], ["scores"], {}),
        ("NonMaxSuppression", ["boxes", "scores", "most", "half", "half"], ["selected"], {}),
        ("Gather", ["boxes", "selected"], ["kept"], {"axis": 1}),
    ]
    spread = np.ones((3, 12), dtype=np.float32)
    constants = {
        "spread": spread, "boxes_shape": np.array([1, 3, 4]), "scores_shape": np.array([1, 1, 3]),
        "most": np.array([2]), "half": np.array([0.5], dtype=np.float32),
    }  # fmt: skip
    before: list[Step] = [("MatMul", ["z", "spread"], ["scaled"], {})]
    for outputs in ({"selected": INT}, {"selected": INT, "kept": None}):
        found = certificate(model([*before, *steps], outputs, constants=constants))
        assert (found.task, found.classes) == ("regression", 15)
        assert any("NonMaxSuppression" in note for note in found.notes)
        joint = np.hstack([WEIGHTS.astype(np.float64) @ spread, WEIGHTS])
        assert np.linalg.norm(joint, 2) * (1 - 1e-12) <= found.lipschitz.upper


def test_what_is_served_ends_before_the_head() -> None:
    certified = certify_bytes(labelled_with_probabilities())
    served = onnx.load_model_from_string(certified.served_model)
    assert [node.op_type for node in served.graph.node] == ["MatMul"]
