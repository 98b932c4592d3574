"""What overflows on the way although the result is small: radii and intervals end before it."""

from __future__ import annotations

import numpy as np
import pytest

from certifier.certificates import LARGEST
from certifier.errors import UnsupportedNode
from certifier.proof.following import NoDrift
from certifier.terms import PRECISIONS
from tests.building import Model, certify_model, predictor_of, single
from tests.certifier.proof.test_drifts import Case, hold

LAST = np.array([1])


def _softmax(model: Model) -> None:
    power = model.add("Exp", "x")
    model.add("Div", power, model.add("ReduceSum", power, LAST, keepdims=1))


def _log_softmax(model: Model) -> None:
    total = model.add("ReduceSum", model.add("Exp", "x"), LAST, keepdims=1)
    model.add("Sub", "x", model.add("Log", total))


@pytest.mark.parametrize("spelling", [_softmax, _log_softmax])
def test_exponentials_without_the_maximum_subtracted_have_no_room_to_overflow(spelling):
    model = Model(2)
    spelling(model)
    case = Case(model, "float32")
    row = np.array([[40.0, 0.0]])
    room = case.at(row).room
    assert 20 < room[0] < 48
    assert np.isfinite(case.engine.run(np.array([[40.0 + room[0], 0.0]]))).all()
    assert not np.isfinite(case.engine.run(np.array([[90.0, 0.0]]))).all()


def test_a_radius_ends_before_exponentials_overflow():
    """What is added beside a softmax makes the margin large, but no number comes of an infinity by another."""
    model = Model(2)
    _softmax(model)
    model.then("Add", "x")
    model.linear(np.eye(2))
    predictor = predictor_of(certify_model(model))
    told = predictor.predict(np.array([[60.0, 0.0], [80.0, 0.0]]), epsilon=None, preprocessing=None)
    radii = [row.radius for row in told]
    assert radii[0] is not None and 0 < radii[0] < 4 and radii[1] == 0


@pytest.mark.parametrize(
    ("scale", "variance", "epsilon"),
    [(1.0, 3e38, 3e38), (2.0**70, 2.0**-120, 0.0), (1.0, 2.0**-140, 0.0)],
    ids=["variance", "scale over deviation", "flushed variance"],
)
def test_statistics_that_overflow_are_refused(scale, variance, epsilon):
    """The engine's 1/√∞ is 0, and the offset all that it answers."""
    model = Model(2)
    model.then("BatchNormalization", [scale, 1.0], [1.0, 1.0], [0.0, 0.0], single([variance] * 2), epsilon=epsilon)
    with pytest.raises(UnsupportedNode, match="leaves the range of float32"):
        certify_model(model)


@pytest.mark.parametrize("operator", ["LayerNormalization", "RMSNormalization"])
@pytest.mark.parametrize(("scale", "epsilon"), [(1.0, float(np.finfo(np.float32).max)), (2.0**100, 2.0**-90)])
def test_normalisations_that_could_overflow_inside_have_no_drift(operator, scale, epsilon):
    """A variance beside an ε near the largest number is infinite, and what it divides 0."""
    model = Model(2, opset=23)
    model.then(
        operator, np.full(2, scale), *([np.zeros(2)] if operator == "LayerNormalization" else []), epsilon=epsilon
    )
    with pytest.raises(NoDrift):
        Case(model, "float32")


def test_an_epsilon_beside_which_no_variance_fits_bounds_nothing_at_a_point():
    model = Model(2)
    model.then("LayerNormalization", np.ones(2), np.zeros(2), epsilon=float(np.finfo(np.float32).max))
    term = Case(model, "float64").network.terms[0]
    x = np.array([[2.0**52, -(2.0**52)]])
    assert np.isinf(term.stray([x], [np.zeros((1, 2))], term.evaluate(x), PRECISIONS["float32"])).all()


