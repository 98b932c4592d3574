"""The shipped example reaches its figures on images it was not trained on, under the plain product bound."""

from __future__ import annotations

import importlib.util
import math
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
EPSILON = 0.3
Weights = dict[str, NDArray[np.float64]]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    pytest.importorskip("sklearn", reason="the training script needs scikit-learn")
    name = "lipcert_example_train_digits"
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / "train_digits.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return onnx.load(EXAMPLES / "digits.onnx", load_external_data=False)


@pytest.fixture(scope="module")
def weights(model: onnx.ModelProto) -> Weights:
    return {each.name: numpy_helper.to_array(each).astype(np.float64) for each in model.graph.initializer}


@pytest.fixture(scope="module")
def images() -> NDArray[np.float32]:
    return np.load(EXAMPLES / "digits_inputs.npy", allow_pickle=False)


@pytest.fixture(scope="module")
def labels() -> NDArray[np.int64]:
    return np.load(EXAMPLES / "digits_labels.npy", allow_pickle=False)


@pytest.fixture(scope="module")
def logits(images: NDArray[np.float32]) -> NDArray[np.float64]:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime  # after the setting, which it reads when it is imported

    session = onnxruntime.InferenceSession(EXAMPLES / "digits.onnx", providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {"image": images})[0]).astype(np.float64)


def hidden_weights(weights: Weights) -> list[NDArray[np.float64]]:
    names = sorted(name for name in weights if name.startswith("hidden") and name.endswith(".weight"))
    return [weights[name] for name in names]


