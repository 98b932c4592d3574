"""Arithmetic of forms: vectors of coefficients that are at least 0, added and multiplied with outward rounding."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from certifier.proof.rounding import add_upper, mul_upper

Floats = NDArray[np.float64]


def up(x: float) -> float:
    """x after two roundings to nearest, raised above them; exactly 0 for 0."""
    return math.nextafter(math.nextafter(x, math.inf), math.inf) if x else 0.0


def times(factor: float, form: Floats) -> Floats:
    """factor · form <= result."""
    return np.asarray(mul_upper(factor, form))


def sum_of(*forms: Floats) -> Floats:
    """Σ forms <= result."""
    total = forms[0]
    for form in forms[1:]:
        total = np.asarray(add_upper(total, form))
    return total


def total_of(numbers: list[float]) -> float:
    """Σ numbers <= result."""
    total = 0.0
    for number in numbers:
        total = float(add_upper(total, number))
    return total
