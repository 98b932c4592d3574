"""Models of several inputs: some perturbed together, the others fixed to exact constants, from every format alike."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from certifier import CertifyOptions
from certifier.certification import CertifiedModel
from certifier.errors import CertifierError, InvalidInput, ResourceLimitExceeded, UnsupportedModel
from tests.building import certify_bytes, predictor_of, sum_of_two_inputs
from tests.certifier.reading.exporting import exported
from tests.certifier.reading.torchscript_making import saved

FORMATS = ("onnx", "torchscript", "torch.export")


class Pair(nn.Module):
    """Two float inputs, one of them an image, and token numbers that choose an embedding."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image, self.context, self.head = nn.Linear(12, 5), nn.Linear(4, 5), nn.Linear(5, 3)
        self.words = nn.Embedding(7, 5)

    def forward(self, image, context, ids):
        mixed = self.image(image.flatten(1)) + self.context(context) + self.words(ids).mean(1)
        return self.head(torch.relu(mixed))

    def layers(self) -> tuple[np.ndarray, ...]:
        return tuple(layer.weight.detach().double().numpy() for layer in (self.image, self.context, self.head))


EXAMPLE = (torch.zeros(1, 3, 2, 2), torch.zeros(1, 4), torch.zeros(1, 2, dtype=torch.int64))
IDS = [3, 5]


def saved_as(kind: str) -> bytes:
    model = Pair().eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        if kind == "torchscript":
            script = torch.jit.trace(model, EXAMPLE, check_trace=False)
            assert isinstance(script, torch.jit.ScriptModule)
            return saved(script)
        if kind == "torch.export":
            return exported(model, EXAMPLE)
        buffer = io.BytesIO()
        torch.onnx.export(model, EXAMPLE, buffer, input_names=["image", "context", "ids"], dynamo=False)  # pyright: ignore
        return buffer.getvalue()


@pytest.fixture(scope="module")
def archives() -> dict[str, bytes]:
    return {kind: saved_as(kind) for kind in FORMATS}


def certified(data: bytes, **options: Any) -> CertifiedModel:
    """By the product of norms, so that what is expected of a bound can be computed."""
    return certify_bytes(data, options=CertifyOptions.model_validate({"method": "product", **options}))


def upper(data: bytes, **options: Any) -> float:
    return certified(data, **options).certificate.lipschitz.upper


@pytest.mark.parametrize("kind", FORMATS)
def test_the_bound_is_that_of_the_joint_perturbation(archives: dict[str, bytes], kind: str) -> None:
    found = certified(archives[kind], fixed_inputs={"ids": IDS})
    image, context, head = Pair().layers()
    joint = np.linalg.norm(head, 2) * np.linalg.norm(np.hstack([image, context]), 2)
    # One ReLU between two maps: the product of their norms is what this method proves.
    assert joint * (1 - 1e-12) <= found.certificate.lipschitz.upper <= joint * (1 + 1e-8)
    described = found.certificate.model
    assert [(one.name, one.shape) for one in described.inputs] == [("image", [None, 3, 2, 2]), ("context", [None, 4])]
    (fixed,) = described.fixed_inputs
    assert (fixed.name, fixed.dtype, fixed.shape) == ("ids", "int64", [1, 2])
    assert fixed.sha256 == hashlib.sha256(np.array(IDS, dtype="<i8").tobytes()).hexdigest()
    assert any("perturbed together" in note for note in found.certificate.notes)


@pytest.mark.parametrize("kind", FORMATS)
def test_answers_are_pytorchs_and_radii_hold_in_the_joint_ball(archives: dict[str, bytes], kind: str) -> None:
    predictor = predictor_of(certified(archives[kind], fixed_inputs={"ids": IDS}))
    random = np.random.default_rng(0)
    rows = {"image": random.normal(size=(6, 3, 2, 2)), "context": random.normal(size=(6, 4))}

    def answers(image: np.ndarray, context: np.ndarray) -> np.ndarray:
        ids = torch.tensor([IDS] * len(image))
        with torch.no_grad():
            return Pair().double()(torch.from_numpy(image), torch.from_numpy(context), ids).numpy()

    wanted = answers(rows["image"], rows["context"])
    got = predictor.predict(rows, epsilon=None, preprocessing=None)
    assert np.allclose([row.logits for row in got], wanted, atol=1e-5)
    for position, row in enumerate(got):
        assert row.radius is not None and row.radius > 0
        moves = random.normal(size=(200, 16))
        moves *= 0.999 * row.radius / np.linalg.norm(moves, axis=1, keepdims=True)
        image = rows["image"][position] + moves[:, :12].reshape(-1, 3, 2, 2)
        labels = answers(image, rows["context"][position] + moves[:, 12:]).argmax(1)
        assert set(labels.tolist()) == {row.label}


