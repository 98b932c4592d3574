"""Outward rounding, checked in exact rational arithmetic."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from certifier.proof import rounding as r

NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=64)
MAGNITUDES = st.floats(min_value=0.0, allow_nan=False, allow_infinity=False, width=64)
VECTORS = st.lists(MAGNITUDES, min_size=1, max_size=12)


def exceeds(bound: r.Float, value: Fraction) -> bool:
    return bool(bound == np.inf) or Fraction(float(bound)) >= value


@given(NUMBERS, NUMBERS)
def test_addition_encloses(a: float, b: float) -> None:
    exact = Fraction(a) + Fraction(b)
    assert exceeds(r.add_upper(a, b), exact)
    assert exceeds(-r.add_lower(a, b), -exact)


@given(MAGNITUDES, MAGNITUDES)
def test_products_and_quotients_enclose(a: float, b: float) -> None:
    exact = Fraction(a) * Fraction(b)
    assert exceeds(r.mul_upper(a, b), exact)
    assert 0 <= r.mul_lower(a, b) < np.inf and Fraction(float(r.mul_lower(a, b))) <= exact
    if b > 0:
        quotient = Fraction(a) / Fraction(b)
        assert exceeds(r.div_upper(a, b), quotient)
        assert Fraction(float(r.div_lower(a, b))) <= quotient


@given(MAGNITUDES)
def test_roots_enclose(a: float) -> None:
    assert Fraction(float(r.sqrt_upper(a))) ** 2 >= Fraction(a)
    assert Fraction(float(r.sqrt_lower(a))) ** 2 <= Fraction(a)


@given(VECTORS)
def test_sums_and_norms_enclose(x: list[float]) -> None:
    exact = sum(map(Fraction, x), Fraction(0))
    square = sum((Fraction(v) ** 2 for v in x), Fraction(0))
    assert exceeds(r.sum_upper(x, None), exact)
    assert r.norm_upper(x, None) == np.inf or Fraction(float(r.norm_upper(x, None))) ** 2 >= square
    assert Fraction(float(r.norm_lower(x, None))) ** 2 <= square
    products = (Fraction(a) * Fraction(b) for a, b in zip(x, x[::-1], strict=True))
    assert exceeds(r.dot_upper(x, x[::-1]), sum(products, Fraction(0)))


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=30), st.integers(-1000, 1000))
def test_norms_are_tight_at_every_scale(x: list[float], exponent: int) -> None:
    x = [v if abs(v) > 1e-6 else 1.0 for v in x]
    scaled = np.ldexp(np.array(x), exponent)
    if np.max(np.abs(scaled)) < 2.0**-900:
        return
    upper, lower = r.norm_upper(scaled, None), r.norm_lower(scaled, None)
    assert 0 < upper <= lower * (1 + 1e-13)


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=200), st.integers(-1000, 1000))
def test_norms_are_the_same_numbers_whether_they_are_scaled_or_not(x: list[float], exponent: int) -> None:
    rows = np.ldexp(np.array([x, x[::-1]]), exponent)
    scaled = r._scaled_norm_upper(rows, 1)
    assert r.norm_upper(rows, 1).tolist() == scaled.tolist()
    assert r.norm_upper(rows[0], None) == r._scaled_norm_upper(rows[0], None)


def test_squares_that_overflow_or_underflow_are_scaled_first() -> None:
    for exponent in (*range(-1074, -440), *range(490, 1023)):
        x = np.full((1, 3), 2.0**exponent)
        upper = Fraction(float(r.norm_upper(x, 1)[0]))
        assert upper**2 >= 3 * Fraction(2.0**exponent) ** 2
        assert exponent < -1020 or upper <= 2 * Fraction(2.0**exponent)


def test_one_row_of_zeros_among_others_has_norm_zero() -> None:
    assert r.norm_upper([[0.0, 0.0], [3.0, 4.0]], 1).tolist()[0] == 0.0
    assert r.norm_upper(np.zeros((2, 3)), 1).tolist() == [0.0, 0.0]
    assert r.norm_upper(np.zeros((2, 3, 4)), (1, 2)).shape == (2,)
    assert r.norm_upper(np.zeros((2, 0)), 1).tolist() == [0.0, 0.0]
    assert r.norm_upper(np.zeros((0, 2)), 1).shape == (0,)


def test_subnormal_numbers_are_recognised_by_their_bits() -> None:
    """The least and the largest of them are moved outward, the least normal number and zeros are not."""
    largest = np.nextafter(r.TINY, 0.0)
    given_ = np.array([5e-324, largest, r.TINY, 0.0, -5e-324, -largest, -r.TINY, -0.0, np.inf, -np.inf, 1.0])
    expected = [r.TINY, r.TINY, r.TINY, 0.0, 0.0, 0.0, -r.TINY, 0.0, np.inf, -np.inf, 1.0]
    assert r.raised(given_).tolist() == expected
    assert [float(r.raised(number)) for number in given_] == expected
    assert r.raised(5e-324).shape == () and r.raised(given_.reshape(1, -1, 1)).shape == (1, 11, 1)
    assert np.isnan(r.raised(np.nan))


@pytest.mark.parametrize("value", [5e-324, 1e-320, 1e-310, 1e-200, 1e-163])
def test_tiny_numbers_never_have_norm_zero(value: float) -> None:
    assert r.norm_upper([value, 0.0], None) >= value
    assert r.norm_upper([[value, 0.0], [0.0, 0.0]], 1)[0] >= value
    assert r.mul_upper(value, value) > 0
    assert r.sum_upper([value], None) >= value
    assert r.dot_upper([value], [value]) > 0


def test_exact_zeros_stay_zero() -> None:
    assert r.norm_upper([0.0, -0.0], None) == r.sum_upper([0.0, 0.0], None) == r.dot_upper([0.0], [5.0]) == 0
    assert r.add_upper(0.0, 0.0) == r.mul_upper(0.0, 3.0) == r.sqrt_upper(0.0) == r.div_upper(0.0, 2.0) == 0


def test_upper_bounds_are_infinite_and_lower_ones_zero_where_the_input_is_not_finite() -> None:
    for bad in (np.nan, np.inf):
        for upper in (
            r.add_upper(bad, 1.0),
            r.add_upper(bad, -np.inf),
            r.mul_upper(bad, 0.0),
            r.div_upper(bad, 1.0),
            r.div_upper(1.0, bad),
            r.sqrt_upper(bad),
            r.sum_upper([bad, 1.0], None),
            r.norm_upper([bad, 1.0], None),
            r.dot_upper([bad], [0.0]),
            r.row_sum_upper([[bad, 1.0]]),
            r.up(bad),
        ):
            assert upper == np.inf
        assert r.add_lower(-bad, 1.0) == -np.inf
        assert r.norm_lower([bad, 1.0], None) == r.mul_lower(bad, 1.0) == r.sqrt_lower(bad) == 0
        assert r.div_lower(bad, 1.0) == r.div_lower(1.0, bad) == 0
    assert r.div_upper(0.0, 0.0) == np.inf


def test_negative_operands_are_refused() -> None:
    for call in (r.mul_upper, r.mul_lower, r.div_upper, r.div_lower):
        with pytest.raises(ValueError, match="non-negative"):
            call(-1.0, 2.0)
    for call in (r.sqrt_upper, r.sqrt_lower):
        with pytest.raises(ValueError, match="non-negative"):
            call(-1.0)
    with pytest.raises(ValueError, match="non-negative"):
        r.sum_upper([-1.0], None)


def test_silently_rounding_casts_are_refused() -> None:
    for bad in (np.longdouble(1) / 3, 2**53 + 1, np.array([1j])):
        with pytest.raises(ValueError, match="exact in float64"):
            r.exact_float64(bad)


@given(st.integers(0, 10**12), st.sampled_from([r.FLOAT16, r.BFLOAT16, r.FLOAT32, r.FLOAT64]))
def test_gamma_is_rounded_up(k: int, unit: float) -> None:
    if k * Fraction(unit) >= Fraction(1, 2):
        with pytest.raises(ValueError, match="k·u"):
            r.gamma_upper(k, unit)
        return
    exact = k * Fraction(unit) / (1 - k * Fraction(unit))
    bound = Fraction(r.gamma_upper(k, unit))
    assert exact <= bound <= exact * (1 + Fraction(1, 2**51))


def test_row_sums_and_axes() -> None:
    matrix = np.random.default_rng(0).standard_normal((3, 5, 7))
    assert (r.row_sum_upper(matrix) >= np.abs(matrix).sum(-1).max(-1)).all()
    assert r.norm_upper(matrix, (1, 2)).shape == (3,)
    with mpmath.workdps(60):
        exact = mpmath.sqrt(mpmath.fsum(mpmath.mpf(float(v)) ** 2 for v in matrix[0].ravel()))
        assert mpmath.mpf(float(r.norm_lower(matrix, (1, 2))[0])) <= exact
        assert exact <= mpmath.mpf(float(r.norm_upper(matrix, (1, 2))[0])) <= exact * (1 + mpmath.mpf(2) ** -45)


def test_bounds_survive_flush_to_zero() -> None:
    torch = pytest.importorskip("torch")
    if not torch.set_flush_denormal(True):
        pytest.skip("the processor cannot flush to zero")
    try:
        tiny = np.array([1e-310, 1e-312])
        assert r.norm_upper(tiny, None) == r.TINY * 1.0 or r.norm_upper(tiny, None) > r.TINY
        assert r.mul_upper(1e-310, 1e300) >= r.TINY
        assert r.add_upper(2.0**-1022, -(2.0**-1022) * 1.5) >= 0
        assert r.norm_lower(tiny, None) == 0
    finally:
        torch.set_flush_denormal(False)
