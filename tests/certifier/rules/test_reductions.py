"""Reductions in every version: axes as attribute or input, keepdims, noop, constants and strays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from certifier.errors import UnsupportedNode
from certifier.terms import PRECISIONS, Affine, Contraction
from tests.certifier.rules.oracle import Case, case, check, evaluate, steepest_difference

OPERATORS = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceLogSumExp")
AXES: tuple[tuple[int, ...] | None, ...] = (None, (1,), (3,), (-1,), (0, 2), (1, 3), (0, 1, 2, 3))


def _normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _case(
    operator: str, opset: int, x: np.ndarray, axes: tuple[int, ...] | None, attributes: dict[str, Any] | None = None
) -> Case:
    as_input = opset >= 18 or (operator == "ReduceSum" and opset >= 13)
    if axes is None:
        return case(operator, opset, x, attributes=attributes)
    if as_input:
        return case(operator, opset, x, np.array(axes, dtype=np.int64), attributes=attributes)
    counted = axes if opset >= 11 else tuple(axis % x.ndim for axis in axes)
    return case(operator, opset, x, attributes={"axes": list(counted), **(attributes or {})})


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("opset", [7, 11, 12, 13, 18, 20])
@pytest.mark.parametrize("axes", AXES)
def test_a_reduction_means_what_the_standard_says(operator: str, opset: int, axes: tuple[int, ...] | None):
    x = _normal(opset, 1, 3, 4, 5)
    for keepdims in (0, 1):
        terms = check(_case(operator, opset, x, axes, attributes={"keepdims": keepdims}))
        for term in terms:
            if isinstance(term, Contraction):
                assert term.function.constant_upper == 1.0
                assert steepest_difference(term, x.size, rounds=20) <= 1.0


def test_the_newest_log_sum_exp_means_the_same():
    check(_case("ReduceLogSumExp", 28, _normal(0, 1, 3, 4), (2,)), by_engine=False)


@pytest.mark.parametrize("operator", ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin"])
def test_no_axes_and_noop_is_the_identity(operator: str):
    x = _normal(1, 1, 3, 4)
    terms = check(_case(operator, 18, x, (), attributes={"noop_with_empty_axes": 1}))
    known, _ = evaluate(terms, {"x": x})
    assert (known["y"] == x.reshape(1, -1)).all()
    check(_case(operator, 18, x, (), attributes={"noop_with_empty_axes": 0}))


@pytest.mark.parametrize("operator", ["ReduceL1", "ReduceL2", "ReduceLogSumExp"])
def test_noop_of_an_operator_that_changes_its_entries_is_refused(operator: str):
    with pytest.raises(UnsupportedNode, match="noop_with_empty_axes"):
        _case(operator, 18, _normal(1, 1, 3), None, attributes={"noop_with_empty_axes": 1}).terms()


@pytest.mark.parametrize("operator", ["ReduceSumSquare", "ReduceProd", "ReduceLogSum"])
def test_unbounded_slopes_are_refused(operator: str):
    with pytest.raises(UnsupportedNode, match=operator):
        _case(operator, 13, _normal(1, 1, 3), None).terms()


def test_axes_must_exist_once_and_be_constant():
    x = _normal(2, 1, 3, 4)
    for axes, reason in (((3,), "outside of rank 3"), ((1, -2), "twice")):
        with pytest.raises(UnsupportedNode, match=reason):
            _case("ReduceMean", 18, x, axes).terms()
    live = Case(
        operator="ReduceMean",
        opset=18,
        inputs={"x": x, "a": np.array([1])},
        live=("x", "a"),
        outputs=("y",),
        attributes={},
    )
    with pytest.raises(UnsupportedNode, match="must be constant"):
        live.terms()


def test_sums_and_means_have_the_norms_of_their_rows():
    for operator, norm in (("ReduceSum", math.sqrt(12)), ("ReduceMean", 1 / math.sqrt(12))):
        (term,) = _case(operator, 18, _normal(3, 1, 3, 2, 4), (1, 3)).terms()
        assert isinstance(term, Affine)
        matrix = term.operators[0].forward(np.eye(24)).T
        assert np.linalg.norm(matrix, 2) == pytest.approx(norm, rel=1e-14)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0, 1e4])
def test_log_sum_exp_is_evaluated_without_overflow_and_the_engine_follows(scale: float):
    x = (scale * _normal(4, 1, 6, 300)).astype(np.float32)
    given = _case("ReduceLogSumExp", 18, x, (2,))
    (term,) = given.terms()
    flat = x.reshape(1, -1).astype(np.float64)
    out = term.evaluate(flat)
    stray = term.stray([flat], [np.zeros_like(flat)], out, PRECISIONS["float32"])
    assert np.isfinite(out).all() and np.isfinite(stray).all()
    assert (abs(given.engine()["y"].reshape(1, -1) - out) <= stray).all()
    assert stray.max() <= 1e-3 * (1 + scale)


def test_a_long_reduction_is_not_one_step_per_entry():
    """Windows of many entries are read in pieces, and the pieces agree with numpy."""
    x = _normal(5, 1, 2, 3001)
    for operator, expected in (
        ("ReduceMax", x.max(axis=2)),
        ("ReduceL2", np.linalg.norm(x.astype(np.float64), axis=2)),
    ):
        (term,) = _case(operator, 13, x, (2,), attributes={"keepdims": 0}).terms()
        batch = np.repeat(x.reshape(1, -1).astype(np.float64), 400, axis=0)
        out = term.evaluate(batch)
        assert out.shape == (400, 2)
        assert np.allclose(out, expected.reshape(1, -1), rtol=1e-14)
