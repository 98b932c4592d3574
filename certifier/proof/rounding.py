"""Every `…_upper` here is >= and every `…_lower` is <= the real value, for float64 input taken as exact.

Arithmetic: IEEE-754 binary64, each of + - * / sqrt rounded to nearest, with or without gradual underflow: a
result below `TINY` in magnitude may be replaced by zero and a subnormal operand may be read as zero
(`docs/proofs/arithmetic.md`, M1). So no helper returns a positive bound below `TINY`, and subnormal
operands are first moved outward to `TINY` or to zero, which is recognised from their bits.

Not finite: an upper bound of anything infinite or NaN is +inf; a lower bound is -inf, or 0 where the
quantity is non-negative by nature. No helper returns NaN.

Raises: ValueError for a negative operand where the docstring says non-negative, for complex or
    extended-precision arrays and for integers above 2^53, because the cast to float64 would round silently.
"""

from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

FLOAT64 = 2.0**-53
FLOAT32 = 2.0**-24
FLOAT16 = 2.0**-11
BFLOAT16 = 2.0**-8

TINY = 2.0**-1022  # the smallest normal float64

Float = NDArray[np.float64]

LEAST_SQUARE, LARGEST_SQUARE = 2.0**-900, 2.0**1000
"""Sums of squares in between lose nothing that counts to underflow, and overflow in nothing that is made of them."""

_ONE = np.uint64(1)
_TWICE_LARGEST_FRACTION = np.uint64(2 * (2**52 - 1))


def exact_float64(x: ArrayLike) -> Float:
    """The same real numbers as float64; refuses what the cast would round."""
    array = np.asarray(x)
    if array.dtype.kind == "f" and array.dtype.itemsize <= 8:
        return array.astype(np.float64, copy=False)
    if array.dtype.kind in "iub" and (array.size == 0 or max(-int(array.min()), int(array.max())) <= 2**53):
        return array.astype(np.float64)
    raise ValueError(f"expected real numbers exact in float64, got dtype {array.dtype}")


def float_upper(x: Fraction) -> float:
    """The least float64 >= x, or +inf."""
    try:
        nearest = float(x)
    except OverflowError:
        return np.inf if x > 0 else -np.finfo(np.float64).max
    return nearest if Fraction(nearest) >= x else float(np.nextafter(nearest, np.inf))


def float_lower(x: Fraction) -> float:
    """The greatest float64 <= x, or -inf."""
    return -float_upper(-x)


def gamma(k: int, unit: float) -> Fraction:
    """gamma_k = k·u / (1 - k·u), exactly; refuses k·u >= 1/2."""
    if k < 0:
        raise ValueError("an error cannot have a negative number of roundings")
    product = k * Fraction(unit)
    if product >= Fraction(1, 2):
        raise ValueError(f"{k} roundings of unit roundoff {unit} exceed the error analysis (k·u >= 1/2)")
    return product / (1 - product)


@lru_cache(maxsize=4096)
def gamma_upper(k: int, unit: float) -> float:
    """gamma_k = k·u / (1 - k·u) <= result; refuses k·u >= 1/2."""
    return float_upper(gamma(k, unit))


@lru_cache(maxsize=4096)
def growth_upper(k: int) -> float:
    """1 + gamma_k <= result in float64: what k roundings may have taken, as a factor; refuses k·u >= 1/2."""
    return float_upper(1 + gamma(k, FLOAT64))


def up(x: ArrayLike) -> Float:
    """t <= up(fl(t)) for one rounded operation t: the next float64 above, TINY for what underflowed."""
    x = exact_float64(x)
    moved = np.where(np.abs(x) < TINY, TINY, np.nextafter(x, np.inf))
    return np.where(np.isnan(moved), np.inf, moved)[()]


def down(x: ArrayLike) -> Float:
    """down(fl(t)) <= t for one rounded operation t."""
    return -up(-exact_float64(x))


def raised(x: ArrayLike) -> Float:
    """x <= raised(x), and no entry is subnormal."""
    x = exact_float64(x)
    bits = np.ascontiguousarray(x).view(np.uint64)
    # Without the sign, from 1 to the largest fraction; zeros come round to the largest number.
    subnormal = (bits << _ONE) - _ONE < _TWICE_LARGEST_FRACTION
    if not subnormal.any():
        return x
    is_negative = bits.view(np.int64) < 0
    return np.where(subnormal, np.where(is_negative, 0.0, TINY), x).reshape(x.shape)


def lowered(x: ArrayLike) -> Float:
    """lowered(x) <= x, and no entry is subnormal."""
    moved = -raised(-exact_float64(x))
    return np.where(moved == 0, 0.0, moved)  # never -0, by which a quotient would change its sign