def test_every_format_has_the_same_bound_for_every_choice(archives: dict[str, bytes]) -> None:
    choices: list[dict[str, Any]] = [
        {"fixed_inputs": {"ids": IDS}},
        {"inputs": ["context", "image"], "fixed_inputs": {"ids": [IDS]}},
        {"inputs": ["image"], "fixed_inputs": {"ids": IDS, "context": 0.5}},
        {"fixed_inputs": {"ids": 1, "image": np.full((3, 2, 2), 0.25)}},
    ]
    bounds = np.array([[upper(data, **choice) for data in archives.values()] for choice in choices])
    assert np.allclose(bounds, bounds[:, :1], rtol=1e-9)
    assert np.isclose(bounds[0, 0], bounds[1, 0], rtol=1e-9)


def test_each_input_alone_has_a_smaller_constant_than_both_together(archives: dict[str, bytes]) -> None:
    """What would be unsound: the larger of the two constants for a perturbation of both."""
    data = archives["onnx"]
    first = upper(data, inputs=["image"], fixed_inputs={"ids": IDS, "context": 0})
    second = upper(data, inputs=["context"], fixed_inputs={"ids": IDS, "image": 0})
    both = certified(data, fixed_inputs={"ids": IDS}).certificate.lipschitz
    assert max(first, second) < both.upper <= np.hypot(first, second) * (1 + 1e-8)


@pytest.mark.parametrize("opset", [7, 9, 10, 17])
def test_a_sum_of_two_inputs_stretches_their_joint_distance_by_the_root_of_two(opset: int) -> None:
    found = certified(sum_of_two_inputs(opset=opset)).certificate.lipschitz
    assert np.sqrt(2) <= found.upper <= np.sqrt(2) * (1 + 1e-8)
    assert np.sqrt(2) * (1 - 1e-6) <= found.lower
    for name in "xy":
        assert 1 <= upper(sum_of_two_inputs(opset=opset), fixed_inputs={name: 3}) <= 1 + 1e-8


def test_a_fixed_input_is_the_exact_constant_that_is_served() -> None:
    found = certified(sum_of_two_inputs(), fixed_inputs={"y": [0.1, 1.0, -2.0]})
    rows = predictor_of(found).predict(np.zeros((1, 3)), epsilon=None, preprocessing=None)
    assert rows[0].logits == np.array([0.1, 1.0, -2.0], dtype=np.float32).tolist()
    served = onnx.load_model_from_string(found.served_model)
    assert [one.name for one in served.graph.input] == ["x"]
    assert numpy_helper.to_array(served.graph.initializer[0]).dtype == np.float32


