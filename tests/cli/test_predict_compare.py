"""`lipcert predict`, `compare` and `operators`: what the library answers, and how rows are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from certifier.documents import Comparisons, Predictions
from certifier.prediction import Predictor
from certifier.rules.registry import support
from service.commandline.modelling import certify_file, predictor_of
from service.commandline.options import Certifying
from tests.cli.conftest import Commands

Save = Callable[[Any], Path]


@pytest.fixture
def predictor(lipcert: Commands) -> Predictor:
    return predictor_of(certify_file(lipcert.model, Certifying()))


def test_predictions_are_the_librarys(lipcert: Commands, images: np.ndarray, predictor: Predictor) -> None:
    answer = lipcert.json("predict", lipcert.model, "--inputs", lipcert.inputs, "--epsilon", "0.3")
    assert Predictions.model_validate(answer).model_dump(mode="json") == answer
    assert (answer["model"], answer["version"], answer["epsilon"]) == ("digits", 1, 0.3)
    expected = predictor.predict(images.astype(np.float64), epsilon=0.3, preprocessing=None)
    assert answer["rows"] == [row.model_dump(mode="json") for row in expected]
    assert {row["certified"] for row in answer["rows"]} == {True, False}


def test_without_an_epsilon_nothing_is_said_about_one(lipcert: Commands) -> None:
    answer = lipcert.json("predict", lipcert.model, "--inputs", lipcert.inputs)
    assert answer["epsilon"] is None
    assert {(row["certified"], row["output_bounds"]) for row in answer["rows"]} == {(None, None)}


def test_the_table_shows_radii_rounded_down(lipcert: Commands) -> None:
    answer = lipcert.json("predict", lipcert.model, "--inputs", lipcert.inputs)
    text = lipcert.table("predict", lipcert.model, "--inputs", lipcert.inputs)
    lines = text.splitlines()[1:21]
    for line, row in zip(lines, answer["rows"], strict=False):
        _, label, runner_up, _, radius = line.split()
        assert (int(label), int(runner_up)) == (row["label"], row["runner_up"])
        assert row["radius"] * (1 - 1e-5) <= float(radius) <= row["radius"]
    assert "the first 20 of 450 rows" in text


@pytest.mark.parametrize("shape", [(450, 64), (450, 8, 8), (450, 1, 64), (450, 64, 1)])
def test_rows_are_reshaped_where_their_elements_fit(
    lipcert: Commands, images: np.ndarray, saved: Save, shape: tuple[int, ...]
) -> None:
    expected = lipcert.json("predict", lipcert.model, "--inputs", lipcert.inputs)
    assert lipcert.json("predict", lipcert.model, "--inputs", saved(images.reshape(shape))) == expected


def test_a_single_row_needs_no_batch_axis(lipcert: Commands, images: np.ndarray, saved: Save) -> None:
    one, first = (lipcert.json("predict", lipcert.model, "--inputs", saved(x)) for x in (images[0], images[:1]))
    assert one == first and len(one["rows"]) == 1


def test_fortran_ordered_and_half_precision_files(lipcert: Commands, images: np.ndarray, saved: Save) -> None:
    expected = lipcert.json("predict", lipcert.model, "--inputs", lipcert.inputs)
    # Sixteenths are exact in half precision.
    for array in (np.asfortranarray(images), images.astype(np.float16), images.astype(">f8")):
        assert lipcert.json("predict", lipcert.model, "--inputs", saved(array)) == expected


def test_axes_are_never_reordered_by_guessing(lipcert: Commands, tmp_path: Path, saved: Save) -> None:
    path = tmp_path / "images.onnx"
    path.write_bytes(image_model())
    first = np.random.default_rng(0).random((5, 3, 4, 4)).astype(np.float32)
    last = saved(first.transpose(0, 2, 3, 1))
    document, _ = lipcert.refused("predict", path, "--inputs", last)
    assert document["field"] == "inputs" and "--layout" in document["message"]
    expected = lipcert.json("predict", path, "--inputs", saved(first))["rows"]
    declared = lipcert.json("predict", path, "--inputs", last, "--layout", "nhwc")["rows"]
    flat = lipcert.json("predict", path, "--inputs", saved(first.reshape(5, -1)))["rows"]
    assert flat == expected
    assert [row["logits"] for row in declared] == [row["logits"] for row in expected]
    with_channels = lipcert.json("certify", path, "--mean", ".1,.2", "--mean", ".3", "--std", ".5,1,2")
    preprocessing = with_channels["options"]["preprocessing"]
    assert (preprocessing["mean"], preprocessing["std"]) == ([0.1, 0.2, 0.3], [0.5, 1.0, 2.0])


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((4, 63)), "has shape [4, 63], but the model takes [N, 64]"),
        (np.zeros(()), "has shape []"),
        (np.zeros((0, 64)), "holds no rows"),
        (np.full((4, 64), np.inf), "row 0 holds NaN or infinite values"),
        (np.full((4, 64), "a"), "must hold numbers"),
        (np.zeros((4, 64), dtype=complex), "must hold numbers"),
        (np.array([[None] * 64]), "cannot be read"),
    ],
)
def test_inputs_that_are_no_rows_are_refused(lipcert: Commands, saved: Save, array: Any, reason: str) -> None:
    document, _ = lipcert.refused("predict", lipcert.model, "--inputs", saved(array))
    assert (document["error"], document["field"]) == ("invalid_input", "inputs")
    assert reason in document["message"]


def test_a_regressor_shows_where_its_outputs_stay(lipcert: Commands) -> None:
    arguments = ("predict", lipcert.model, "--inputs", lipcert.inputs, "--task", "regression", "--epsilon", "0.25")
    answer = lipcert.json(*arguments)
    assert {(row["label"], row["radius"]) for row in answer["rows"]} == {(None, None)}
    assert "stays in, within 0.25" in lipcert.table(*arguments)


def test_comparisons_are_the_librarys(lipcert: Commands, images: np.ndarray, saved: Save, predictor: Predictor) -> None:
    x, y = images[:30], images[30:60]
    answer = lipcert.json("compare", lipcert.model, "--x", saved(x), "--y", saved(y.reshape(-1, 8, 8)))
    assert Comparisons.model_validate(answer).model_dump(mode="json") == answer
    expected = predictor.compare(x.astype(np.float64), y.astype(np.float64))
    assert answer["rows"] == [row.model_dump(mode="json") for row in expected]
    assert all(0 < row["output_difference"] <= row["output_difference_bound"] for row in answer["rows"])
    text = lipcert.table("compare", lipcert.model, "--x", saved(x), "--y", saved(y))
    for line, row in zip(text.splitlines()[1:21], answer["rows"], strict=False):
        _, apart, _, bound, _, _ = line.split()
        assert float(apart) >= row["input_difference"] and float(bound) >= row["output_difference_bound"]


def test_rows_that_cannot_be_paired_are_refused(lipcert: Commands, images: np.ndarray, saved: Save) -> None:
    arguments = ("--x", saved(images[:3]), "--y", saved(images[:2]))
    document, _ = lipcert.refused("compare", lipcert.model, *arguments)
    assert (document["error"], document["field"]) == ("invalid_input", "y")


def test_operators_are_those_of_the_registry(lipcert: Commands) -> None:
    table = [one.model_dump(mode="json") for one in support()]
    assert len(table) > 60
    assert lipcert.json("operators") == {"operators": table}
    text = lipcert.table("operators")
    assert all(one["operator"] in text for one in table)


def image_model() -> bytes:
    """A channel-weighted average of [3, 4, 4] images with two outputs, as ONNX bytes."""
    weight = np.random.default_rng(1).normal(size=(2, 3, 4, 4)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["maps"], name="look"),
            helper.make_node("Flatten", ["maps"], ["y"], name="flatten"),
        ],
        "images",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(weight, "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