def _root_mean_square(scale: float, epsilon: float, *, factor: float = 1.0, first: bool = False) -> Model:
    """scale x / √(factor · mean x² + ε), the scale on x or on the inverse root."""
    model = Model(2)
    model.add("ReduceMean", model.add("Mul", "x", "x"), LAST, keepdims=1)
    if factor != 1.0:
        model.then("Mul", np.array(factor))
    model.then("Add", single(epsilon))
    model.then("Sqrt")
    inverse = model.then("Reciprocal")
    scaled = model.add("Mul", "x" if first else inverse, np.full(2, scale))
    model.add("Mul", scaled, inverse if first else "x")
    return model


@pytest.mark.parametrize("first", [False, True])
def test_scales_that_overflow_on_the_way_make_no_normalisation(first):
    """2^100 over the root of 2^-90 is infinite, however small x is."""
    assert Case(_root_mean_square(2.0**50, 2.0**-90, first=first), "float32").at(np.ones((1, 2))).room[0] > 0
    with pytest.raises(UnsupportedNode):
        certify_model(_root_mean_square(2.0**100, 2.0**-90, first=first))


@pytest.mark.parametrize("factor", [2.0**90, 2.0**-90])
def test_factors_that_overflow_on_the_way_make_no_normalisation(factor):
    """2^90 times the mean of squares is infinite where 2^-45 is the result."""
    with pytest.raises(UnsupportedNode):
        certify_model(_root_mean_square(1.0, 2.0**-20, factor=factor))


def test_what_a_scale_makes_subnormal_is_enlarged_by_the_inverse_root():
    """A dozen bits are left of 2^-59 times 2^-80, which 2^49 shows."""
    for seed in range(5):
        generator = np.random.default_rng(seed)
        rows = single(generator.standard_normal((2, 2)) * 2.0**-80)
        hold(Case(_root_mean_square(2.0**-59, 2.0**-99, first=True), "float32"), rows, generator, (0.0, 2.0**-80))


def _small(model: Model) -> Model:
    """What is near 2^126 made moderate, so that an infinity before shows as 1 and as nothing else."""
    model.then("Mul", single(2.0**-126))
    model.then("Mul", single(0.25))
    model.then("Tanh")
    return model


def _mean() -> Model:
    model = Model(2)
    model.add("Mean", "x", "x", "x")
    return _small(model)


def _gemm() -> Model:
    model = Model(2)
    model.then("Gemm", np.eye(2) * 2.0**20, alpha=2.0**-20)
    return _small(model)


def _swish() -> Model:
    """64 u/64 sigmoid(u)."""
    model = Model(2)
    rectified = model.add("Relu", "x")
    gate = model.add("Sigmoid", rectified)
    model.add("Mul", rectified, np.array(64.0))
    model.add("Mul", model.then("Div", np.array(64.0)), gate)
    return _small(model)


def _products() -> Model:
    """u² of what is at most 10^30."""
    model = Model(2)
    model.then("Clip", single(0.0), single(1e30))
    model.add("Mul", model.output, model.output)
    model.then("Min", single(1e38))
    return _small(model)


def _inputs() -> Model:
    """Logarithms of a softmax at the ends of single precision."""
    model = Model(2)
    model.then("LogSoftmax")
    model.then("Max", single(-3e38))
    return _small(model)


@pytest.mark.parametrize(
    ("build", "x"),
    [(_mean, 2e38), (_gemm, 2e37), (_swish, 1e37), (_products, 1e25), (_inputs, 3e38)],
    ids=["mean", "gemm", "swish", "product", "input"],
)
def test_nothing_is_known_of_differences_where_something_overflows(build, x):
    """Answers are finite, and no rounding explains them."""
    predictor = predictor_of(certify_model(build()))
    apart = predictor.compare(single([[x, -x]]), np.zeros((1, 2)))[0]
    assert apart.output_difference > 0 and apart.output_difference_bound == LARGEST
    assert max(output.bound for output in apart.outputs) == LARGEST
    near = predictor.compare(np.ones((1, 2)), np.zeros((1, 2)))[0]
    assert near.output_difference_bound < LARGEST
