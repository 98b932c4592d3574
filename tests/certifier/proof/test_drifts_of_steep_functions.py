"""Functions of unbounded slope: their drifts against the engine and against 50 digits, and where they end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mpmath
import numpy as np
import pytest
from mpmath import mp, mpf

from certifier import steep
from certifier.box import Box
from certifier.certificates import NO_ROOM
from certifier.documents import CertifyOptions, InputBox
from certifier.proof.following import Following, NoDrift
from certifier.steep import Steep
from certifier.terms import PRECISIONS
from tests.building import Model, certify_model, predictor_of, single
from tests.certifier.proof.test_drifts import Case, hold

Real = Any

FUNCTIONS: dict[str, tuple[Steep, Callable[[Real], Real], float, float]] = {
    "Exp": (steep.exponential(), mpmath.exp, -3.0, 3.0),
    "Log": (steep.logarithm(), mpmath.log, 0.05, 5.0),
    "Sqrt": (steep.square_root(), mpmath.sqrt, 0.01, 4.0),
    "Reciprocal": (steep.reciprocal(), lambda x: 1 / x, 0.1, 5.0),
    "Reciprocal below": (steep.reciprocal(), lambda x: 1 / x, -5.0, -0.1),
    **{
        f"Pow {p:g}": (steep.power(p), lambda x, p=p: mpmath.power(x, mpf(p)), low, 2.0)
        for p, low in (
            (2.0, -3.0),
            (3.0, -2.0),
            (4.0, -2.0),
            (7.0, -1.5),
            (0.5, 0.1),
            (-0.5, 0.1),
            (-2.0, 0.25),
            (2.5, 0.1),
        )
    },
}
each = pytest.mark.parametrize("name", FUNCTIONS)


def _then(model: Model, name: str) -> str:
    operator, *exponent = name.split()
    return model.then(operator, *([single(float(exponent[0]))] if operator == "Pow" else []))


def _boxed(size: int, lower: float, upper: float) -> Box:
    return Box(lower=np.full(size, lower), upper=np.full(size, upper))


def _between_matrices(name: str) -> Case:
    """W f(V x + b), V x + b all over the range of f."""
    _, _, lower, upper = FUNCTIONS[name]
    generator = np.random.default_rng(len(name))
    matrix = generator.standard_normal((5, 6))
    matrix *= (upper - lower) / 2 / np.abs(matrix).sum(axis=1, keepdims=True) * 0.999
    model = Model(6)
    model.linear(single(matrix), single(np.full(5, (lower + upper) / 2)))
    _then(model, name)
    model.linear(single(generator.standard_normal((3, 5))), np.zeros(3))
    return Case(model, "float32", _boxed(6, -1.0, 1.0))


@each
def test_the_engine_keeps_to_the_drifts_of_steep_functions(name: str) -> None:
    case = _between_matrices(name)
    generator = np.random.default_rng(1)
    # In the middle of the box and at its corners, where the function is at the ends of its range.
    corners = np.sign(generator.standard_normal((2, 6)))
    for rows in (0.5 * corners, corners):
        assert (case.at(rows).room > 0).all()
        hold(case, rows, generator, (0.0, 1e-3, 0.1, 10.0))


@each
def test_drifts_of_steep_functions_hold_against_many_digits(name: str) -> None:
    """The function alone, where nothing is allowed for."""
    _, formula, lower, upper = FUNCTIONS[name]
    model = Model(1)
    model.then("Identity")
    _then(model, name)
    case = Case(model, "float32", _boxed(1, lower, upper))
    points = np.random.default_rng(2).uniform(lower, upper, (200, 1))
    points = np.concatenate([points, [[lower], [upper]]])
    allowed = case.at(points).outputs()[0]
    with mp.workdps(50):
        exact = [formula(mpf(float(point))) for point in points[:, 0]]
        error = np.array([abs(mpf(float(e)) - x) for e, x in zip(case.engine.run(points)[:, 0], exact, strict=True)])
    assert (error <= allowed[:, 0]).all()
    assert 0 < allowed.max() <= 300 * error.max()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_doubles_have_drifts_too(name: str) -> None:
    _, formula, lower, upper = FUNCTIONS[name]
    model = Model(1)
    model.then("Identity")
    _then(model, name)
    case = Case(model, "float64", _boxed(1, lower, upper))
    points = np.random.default_rng(3).uniform(lower, upper, (50, 1))
    allowed = case.at(points).outputs()[0]
    with mp.workdps(50):
        exact = [formula(mpf(float(point))) for point in points[:, 0]]
        served = case.network.evaluate(points)[:, 0]
        error = np.array([abs(mpf(float(e)) - x) for e, x in zip(served, exact, strict=True)])
    assert (error <= allowed[:, 0]).all() and 0 < allowed.max() <= 1e-9


@each
def test_no_slope_exceeds_what_is_held_where_it_is_held(name: str) -> None:
    """On the range and a cap beyond both of its ends, and hardly more than on the range itself."""
    function, formula, lower, upper = FUNCTIONS[name]
    assert function.held() is None
    inside = function.inside(np.array([lower]), np.array([upper]))
    held = inside.held()
    assert held is not None
    cap, steepest = held
    with mp.workdps(50):
        ends = mpf(lower) - mpf(cap), mpf(upper) + mpf(cap)
        slopes = [abs(mpmath.diff(formula, end, h=mpf(10) ** -20)) for end in ends]
        assert max(slopes) * (1 - mpf(10) ** -12) <= steepest <= 1.9 * float(inside.steepest[0])
    # Twice as far it is too steep, or no function any more.
    beyond = function.slopes_on(np.array([lower - 2 * cap]), np.array([upper + 2 * cap]))
    assert float(np.max(np.abs(beyond))) > 1.9 * float(inside.steepest[0])


@pytest.mark.parametrize("ends", [(0.25, 1.0), (0.5, 2.0), (1.0, 1.0), (1.0, 8.0), (3.0, 10.0), (2.0**-20, 255.0)])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_last_bits_of_a_range_change_nothing_but_last_bits(name: str, ends: tuple[float, float]) -> None:
    """A certificate's drifts are compared with those that another machine derives."""
    function = FUNCTIONS[name][0]
    held = function.inside(*(np.array([end]) for end in ends)).held()
    assert held is not None
    for low, high in ((-1, 1), (1, -1), (1, 1), (-1, -1)):
        cap, steepest = function.inside(
            np.array([ends[0] * (1 + low * 2.0**-40)]), np.array([ends[1] * (1 + high * 2.0**-40)])
        ).held() or (0.0, 0.0)
        assert cap == held[0] and abs(steepest - held[1]) <= 2.0**-30 * held[1]


