"""Products of live values: their drifts against the engine, and against products of what drifted as far as it may."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from certifier.box import Box
from certifier.products import Bilinear
from certifier.proof.reach import Reach, factors_of
from tests.building import Model, single
from tests.certifier.proof.test_drifts import Case, hold
from tests.certifier.proof.test_stray_lengths import FORMS


def _gate(generator: np.random.Generator) -> Model:
    """(W x + 2^9) sigmoid(V x): a large number that drifts by 2^-15, gated."""
    model = Model(6)
    gate = model.add("Gemm", "x", single(generator.standard_normal((6, 5))), single(generator.standard_normal(5)))
    gate = model.add("Sigmoid", gate)
    value = model.add("Gemm", "x", single(generator.standard_normal((6, 5))), np.full(5, 2.0**9))
    model.add("Mul", gate, value)
    model.linear(single(generator.standard_normal((3, 5))), np.zeros(3))
    return model


def _attention(generator: np.random.Generator) -> Model:
    """Softmax(Q K^T) V of a normalised sequence of three tokens of four entries."""
    model = Model(3, 4)
    normal = model.add("LayerNormalization", "x", np.ones(4), np.zeros(4), epsilon=1e-2)
    parts = [model.add("MatMul", normal, single(generator.standard_normal((4, 4)))) for _ in range(3)]
    keys = model.add("Transpose", parts[1], perm=[0, 2, 1])
    weights = model.add("Softmax", model.add("MatMul", parts[0], keys), axis=-1)
    model.add("MatMul", weights, parts[2])
    model.then("Flatten")
    model.linear(single(generator.standard_normal((3, 12))), np.zeros(3))
    return model


def _power(generator: np.random.Generator) -> Model:
    """x · x · x, of one value with itself."""
    model = Model(5)
    model.linear(single(generator.standard_normal((5, 5))))
    inner = model.then("Relu")
    square = model.add("Mul", inner, inner)
    model.add("Mul", square, inner)
    return model


CASES = {"gate": (_gate, True), "attention": (_attention, False), "power": (_power, True)}


def _case(name: str) -> Case:
    make, boxed = CASES[name]
    model = make(np.random.default_rng(4))
    size = int(np.prod(model.row_shape))
    box = Box(lower=np.full(size, -2.0), upper=np.full(size, 2.0)) if boxed else None
    return Case(model, "float32", box)


def _rows(case: Case) -> np.ndarray:
    return case.box.clip(np.random.default_rng(5).standard_normal((2, case.network.input_size)))


@pytest.mark.parametrize("name", CASES)
def test_the_engine_keeps_to_the_drifts_of_products(name: str) -> None:
    case = _case(name)
    rows = _rows(case)
    assert (case.at(rows).room > 0).all()
    hold(case, rows, np.random.default_rng(6), (0.0, 1e-3, 0.1, 10.0))


@pytest.mark.parametrize(("name", "factor"), [("gate", 300), ("power", 3e3), ("attention", 5e5)])
def test_drifts_of_products_are_not_vacuous(name: str, factor: float) -> None:
    case = _case(name)
    rows = _rows(case)
    error = np.abs(case.engine.run(rows) - case.exact(rows)[0]).max()
    assert 0 < error <= case.at(rows).outputs()[0].max() <= factor * error


@pytest.mark.parametrize("name", FORMS)
def test_factors_bound_magnitudes_and_movements_of_both_factors(name: str) -> None:
    """What a drift of a product rests on: B(|u|, d), and B(d, e) <= ‖d‖ ‖e‖, for every form and any signs."""
    form, generator = FORMS[name], np.random.default_rng(1)
    sizes = [int(np.prod(shape)) for shape in (form.first, form.second)]
    term = Bilinear(
        name="b",
        operator="Mul",
        sources=("u", "v"),
        output="y",
        shape=form.shape,
        dtype="float32",
        form=form,
        factors=None,
    )
    reaches = [Reach.box(np.full(size, -1.0), np.full(size, 0.5)) for size in sizes]
    by_first, by_second = factors_of(term, *reaches)
    for _ in range(50):
        u, v = (generator.uniform(-1.0, 0.5, (1, size)) for size in sizes)
        d, e = (generator.standard_normal((1, size)) * (generator.random(size) < 0.4) for size in sizes)
        assert np.linalg.norm(form(np.abs(u), e)) <= by_second * np.linalg.norm(e) * (1 + 1e-12)
        assert np.linalg.norm(form(d, np.abs(v))) <= by_first * np.linalg.norm(d) * (1 + 1e-12)
        assert np.linalg.norm(form(d, e)) <= np.linalg.norm(d) * np.linalg.norm(e) * (1 + 1e-12)


def _drifting_product(*, first: float, second: float, half: float = 1.0) -> Model:
    """(x + a) - a times (x + b) - b: factors near 1 that the addition makes drift; the second times `half`."""
    model = Model(1)
    factors = []
    for large, factor in ((first, 1.0), (second, half)):
        start = model.add("Mul", "x", np.array([factor]))
        there = model.add("Add", start, np.array([large]))
        factors.append(model.add("Sub", there, np.array([large])))
    model.add("Mul", *factors)
    return model


@pytest.mark.parametrize(("first", "second"), [(2.0**20, 0.0), (0.0, 2.0**20), (2.0**21, 2.0**21)])
def test_a_factor_that_drifts_moves_the_product(first: float, second: float) -> None:
    """By as much as rounding to multiples of 1/16 or 1/2 takes from it; both at once by the product of both."""
    box = Box(lower=np.full(1, 0.5), upper=np.full(1, 1.5))
    case = Case(_drifting_product(first=first, second=second), "float32", box)
    rows = np.linspace(0.6, 1.4, 33)[:, None]
    around = case.at(rows)
    error = np.abs(case.engine.run(rows) - case.exact(rows)[0])
    allowed = around.outputs()[0]
    assert (error <= allowed)[around.room > 0].all() and (around.room > 0).all()
    assert allowed.max() <= 50 * error.max()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_small_factor_may_drift_beyond_its_reach(order: tuple[int, int]) -> None:
    """A gate that is nearly shut, 2^-24 x from a number near 1, beside a value that drifts far less than it may."""
    model = Model(1)
    tiny = model.add("Mul", "x", np.array([2.0**-24]))
    gate = model.add("Sub", model.add("Add", tiny, np.array([1.0])), np.array([1.0]))
    factors = gate, "x"
    model.add("Mul", factors[order[0]], factors[order[1]])
    case = Case(model, "float32", Box(lower=np.full(1, 0.5), upper=np.full(1, 1.5)))
    rows = np.linspace(0.6, 1.4, 33)[:, None]
    around = case.at(rows)
    error = np.abs(case.engine.run(rows) - case.exact(rows)[0])
    assert (around.room > 1e3).all()
    assert (error <= around.outputs()[0]).all() and around.outputs()[0].max() <= 50 * error.max()


@pytest.mark.parametrize(("first", "second"), [(2.0**26, 2.0**26), (2.0**26, 0.0)])
def test_a_factor_that_drifts_beyond_its_reach_leaves_no_room(first: float, second: float) -> None:
    """Both do; or one does that is larger than the other, which is halved."""
    box = Box(lower=np.full(1, 0.5), upper=np.full(1, 1.5))
    model = _drifting_product(first=first, second=second, half=0.5 if second == 0.0 else 1.0)
    case = Case(model, "float32", box)
    around = case.at(np.array([[1.0]]))
    assert around.room[0] == 0.0 and np.isinf(around.within(0.1)[:, 1:]).all()


def test_products_may_be_summed_in_the_worst_order() -> None:
    """1 + 511 times 2^-25, each of which is lost beside the 1."""
    model = Model(1, 512)
    model.add("MatMul", "x", model.add("Transpose", "x", perm=[0, 2, 1]))
    case = Case(model, "float32", Box(lower=np.zeros(512), upper=np.ones(512)))
    row = single(np.append(1.0, np.full(511, 2.0**-12.5)))
    executed = np.add.accumulate(np.square(row.astype(np.float32)), dtype=np.float32)[-1]
    exact = sum(Fraction(each) ** 2 for each in row.tolist())
    fixed = float(case.at(row[None]).outputs()[0][0, 0])
    assert Fraction(1, 2**17) < abs(Fraction(float(executed)) - exact) <= Fraction(fixed) <= Fraction(1, 2**9)
