"""Proved upper bounds on the spectral norm of a real matrix that is known up to an entrywise error.

    gram = GramProof(matrix, entry_error)        # |exact - matrix| <= entry_error
    mu = (1 + 1e-9)·λmax(gram.gram)              # untrusted, from wherever
    if gram.prove(mu):  ‖exact‖₂ <= gram.norm_upper_from_mu(mu)

The matrix is scaled by a power of two first, so that neither tiny nor huge weights leave the range of
float64: mu is in the units of the scaled Gram matrix, in which its diagonal is about 1, and the bound in
those of the caller.
"""

import numpy as np
from numpy.typing import NDArray

from certifier.proof.gram import grams, magnitude_norm_upper, scaled
from certifier.proof.rounding import (
    TINY,
    Float,
    add_lower,
    add_upper,
    mul_lower,
    mul_upper,
    sqrt_lower,
    sqrt_upper,
    times_power_of_two,
)
from certifier.proof.semidefinite import Factor, proved_factor


class GramProof:
    """Proves ‖M‖₂ <= sqrt(mu) for every M with |M - matrix| <= entry_error, from one Gram matrix.

    With W = matrix, R = entry_error and rho >= ‖R‖₂: if W Wᵀ ⪯ nu²·I for nu <= sqrt(mu) - rho, then
    ‖M‖ <= ‖W‖ + ‖M - W‖ <= nu + rho <= sqrt(mu), because |M - W| <= R entrywise implies ‖M - W‖₂ <= ‖R‖₂.

    Shapes: matrix (p, q), real; entry_error None (exact), or (p, q).
    Raises: ValueError for another shape and for entries that are not finite.
    """

    gram: Float  # (m, m), m = min(p, q): of the scaled matrix; exactly symmetric, for the search to use
    gram_error: float  # spectral norm of what rounding changed in it
    distance: float  # of the computed matrix from the exact one, in spectral norm and scaled units
    exponent: int  # the matrix was multiplied by 2^-exponent
    fallback_upper: float  # an upper bound that needs no search; for a single row or column as tight as any

    def __init__(self, matrix: NDArray, entry_error: NDArray | None) -> None:
        if np.ndim(matrix) != 2:
            raise ValueError(f"expected a matrix, got shape {np.shape(matrix)}")
        form = scaled(matrix, entry_error)
        self.exponent = form.exponent
        self._is_zero = form.is_zero
        distance = mul_upper(form.loss, sqrt_upper(float(form.values.size)))
        if form.error is not None:
            distance = add_upper(distance, magnitude_norm_upper(form.error))
        self.distance = float(distance)
        stack, errors = grams(form.values[None])
        self.gram, self.gram_error = stack[0], float(errors[0])
        magnitude = add_upper(magnitude_norm_upper(form.values), distance)
        self.fallback_upper = _in_callers_units(magnitude, self.exponent)

    @property
    def needs_search(self) -> bool:
        """False where `fallback_upper` is the norm up to rounding: one row, one column, or all zeros."""
        return len(self.gram) > 1 and not self._is_zero

    def prove(self, mu: float) -> bool:
        """True only if ‖M‖₂ <= sqrt(mu), in scaled units. False says nothing."""
        return (self._is_zero and mu >= 0) or self.proved_factor(mu) is not None

    def proved_factor(self, mu: float) -> Factor | None:
        """The factor of the completed proof, whose `solve` is about (mu·I - gram)^-1 for inverse iteration.

        None if nothing was proved, and for a matrix of nothing but zeros.
        """
        if not (np.isfinite(mu) and mu > 0) or self._is_zero or len(self.gram) == 0:
            return None
        root = add_lower(sqrt_lower(mu), -self.distance)
        if root <= 0:
            return None
        shifted = -self.gram
        every = np.arange(len(shifted))
        shifted[every, every] = add_lower(mul_lower(root, root), shifted[every, every])
        return proved_factor(shifted, self.gram_error)

    def norm_upper_from_mu(self, mu: float) -> float:
        """sqrt(mu)·2^exponent <= result: what ‖M‖₂ is at most once `prove(mu)` has answered True."""
        if self._is_zero and mu >= 0:
            return 0.0
        return _in_callers_units(sqrt_upper(mu), self.exponent)

    def mu_from_norm(self, norm: float) -> float:
        """About the mu for which `norm_upper_from_mu` gives `norm`; untrusted, for starting a search."""
        return float(np.square(times_power_of_two(norm, -self.exponent)))


def fallback_norm_upper(matrix: NDArray, entry_error: NDArray | None) -> float:
    """‖M‖₂ <= result for every |M - matrix| <= entry_error: ‖·‖_F or sqrt(‖·‖_1 ‖·‖_∞), the lesser.

    Shapes: (p, q), real. Exactly 0 for exact zeros only; the vector norm for one row or column.
    Raises: ValueError for another shape and for entries that are not finite.
    """
    if np.ndim(matrix) != 2:
        raise ValueError(f"expected a matrix, got shape {np.shape(matrix)}")
    form = scaled(matrix, entry_error)
    magnitude = magnitude_norm_upper(form.values)
    if form.error is not None:
        magnitude = add_upper(magnitude, magnitude_norm_upper(form.error))
    magnitude = add_upper(magnitude, mul_upper(form.loss, sqrt_upper(float(form.values.size))))
    return _in_callers_units(magnitude, form.exponent)


def _in_callers_units(norm: Float | float, exponent: int) -> float:
    """norm·2^exponent rounded up; never 0 for a positive norm."""
    return float(np.maximum(times_power_of_two(norm, exponent), TINY)) if norm > 0 else 0.0
