"""Proposes a tight mu for one matrix and has it proved: Krylov iteration, then the same with the proof's factor.

Whatever the kept vector is, the answer is a proved bound: a bad start only makes the first proposals fail.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certifier.errors import NotProved
from certifier.proof.dense import GramProof
from certifier.proof.semidefinite import Factor
from certifier.search.krylov import MAXIMAL_STEPS, largest_eigenvalue

Floats = NDArray[np.float64]

TOLERANCE = 1e-4
FIRST_MARGINS = (1e-3, 1e-2, 0.05, 0.3, 1.0, 4.0)
"""How far above the estimate the first proof is tried; each failure tries the next."""
STEPS_AFTER_FAILURE = 8
INVERSE_STEPS = 8
SETTLED = 1e-9
"""Of 1 / (mu - value), and so of the distance between mu and the largest eigenvalue."""
CLOSE_MARGIN = 1e-9
ROUNDS = 4
"""How often a proof's factor is used to sharpen the estimate, where eigenvalues lie close together."""
UNIT = 2.0**-53
NOISE = 1e-3
"""Share of a random direction mixed into a kept vector, so that no start is blind to the largest eigenvector."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A proved norm with the search's evidence; `vector` is kept for the next search."""

    upper: float
    estimate: float | None
    iterations: int
    warm: bool
    vector: Floats


def prove_matrix_norm(proof: GramProof, kept: Floats | None, *, seed: int) -> Found:
    """The smallest norm bound that search and proof reach together.

    Raises: NotProved if not even the bound without search is finite.
    """
    order = len(proof.gram)
    if not proof.needs_search:
        return Found(
            upper=demand_finite(proof.fallback_upper),
            estimate=None,
            iterations=0,
            warm=False,
            vector=np.zeros(0),
        )
    start, warm = starting_vector(kept, order, seed=seed)
    estimate = largest_eigenvalue(proof.gram.dot, start, tolerance=TOLERANCE, steps=MAXIMAL_STEPS)
    value, vector, iterations = estimate.value, estimate.vector, estimate.iterations
    mu, factor = 0.0, None
    for margin in FIRST_MARGINS:
        mu = widened(value, proof.distance) * (1.0 + margin)
        factor = proof.proved_factor(mu)
        if factor is not None:
            break
        # Products cost far less than a proof, so a failure asks for a better estimate before a wider margin.
        again, _ = starting_vector(vector, order, seed=seed)
        estimate = largest_eigenvalue(proof.gram.dot, again, tolerance=0.0, steps=STEPS_AFTER_FAILURE)
        value, vector = max(value, estimate.value), estimate.vector
        iterations += estimate.iterations
    upper = proof.fallback_upper if factor is None else min(proof.norm_upper_from_mu(mu), proof.fallback_upper)
    target = max(CLOSE_MARGIN, 4.0 * order * (order + 1) * UNIT)
    for _ in range(ROUNDS):
        if factor is None or mu <= widened(value, proof.distance) * (1.0 + 2.0 * target):
            break
        value, vector, steps = _inverse_iteration(proof, factor, value, vector)
        iterations += steps
        factor, closer = _closest_proof(proof, value, mu, target)
        if factor is not None:
            mu = closer
            upper = min(upper, proof.norm_upper_from_mu(mu))
    below = proof.norm_upper_from_mu(max(value, 0.0)) * (1.0 - 1e-12)
    return Found(upper=demand_finite(upper), estimate=below, iterations=iterations, warm=warm, vector=vector)


def widened(value: float, distance: float) -> float:
    """The least mu that can be proved for matrices that are only known to within `distance` in norm."""
    return (np.sqrt(max(value, 0.0)) + distance) ** 2


def _closest_proof(proof: GramProof, value: float, mu: float, target: float) -> tuple[Factor | None, float]:
    """The first of a few candidates between the estimate and the proved mu, closest first, that is proved."""
    base = widened(value, proof.distance)
    halfway = np.sqrt(max(mu / base - 1.0, target) * target)
    for margin in (target, 10.0 * target, halfway, (mu / base - 1.0) / 4.0):
        closer = base * (1.0 + margin)
        if closer < mu and (factor := proof.proved_factor(closer)) is not None:
            return factor, closer
    return None, mu


def _inverse_iteration(proof: GramProof, factor: Factor, value: float, vector: Floats) -> tuple[float, Floats, int]:
    """Sharpen an eigenpair in the Krylov space of (mu I - G)^-1, whose factor the proof just made."""
    inverse = largest_eigenvalue(factor.solve, vector, tolerance=SETTLED, steps=INVERSE_STEPS)
    quotient = float(inverse.vector @ (proof.gram @ inverse.vector))
    return max(value, quotient), inverse.vector, inverse.iterations


def starting_vector(kept: Floats | None, order: int, *, seed: int) -> tuple[Floats, bool]:
    """A unit start: the kept vector with a little noise if it is usable, else a random one."""
    random = np.random.default_rng(seed).standard_normal(order)
    random /= np.linalg.norm(random)
    if kept is None or kept.shape != (order,) or not np.isfinite(kept).all():
        return random, False
    length = float(np.linalg.norm(kept))
    if not 1e-100 < length < 1e100:
        return random, False
    return kept / length + NOISE * random, True


def demand_finite(upper: float) -> float:
    """`upper` itself if it is finite.

    Raises: NotProved.
    """
    if not np.isfinite(upper):
        raise NotProved("no finite norm could be proved for a layer")
    return float(upper)
