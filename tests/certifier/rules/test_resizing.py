"""Resize and Upsample: every mode against the engine, coordinates whose rounding decides refused."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from certifier.errors import UnsupportedNode
from certifier.rules.resizing import Stretch
from certifier.terms import PRECISIONS, Affine, Blurred
from tests.certifier.rules.oracle import Case, case, check

COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric")
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
SCALES = ((1, 1, 2, 2), (1, 1, 1.5, 3), (1, 1, 0.5, 0.6), (1, 1, 2.7, 1.3), (1, 1, 3, 4))
SIZES = ((1, 2, 7, 9), (1, 2, 3, 3), (1, 2, 1, 1), (1, 2, 4, 10), (1, 2, 13, 17))
RULES_OF_ROUNDING = ("no whole size", "where the engine's rounding decides")


def _normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _resize(
    opset: int,
    x: np.ndarray,
    *,
    scales: tuple[float, ...] = (),
    sizes: tuple[int, ...] = (),
    attributes: dict[str, Any] | None = None,
) -> Case:
    # Version 11 requires its inputs to be given, if only as empty tensors.
    nothing = np.empty(0, np.float32) if opset < 13 else None
    if scales:
        return case("Resize", opset, x, nothing, np.array(scales, np.float32), attributes=attributes)
    return case("Resize", opset, x, nothing, nothing, np.array(sizes, np.int64), attributes=attributes)


def _check_or_refuse(given: Case, *, by_reference: bool) -> bool:
    try:
        check(given, by_reference=by_reference)
    except UnsupportedNode as error:
        assert any(reason in str(error) for reason in RULES_OF_ROUNDING), error
        return False
    return True


@pytest.mark.parametrize("opset", [11, 13, 18, 19])
@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("mode", ["linear", *NEAREST])
def test_resize_does_what_the_engine_does(opset: int, coordinates: str, mode: str):
    x = _normal(opset, 1, 2, 4, 5)
    attributes: dict[str, Any] = {"coordinate_transformation_mode": coordinates, "mode": "linear"}
    if mode != "linear":
        attributes.update(mode="nearest", nearest_mode=mode)
    if coordinates == "half_pixel_symmetric" and opset < 19:
        with pytest.raises(UnsupportedNode, match="not supported"):
            _resize(opset, x, scales=SCALES[0], attributes=attributes).terms()
        return
    passed = [
        _check_or_refuse(_resize(opset, x, scales=scales, attributes=attributes), by_reference=False)
        for scales in SCALES
    ] + [_check_or_refuse(_resize(opset, x, sizes=sizes, attributes=attributes), by_reference=False) for sizes in SIZES]
    assert passed[0] and passed[4], "whole scales are never refused"
    assert sum(passed) >= 5


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_resize_does_what_the_reference_does(coordinates: str, mode: str):
    x = _normal(1, 1, 2, 4, 5)
    attributes = {"coordinate_transformation_mode": coordinates, "mode": mode}
    passed = 0
    for scales in SCALES:
        passed += _check_or_refuse(_resize(19, x, scales=scales, attributes=attributes), by_reference=True)
    for sizes in SIZES:
        passed += _check_or_refuse(_resize(19, x, sizes=sizes, attributes=attributes), by_reference=True)
    assert passed >= 7


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scales", [(1.0, 1.0, 2.0, 2.0), (1.0, 1.0, 1.5, 3.0), (1.0, 1.0, 2.7, 1.3)])
def test_the_older_operators_count_from_the_corner(mode: str, scales: tuple[float, ...]):
    x = _normal(2, 1, 2, 4, 6)
    check(case("Upsample", 7, x, attributes={"scales": list(scales), "mode": mode}), by_reference=False)
    check(case("Upsample", 9, x, np.array(scales, np.float32), attributes={"mode": mode}), by_reference=False)
    check(case("Resize", 10, x, np.array(scales, np.float32), attributes={"mode": mode}), by_reference=False)


def test_halving_by_the_oldest_resize_is_exact_and_other_shrinking_is_refused():
    x = _normal(3, 1, 2, 4, 6)
    check(case("Resize", 10, x, np.array([1, 1, 0.5, 0.5], np.float32)), by_reference=False)
    with pytest.raises(UnsupportedNode, match="before version 11"):
        case("Resize", 10, x, np.array([1, 1, 0.75, 0.75], np.float32)).terms()
    with pytest.raises(UnsupportedNode, match="below 1"):
        case("Upsample", 9, x, np.array([1, 1, 0.5, 0.5], np.float32)).terms()


def test_axes_and_one_and_three_spatial_axes():
    check(
        _resize(19, _normal(4, 1, 2, 4, 5), scales=(2, 3), attributes={"axes": [3, -2], "mode": "linear"}),
        by_reference=False,
    )
    check(
        _resize(19, _normal(4, 1, 2, 3, 4, 5), scales=(1, 1, 2, 1.5, 3), attributes={"mode": "linear"}),
        by_reference=False,
    )
    check(_resize(19, _normal(4, 1, 2, 3), scales=(1, 1, 2.5)), by_reference=False)


def test_nearest_only_moves_numbers_and_repeats_count():
    (term,) = _resize(19, _normal(5, 1, 1, 3, 3), scales=(1, 1, 2, 3)).terms()
    assert isinstance(term, Affine) and term.is_exact
    gram = term.operators[0].adjoint(term.operators[0].forward(np.eye(9)))
    assert (gram == 6 * np.eye(9)).all()


def test_linear_weights_sum_to_1_and_powers_of_two_are_exact():
    (exact,) = _resize(19, _normal(6, 1, 1, 3, 3), scales=(1, 1, 2, 4), attributes={"mode": "linear"}).terms()
    assert isinstance(exact, Affine) and exact.operators[0].weight_error == 0.0
    assert (exact.operators[0].forward(np.ones((1, 9))) == 1.0).all()
    (rounded,) = _resize(19, _normal(6, 1, 1, 3, 3), sizes=(1, 1, 7, 5), attributes={"mode": "linear"}).terms()
    assert isinstance(rounded, Affine) and 0 < rounded.operators[0].weight_error < 1e-14
    assert np.allclose(rounded.operators[0].forward(np.ones((1, 9))), 1.0, rtol=1e-15)


def test_the_stray_covers_coordinates_in_single_precision_for_every_type_of_data():
    """An engine that computes in float64 with float32 coordinates: the stray must not shrink to float64's roundoff."""
    x = 1000 * _normal(7, 1, 1, 1, 61)
    given = _resize(
        19, x, sizes=(1, 1, 1, 139), attributes={"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    )
    (term,) = given.terms()
    assert isinstance(term, Blurred)
    flat = x.reshape(1, -1).astype(np.float64)
    out = term.evaluate(flat)
    scale = np.float32(139) / np.float32(61)
    coordinates = (np.arange(139, dtype=np.float32) + np.float32(0.5)) / scale - np.float32(0.5)
    executed = np.interp(coordinates.astype(np.float64), np.arange(61), flat[0])[None, :]
    stray = term.stray([flat], [np.zeros_like(flat)], out, PRECISIONS["float64"])
    assert (abs(executed - out) <= stray).all()
    assert abs(executed - out).max() > 1e-6 and stray.max() < 10
    own = term.own_rounding([flat], [np.zeros_like(flat)], out, PRECISIONS["float64"])
    assert (own == stray).all(), "what the execution bound adds along a run of affine maps must hold it too"
    radius = np.full_like(flat, 0.5)
    assert (term.stray([flat], [radius], out, PRECISIONS["float64"]) >= stray + 0.5 * (1 - 1e-12)).all()


def test_the_exact_coordinate_and_whether_single_precision_hits_it():
    stretch = Stretch(size=5, resized=9, scale=Fraction(9, 5))
    assert stretch.coordinate(4, "half_pixel") == 2
    assert not stretch.is_exact_at(4, "half_pixel")
    assert stretch.coordinate(8, "align_corners") == 4 and stretch.is_exact_at(8, "align_corners")
    double = Stretch(size=5, resized=10, scale=Fraction(2))
    assert all(double.is_exact_at(place, "half_pixel") for place in range(10))
    for place in range(9):
        for mode in ("half_pixel", "asymmetric", "align_corners"):
            one = np.float32
            quotient = one(stretch.scale) if mode != "align_corners" else one(1)
            executed = {
                "half_pixel": (one(place) + one(0.5)) / quotient - one(0.5),
                "asymmetric": one(place) / quotient,
                "align_corners": one(place) * one(4) / one(8),
            }[mode]
            off = abs(Fraction(float(executed)) - stretch.coordinate(place, mode))
            assert off <= stretch.slack
            assert off == 0 or not stretch.is_exact_at(place, mode)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"mode": "cubic"}, "'cubic' is not supported"),
        ({"mode": "linear", "antialias": 1}, "antialias"),
        ({"mode": "linear", "exclude_outside": 1}, "exclude_outside"),
        ({"coordinate_transformation_mode": "tf_crop_and_resize"}, "tf_crop_and_resize"),
        ({"nearest_mode": "simple"}, "nearest_mode"),
        ({"keep_aspect_ratio_policy": "not_larger"}, "stretch"),
        ({"axes": [2, 2, 1, 0]}, "twice"),
    ],
)
def test_what_resize_refuses(attributes: dict[str, Any], reason: str):
    with pytest.raises(UnsupportedNode, match=reason):
        _resize(19, _normal(8, 1, 2, 4, 4), sizes=(1, 2, 8, 8), attributes=attributes).terms()