def add_upper(a: ArrayLike, b: ArrayLike) -> Float:
    """a + b <= result, of any signs; exactly 0 for two zeros."""
    a, b = raised(a), raised(b)
    with np.errstate(all="ignore"):
        return np.where((a == 0) & (b == 0), 0.0, up(a + b))[()]


def add_lower(a: ArrayLike, b: ArrayLike) -> Float:
    """result <= a + b, of any signs."""
    return -add_upper(-exact_float64(a), -exact_float64(b))


def mul_upper(a: ArrayLike, b: ArrayLike) -> Float:
    """a·b <= result for non-negative a, b; exactly 0 if a finite factor meets an exact zero."""
    a, b = raised(_non_negative(a)), raised(_non_negative(b))
    with np.errstate(all="ignore"):
        product = a * b
        zero = ((a == 0) | (b == 0)) & ~np.isnan(product)
        return np.where(zero, 0.0, up(product))[()]


def mul_lower(a: ArrayLike, b: ArrayLike) -> Float:
    """0 <= result <= a·b for non-negative a, b; 0 if a factor is not finite."""
    a, b = lowered(_non_negative(a)), lowered(_non_negative(b))
    with np.errstate(all="ignore"):
        return _finite_or_zero(np.maximum(down(a * b), 0.0), a, b)


def div_upper(a: ArrayLike, b: ArrayLike) -> Float:
    """a/b <= result for a >= 0, b >= 0; +inf for b = 0, also for 0/0."""
    a, b = raised(_non_negative(a)), lowered(_non_negative(b))
    with np.errstate(all="ignore"):
        quotient = np.where(a == 0, 0.0, up(a / b))
        return np.where(np.isfinite(a) & np.isfinite(b) & (b > 0), quotient, np.inf)[()]


def div_lower(a: ArrayLike, b: ArrayLike) -> Float:
    """0 <= result <= a/b for a >= 0, b >= 0; 0 if an operand is not finite or b = 0."""
    a, b = lowered(_non_negative(a)), raised(_non_negative(b))
    with np.errstate(all="ignore"):
        quotient = np.where(b > 0, np.maximum(down(a / b), 0.0), 0.0)
        return _finite_or_zero(np.where(np.isfinite(quotient), quotient, 0.0), a, b)


def sqrt_upper(a: ArrayLike) -> Float:
    """sqrt(a) <= result for a >= 0; exactly 0 for 0."""
    a = raised(_non_negative(a))
    return np.where(a == 0, 0.0, up(np.sqrt(a)))[()]


def sqrt_lower(a: ArrayLike) -> Float:
    """0 <= result <= sqrt(a) for a >= 0; 0 if a is not finite."""
    a = lowered(_non_negative(a))
    return _finite_or_zero(np.maximum(down(np.sqrt(a)), 0.0), a)


def sum_upper(x: ArrayLike, axis: int | tuple[int, ...] | None) -> Float:
    """Σ x <= result along the axes, for non-negative x.

    Any order of n - 1 additions gives fl >= (1-u)^(n-1)·Σ, for sums of non-negative normal numbers cannot
    underflow; and (1-u)^-(n-1) <= 1 + gamma_(n-1).
    """
    x = raised(_non_negative(x))
    with np.errstate(all="ignore"):
        total = np.sum(x, axis=axis)
    terms = x.size // max(total.size, 1)
    return mul_upper(np.where(np.isnan(total), np.inf, total), growth_upper(terms))


def row_sum_upper(matrix: ArrayLike) -> Float:
    """max_i Σ_j |a_ij| <= result (the norm ‖·‖_∞, over the last two axes); 0 for an empty matrix."""
    return np.max(sum_upper(np.abs(exact_float64(matrix)), axis=-1), axis=-1, initial=0.0)


def dot_upper(a: ArrayLike, b: ArrayLike) -> Float:
    """|Σ_i a_i b_i| <= Σ_i |a_i||b_i| <= result, along the last axis.

    Both factors are scaled by powers of two to below 1; n products and n - 1 sums then lose a factor
    (1-u)^n and at most 16·TINY per product, which is added before scaling back.
    """
    a, b = np.broadcast_arrays(exact_float64(a), exact_float64(b))
    (a, first), (b, second) = _scaled_magnitudes(a, -1), _scaled_magnitudes(b, -1)
    with np.errstate(all="ignore"):
        total = np.sum(a * b, axis=-1)
    total = np.where(np.isnan(total), np.inf, total)
    total = mul_upper(total, growth_upper(a.shape[-1]))
    lost = mul_upper(16.0 * TINY, float(a.shape[-1]))
    zero = (a == 0).all(axis=-1) | (b == 0).all(axis=-1)
    result = times_power_of_two(add_upper(total, lost), (first + second)[..., 0])
    return np.where(zero & np.isfinite(total), 0.0, np.maximum(result, TINY))[()]


