"""Errors in the L2 norm near given values: never below what happens, and not far above the truth."""

from __future__ import annotations

import numpy as np
import pytest

from certifier.products import Bilinear, EntrywiseForm, Form, MatrixForm
from certifier.proof.gram import gram_norm_upper
from certifier.terms import PRECISIONS, REFERENCE
from certifier.vector_functions.normalising import Normalisation
from certifier.vector_functions.softmaxes import Softmax

DRAWS = 400
FORMS: dict[str, EntrywiseForm | MatrixForm] = {
    "entrywise": EntrywiseForm(first=(2, 3), second=(2, 3), shape=(2, 3)),
    "a gate per row": EntrywiseForm(first=(2, 1), second=(2, 3), shape=(2, 3)),
    "an outer product": EntrywiseForm(first=(2, 1), second=(3,), shape=(2, 3)),
    "matrices": MatrixForm(first=(4, 3), second=(3, 5), shape=(4, 5)),
    "a batch that meets one matrix": MatrixForm(first=(3, 4, 2), second=(2, 2), shape=(3, 4, 2)),
}
FUNCTIONS = {
    "softmax": Softmax(name="softmax", before=2, count=5, after=1),
    "normalisation": Normalisation(
        name="normalisation",
        groups=2,
        scale=np.linspace(0.5, 2.0, 10),
        shift=np.ones(10),
        epsilon=1e-5,
        centred=True,
    ),
    "root mean square": Normalisation(
        name="rms", groups=2, scale=np.ones(10), shift=np.zeros(10), epsilon=1e-5, centred=False
    ),
}


def moves(generator: np.random.Generator, size: int, length: float) -> np.ndarray:
    """Errors of exactly the length, half of them in a few entries only.  Shapes: [DRAWS, size]."""
    directions = generator.standard_normal((DRAWS, size))
    directions[::2] *= generator.random((DRAWS // 2, size)) < 0.3
    directions[~directions.any(axis=1), 0] = 1.0
    return length * directions / np.linalg.norm(directions, axis=1, keepdims=True) * (1 - 1e-12)


@pytest.mark.parametrize("length", [1e-4, 0.1, 2.0])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_vector_function_moves_no_further_than_its_length(name: str, length: float) -> None:
    function, generator = FUNCTIONS[name], np.random.default_rng(3)
    x = 0.7 * generator.standard_normal((1, 10))
    value = function.evaluate(x)
    radius = np.full_like(x, length)
    bound = function.stray_length(x, radius, np.array([[length]]), value, REFERENCE)
    assert bound is not None
    reached = np.linalg.norm(function.evaluate(x + moves(generator, 10, length)) - value, axis=1).max()
    assert reached <= bound.item()
    if length < 1e-3:
        assert bound.item() <= 4 * reached
    executed = function.stray_length(x, radius, np.array([[length]]), value, PRECISIONS["float32"])
    assert executed is not None and executed.item() > bound.item()


EVEN = Softmax(name="softmax", before=1, count=10, after=1)
"""Of zeros: ten probabilities of a tenth, whose slopes grow as soon as one of them does."""


def test_a_probability_grows_on_its_way() -> None:
    x, move = np.zeros((1, 10)), 3.0 * np.eye(1, 10)
    value = EVEN.evaluate(x)
    bound = EVEN.stray_length(x, move, np.array([[3.0]]), value, REFERENCE)
    assert bound is not None
    reached = np.linalg.norm(EVEN.evaluate(x + move) - value)
    assert 2 * 0.1 * 3.0 <= reached <= bound.item() <= 4 * reached


def test_a_softmax_is_rounded_where_nothing_moves() -> None:
    x = np.linspace(-2.0, 2.0, 10, dtype=np.float32)[None]
    exact, still = x.astype(np.float64), np.zeros((1, 10))
    value = EVEN.evaluate(exact)
    bound = EVEN.stray_length(exact, still, np.zeros((1, 1)), value, PRECISIONS["float32"])
    assert bound is not None
    powers = np.exp(x - x.max())
    assert 0 < np.linalg.norm(powers / powers.sum() - value) <= bound.item() < 1e-4


@pytest.mark.parametrize("length", [1e-4, 0.5])
@pytest.mark.parametrize("name", FORMS)
def test_a_product_moves_no_further_than_its_length(name: str, length: float) -> None:
    form, generator = FORMS[name], np.random.default_rng(5)
    sizes = int(np.prod(form.first)), int(np.prod(form.second))
    first, second = (generator.standard_normal((1, size)) for size in sizes)
    bound = _term(form).stray_length(
        [first, second],
        [np.full_like(first, length), np.full_like(second, length)],
        [np.array([[length]])] * 2,
        form(first, second),
        REFERENCE,
    )
    assert bound is not None
    moved = form(first + moves(generator, sizes[0], length), second + moves(generator, sizes[1], length))
    reached = np.linalg.norm(moved - form(first, second), axis=1).max()
    assert reached <= bound.item()
    assert bound.item() <= 4 * reached


@pytest.mark.parametrize("name", FORMS)
def test_a_product_is_rounded_where_nothing_moves(name: str) -> None:
    form, generator = FORMS[name], np.random.default_rng(6)
    operands = [
        generator.standard_normal((1, int(np.prod(shape)))).astype(np.float32) for shape in (form.first, form.second)
    ]
    exact = [operand.astype(np.float64) for operand in operands]
    still, value = [np.zeros_like(operand) for operand in exact], form(*exact)
    bound = _term(form).stray_length(exact, still, [np.zeros((1, 1))] * 2, value, PRECISIONS["float32"])
    assert bound is not None
    assert 0 < np.linalg.norm(form(*operands) - value) <= bound.item() < 1e-5


def _term(form: Form) -> Bilinear:
    assert isinstance(form, (EntrywiseForm, MatrixForm))
    return Bilinear(
        name="product",
        operator="Mul",
        sources=("u", "v"),
        output="y",
        shape=form.shape,
        dtype="float32",
        form=form,
        factors=None,
    )


@pytest.mark.parametrize("name", FORMS)
def test_the_norms_of_a_product_are_those_of_its_two_maps(name: str) -> None:
    form, generator = FORMS[name], np.random.default_rng(7)
    sizes = int(np.prod(form.first)), int(np.prod(form.second))
    first, second = (generator.standard_normal((1, size)) for size in sizes)
    by_first = np.array([form(first, unit[None])[0] for unit in np.eye(sizes[1])])
    by_second = np.array([form(unit[None], second)[0] for unit in np.eye(sizes[0])])
    for bound, matrix in zip(form.norms_upper(first, second), (by_first, by_second), strict=True):
        exact = np.linalg.norm(matrix, 2)
        assert exact * (1 - 1e-13) <= bound.item() <= 1.75 * exact


@pytest.mark.parametrize("shape", [(1, 1), (3, 8), (40, 6), (64, 64)])
def test_squared_gram_matrices_bound_the_norm(shape: tuple[int, int]) -> None:
    stack = np.random.default_rng(9).standard_normal((3, *shape)) * np.array([1e-30, 1.0, 1e30])[:, None, None]
    exact = np.linalg.norm(stack, 2, axis=(1, 2))
    previous = np.full(3, np.inf)
    for squarings in range(4):
        bound = gram_norm_upper(stack, squarings=squarings)
        assert (bound >= exact * (1 - 1e-13)).all() and (bound <= previous).all()
        assert (bound <= min(shape) ** (2.0**-squarings / 2) * exact * (1 + 1e-9)).all()
        previous = bound
