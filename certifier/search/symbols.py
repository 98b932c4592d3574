"""Proposes a tight mu for all frequencies of a convolution and has it proved.

Search: batched power iteration over all Gram matrices tells which frequencies are large; their largest eigenvalues
are then computed closely.  Proof: one semidefiniteness check per frequency; those that fail are looked at again and
raise mu.  Kept state: the largest frequencies with their vectors, from which a warm search starts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from certifier.proof.torus import TorusProof
from certifier.search.matrices import UNIT, Found, demand_finite, widened

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]
Pairs = NDArray[np.int64]

KEPT = 8
"""Frequencies remembered between searches."""
COLD_STEPS = 40
WARM_STEPS = 6
SURVEY_STEPS = 4
"""Steps on every pair; after them only the share of them with the largest quotients goes on."""
SURVIVORS = 8
"""One in so many goes on; a large one that is missed fails its proof and is looked at then."""
TOLERANCE = 1e-3
CLOSE_MARGIN = 1e-9
ROUNDS = 8


def prove_kernel_norm(proof: TorusProof, kept: Floats | None, *, seed: int) -> Found:
    """The smallest norm bound that search and proof reach together.

    Raises: NotProved if not even the bound without search is finite.
    """
    # Many small complex factorisations: BLAS threads would only wait for one another.
    with threadpool_limits(1):
        return _prove(proof, kept, seed)


def _prove(proof: TorusProof, kept: Floats | None, seed: int) -> Found:
    remembered = _unpack(kept, proof)
    if remembered is not None:
        pairs, vectors = remembered
        values, vectors, iterations = _iterate_some(proof, pairs, vectors)
    else:
        pairs, values, vectors, iterations = _iterate_all(proof, seed)
    closest = _close(proof, pairs)
    estimate = max(float(values.max(initial=0.0)), closest)
    distance = float(np.max(proof.distance))
    # What a proof of this order loses to rounding has to fit in, or every pair fails and is looked at for nothing.
    margin = max(CLOSE_MARGIN, 16.0 * proof.order * (proof.order + 1) * UNIT)
    mu, failing, found = widened(estimate, distance) * (1.0 + margin), None, closest
    proved = False
    for attempt in range(ROUNDS):
        failing = proof.prove(mu, failing)
        if len(failing) == 0:
            proved = True
            break
        found = max(found, _close(proof, failing))
        mu = max(widened(found, distance), mu) * (1.0 + margin * 10.0**attempt)
    upper = min(proof.norm_upper_from_mu(mu), proof.fallback_upper) if proved else proof.fallback_upper
    below = proof.norm_upper_from_mu(max(found, estimate)) * (1.0 - 1e-12)
    return Found(
        upper=demand_finite(upper),
        estimate=below,
        iterations=iterations,
        warm=remembered is not None,
        vector=_pack(pairs, vectors),
    )


def _close(proof: TorusProof, pairs: Pairs) -> float:
    """The largest eigenvalue over some pairs, by LAPACK; untrusted like everything here."""
    best = 0.0
    for _, stack, _ in proof.grams(pairs):
        for matrix in stack:
            best = max(best, float(np.linalg.eigvalsh(matrix)[-1]))
    return best


def _iterate_all(proof: TorusProof, seed: int) -> tuple[Pairs, Floats, Complexes, int]:
    """Batched power iteration over every pair; returns the largest few."""
    generator = np.random.default_rng(seed)
    pairs, values, vectors = [], [], []
    iterations = 0
    for part, stack, _ in proof.grams(None):
        start = generator.standard_normal((len(stack), proof.order)) + 1j * generator.standard_normal(
            (len(stack), proof.order)
        )
        found, ends, steps = _power(stack, start, COLD_STEPS)
        iterations = max(iterations, steps)
        largest = np.argsort(found)[-KEPT:]
        pairs.append(part[largest])
        values.append(found[largest])
        vectors.append(ends[largest])
    every, each, ends = np.concatenate(pairs), np.concatenate(values), np.concatenate(vectors)
    largest = np.argsort(each)[-KEPT:]
    return every[largest], each[largest], ends[largest], iterations


def _iterate_some(proof: TorusProof, pairs: Pairs, vectors: Complexes) -> tuple[Floats, Complexes, int]:
    values, ends, iterations = np.zeros(len(pairs)), vectors.copy(), 0
    for part, stack, _ in proof.grams(pairs):
        places = [int(np.flatnonzero((pairs == pair).all(axis=1))[0]) for pair in part]
        found, after, steps = _power(stack, vectors[places], WARM_STEPS)
        values[places], ends[places] = found, after
        iterations = max(iterations, steps)
    return values, ends, iterations


def _power(stack: NDArray, vectors: Complexes, steps: int) -> tuple[Floats, Complexes, int]:
    """Power iteration on a stack of Hermitian matrices until the largest quotient settles."""
    current = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-300)
    values, best = np.zeros(len(stack)), 0.0
    active, matrices = np.arange(len(stack)), stack
    for step in range(1, steps + 1):
        before = current[active]
        product = np.matmul(matrices, before[:, :, None])[:, :, 0]
        values[active] = np.real(np.sum(np.conj(before) * product, axis=1))
        current[active] = product / np.maximum(np.linalg.norm(product, axis=1), 1e-300)[:, None]
        largest = float(values.max(initial=0.0))
        if step > 1 and largest - best <= TOLERANCE * largest:
            return values, current, step
        best = largest
        if step == SURVEY_STEPS and len(stack) > SURVIVORS * KEPT:
            active = np.sort(np.argsort(values)[-(len(stack) // SURVIVORS) :])
            matrices = stack[active]
    return values, current, steps


def _pack(pairs: Pairs, vectors: Complexes) -> Floats:
    """The remembered pairs and vectors as one flat real array."""
    return np.concatenate([pairs.astype(np.float64), vectors.real, vectors.imag], axis=1).reshape(-1)


def _unpack(kept: Floats | None, proof: TorusProof) -> tuple[Pairs, Complexes] | None:
    """What `_pack` wrote, or None for anything else."""
    width = 2 + 2 * proof.order
    if kept is None or kept.ndim != 1 or kept.size == 0 or kept.size % width or kept.size > KEPT * width:
        return None
    table = kept.reshape(-1, width)
    if (
        not np.isfinite(table).all()
        or (np.abs(table[:, 2:]) > 1e6).any()
        or (table[:, :2] != np.floor(table[:, :2])).any()
    ):
        return None
    if (table[:, 0] < 0).any() or (table[:, 0] >= proof.groups).any():
        return None
    if (table[:, 1] < 0).any() or (table[:, 1] >= proof.frequencies).any():
        return None
    pairs = np.unique(table[:, :2].astype(np.int64), axis=0, return_index=True)
    rows = table[pairs[1]]
    vectors = rows[:, 2 : 2 + proof.order] + 1j * rows[:, 2 + proof.order :]
    if (np.linalg.norm(vectors, axis=1) < 1e-6).any():
        return None
    return pairs[0], vectors
