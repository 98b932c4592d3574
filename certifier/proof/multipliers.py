"""Quadratic forms that bound how far the values of a network move, continued through one nonlinear step at a time.

The invariant, for a symmetric matrix N over the joint vector s of live values:

    I(N):   Δsᵀ N Δs <= ‖Δx‖²   for every two inputs, Δ the difference of two runs of the network.

It starts with N = I on the input.  A step h = φ(y) on y = C s adds what its multipliers prove to be non-negative,

    slopes in [α, β]:  (Δh - αΔy)ᵀ Λ (βΔy - Δh) >= 0,   Λ >= 0 diagonal          (entry by entry)
    ‖Δh‖ <= K ‖Δy‖:    λ (K²‖Δy‖² - ‖Δh‖²) >= 0,         λ >= 0,

so that X = [[N + CᵀAC, -CᵀB], [-BC, Λ]] satisfies I(X), with A = αβΛ and B = (α+β)/2·Λ, or A = -λK², B = 0, Λ = λI.
Values that nobody reads any more are dropped: X - pad(N') ⪰ 0 implies I(N') on what is kept.  At the outputs,
[[N, Cᵀ], [C, Q]] ⪰ 0 implies |aᵀΔf|² <= aᵀQa ‖Δx‖² for every vector a.  The proofs are in `docs/proofs/multipliers.md`.

How the multipliers and the N' were found does not matter.  C is known as a matrix M with ‖C - M‖₂ <= distance.
Arithmetic: every rounding error ends in the error norm that `is_proved_psd` has to absorb.
Reference: Fazlyab et al. (2019) LipSDP; `docs/proofs/semidefinite.md` for the primitive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from certifier.proof.gram import magnitude_norm_upper
from certifier.proof.rounding import FLOAT64, Float, add_upper, gamma_upper, mul_upper, norm_upper, sqrt_upper
from certifier.proof.semidefinite import is_proved_psd

LARGEST = 2.0**100
"""Weights, slopes and multipliers above this are refused, so that underflow stays below LOST."""
LOST = 2.0**-600


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearMap:
    """y = C s with ‖C - matrix‖₂ <= distance.  Shapes: matrix [n, d]."""

    matrix: Float
    distance: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Form:
    """Some symmetric X with ‖X - values‖₂ <= error satisfies I(X).  Shapes: values [m, m], exactly symmetric."""

    values: Float
    error: float


def through_slopes(precision: Float, read: LinearMap, *, lower: Float, upper: Float, multipliers: Float) -> Form:
    """The form over (s, h) for h_i with slopes in [lower_i, upper_i] of y_i, y = C s, given I(precision).

    Shapes: precision [d, d]; lower, upper, multipliers [n].
    Raises: ValueError for multipliers that are negative or not finite, and for other shapes.
    """
    lower, upper, multipliers = (np.broadcast_to(each, len(read.matrix)) for each in (lower, upper, multipliers))
    _check_multipliers(multipliers)
    if not (lower <= upper).all():
        raise ValueError("a slope interval must not be empty")
    with np.errstate(over="ignore"):
        curvature = (lower * upper) * multipliers
        middle = (lower / 2 + upper / 2) * multipliers
    return _joint(precision, read, curvature=curvature, middle=middle, own=multipliers)


def through_norm(precision: Float, read: LinearMap, *, constant: float, multiplier: float, size: int) -> Form:
    """The form over (s, h) for ‖Δh‖ <= constant ‖Δy‖, y = C s, h of `size` entries, given I(precision)."""
    multipliers = np.full(size, multiplier)
    _check_multipliers(multipliers)
    # A larger constant only weakens the claim, so rounding up needs no error of its own.
    curvature = np.full(len(read.matrix), -mul_upper(multiplier, mul_upper(constant, constant)))
    return _joint(precision, read, curvature=curvature, middle=None, own=multipliers)


def implies(form: Form, smaller: Float, kept: np.ndarray) -> bool:
    """True only if I(smaller) follows for the entries `kept` of the form's vector.

    Shapes: smaller [k, k], exactly symmetric; kept [k], distinct positions.
    Raises: ValueError for positions that repeat or lie outside.
    """
    if len(np.unique(kept)) != len(kept) or not ((kept >= 0) & (kept < len(form.values))).all():
        raise ValueError("kept positions must be distinct and inside the form")
    rest = form.values.copy()
    block = rest[np.ix_(kept, kept)] - smaller
    rest[np.ix_(kept, kept)] = block
    return _psd(rest, float(add_upper(form.error, _rounded(block))))


def readout_holds(precision: Float, read: LinearMap, constants: Float) -> bool:
    """True only if |aᵀΔf|² <= aᵀ constants a ‖Δx‖² for every a, f = C s + b, given I(precision).

    Shapes: precision [d, d], constants [c, c], both exactly symmetric.
    """
    joint = np.block([[precision, read.matrix.T], [read.matrix, constants]])
    return _psd(joint, read.distance)


def _check_multipliers(multipliers: Float) -> None:
    if not (np.isfinite(multipliers) & (multipliers >= 0)).all():
        raise ValueError("multipliers must be finite and not negative")


def _joint(precision: Float, read: LinearMap, *, curvature: Float, middle: Float | None, own: Float) -> Form:
    """[[N + CᵀAC, -CᵀB], [-BC, Λ]] with a bound of everything that rounding and C - M change in it.

    A and B carry at most three roundings.  |fl(Mᵀ(AM)) - MᵀAM| <= γ_(n+8) |M|ᵀ|A||M| entrywise, a symmetric
    matrix of non-negative entries with trace Σ|a_i|‖M_i‖², and positive semidefinite, so that its norm is at most that.
    """
    matrix = read.matrix
    count, size = matrix.shape
    factors = [np.abs(curvature), np.abs(own), np.abs(matrix)] + ([] if middle is None else [np.abs(middle)])
    if max(float(np.max(each, initial=0.0)) for each in factors) > LARGEST or not np.isfinite(read.distance):
        return Form(values=np.zeros((size + len(own),) * 2), error=np.inf)
    rows = norm_upper(matrix, 1) if size else np.zeros(count)
    values = np.zeros((size + len(own), size + len(own)))
    values[:size, :size] = precision
    error = float(mul_upper(LOST, float((count + 1) * (size + 1))))
    largest = float(np.max(np.abs(curvature), initial=0.0))
    if largest > 0:
        product = _mirrored(matrix.T @ (curvature[:, None] * matrix))
        values[:size, :size] += product
        trace = norm_upper(mul_upper(sqrt_upper(np.abs(curvature)), rows), None) ** 2
        rounding = mul_upper(gamma_upper(count + 8, FLOAT64), mul_upper(trace, 1.0 + 2.0**-40))
        reach = add_upper(mul_upper(2.0, magnitude_norm_upper(matrix)), read.distance)
        apart = mul_upper(mul_upper(largest, 1.0 + 2.0**-40), mul_upper(read.distance, reach))
        error = _total(error, rounding, apart, _rounded(values[:size, :size]))
    if middle is not None:
        cross = middle[:, None] * matrix
        values[size:, :size], values[:size, size:] = -cross, -cross.T
        steepest = mul_upper(float(np.max(np.abs(middle), initial=0.0)), 1.0 + 2.0**-40)
        rounding = mul_upper(gamma_upper(8, FLOAT64), norm_upper(cross, None))
        error = _total(error, rounding, mul_upper(steepest, read.distance))
    values[np.arange(size, len(values)), np.arange(size, len(values))] = own
    return Form(values=values, error=error)


def _mirrored(matrix: Float) -> Float:
    """Exactly symmetric, from the lower triangle."""
    lower = np.tril(matrix)
    return lower + np.tril(matrix, -1).T


def _rounded(result: Float) -> float:
    """The spectral norm of what one rounding of every entry of this result changed in it."""
    return float(mul_upper(FLOAT64 * (1 + 2.0**-40), norm_upper(result, None)))


def _total(*errors: Float | float) -> float:
    total = np.float64(0.0)
    for error in errors:
        total = add_upper(total, error)
    return float(total)


def _psd(matrix: Float, error: float) -> bool:
    return bool(np.isfinite(error)) and bool(is_proved_psd(matrix, error))


# ---------------------------------------------------------------------------------------------- constants of a form


def output_uppers(constants: Float) -> Float:
    """sqrt(Q_kk), rounded up.  Shapes: [c, c] -> [c]."""
    return sqrt_upper(np.diagonal(constants))


def pair_uppers(constants: Float) -> Float:
    """sqrt((e_t - e_j)ᵀ Q (e_t - e_j)), rounded up; zero on the diagonal.  Shapes: [c, c] -> [c, c].

    Four roundings of magnitudes at most |Q_tt| + |Q_jj| + 2|Q_tj|, which is what cancellation cannot hide.
    """
    diagonal = np.diagonal(constants)
    sums = diagonal[:, None] + diagonal[None, :]
    magnitude = add_upper(np.abs(sums), mul_upper(2.0, np.abs(constants)))
    squares = add_upper(np.maximum(sums - 2.0 * constants, 0.0), mul_upper(4.0 * FLOAT64, magnitude))
    pairs = sqrt_upper(np.maximum(squares, squares.T))
    np.fill_diagonal(pairs, 0.0)
    return pairs


def whole_upper_holds(constants: Float, upper: float) -> bool:
    """True only if aᵀQa <= upper ‖a‖² for every a."""
    shifted = upper * np.eye(len(constants)) - constants
    return _psd(shifted, _rounded(shifted))