def test_sizes_and_scales_must_be_constant_and_make_sense():
    x = _normal(9, 1, 2, 4, 4)
    for scales in (
        (1.0, 1.0, -2.0, 2.0),
        (1.0, 1.0, 0.0, 2.0),
        (1.0, 2.0),
        (1.0, 1.0, np.inf, 1.0),
        (1.0, 1.0, 0.1, 1.0),
    ):
        with pytest.raises(UnsupportedNode):
            _resize(19, x, scales=scales).terms()
    with pytest.raises(UnsupportedNode, match="not positive"):
        _resize(19, x, sizes=(1, 2, 0, 4)).terms()
    both = case("Resize", 19, x, None, np.ones(4, np.float32), np.array([1, 2, 4, 4]))
    with pytest.raises(UnsupportedNode, match="either scales or sizes"):
        both.terms()
    live = replace(_resize(19, x, sizes=(1, 2, 8, 8)), live=("x", "c3"))
    with pytest.raises(UnsupportedNode, match="must be constant"):
        live.terms()


def test_a_floor_that_single_precision_computes_differently_is_refused():
    """float32(0.7) times 10 is 6.9999998, which single precision rounds to 7."""
    with pytest.raises(UnsupportedNode, match="too close to an integer"):
        _resize(19, _normal(10, 1, 1, 10, 4), scales=(1, 1, 0.7, 1)).terms()
