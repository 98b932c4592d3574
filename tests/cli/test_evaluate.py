"""`lipcert evaluate`: the shares and radii that follow from the single predictions, on the real models."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from certifier.evaluation import BLOCK_ROWS
from tests.cli.conftest import Commands
from tests.service.helpers import dense_network

Save = Callable[[Any], Path]
KEYS = {"rows", "clean_accuracy", "certified", "certified_correct", "radius", "refined", "lipschitz", "arithmetic"}


def test_the_example_model_is_worth_certifying(lipcert: Commands) -> None:
    answer = lipcert.json(
        "evaluate", lipcert.model, "--inputs", lipcert.inputs, "--labels", lipcert.labels, "--epsilon", "0.3"
    )
    assert set(answer) == KEYS
    assert answer["rows"] == 450
    assert answer["clean_accuracy"] >= 0.96
    assert answer["certified_correct"]["0.3"] >= 0.86
    assert answer["arithmetic"]["name"] == "float32"


def test_the_figures_follow_from_the_single_predictions(lipcert: Commands) -> None:
    files = ("--inputs", lipcert.inputs)
    rows = lipcert.json("predict", lipcert.model, *files)["rows"]
    radii = np.array([row["radius"] for row in rows])
    # A radius that is exactly epsilon certifies nothing: only greater ones do.
    attained = repr(float(radii[7]))
    epsilons = ("--epsilon", "0.30", "--epsilon", "5e-1,1", "--epsilon", attained)
    answer = lipcert.json("evaluate", lipcert.model, *files, "--labels", lipcert.labels, *epsilons)
    right = np.array([row["label"] for row in rows]) == np.load(lipcert.labels)
    values = {"0.30": 0.3, "5e-1": 0.5, "1": 1.0, attained: float(radii[7])}
    assert 0 < right.mean() < 1
    assert answer["clean_accuracy"] == right.mean()
    assert answer["certified"] == {key: (radii > value).mean() for key, value in values.items()}
    assert answer["certified_correct"] == {key: ((radii > value) & right).mean() for key, value in values.items()}
    assert answer["radius"]["mean"] == pytest.approx(radii.mean(), rel=1e-12)
    assert answer["radius"]["median"] == pytest.approx(np.median(radii), rel=1e-12)
    shares = {key: np.quantile(radii, float(key)) for key in ("0", "0.05", "0.25", "0.5", "0.75", "0.95", "1")}
    assert answer["radius"]["quantiles"] == pytest.approx(shares, rel=1e-12)
    assert answer["lipschitz"] == lipcert.json("certify", lipcert.model)["lipschitz"]


def test_wrong_labels_count_as_certified_but_not_as_correct(lipcert: Commands, saved: Save) -> None:
    wrong = saved((np.load(lipcert.labels) + 1) % 10)
    files = ("--inputs", lipcert.inputs, "--epsilon", "0.3")
    honest, answer = (
        lipcert.json("evaluate", lipcert.model, *files, "--labels", file) for file in (lipcert.labels, wrong)
    )
    assert answer["certified"] == honest["certified"]
    assert answer["clean_accuracy"] < 0.05 and answer["certified_correct"]["0.3"] < 0.05


def test_without_labels_accuracies_are_null(lipcert: Commands) -> None:
    answer = lipcert.json("evaluate", lipcert.model, "--inputs", lipcert.inputs, "--epsilon", "0.3")
    assert answer["clean_accuracy"] is None
    assert answer["certified_correct"] == {"0.3": None}
    assert answer["certified"]["0.3"] >= 0.86


def test_blocks_change_nothing(lipcert: Commands, images: np.ndarray, saved: Save) -> None:
    repeats = 3
    assert repeats * len(images) > 2 * BLOCK_ROWS
    files = (saved(images), saved(np.concatenate([images] * repeats)))
    once, thrice = (lipcert.json("evaluate", lipcert.model, "--inputs", file, "--epsilon", ".3") for file in files)
    assert thrice["rows"] == repeats * once["rows"]
    assert thrice["certified"] == pytest.approx(once["certified"], rel=1e-12)
    assert thrice["radius"]["mean"] == pytest.approx(once["radius"]["mean"], rel=1e-12)


def test_eight_bit_images_with_their_scale(lipcert: Commands, images: np.ndarray, saved: Save) -> None:
    # The digits have sixteen grey levels, so nothing is lost.
    raw = np.round(images * 16).astype(np.uint8)
    assert np.array_equal(raw / 16, images)
    real = ("--arithmetic", "real")
    scaled = lipcert.json("evaluate", lipcert.model, "--inputs", saved(images), "--epsilon", "0.3", *real)
    scale = ("--scale", "0.0625", "--epsilon", "4.8")
    answer = lipcert.json("evaluate", lipcert.model, "--inputs", saved(raw), *scale, *real)
    # Radii are in units of what is given: sixteen times those of the scaled images.
    assert answer["radius"]["mean"] == pytest.approx(16 * scaled["radius"]["mean"], rel=1e-6)
    assert answer["certified"]["4.8"] == scaled["certified"]["0.3"]


def test_archives_and_other_shapes_of_the_same_rows(
    lipcert: Commands, images: np.ndarray, saved: Save, tmp_path: Path
) -> None:
    labels = np.load(lipcert.labels)
    archive = tmp_path / "digits.npz"
    np.savez(archive, x=images.reshape(-1, 8, 8), y=labels.reshape(-1, 1).astype(np.float32))
    expected = lipcert.json("evaluate", lipcert.model, "--inputs", lipcert.inputs, "--labels", lipcert.labels)
    answers = [
        lipcert.json("evaluate", lipcert.model, "--inputs", archive, "--labels", archive, "--labels-key", "y", *key)
        for key in ((), ("--inputs-key", "x"))
    ]
    assert answers == [expected, expected]
    document, _ = lipcert.refused("evaluate", lipcert.model, "--inputs", archive, "--inputs-key", "z")
    assert document["error"] == "invalid_input" and "'z'" in document["message"]


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (np.zeros(449, dtype=int), "has shape [449], but there are 450 rows"),
        (np.full(450, 10), "row 0 is 10, but the classes are 0 to 9"),
        (np.full(450, -1), "row 0 is -1"),
        (np.full(450, 0.5), "row 0 is 0.5, not a class number"),
        (np.full(450, np.nan), "row 0 is nan, not a class number"),
        (np.full(450, 2**64 - 1, dtype=np.uint64), "not a class number"),
        (np.eye(10)[np.zeros(450, dtype=int)], "one label per row"),
        (np.full(450, "three"), "not numbers"),
        (np.array([None] * 450), "cannot be read"),
    ],
)
def test_labels_that_name_no_class_are_refused(lipcert: Commands, saved: Save, labels: Any, reason: str) -> None:
    files = ("--inputs", lipcert.inputs, "--labels", saved(labels))
    document, _ = lipcert.refused("evaluate", lipcert.model, *files)
    assert (document["error"], document["field"]) == ("invalid_input", "labels")
    assert reason in document["message"]


def test_a_bad_row_is_named_by_its_number(lipcert: Commands, images: np.ndarray, saved: Save) -> None:
    many = np.concatenate([images] * 3)
    many[1201, 5] = np.nan
    document, _ = lipcert.refused("evaluate", lipcert.model, "--inputs", saved(many))
    assert document["message"] == "inputs: row 1201 holds NaN or infinite values"


def test_a_constant_classifier_has_finite_statistics(lipcert: Commands, tmp_path: Path, saved: Save) -> None:
    path = tmp_path / "constant.onnx"
    path.write_bytes(linear_model(np.zeros((3, 2)), bias=np.array([1.0, 0.0])))
    inputs = saved(np.ones((7, 3)))
    real = ("--arithmetic", "real")
    answer = lipcert.json("evaluate", path, "--inputs", inputs, "--epsilon", "1e300", *real)
    largest = float(np.finfo(np.float64).max)
    assert answer["certified"] == {"1e300": 1.0}
    assert answer["radius"]["mean"] == pytest.approx(largest)
    assert answer["radius"]["median"] == pytest.approx(largest)
    assert ">1e+308" in lipcert.table("evaluate", path, "--inputs", inputs, *real)
    # What executes overflows long before.
    executed = lipcert.json("evaluate", path, "--inputs", inputs, "--epsilon", "1e30", "--epsilon", "1e39")
    assert executed["certified"] == {"1e30": 1.0, "1e39": 0.0}


def test_a_regressor_is_refused(lipcert: Commands, tmp_path: Path, saved: Save) -> None:
    path = tmp_path / "line.onnx"
    path.write_bytes(linear_model(np.ones((3, 1)), bias=np.zeros(1)))
    document, _ = lipcert.refused("evaluate", path, "--inputs", saved(np.ones((7, 3))))
    assert document["message"].startswith("model: is a regressor")


def test_the_table_shows_shares_rounded_down(lipcert: Commands) -> None:
    files = ("--inputs", lipcert.inputs, "--labels", lipcert.labels)
    answer = lipcert.json("evaluate", lipcert.model, *files, "--epsilon", "0.5")
    words = lipcert.table("evaluate", lipcert.model, *files, "--epsilon", "0.5").split()
    shown = [float(word) for word, sign in itertools.pairwise(words) if sign == "%"][:3]
    exact = [answer["clean_accuracy"], answer["certified"]["0.5"], answer["certified_correct"]["0.5"]]
    assert all(100 * share - 0.01 < figure <= 100 * share for share, figure in zip(exact, shown, strict=True))


@pytest.mark.needs_shared
def test_the_certifiably_trained_mnist_network(lipcert: Commands, shared: Path) -> None:
    model = shared / "models/tobycmurray/python-certifier/gloro_mnist_8x128.onnx"
    inputs = shared / "data/mnist_test10000_x_u8.npz"
    answer = lipcert.json(
        "evaluate", model, "--inputs", inputs, "--scale", "0.00392156862745098",
        "--epsilon", "0.3", "--epsilon", "76.5",
    )  # fmt: skip
    assert answer["rows"] == 10_000
    assert answer["certified"]["0.3"] >= 0.9574
    # Radii are in grey levels: 0.3 of the scaled images is 76.5 of the raw ones.
    assert 0.9574 <= answer["certified"]["76.5"] < 0.97
    assert 1.0587 <= answer["radius"]["mean"] / 255 < 1.1


def linear_model(weight: np.ndarray, *, bias: np.ndarray) -> bytes:
    """x @ weight + bias as ONNX bytes."""
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="line")],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", weight.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", weight.shape[1]])],
        [
            numpy_helper.from_array(weight.astype(np.float32), "w"),
            numpy_helper.from_array(bias.astype(np.float32), "b"),
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def test_refined_radii_are_never_smaller_and_their_share_is_told(
    lipcert: Commands, saved: Save, tmp_path: Path
) -> None:
    model, inputs = tmp_path / "small.onnx", saved(np.random.default_rng(1).normal(size=(6, 4)))
    model.write_bytes(dense_network(4, 8, 8, 3))
    files = (model, "--inputs", inputs, "--method", "product")
    plain = lipcert.json("evaluate", *files)
    refined = lipcert.json("evaluate", *files, "--refine", "--refine-seconds", "2")
    assert plain["refined"] == 0.0 and refined["refined"] > 0.5
    assert refined["radius"]["median"] > plain["radius"]["median"]
    assert refined["radius"]["quantiles"]["0"] >= plain["radius"]["quantiles"]["0"]
    assert "around" in lipcert.table("predict", *files, "--refine", "--refine-seconds", "2")