def test_a_function_is_held_for_its_steepest_entry() -> None:
    """The entry that is nearest to zero limits how far all may drift."""
    function = steep.reciprocal().inside(np.array([1.0, 2.0**-6, -3.0]), np.array([2.0, 1.0, -2.0]))
    held = function.held()
    assert held is not None and 2.0**-9 <= held[0] <= 2.0**-7
    assert 2.0**12 <= held[1] <= 2.0**13


def _drifting(name: str, large: float) -> Model:
    """f((x + a) - a): f of what the addition makes drift."""
    model = Model(1)
    model.add("Add", "x", np.array([large]))
    model.then("Sub", np.array([large]))
    _then(model, name)
    return model


@pytest.mark.parametrize(("name", "large"), [("Exp", 19), ("Log", 18), ("Reciprocal", 17), ("Pow 3", 19), ("Sqrt", 18)])
def test_what_drifts_moves_a_steep_function(name: str, large: int) -> None:
    """By as much as its slope makes of it, which is largest at one end of the range."""
    lower, upper = (0.5, 1.5) if name != "Exp" else (2.0, 3.0)
    case = Case(_drifting(name, 2.0**large), "float32", _boxed(1, lower, upper))
    rows = np.random.default_rng(0).uniform(lower, upper, (500, 1))
    around = case.at(rows)
    error = np.abs(case.engine.run(rows) - case.exact(rows)[0])
    allowed = around.outputs()[0]
    assert (around.room > 0).all() and (error <= allowed).all()
    assert allowed.max() <= 20 * error.max()


@pytest.mark.parametrize("name", ["Exp", "Log", "Reciprocal", "Pow 3", "Sqrt"])
def test_what_drifts_out_of_a_range_leaves_no_room(name: str) -> None:
    """2^27 swallows all of x: what is executed is 0, or far from the range."""
    case = Case(_drifting(name, 2.0**27), "float32", _boxed(1, 0.5, 1.5))
    around = case.at(np.array([[1.0]]))
    assert around.room[0] == 0.0 and np.isinf(around.within(0.1)[:, 1:]).all()


def test_a_kernel_is_paid_for() -> None:
    """Near zero the argument of e^x is exact to 2^-34 and its value, near 1, is not."""
    model = Model(200)
    model.then("Exp")
    case = Case(model, "float32", _boxed(200, -0.01, 0.01))
    rows = single(np.random.default_rng(0).uniform(-1e-3, 1e-3, (1, 200)))
    error = np.abs(case.engine.run(rows) - case.exact(rows)[0])
    assert 2.0**-26 < error.max() <= case.at(rows).outputs()[0].max() <= 2.0**-15


def test_values_that_overflow_have_no_room() -> None:
    model = Model(1)
    model.then("Exp")
    case = Case(model, "float32", _boxed(1, 80.0, 88.0))
    rows = np.array([[80.0], [85.0], [87.8]])
    room = case.at(rows).room
    assert (room[:2] > 0).all() and room[2] == 0
    # As far as there is room e^x is finite, even outside of the box.
    assert np.isfinite(case.engine.run(rows[:2] + room[:2, None])).all()