def norm_upper(x: ArrayLike, axis: int | tuple[int, ...] | None) -> Float:
    """sqrt(Σ x²) <= result along the axes; exactly 0 only for exact zeros, +inf if anything is not finite.

    With y = |x|·2^-e, max y in [1/2, 1), the sum of squares is at least 1/4, so that what scaling and
    squaring lose to underflow (at most 16·TINY a term) is below u² of it: Σ y² <= fl·(1-u)^-(n+1)
    <= fl·(1 + gamma_(n+1)).  Where the squares' own sum is neither large nor small, nothing has to be scaled.
    """
    x = exact_float64(x)
    if _are_zeros(x):
        return np.max(x, axis=axis, initial=0.0)
    with np.errstate(all="ignore"):
        squares = np.sum(np.square(x), axis=axis)
    if squares.size and squares.min() >= LEAST_SQUARE and squares.max() <= LARGEST_SQUARE:
        enlarged = np.nextafter(squares * growth_upper(x.size // squares.size + 2), np.inf)
        return np.nextafter(np.sqrt(enlarged), np.inf)
    return _scaled_norm_upper(x, axis)


def _scaled_norm_upper(x: Float, axis: int | tuple[int, ...] | None) -> Float:
    y, exponent = _scaled_magnitudes(x, axis)
    with np.errstate(all="ignore"):
        total = np.sum(np.square(y), axis=axis)
    total = np.where(np.isnan(total), np.inf, total)
    terms = y.size // max(total.size, 1)
    root = sqrt_upper(mul_upper(total, growth_upper(terms + 2)))
    result = times_power_of_two(root, exponent.reshape(total.shape))
    return np.where(total == 0, 0.0, np.maximum(result, TINY))[()]


def norm_lower(x: ArrayLike, axis: int | tuple[int, ...] | None) -> Float:
    """0 <= result <= sqrt(Σ x²) along the axes; 0 if anything is not finite. Scaled as `norm_upper`."""
    x = np.abs(lowered(np.abs(exact_float64(x))))
    y, exponent = _scaled_magnitudes(x, axis)
    with np.errstate(all="ignore"):
        total = np.sum(np.square(y), axis=axis)
    terms = y.size // max(total.size, 1)
    finite = np.isfinite(total)
    root = sqrt_lower(div_lower(np.where(finite, total, 0.0), growth_upper(terms + 3)))
    result = np.minimum(times_power_of_two(root, exponent.reshape(total.shape)), np.finfo(np.float64).max)
    return np.where(finite & (result > TINY), result, 0.0)[()]


def times_power_of_two(x: ArrayLike, exponent: ArrayLike) -> Float:
    """x·2^exponent, exact but for underflow or overflow. Lost to underflow: at most 4·TINY for
    exponent <= 0; nothing for exponent >= 0 if no x is subnormal.

    Large exponents in four factors, because 2^exponent itself need not be representable.
    """
    exponent = np.clip(np.asarray(exponent, dtype=np.int64), -4000, 4000)
    result = exact_float64(x)
    parts = [exponent]
    if np.any(np.abs(exponent) > 1000):
        quarter = exponent // 4
        parts = [quarter, quarter, quarter, exponent - 3 * quarter]
    with np.errstate(all="ignore"):
        for part in parts:
            result = result * np.ldexp(1.0, part)
    return result[()]


def _scaled_magnitudes(x: Float, axis: int | tuple[int, ...] | None) -> tuple[Float, NDArray[np.int64]]:
    """(y, e): y = |x|·2^-e but for 4·TINY, |x| < TINY taken as TINY; max y along the axes in [1/2, 1)."""
    magnitude = raised(np.abs(x))
    largest = np.max(magnitude, axis=axis, keepdims=True, initial=0.0)
    exponent = np.frexp(np.where(np.isfinite(largest), largest, 1.0))[1].astype(np.int64)
    return times_power_of_two(magnitude, -exponent), exponent


def _are_zeros(x: Float) -> bool:
    """Whether every entry is +0, from the bits, since comparisons may read subnormal numbers as zero."""
    return not np.ascontiguousarray(x).view(np.int64).any()


def _non_negative(x: ArrayLike) -> Float:
    x = exact_float64(x)
    if np.any(x < 0):
        raise ValueError("expected non-negative numbers")
    return np.abs(x)  # no -0


def _finite_or_zero(result: Float, *operands: Float) -> Float:
    for operand in operands:
        result = np.where(np.isfinite(operand), result, 0.0)
    return result[()]
