"""Products and functions of unbounded slope are bounded where ranges allow it, and refused by name elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certifier.bounds.product import ProductBound
from certifier.box import OUTSIDE, Box
from certifier.documents import CertifyOptions, InputBox, Preprocessing
from certifier.errors import InvalidInput, UnsupportedNode
from certifier.limits import Limits
from certifier.network import build_network
from certifier.norms import Norms
from certifier.ranges import needs_range, with_ranges
from certifier.reading.onnx import read_onnx
from certifier.search.hints import CarriedVectors
from certifier.search.state import SearchState
from certifier.tasks import INSIDE_THE_BOX
from tests.building import SEAL, Model, certify_bytes, certify_model, predictor_of, single


def inside(lower: object, upper: object, **others: object) -> CertifyOptions:
    document = {"input_box": {"lower": lower, "upper": upper}, "arithmetic": "real", **others}
    return CertifyOptions.model_validate(document)


def square(model: Model) -> None:
    model.add("Mul", "x", "x")


def one_over(model: Model) -> None:
    model.add("Reciprocal", model.add("Add", "x", single([2.0])))


def power(exponent: float):
    def build(model: Model) -> None:
        model.add("Pow", "x", single([exponent]))

    return build


def root_of_square(model: Model) -> None:
    model.add("Sqrt", model.add("Mul", "x", "x"))


EXACT = [
    (root_of_square, 1.0, 3.0, 3.0),
    (root_of_square, -3.0, -1.0, 3.0),
    (square, -1.0, 2.0, 4.0),
    (power(2.0), -3.0, 2.0, 6.0),
    (power(3.0), -2.0, 1.0, 12.0),
    (power(4.0), -1.0, 2.0, 32.0),
    (power(0.5), 0.25, 4.0, 1.0),
    (power(-1.0), 0.5, 4.0, 4.0),
    (one_over, -1.0, 3.0, 1.0),
    (lambda model: model.add("Exp", "x"), -1.0, 1.0, np.e),
    (lambda model: model.add("Log", "x"), 0.25, 3.0, 4.0),
    (lambda model: model.add("Log", model.add("Exp", "x")), -20.0, 20.0, np.exp(40.0)),
    (lambda model: model.add("Sqrt", "x"), 0.25, 3.0, 1.0),
    (lambda model: model.add("Div", single([1.0]), "x"), 0.5, 1.0, 4.0),
    (lambda model: model.add("Reciprocal", model.add("Add", model.add("Relu", "x"), [2.0**-7])), -1.0, 1e6, 2.0**14),
    (lambda model: model.add("Div", "x", model.add("Exp", "x")), 0.0, 1.0, 1 + np.e),
]


@pytest.mark.parametrize(("build", "lower", "upper", "largest"), EXACT)
def test_the_slope_on_an_interval(build, lower, upper, largest):
    """At least every secant; at most the largest slope, or the sum of a quotient's two, but for rounding."""
    model = Model(1)
    build(model)
    options = inside(lower, upper)
    found = certify_model(model, options=options).certificate
    assert found.lipschitz.upper <= largest * (1 + 1e-5)
    points = np.linspace(lower, upper, 400)[:, None]
    values = model.reference(batched=True)(points)[:, 0]
    steepest = np.max(np.abs(np.diff(values)) / np.diff(points[:, 0]))
    assert found.lipschitz.upper >= steepest * (1 - 1e-9)
    assert INSIDE_THE_BOX in found.notes


UNBOUNDED = [
    (square, "product of two values"),
    (power(2.0), "bounded slope only on bounded intervals"),
    (power(0.5), "bounded slope only on intervals above zero"),
    (one_over, "only on intervals that do not reach zero"),
    (lambda model: model.add("Exp", "x"), "only on bounded intervals"),
    (lambda model: model.add("Log", "x"), "only on intervals above zero"),
    (lambda model: model.add("Sqrt", model.add("Relu", "x")), "only on intervals above zero"),
    (lambda model: model.add("Div", "x", "x"), "only on intervals that do not reach zero"),
    (lambda model: model.add("Mul", "x", model.add("Sigmoid", model.add("Neg", "x"))), "product of two values"),
]


@pytest.mark.parametrize(("build", "reason"), UNBOUNDED)
def test_over_all_inputs_they_are_refused_by_name(build, reason):
    model = Model(2)
    build(model)
    with pytest.raises(UnsupportedNode, match=reason) as refusal:
        certify_model(model)
    assert "over all inputs" in refusal.value.reason


def test_a_box_that_is_too_wide_is_refused_as_well():
    model = Model(1)
    model.add("Log", "x")
    with pytest.raises(UnsupportedNode, match="inside of the declared input box"):
        certify_model(model, options=inside(0.0, 1.0))
    with pytest.raises(UnsupportedNode, match="inside of the declared input box"):
        certify_model(model, options=inside(-1.0, 1.0))


