"""|cos θ - c| <= PHASE_ERROR and |sin θ - s| <= PHASE_ERROR for θ = 2π·r/L with integers r, L.

No library cosine is trusted: the angle is reduced exactly, in integers, to [0, π/4], where ten terms of the
Taylor series are summed by Horner's rule. `docs/proofs/torus.md`, section 4, counts the roundings
(below 44 u).
"""

from math import factorial

import numpy as np
from numpy.typing import NDArray

from certifier.proof.rounding import FLOAT64, Float

PHASE_ERROR = 64 * FLOAT64

_TERMS = 10
_COSINE = [(-1) ** i / factorial(2 * i) for i in range(_TERMS)]
_SINE = [(-1) ** i / factorial(2 * i + 1) for i in range(_TERMS)]


def cosine_sine(numerator: NDArray[np.int64], denominator: int) -> tuple[Float, Float]:
    """(cos, sin) of 2π·numerator/denominator, each within PHASE_ERROR; multiples of a quarter turn are exact.

    Raises: ValueError for a denominator outside 1 … 2^50, where the integer reduction could overflow.
    """
    if not 1 <= denominator <= 2**50:
        raise ValueError(f"denominator {denominator} is outside 1 … 2^50")
    quarters, rest = np.divmod(4 * np.mod(numerator, denominator), denominator)
    mirrored = 2 * rest > denominator
    small = np.where(mirrored, denominator - rest, rest)
    angle = (np.pi / 2) * (small / denominator)
    square = angle * angle
    cosine, sine = _horner(_COSINE, square), angle * _horner(_SINE, square)
    cosine, sine = np.where(mirrored, sine, cosine), np.where(mirrored, cosine, sine)
    odd = quarters % 2 == 1
    along, across = np.where(odd, sine, cosine), np.where(odd, cosine, sine)
    return (
        np.where((quarters == 1) | (quarters == 2), -along, along),
        np.where(quarters >= 2, -across, across),
    )


def _horner(coefficients: list[float], x: Float) -> Float:
    total = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total