def product_radii(weights: Weights, logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """One row at a time and from the file alone, so that it shares nothing with the script's own formula."""
    before_head = math.prod(np.linalg.svd(weight, compute_uv=False)[0] for weight in hidden_weights(weights))
    head = weights["head.weight"]
    radii = []
    for row in logits:
        t = int(row.argmax())
        others = [j for j in range(len(row)) if j != t]
        lipschitz = {j: before_head * np.linalg.norm(head[t] - head[j]) for j in others}
        radii.append(min((row[t] - row[j]) / lipschitz[j] for j in others))
    return np.array(radii)


def test_graph_is_a_chain_of_gemm_and_prelu_with_slopes_of_absolute_value_one(
    model: onnx.ModelProto, weights: Weights
) -> None:
    """Gemm applies its matrix unscaled, so that the norms of the initialisers are the norms of the layers."""
    nodes = list(model.graph.node)
    kinds = [node.op_type for node in nodes]
    assert kinds == ["Gemm", "PRelu"] * (len(nodes) // 2) + ["Gemm"]
    assert [node.input[0] for node in nodes] == ["image"] + [node.output[0] for node in nodes[:-1]]
    assert nodes[-1].output[0] == "logits"
    for node in nodes:
        if node.op_type == "PRelu":
            assert set(np.unique(weights[node.input[1]])) == {-1.0, 1.0}
        else:
            assert [(each.name, each.i) for each in node.attribute] == [("transB", 1)]
    assert len(hidden_weights(weights)) == kinds.count("PRelu")


def test_interface_is_a_batch_of_64_pixels_to_10_logits_in_one_file(model: onnx.ModelProto) -> None:
    def shape(value: onnx.ValueInfoProto) -> list[str | int]:
        return [each.dim_param or each.dim_value for each in value.type.tensor_type.shape.dim]

    assert [(value.name, shape(value)) for value in model.graph.input] == [("image", ["N", 64])]
    assert [(value.name, shape(value)) for value in model.graph.output] == [("logits", ["N", 10])]
    assert next(each.version for each in model.opset_import if each.domain == "") >= 13
    assert not any(each.external_data for each in model.graph.initializer)
    assert all(each.data_type == onnx.TensorProto.FLOAT for each in model.graph.initializer)


def test_hidden_layers_are_orthogonal_to_float32_rounding(weights: Weights) -> None:
    for weight in hidden_weights(weights):
        gram = weight.T @ weight
        assert np.abs(gram - np.eye(len(gram))).max() < 2e-7


def test_accuracy_on_held_out_images(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> None:
    assert (logits.argmax(axis=1) == labels).mean() >= 0.96


def test_certified_accuracy_on_held_out_images(
    weights: Weights, logits: NDArray[np.float64], labels: NDArray[np.int64]
) -> None:
    certified = (logits.argmax(axis=1) == labels) & (product_radii(weights, logits) > EPSILON)
    assert certified.mean() >= 0.86


def test_held_out_images_are_exactly_the_rows_the_script_does_not_train_on(
    script: ModuleType, images: NDArray[np.float32], labels: NDArray[np.int64]
) -> None:
    all_images, all_labels = script.scaled_digits()
    training, held_out = script.split_indices(all_labels)
    assert sorted([*training, *held_out]) == list(range(len(all_labels)))
    assert images.dtype == np.float32 and labels.dtype == np.int64
    np.testing.assert_array_equal(images, all_images[held_out])
    np.testing.assert_array_equal(labels, all_labels[held_out])
    trained_on = {row.tobytes() for row in all_images[training]}
    assert not any(row.tobytes() in trained_on for row in images)


def test_digits_are_the_bundled_ones_scaled_to_the_unit_interval(script: ModuleType) -> None:
    from sklearn.datasets import load_digits

    images, labels = script.scaled_digits()
    raw, raw_labels = load_digits(return_X_y=True)
    np.testing.assert_array_equal(images.astype(np.float64) * 16, raw)
    np.testing.assert_array_equal(labels, raw_labels)
    assert images.min() == 0.0 and images.max() == 1.0


def test_split_repeats_and_keeps_every_class_in_proportion(script: ModuleType) -> None:
    _, labels = script.scaled_digits()
    training, held_out = script.split_indices(labels)
    again = script.split_indices(labels)
    assert np.array_equal(training, again[0]) and np.array_equal(held_out, again[1])
    share = np.bincount(labels[held_out]) / np.bincount(labels)
    assert np.abs(share - len(held_out) / len(labels)).max() < 0.01


def test_folded_network_equals_one_with_maxmin(
    weights: Weights, images: NDArray[np.float32], logits: NDArray[np.float64]
) -> None:
    """Unfolding the rotations gives sorted pairs between matrices of the same singular values."""
    half = len(weights["hidden0.slopes"]) // 2
    eye = np.eye(half)
    rotation = np.block([[eye, eye], [eye, -eye]]) / math.sqrt(2)
    current = images.astype(np.float64)
    into_layer = np.eye(current.shape[1])
    for number in range(len(hidden_weights(weights))):
        weight = rotation @ weights[f"hidden{number}.weight"] @ into_layer
        np.testing.assert_allclose(np.linalg.svd(weight, compute_uv=False), 1.0, atol=2e-7)
        pre = current @ weight.T + rotation @ weights[f"hidden{number}.bias"]
        first, second = pre[:, :half], pre[:, half:]
        current = np.hstack([np.maximum(first, second), np.minimum(first, second)])
        into_layer = rotation
    unfolded = current @ (weights["head.weight"] @ rotation).T + weights["head.bias"]
    np.testing.assert_allclose(unfolded, logits, rtol=0, atol=1e-5 * np.abs(logits).max())


def test_script_and_independent_radii_agree(script: ModuleType, weights: Weights, logits: NDArray[np.float64]) -> None:
    names = [f"hidden{number}" for number in range(len(hidden_weights(weights)))] + ["head"]
    layers = [(weights[f"{name}.weight"], weights[f"{name}.bias"]) for name in names]
    expected = product_radii(weights, logits)
    np.testing.assert_allclose(script.product_radii(layers, logits), expected, rtol=1e-10)


def test_readme_states_the_figures_that_the_files_give(
    weights: Weights, logits: NDArray[np.float64], labels: NDArray[np.int64]
) -> None:
    correct = logits.argmax(axis=1) == labels
    radii = product_radii(weights, logits)
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for row in (
        f"| Test accuracy | {correct.mean():.1%} |",
        f"| Certified accuracy at ε = 0.3 | {(correct & (radii > EPSILON)).mean():.1%} |",
        f"| Mean certified radius | {radii.mean():.3f} |",
        f"| Median certified radius | {np.median(radii):.3f} |",
    ):
        assert row.replace("%", " %") in readme


def test_examples_stay_small() -> None:
    shipped = [path for path in EXAMPLES.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in shipped) < 300_000
