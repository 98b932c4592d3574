"""Writing at constant places and choosing by a constant mask: meaning, norms, exactness, refusals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from certifier.errors import UnsupportedNode
from certifier.terms import Affine
from tests.building import Model
from tests.certifier.patterns.checking import assert_bound
from tests.certifier.rules.oracle import Case, check

RNG = np.random.default_rng(0)
WIDE = RNG.standard_normal((1, 3, 4)).astype(np.float32)
ROWS = np.array([[0, 2], [0, -3]])
COLUMNS = np.array([[[3, 0]], [[1, -2]], [[0, 3]]]).reshape(1, 3, 2)
MASK = np.array([[True, False, True, False], [False, False, True, True], [True, True, True, False]])


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def of_three(
    operator: str, opset: int, first: np.ndarray, second: np.ndarray, third: np.ndarray, live: str, **attributes: Any
) -> Case:
    """A case with inputs a, b and c, of which those in `live` depend on the input."""
    inputs: Mapping[str, np.ndarray] = {"a": first, "b": second, "c": third}
    return Case(operator=operator, opset=opset, inputs=inputs, live=tuple(live), outputs=("y",), attributes=attributes)


CASES = {
    "nd": of_three("ScatterND", 18, WIDE, ROWS, normal(2, 4), "ac"),
    "nd 11": of_three("ScatterND", 11, WIDE, ROWS, normal(2, 4), "ac"),
    "nd of entries": of_three("ScatterND", 13, WIDE, np.array([[[0, 1, 1], [0, 0, -1]]]), normal(1, 2), "ac"),
    "nd into constants": of_three("ScatterND", 16, WIDE, ROWS, normal(2, 4), "c"),
    "nd of constants": of_three("ScatterND", 16, WIDE, ROWS, normal(2, 4), "a"),
    "nd added": of_three("ScatterND", 16, WIDE, ROWS, normal(2, 4), "ac", reduction="add"),
    "nd added twice": of_three(
        "ScatterND", 18, WIDE, np.array([[0, 2], [0, 2], [0, 0]]), normal(3, 4), "ac", reduction="add"
    ),
    "nd constants added": of_three("ScatterND", 16, WIDE, ROWS, normal(2, 4), "a", reduction="add"),
    "elements": of_three("ScatterElements", 18, WIDE, COLUMNS, normal(1, 3, 2), "ac", axis=2),
    "elements 11": of_three("ScatterElements", 11, WIDE, COLUMNS[:, :2], normal(1, 2, 2), "ac", axis=-1),
    "elements across": of_three("ScatterElements", 13, WIDE, np.array([[[1, 0]]]), normal(1, 1, 2), "ac", axis=1),
    "elements added": of_three(
        "ScatterElements", 18, WIDE, np.zeros((1, 3, 2), np.int64), normal(1, 3, 2), "ac", axis=2, reduction="add"
    ),
    "where": of_three("Where", 16, MASK, WIDE, normal(1, 3, 4), "bc"),
    "where 9": of_three("Where", 9, MASK, WIDE, normal(1, 3, 4), "bc"),
    "where else constant": of_three("Where", 16, MASK, WIDE, normal(1, 3, 4), "b"),
    "where constant": of_three("Where", 16, MASK, np.array(-7.0, np.float32), WIDE, "c"),
    "where broadcast": of_three("Where", 16, MASK[:, :1], normal(1, 1, 4), normal(1, 3, 1), "bc"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_it_means_what_the_standard_says(name):
    # The engine's own kernels know `add` for some types only, and none of them changes the meaning.
    (term,) = check(CASES[name])
    assert isinstance(term, Affine)
    assert term.is_exact == ("added" not in name)


def assigned_column(m: Model) -> None:
    """x[:, 1] = 2 x[:, 0]."""
    update = m.add("Mul", m.add("Slice", "x", np.array([0]), np.array([1]), np.array([1])), np.array(2.0))
    m.add("ScatterElements", "x", np.array([[1]]), update, axis=1)


def slice_added(m: Model) -> None:
    """x[:, 1] += x[:, 0]: the matrix [[1, 0], [1, 1]]."""
    update = m.add("Slice", "x", np.array([0]), np.array([1]), np.array([1]))
    m.add("ScatterND", "x", np.array([[[0, 1]]]), update, reduction="add")


def chosen_twice(m: Model) -> None:
    condition = m.add("Cast", m.add("Constant", value_ints=[1, 0]), to=9)
    m.add("Where", condition, "x", m.add("Mul", "x", np.array(3.0)))


@pytest.mark.parametrize(
    ("spelling", "norm"), [(assigned_column, np.sqrt(5)), (slice_added, (1 + np.sqrt(5)) / 2), (chosen_twice, 3.0)]
)
def test_it_is_bounded_by_the_norm_of_the_whole(spelling, norm):
    model = Model(2)
    spelling(model)
    assert_bound(model, norm)


REFUSED = {
    "nd twice": (of_three("ScatterND", 18, WIDE, np.array([[0, 2], [0, -1]]), normal(2, 4), "ac"), "no order"),
    "elements twice": (
        of_three("ScatterElements", 18, WIDE, np.zeros((1, 1, 2), np.int64), normal(1, 1, 2), "c", axis=2), "no order"
    ),
    "outside": (of_three("ScatterND", 18, WIDE, np.array([[0, 3]]), normal(1, 4), "ac"), "outside"),
    "other shapes": (of_three("ScatterND", 18, WIDE, ROWS, normal(2, 3), "ac"), "do not fit"),
    "largest": (of_three("ScatterND", 18, WIDE, ROWS, normal(2, 4), "ac", reduction="max"), "not linear"),
    "infinite": (of_three("Where", 16, MASK, WIDE, np.full((1, 1, 4), -np.inf, np.float32), "b"), "infinite"),
    "condition": (of_three("Where", 16, MASK, WIDE, WIDE, "abc"), "jumps where the condition changes"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_linear_is_refused(name):
    refused, reason = REFUSED[name]
    with pytest.raises(UnsupportedNode, match=reason):
        refused.terms()


def test_infinity_that_is_not_chosen_does_no_harm():
    mask = np.array([True, True, False, True])
    filling = np.array([-np.inf, np.nan, 1.0, np.inf], np.float32)
    (term,) = of_three("Where", 16, mask, WIDE, filling, "b").terms()
    assert isinstance(term, Affine) and term.offset is not None
    assert np.array_equal(term.offset, np.tile([0.0, 0.0, 1.0, 0.0], 3))
