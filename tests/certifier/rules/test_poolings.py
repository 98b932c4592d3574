"""Poolings: meaning, proved constants never exceeded and attained where known, refusals."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from certifier.errors import ResourceLimitExceeded, UnsupportedNode
from certifier.graph import Node
from certifier.rules.registry import find
from certifier.terms import PRECISIONS, Affine, Contraction
from certifier.vector_functions.pooling import WindowLogSumExp, WindowMaximum, WindowNorm, Windows
from tests.certifier.rules.oracle import case, check, constant_of, evaluate, steepest_difference

POOLS = ("MaxPool", "AveragePool", "LpPool")


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def _random(seed: int, operator: str) -> tuple[np.ndarray, int, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    axes = int(rng.integers(1, 4))
    taps = rng.integers(1, 4, axes)
    attributes: dict[str, Any] = {"kernel_shape": taps.tolist(), "strides": rng.integers(1, 4, axes).tolist()}
    opset = int(rng.choice([10, 11, 12, 19, 22] if operator != "LpPool" else [11, 18, 22]))
    auto_pad = str(rng.choice(["NOTSET", "NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if auto_pad != "NOTSET":
        attributes["auto_pad"] = auto_pad
    else:
        attributes["pads"] = [int(rng.integers(0, k)) for k in (*taps, *taps)]
        if operator == "MaxPool" or (operator == "AveragePool" and opset >= 19):
            attributes["dilations"] = rng.integers(1, 3, axes).tolist()
        if operator != "LpPool":
            attributes["ceil_mode"] = int(rng.integers(0, 2))
    if operator == "AveragePool":
        attributes["count_include_pad"] = int(rng.integers(0, 2))
    if operator == "LpPool":
        attributes["p"] = int(rng.integers(1, 5))
    return _normal(rng, 1, 2, *rng.integers(4, 8, axes)), opset, attributes


@pytest.mark.parametrize("operator", POOLS)
@pytest.mark.parametrize("seed", range(50))
def test_a_pool_means_what_the_standard_says(operator: str, seed: int):
    x, opset, attributes = _random(seed, operator)
    given = case(operator, opset, x, attributes=attributes)
    try:
        terms = given.terms()
    except UnsupportedNode as error:
        assert any(reason in str(error) for reason in ("does not fit", "padding only", "would be negative"))
        return
    # The reference knows automatic pads and ceil_mode differently from the engine in more than one axis.
    plain = "auto_pad" not in attributes and not attributes.get("ceil_mode", 0)
    check(given, by_reference=plain and (operator != "LpPool" or len(attributes["kernel_shape"]) == 2))
    for term in terms:
        if isinstance(term, Contraction):
            assert steepest_difference(term, x.size, rounds=40) <= term.function.constant_upper


@pytest.mark.parametrize("operator", ["GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool"])
@pytest.mark.parametrize("shape", [(1, 3, 5), (1, 2, 4, 5), (1, 2, 3, 2, 4)])
@pytest.mark.parametrize("opset", [9, 22])
def test_a_global_pool_means_what_the_standard_says(operator: str, shape: tuple[int, ...], opset: int):
    x = _normal(np.random.default_rng(len(shape)), *shape)
    for p in (1, 2, 3) if operator == "GlobalLpPool" else (0,):
        given = case(operator, opset, x, attributes={"p": p} if p else {})
        # The reference has no GlobalLpPool and pools two axes only; the engine has no GlobalLpPool 22.
        by_engine = (operator, opset) != ("GlobalLpPool", 22)
        terms = check(given, by_reference=operator == "GlobalAveragePool", by_engine=by_engine)
        if operator == "GlobalLpPool":
            known, _ = evaluate(terms, {"x": x})
            expected = (abs(x.astype(np.float64)) ** p).sum(axis=tuple(range(2, x.ndim))) ** (1 / p)
            assert np.allclose(known["y"], expected, rtol=1e-13)
        for term in terms:
            if isinstance(term, Contraction):
                assert term.function.constant_upper == 1.0
                assert steepest_difference(term, x.size, rounds=40) <= 1.0


@pytest.mark.parametrize(
    ("taps", "stride", "dilation", "constant"),
    [
        (3, 2, 1, 2.0),
        (2, 2, 1, 1.0),
        (2, 3, 1, 1.0),
        (3, 1, 1, 3.0),
        (3, 3, 1, 1.0),
        (3, 2, 2, 3.0),
        (5, 2, 1, 3.0),
    ],
)
def test_the_constant_of_a_max_pool_is_the_formula_and_is_attained(
    taps: int, stride: int, dilation: int, constant: float
):
    """sqrt of the product over axes of ceil(k gcd(s, d) / s), reached by a single raised entry."""
    formula = math.ceil(taps * math.gcd(stride, dilation) / stride)
    assert formula == constant  # two equal axes: the root of its square
    x = np.zeros((1, 1, 24, 24), np.float32)
    given = case(
        "MaxPool", 12, x, attributes={"kernel_shape": [taps] * 2, "strides": [stride] * 2, "dilations": [dilation] * 2}
    )
    (term,) = given.terms()
    assert constant <= constant_of([term]) <= constant * (1 + 1e-15)
    peaks = np.eye(x.size)
    assert np.linalg.norm(term.evaluate(peaks) - term.evaluate(0 * peaks), axis=1).max() == constant


def test_a_max_pool_that_does_not_overlap_has_constant_exactly_1():
    (term,) = case(
        "MaxPool", 12, np.zeros((1, 3, 8, 8), np.float32), attributes={"kernel_shape": [2, 2], "strides": [2, 2]}
    ).terms()
    assert constant_of([term]) == 1.0


def test_the_actual_overlap_may_be_below_the_formula():
    """On a map of 3 x 3 only four of the nine windows exist: the constant is 2, not 3."""
    (term,) = case("MaxPool", 12, np.zeros((1, 1, 4, 4), np.float32), attributes={"kernel_shape": [3, 3]}).terms()
    assert constant_of([term]) == 2.0


@pytest.mark.parametrize("p", [2, 3, 7])
def test_the_constant_of_an_lp_pool_is_attained(p: int):
    (term,) = case(
        "LpPool", 22, np.zeros((1, 1, 9, 9), np.float32), attributes={"kernel_shape": [3, 3], "strides": [2, 2], "p": p}
    ).terms()
    assert constant_of([term]) == pytest.approx(2.0, rel=1e-15)
    there = term.evaluate(np.eye(81))
    assert np.linalg.norm(there, axis=1).max() == pytest.approx(2.0, rel=1e-12)


def test_an_l1_pool_is_a_sum_of_magnitudes():
    first, second = case(
        "LpPool", 22, np.zeros((1, 1, 6), np.float32), attributes={"kernel_shape": [3], "p": 1}
    ).terms()
    assert first.output == "y/absolute" and second.output == "y" and isinstance(second, Affine)
    ones = second.evaluate(first.evaluate(-np.ones((1, 6))))
    assert (ones == 3.0).all()
    # The constant of the whole exceeds that of p = 2 by up to sqrt(3): a pool that said sqrt(3) would be unsound.
    x = np.zeros((1, 6))
    y = np.array([[0.0, 1.0, 1.0, 1.0, 1.0, 0.0]])
    rise = np.linalg.norm(second.evaluate(first.evaluate(y)) - second.evaluate(first.evaluate(x)))
    assert rise / np.linalg.norm(y) > math.sqrt(3) * 1.4


def test_border_rows_without_counted_padding_are_heavier():
    (term,) = case(
        "AveragePool",
        22,
        np.zeros((1, 1, 4), np.float32),
        attributes={"kernel_shape": [3], "pads": [1, 1], "count_include_pad": 0},
    ).terms()
    assert isinstance(term, Affine)
    weights = term.operators[0].forward(np.eye(4)).T
    assert weights[0].tolist() == [0.5, 0.5, 0.0, 0.0]
    assert term.operators[0].weight_error > 0  # 1/3 is rounded
    (term,) = case(
        "AveragePool", 22, np.zeros((1, 1, 4), np.float32), attributes={"kernel_shape": [2], "strides": [2]}
    ).terms()
    assert isinstance(term, Affine) and term.operators[0].weight_error == 0.0


def test_stored_means_are_within_their_weight_error():
    (term,) = case("AveragePool", 22, np.zeros((1, 1, 7, 7), np.float32), attributes={"kernel_shape": [7, 7]}).terms()
    assert isinstance(term, Affine)
    stored = {Fraction(float(w)) for w in term.operators[0].forward(np.eye(49)).reshape(-1)}
    error = Fraction(term.operators[0].weight_error)
    assert all(abs(w - Fraction(1, 49)) <= error * Fraction(1, 49) for w in stored)
    assert stored != {Fraction(1, 49)}


@pytest.mark.parametrize("p", [2, 3, 5])
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e10])
def test_the_engine_stays_within_the_stray_of_a_norm_at_every_scale(p: int, scale: float):
    rng = np.random.default_rng(p)
    x = (scale * rng.standard_normal((1, 2, 6, 6))).astype(np.float32)
    given = case("LpPool", 22, x, attributes={"kernel_shape": [3, 3], "p": p})
    (term,) = given.terms()
    flat = x.reshape(1, -1).astype(np.float64)
    out = term.evaluate(flat)
    stray = term.stray([flat], [np.zeros_like(flat)], out, PRECISIONS["float32"])
    executed = given.engine()["y"].reshape(1, -1).astype(np.float64)
    inside = np.isfinite(stray)
    assert (abs(executed - out) <= stray)[inside].all()
    # Where powers may overflow there is no bound, and nowhere else.
    assert inside.all() == (float(np.max(out)) ** p * 1.01 < 2.0**126)


def test_only_a_maximum_selects_without_rounding():
    windows = Windows(indices=np.array([[0, 1]]), width=2, before=1, after=1)
    assert WindowMaximum(windows, smallest=True).only_selects
    assert not WindowNorm(windows, p=2).only_selects and not WindowLogSumExp(windows).only_selects


def test_a_precision_too_low_for_the_number_of_roundings_gives_no_bound():
    windows = Windows(indices=np.arange(200)[None, :], width=200, before=1, after=1)
    x = np.ones((1, 200))
    for function in (WindowNorm(windows, p=2), WindowLogSumExp(windows)):
        stray = function.stray(x, 0 * x, function.evaluate(x), PRECISIONS["bfloat16"])
        assert np.isinf(stray).all()
        assert np.isfinite(function.stray(x, 0 * x, function.evaluate(x), PRECISIONS["float32"])).all()


def test_strays_carry_the_radius_of_the_input():
    windows = Windows(indices=np.array([[0, 1, 2], [2, 3, -1]]), width=4, before=1, after=1)
    rng = np.random.default_rng(0)
    for function in (
        WindowMaximum(windows, smallest=False),
        WindowMaximum(windows, smallest=True),
        WindowNorm(windows, p=3),
        WindowLogSumExp(windows),
    ):
        x = rng.standard_normal((200, 4))
        radius = rng.random((200, 4))
        bound = function.stray(x, radius, function.evaluate(x), PRECISIONS["float64"])
        for _ in range(20):
            moved = x + radius * rng.uniform(-1, 1, x.shape)
            assert (abs(function.evaluate(moved) - function.evaluate(x)) <= bound).all()


def _pool(operator: str, attributes: dict[str, Any], *, opset: int = 22, shape: tuple[int, ...] = (1, 1, 6)):
    return case(operator, opset, np.ones(shape, np.float32), attributes=attributes)


@pytest.mark.parametrize(
    ("operator", "attributes", "reason"),
    [
        ("MaxPool", {"kernel_shape": [2], "pads": [-1, 0]}, "negative pads"),
        ("MaxPool", {"kernel_shape": [2, 2]}, "does not fit 1 spatial axes"),
        ("MaxPool", {"kernel_shape": [9]}, "does not fit into"),
        ("MaxPool", {"kernel_shape": [1], "strides": [3], "pads": [2, 0]}, "padding only"),
        ("AveragePool", {"kernel_shape": [1], "strides": [3], "pads": [2, 0]}, "padding only"),
        ("MaxPool", {"kernel_shape": [2], "dilations": [2], "auto_pad": "SAME_UPPER"}, "read differently"),
        (
            "MaxPool",
            {"kernel_shape": [3], "strides": [2], "auto_pad": "VALID", "ceil_mode": 1},
            "read differently",
        ),
        ("LpPool", {"kernel_shape": [1], "strides": [3], "auto_pad": "SAME_LOWER"}, "would be negative"),
        ("LpPool", {"kernel_shape": [2], "p": 0}, "p must be at least 1"),
        ("LpPool", {"kernel_shape": [2], "p": -1}, "p must be at least 1"),
        ("AveragePool", {}, "kernel_shape is missing"),
    ],
)
def test_what_poolings_refuse(operator: str, attributes: dict[str, Any], reason: str):
    with pytest.raises(UnsupportedNode, match=reason):
        _pool(operator, attributes).terms()


def test_pools_need_spatial_axes():
    for operator in ("GlobalMaxPool", "GlobalAveragePool"):
        with pytest.raises(UnsupportedNode, match="spatial axes"):
            _pool(operator, {}, shape=(1, 4)).terms()


def test_the_oldest_lp_pool_with_a_fractional_p_is_refused():
    with pytest.raises(UnsupportedNode, match="as of version 1"):
        find(
            Node(
                name="n",
                operator="LpPool",
                domain="",
                since=1,
                inputs=("x",),
                outputs=("y",),
                attributes={"p": 1.5},
            )
        )


def test_windows_beyond_the_limits_are_refused_before_they_are_made():
    with pytest.raises(ResourceLimitExceeded):
        _pool("MaxPool", {"kernel_shape": [6000], "pads": [5999, 5999]}, shape=(1, 1, 6000)).terms()


def test_functions_refuse_windows_they_have_no_proof_for():
    empty = Windows(indices=np.array([[0], [-1]]), width=1, before=1, after=1)
    with pytest.raises(ValueError, match="padding alone"):
        WindowMaximum(empty, smallest=False)
    with pytest.raises(ValueError, match="p >= 2"):
        WindowNorm(empty, p=1)