def gated(generator: np.random.Generator) -> Model:
    """Squeeze and excite: channels scaled by gates that depend on their means."""
    model = Model(3, 2, 2)
    model.add("ReduceMean", "x", np.array([2, 3]), keepdims=0)
    model.linear(single(generator.standard_normal((2, 3))))
    model.then("Relu")
    model.linear(single(generator.standard_normal((3, 2))))
    model.then("Sigmoid")
    gate = model.then("Reshape", np.array([0, 3, 1, 1]))
    model.add("Mul", "x", gate)
    model.then("Flatten")
    model.linear(single(generator.standard_normal((3, 12)) / 3))
    return model


def attention(generator: np.random.Generator) -> Model:
    """Self-attention behind a LayerNorm, with a residual."""
    model = Model(3, 4)
    draw = generator.standard_normal
    normal = model.then("LayerNormalization", single(draw(4)), single(draw(4)), axis=-1, epsilon=0.0625)
    parts = [model.add("MatMul", normal, weight) for weight in single(draw((3, 4, 4)) / 2)]
    model.add("MatMul", parts[0], model.add("Transpose", parts[1], perm=[0, 2, 1]))
    model.then("Softmax", axis=-1)
    model.add("Add", "x", model.then("MatMul", parts[2]))
    model.then("Flatten")
    model.linear(single(generator.standard_normal((3, 12)) / 3))
    return model


def glu(generator: np.random.Generator) -> Model:
    """A gated linear unit of normalised values."""
    model = Model(6)
    ones, zeros = np.ones(6), np.zeros(6)
    normal = model.then("LayerNormalization", ones, zeros, axis=-1, epsilon=0.0625)
    value = model.linear(single(generator.standard_normal((4, 6))))
    model.output = normal
    model.linear(single(generator.standard_normal((4, 6))))
    model.add("Mul", value, model.then("Sigmoid"))
    model.linear(single(generator.standard_normal((3, 4)) / 3))
    return model


def broadcasts(generator: np.random.Generator) -> Model:
    """Factors of fewer axes on either side, of none at all, a vector in a matrix product, and one factor twice."""
    model = Model(6)
    model.linear(single(generator.standard_normal((5, 6)) / 2))
    row = model.then("Tanh")
    wide = model.add(
        "Reshape", model.add("Gemm", "x", single(generator.standard_normal((6, 15)) / 2)), np.array([3, 5])
    )
    wide = model.add("Tanh", wide)
    left, right = model.add("Mul", row, wide), model.add("Mul", wide, row)
    number = model.add("ReduceMean", left, keepdims=0)
    both = model.add("Add", model.add("Mul", number, right), model.add("Mul", model.add("Sigmoid", right), number))
    line = model.add("MatMul", both, model.add("Reshape", row, np.array([5])))
    model.add("Mul", line, line)
    model.then("Reshape", np.array([1, 3]))
    model.linear(single(generator.standard_normal((2, 3))))
    return model


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize(
    ("build", "needs_box", "factor"),
    [(gated, True, 2e3), (attention, False, 1e4), (glu, False, 2e3), (broadcasts, True, 1e6)],
)
def test_bounds_of_gates_and_attention_are_above_every_stretch(build, needs_box, factor, seed):
    """Pairs near and far, and along the steepest direction of the Jacobian at random points of the box."""
    generator = np.random.default_rng(seed)
    model = build(generator)
    size = int(np.prod(model.row_shape))
    options = inside(-1.0, 1.0) if needs_box else None
    upper = certify_model(model, options=options).certificate.lipschitz.upper
    evaluate = model.reference()
    starts = generator.uniform(-1, 1, (6, size))
    steepest = 0.0
    for start in starts:
        jacobian = evaluate.jacobian(start)
        direction = np.linalg.svd(jacobian)[2][0]
        for step in (1e-3, 0.3, -0.3):
            other = np.clip(start + step * direction, -1, 1)
            if np.any(other != start):
                rise = np.linalg.norm(evaluate(other) - evaluate(start))
                steepest = max(steepest, float(rise / np.linalg.norm(other - start)))
    assert upper >= steepest * (1 - 1e-9)
    assert upper <= factor * steepest


def test_gates_without_a_box_are_refused_and_name_the_gated_value():
    with pytest.raises(UnsupportedNode, match="no bound is known for 'x'"):
        certify_model(gated(np.random.default_rng(0)))


def test_attention_on_unbounded_input_is_refused_by_name():
    model = Model(3, 4)
    model.add("MatMul", "x", model.add("Transpose", "x", perm=[0, 2, 1]))
    model.then("Softmax", axis=-1)
    model.then("MatMul", "x")
    with pytest.raises(UnsupportedNode, match=r"dot-product attention.*Kim et al. 2021"):
        certify_model(model)


def classifier() -> Model:
    model = Model(2)
    model.add("Mul", "x", "x")
    model.linear(single([[1.0, 0.0], [0.0, 1.0]]))
    return model