def test_results_that_are_flushed_to_zero_are_paid_for() -> None:
    """e^x of -100 is no normal number."""
    model = Model(1)
    model.then("Exp")
    case = Case(model, "float32", _boxed(1, -120.0, -90.0))
    rows = np.linspace(-120.0, -90.0, 61)[:, None]
    assert (case.exact(rows)[0] <= case.at(rows).outputs()[0]).all()


def _softmax(model: Model, generator: np.random.Generator) -> None:
    exponentials = model.add("Exp", "x")
    total = model.add("ReduceSum", exponentials, np.array([1]), keepdims=1)
    model.add("Mul", exponentials, model.add("Reciprocal", model.add("Add", total, np.array(0.25))))


def _unit(model: Model, generator: np.random.Generator) -> None:
    shifted = model.add("Add", "x", np.array(1.5))
    model.add("Div", shifted, model.add("ReduceL2", shifted, np.array([1]), keepdims=1))


def _root_mean_square(model: Model, generator: np.random.Generator) -> None:
    mean = model.add("ReduceMean", model.add("Mul", "x", "x"), np.array([1]), keepdims=1)
    root = model.add("Pow", model.add("Add", mean, np.array(2.0**-6)), np.array(-0.5))
    model.add("Mul", model.add("Sigmoid", "x"), root)


def _quotient(model: Model, generator: np.random.Generator) -> None:
    above = model.add("Gemm", "x", single(generator.standard_normal((4, 4))), single(generator.standard_normal(4)))
    model.add("Div", above, model.add("Add", model.add("Sigmoid", "x"), np.array(0.125)))


def _log_of_means(model: Model, generator: np.random.Generator) -> None:
    model.add("ReduceMean", model.add("Exp", "x"), np.array([1]), keepdims=1)
    model.add("Sub", "x", model.then("Log"))


COMPOSITES = (_softmax, _unit, _root_mean_square, _quotient, _log_of_means)


def _composite(build: Callable[[Model, np.random.Generator], None]) -> Model:
    generator = np.random.default_rng(5)
    model = Model(4)
    build(model, generator)
    model.linear(single(generator.standard_normal((3, 4))), np.zeros(3))
    return model


@pytest.mark.parametrize("build", COMPOSITES)
@pytest.mark.parametrize("arithmetic", ["float32", "float64"])
def test_composites_of_steep_functions_have_drifts_and_radii(build, arithmetic) -> None:
    model = _composite(build)
    generator = np.random.default_rng(6)
    case = Case(model, "float32", _boxed(4, -1.0, 1.0))
    rows = generator.uniform(-1, 1, (2, 4))
    assert (case.at(rows).room > 0).all()
    hold(case, rows, generator, (0.0, 1e-3, 0.1, 10.0))
    options = CertifyOptions(arithmetic=arithmetic, method="product", input_box=InputBox(lower=-1.0, upper=1.0))
    predictor = predictor_of(certify_model(model, options=options))
    assert predictor.arithmetic.because is None
    served = predictor.predict(rows, epsilon=1e-3, preprocessing=None)
    real = predictor_of(certify_model(model, options=options.model_copy(update={"arithmetic": "real"})))
    for executed, exact in zip(served, real.predict(rows, epsilon=None, preprocessing=None), strict=True):
        assert executed.radius is not None and exact.radius is not None
        assert 0 < executed.radius <= exact.radius <= 1.1 * executed.radius
        assert executed.output_bounds is not None


def test_a_drift_beyond_a_range_is_told() -> None:
    """The radius is 0 and says why; over the reals there is one."""
    model = Model(2)
    model.add("Add", "x", np.full(2, 2.0**22))
    model.then("Sub", np.full(2, 2.0**22))
    model.then("Reciprocal")
    model.linear([[1.0, 0.0], [0.0, 1.0]])
    options = CertifyOptions(method="product", input_box=InputBox(lower=0.5, upper=4.0))
    predictor = predictor_of(certify_model(model, options=options))
    told = predictor.predict(np.array([[1.0, 3.0]]), epsilon=None, preprocessing=None)[0]
    assert (told.radius, told.because) == (0.0, NO_ROOM)


def test_nothing_is_held_where_no_range_is_known() -> None:
    """Nor on a range of 0 alone, beyond which any slope is many times as steep."""
    assert steep.power(2.0).inside(np.zeros(1), np.zeros(1)).held() is None
    model = Model(2)
    model.then("Exp")
    case = Case(model, "float32", _boxed(2, 0.0, 1.0))
    unknown = [replace(term, function=steep.exponential()) for term in case.network.terms]  # pyright: ignore
    with pytest.raises(NoDrift, match="no bound that holds on a whole ball"):
        Following(replace(case.network, terms=tuple(unknown)), case.gains, PRECISIONS, lambda operator, name: 1.0)