def test_rows_come_by_name_or_as_joint_rows_in_the_certificates_order() -> None:
    predictor = predictor_of(certified(sum_of_two_inputs()))
    x, y = np.arange(6.0).reshape(2, 3), np.ones((2, 3))
    named = predictor.predict({"y": y, "x": x}, epsilon=0.5, preprocessing=None)
    assert named == predictor.predict(np.hstack([x, y]), epsilon=0.5, preprocessing=None)
    assert named[1].logits == [4.0, 5.0, 6.0]
    (pair, _) = predictor.compare({"x": x, "y": y}, {"x": x + 3, "y": y + 4})
    assert np.sqrt(75) <= pair.input_difference <= np.sqrt(75) * (1 + 1e-9)
    assert pair.output_difference <= pair.output_difference_bound


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": np.zeros((2, 3))}, r"inputs\.y: is missing"),
        ({"x": np.zeros((2, 3)), "y": np.zeros((2, 3)), "w": np.zeros((2, 3))}, r"inputs\.w: is none of"),
        ({"x": np.zeros((2, 3)), "y": np.zeros((2, 4))}, r"inputs\.y: has shape \[2, 4\].*\[batch, 3\]"),
        ({"x": np.zeros((2, 3)), "y": np.zeros((3, 3))}, "x has 2, y has 3"),
        ({"x": np.zeros((2, 3)), "y": np.full((2, 3), np.nan)}, "NaN"),
        (np.zeros((2, 3)), r"\[2, 3\].*6"),
    ],
)
def test_rows_that_do_not_fit_are_refused_by_name(given: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        predictor_of(certified(sum_of_two_inputs())).predict(given, epsilon=None, preprocessing=None)


def test_a_box_may_be_given_by_name() -> None:
    box = {"lower": {"x": 0, "y": [-1, -1, -1]}, "upper": {"x": 1, "y": 0}}
    predictor = predictor_of(certified(sum_of_two_inputs(), input_box=box, task="classification"))
    rows = {"x": np.array([[0.5, 0, 0]] * 2), "y": np.array([[-0.5] * 3, [0.5] * 3])}
    inside, outside = predictor.predict(rows, epsilon=None, preprocessing=None)
    assert inside.radius and outside.radius == 0
    with pytest.raises(InvalidInput, match=r"upper\.y: is missing"):
        certified(sum_of_two_inputs(), input_box={"lower": 0, "upper": {"x": 1}})


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "ids.*int64"),
        ({"inputs": ["image"]}, r"fixed_inputs\.context: is missing"),
        ({"inputs": ["image"], "fixed_inputs": {"context": 0}}, r"fixed_inputs\.ids: is missing.*int64"),
        ({"inputs": ["image", "ids"], "fixed_inputs": {"context": 0}}, "int64"),
        ({"inputs": ["sound"], "fixed_inputs": {"ids": 0}}, "'sound' is none of the inputs image, context, ids"),
        ({"inputs": ["image", "image"], "fixed_inputs": {"ids": 0}}, "every input"),
        ({"inputs": [], "fixed_inputs": {"ids": 0}}, "every input"),
        ({"fixed_inputs": {"ids": 0, "sound": 1}}, r"fixed_inputs\.sound: is none of"),
        ({"fixed_inputs": {"ids": 0, "image": 0, "context": 0}}, "leaves none"),
        ({"inputs": ["image", "context"], "fixed_inputs": {"ids": 0, "image": 0}}, "names it as perturbed"),
        ({"fixed_inputs": {"ids": [1, 2, 3]}}, r"fixed_inputs\.ids: has shape \[3\].*\[2\]"),
        ({"fixed_inputs": {"ids": [[1], [2]]}}, r"fixed_inputs\.ids: has shape"),
        ({"fixed_inputs": {"ids": [[1, 2], [3]]}}, "regular array"),
        ({"fixed_inputs": {"ids": 0.5}}, "holds fractions, but the input is of type int64"),
        ({"fixed_inputs": {"ids": True}}, "holds booleans"),
        ({"fixed_inputs": {"ids": 2**63}}, "int64 does not represent"),
        ({"fixed_inputs": {"ids": 2**70}}, "regular array of numbers"),
        ({"fixed_inputs": {"ids": 0, "context": True}}, "holds booleans"),
        ({"fixed_inputs": {"ids": 0, "context": 1e39}}, "float32 does not represent"),
        ({"fixed_inputs": {"ids": 0, "context": 1e-60}}, "float32 does not represent"),
        ({"fixed_inputs": {"ids": 99}}, "99|out of bounds|cannot be evaluated"),
        ({"fixed_inputs": {"ids": 0}, "preprocessing": {"scale": 2}}, "one perturbed"),
    ],
)
def test_what_is_no_choice_is_refused_and_names_the_input(
    archives: dict[str, bytes], kind: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(CertifierError, match=message) as caught:
        certified(archives[kind], **options)
    assert isinstance(caught.value, (InvalidInput, UnsupportedModel)) or "evaluated" in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1", None, [[1, None]]])
def test_values_that_are_no_numbers_are_no_options(value: Any) -> None:
    with pytest.raises(ValueError, match="finite number"):
        CertifyOptions(fixed_inputs={"x": value})


def shaped(change: Callable[[onnx.ModelProto], None]) -> bytes:
    model = onnx.load_model_from_string(sum_of_two_inputs())
    change(model)
    return model.SerializeToString()


def test_a_scalar_does_not_fill_more_memory_than_the_limits_allow() -> None:
    def widen(model: onnx.ModelProto) -> None:
        model.graph.input[1].type.tensor_type.shape.dim[1].dim_value = 2**40

    with pytest.raises(ResourceLimitExceeded, match="elements"):
        certified(shaped(widen), fixed_inputs={"y": 1})
    with pytest.raises(ResourceLimitExceeded, match="value_elements"):
        certified(shaped(widen))


def test_inputs_of_different_types_have_no_joint_row() -> None:
    def double(model: onnx.ModelProto) -> None:
        model.graph.input[1].type.tensor_type.elem_type = TensorProto.DOUBLE
        model.graph.node.insert(0, helper.make_node("Cast", ["y"], ["single"], to=TensorProto.FLOAT))
        model.graph.node[1].input[1] = "single"

    with pytest.raises(UnsupportedModel, match="different types") as caught:
        certified(shaped(double))
    assert caught.value.remedy is not None and "options.inputs" in caught.value.remedy
    assert 1 <= upper(shaped(double), fixed_inputs={"y": 1}) <= 1 + 1e-8


def test_an_input_that_nothing_depends_on_needs_no_value() -> None:
    def unread(model: onnx.ModelProto) -> None:
        model.graph.node[0].input[1] = "x"
        model.graph.input[1].type.tensor_type.elem_type = TensorProto.INT64

    found = certified(shaped(unread)).certificate
    assert [one.name for one in found.model.inputs] == ["x"]
    assert 2 <= found.lipschitz.upper <= 2 * (1 + 1e-8)
    assert any("depends on the input 'y'" in note for note in found.notes)