def test_radii_hold_inside_the_box_and_are_zero_outside():
    predictor = predictor_of(certify_model(classifier(), options=inside([-1.0, -1.0], [1.0, 1.0])))
    rows = predictor.predict(np.array([[0.9, 0.1], [1.5, 0.0]]), epsilon=0.1, preprocessing=None)
    assert rows[0].radius and rows[0].radius > 0 and rows[0].output_bounds is not None
    assert rows[1].radius == 0.0 and rows[1].because == OUTSIDE and rows[1].output_bounds is None
    assert not rows[1].certified
    generator = np.random.default_rng(0)
    directions = generator.standard_normal((500, 2))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    moved = np.clip(np.array([0.9, 0.1]) + rows[0].radius * directions, -1, 1)
    assert ((moved**2)[:, 0] > (moved**2)[:, 1]).all()
    with pytest.raises(InvalidInput, match="row 1: the input lies outside of the input box"):
        predictor.compare(np.zeros((2, 2)), np.array([[0.0, 1.0], [0.0, 1.5]]))


def test_a_row_on_the_border_is_inside_but_not_if_preprocessing_may_round_it_out():
    """-0.0 is the border 0 as well; the row before the border's is inside whatever was rounded."""
    predictor = predictor_of(certify_model(classifier(), options=inside([-0.0, 0.0], [1.0, 1.0])))

    def reasons(rows: object, preprocessing: Preprocessing | None) -> list[str | None]:
        answers = predictor.predict(np.asarray(rows), epsilon=None, preprocessing=preprocessing)
        assert all((answer.because == OUTSIDE) <= (answer.radius == 0) for answer in answers)
        return [answer.because for answer in answers]

    rows = [[1.0, 0.0], [1.0, -0.0], [np.nextafter(1.0, 2.0), 0.0], [1.0, -1e-300], [0.9, 0.1]]
    assert [reason == OUTSIDE for reason in reasons(rows, None)] == [False, False, True, True, False]
    scaled = reasons([[3.0, 0.3], [2.7, 0.3]], Preprocessing(std=[3.0]))
    assert [reason == OUTSIDE for reason in scaled] == [True, False]


def test_a_constant_that_holds_on_a_range_stays_out_of_the_error_analysis():
    """An execution may leave the range by its rounding."""
    model = Model(2)
    model.then("Tanh")
    model.add("Mul", model.output, model.add("Exp", model.output))
    graph = read_onnx(model.data(), limits=Limits())
    norms = Norms(state=SearchState(), seal=SEAL, carried=CarriedVectors({}), progress=lambda layer: None)
    network = build_network(graph, limits=Limits(), cut_head=False)
    network = with_ranges(network, Box.everything(network.input_size), norms.norm_upper)
    gains = ProductBound(network, norms).gains()
    assert {term.output in gains for term in network.terms if needs_range(term)} == {False}
    assert {term.output in gains for term in network.terms if not needs_range(term)} == {True}


def test_a_regressor_outside_of_its_box_has_no_bounds():
    model = Model(1)
    model.add("Exp", "x")
    predictor = predictor_of(certify_model(model, options=inside(0.0, 1.0)))
    rows = predictor.predict(np.array([[0.5], [2.0]]), epsilon=0.1, preprocessing=None)
    assert rows[0].output_bounds is not None
    assert rows[1].output_bounds is None and rows[1].because == OUTSIDE


@pytest.mark.parametrize(
    ("lower", "upper", "reason"),
    [
        (1.0, 0.0, "upper 0.0 below lower 1.0"),
        ([0.0, 0.0, 0.0], 1.0, "does not broadcast"),
        ([[0.0], [0.0, 1.0]], 1.0, "regular array"),
    ],
)
def test_boxes_that_fit_no_input_are_refused(lower, upper, reason):
    with pytest.raises(InvalidInput, match=reason) as refusal:
        certify_model(classifier(), options=inside(lower, upper))
    assert refusal.value.field.startswith("options.input_box")


def test_the_box_is_in_the_callers_units():
    """Preprocessing at upload is part of the network: the box bounds what callers send."""
    options = inside(0.0, 255.0, preprocessing={"scale": 1 / 256})
    model = Model(1)
    model.add("Mul", "x", "x")
    upper = certify_model(model, options=options).certificate.lipschitz.upper
    assert upper == pytest.approx(2 * 255 / 256**2, rel=1e-6)


def test_an_entry_that_cannot_move_is_no_obstacle():
    model = Model(2)
    model.add("Log", "x")
    upper = certify_model(model, options=inside([0.25, 1.0], [0.25, 2.0])).certificate.lipschitz.upper
    assert upper == pytest.approx(4.0)


@pytest.mark.needs_shared
def test_the_vision_transformer_has_a_bound_inside_a_box(shared):
    path = "models/ChristopherBrix/vnncomp2023_benchmarks/benchmarks/vit/onnx/pgd_2_3_16.onnx"
    data = (shared / path).read_bytes()
    with pytest.raises(UnsupportedNode, match="dot-product attention"):
        certify_bytes(data)
    certificate = certify_bytes(data, options=CertifyOptions(input_box=InputBox(lower=-3.0, upper=3.0))).certificate
    assert 0 < certificate.lipschitz.lower <= certificate.lipschitz.upper < np.inf
    assert certificate.self_test.passed
