"""The covariance recursion of a joint state with its gradient, written out; untrusted.

With Σ the covariance of the joint state (the inverse of the precision N that is proved), R = CΣCᵀ that of what a step
reads, m and η the middle and the half width of its slopes, and a diagonal D ≻ R, the multipliers Λ = η⁻²D⁻¹ give

    F = (D - R)⁻¹,   Σ_kept -> Σ_kept + K F Kᵀ  with K = Σ_kept Cᵀ,
    cov(h) = m (D F D - D) m + η² D,   cov(kept, h) = K F D m,

since h = m y + w with w uncorrelated to the state and |w_i| <= η_i |y_i|.  D = (1 + e^-g) λ e^-t dominates R for every
t and g if λ >= λmax(e^(t/2) R e^(t/2)), so every point is feasible and gradient steps are free.  λ takes its slope from
the Schatten norm of order 16, which unlike λmax is smooth where eigenvalues cluster.

Arrays are those of numpy or, on a GPU, tensors of torch: only what both spell alike is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Array = Any
"""A numpy array or a torch tensor of doubles."""

SMALLEST = 1e-40
"""Keeps the diagonal D positive where what a step reads is constant."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """One step.  Shapes: matrix [n, d]; middle and half [n], or None and the constant of a uniform law.

    `kept` are positions in (s, h) that stay alive: first some of s, then all of h or none.
    """

    matrix: Floats
    middle: Floats | None
    half: Floats
    size: int
    kept: NDArray[np.intp]


@dataclass(frozen=True, kw_only=True, eq=False)
class Chain:
    """Stages from an identity covariance of `size` entries to a readout.  Shapes: readout [c, d]."""

    size: int
    stages: tuple[Stage, ...]
    readout: Floats


@dataclass(eq=False)
class _Trace:
    """What the backward pass needs of one stage."""

    covariance: Array | None
    read: Array
    root: Array
    power: Array
    largest: Array
    dominant: Array
    inverse: Array
    crossing: Array


class Recursion:
    """Q and its gradient for one chain, on numpy or on a device of torch."""

    def __init__(self, chain: Chain, arrays: Any) -> None:
        """`arrays` is `NumpyArrays()` or another set of the same operations."""
        self.chain, self.xp = chain, arrays
        self.matrices = [arrays.put(stage.matrix) for stage in chain.stages]
        self.middles = [None if stage.middle is None else arrays.put(stage.middle) for stage in chain.stages]
        self.halves = [arrays.put(stage.half) for stage in chain.stages]
        self.readout = arrays.put(chain.readout)
        generator = np.random.default_rng(0)
        self.starts = [arrays.put(generator.normal(size=len(stage.matrix))) for stage in chain.stages]
        self.vectors = list(self.starts)
        self.old = [stage.kept[stage.kept < stage.matrix.shape[1]] for stage in chain.stages]

    def forward(self, t: list[Array], g: list[Array]) -> Array:
        """Q.  Shapes: t [n] per stage, g scalars -> [c, c].

        Raises: ArithmeticError where the numbers have left their range.
        """
        covariance: Array | None = None  # None is the identity
        self.traces: list[_Trace] = []
        for position, matrix in enumerate(self.matrices):
            crossing = matrix.T if covariance is None else covariance @ matrix.T
            read = matrix @ crossing
            root = self.xp.exp(t[position] / 2)
            weighted = root[:, None] * read * root[None, :]
            smooth, power = self._smooth(weighted)
            sharp = self._sharp(position, weighted, power)
            scaled = (1 + self.xp.exp(-g[position])) * self.xp.exp(-t[position])
            for largest in (sharp, smooth):
                dominant = scaled * (largest + SMALLEST)
                inverse = self.xp.inverse(self.xp.diag(dominant) - read)
                if inverse is not None:
                    break
            else:
                raise ArithmeticError("a covariance is not positive definite")
            power = power * (largest / (smooth + SMALLEST))
            trace = _Trace(covariance, read, root, power, largest, dominant, inverse, crossing[self.old[position]])
            self.traces.append(trace)
            covariance = self._next(position, trace)
        return self.readout @ (self.readout.T if covariance is None else covariance @ self.readout.T)

    def multipliers(self) -> list[Floats]:
        """Λ per stage at the last point: [n], or [1] for a uniform law."""
        found = []
        for half, middle, trace in zip(self.halves, self.middles, self.traces, strict=True):
            values = self.xp.get(1.0 / (half * half * trace.dominant))
            found.append(values[:1] if middle is None else values)
        return found

    def backward(self, gradient: Array) -> tuple[list[Array], list[Array]]:
        """The gradients with respect to t and g at the last point, given that of Q."""
        count = len(self.matrices)
        by_t: list[Array] = [None] * count
        by_g: list[Array] = [None] * count
        state = self.readout.T @ gradient @ self.readout
        for position in reversed(range(count)):
            by_t[position], by_g[position], state = self._back(position, state)
        return by_t, by_g

    def _smooth(self, weighted: Array) -> tuple[Array, Array]:
        """(λ, λ's derivative with respect to the matrix), λ = tr(A^16)^(1/16)."""
        scale = self.xp.trace(weighted) + SMALLEST
        first = weighted / scale
        second = first @ first
        fourth = second @ second
        eighth = fourth @ fourth
        power = (eighth @ fourth) @ (second @ first)
        total = (power * first).sum() + SMALLEST
        largest = scale * total ** (1.0 / 16.0)
        return largest, power * (largest / (scale * total))

    def _sharp(self, position: int, weighted: Array, power: Array) -> Array:
        """λmax by power iteration with the fifteenth power, from the vector of the last call; from below by little."""
        vector = self.vectors[position]
        for _ in range(3):
            vector = power @ vector
            vector = vector / ((vector * vector).sum() ** 0.5 + SMALLEST)
        # Never stuck in a subspace that a later point leaves.
        self.vectors[position] = vector + 1e-3 * self.starts[position]
        return (vector * (weighted @ vector)).sum() * (1.0 + 1e-6)

    def _next(self, position: int, trace: _Trace) -> Array:
        """The covariance of what stays alive."""
        stage, middle, half = self.chain.stages[position], self.middles[position], self.halves[position]
        old, fresh = self.old[position], len(stage.kept) > len(self.old[position])
        dominant, inverse, crossing = trace.dominant, trace.inverse, trace.crossing
        block = self._part(trace.covariance, old) + crossing @ inverse @ crossing.T if len(old) else None
        if not fresh:
            return block
        if middle is None:
            own = self.xp.eye(stage.size) * (half * half * dominant[0])
        else:
            edge = middle * dominant
            own = edge[:, None] * inverse * edge[None, :] + self.xp.diag((half * half - middle * middle) * dominant)
        if block is None:
            return own
        if middle is None:
            cross = self.xp.zeros(len(old), stage.size)
        else:
            cross = (crossing @ inverse) * (middle * dominant)[None, :]
        return self.xp.block(block, cross, own)

    def _part(self, covariance: Array | None, old: NDArray[np.intp]) -> Array:
        return self.xp.eye(len(old)) if covariance is None else covariance[old][:, old]

    def _back(self, position: int, state: Array) -> tuple[Array, Array, Array | None]:
        """(gradient of t, of g, of the covariance before), given that of the covariance behind the stage."""
        stage, trace = self.chain.stages[position], self.traces[position]
        middle, half, matrix = self.middles[position], self.halves[position], self.matrices[position]
        kept, fresh = len(self.old[position]), len(stage.kept) > len(self.old[position])
        dominant, inverse, crossing = trace.dominant, trace.inverse, trace.crossing
        of_inverse: Array = 0.0
        of_dominant: Array = 0.0
        of_crossing: Array = None
        if kept:
            of_block = state[:kept, :kept]
            reached = crossing @ inverse
            of_inverse = crossing.T @ of_block @ crossing
            of_crossing = 2.0 * of_block @ reached
        if fresh:
            own = state[kept:, kept:]
            diagonal = self.xp.diagonal(own)
            if middle is None:
                of_dominant = self.xp.unit(len(dominant)) * (half * half * diagonal.sum())
            else:
                edge = middle * dominant
                of_inverse = of_inverse + edge[:, None] * own * edge[None, :]
                of_edge = 2.0 * (own * inverse) @ edge
                if kept:
                    of_cross = 2.0 * state[:kept, kept:]
                    of_inverse = of_inverse + crossing.T @ of_cross * edge[None, :]
                    of_edge = of_edge + (of_cross * reached).sum(0)
                    of_crossing = of_crossing + (of_cross * edge[None, :]) @ inverse
                of_dominant = middle * of_edge + diagonal * (half * half - middle * middle)
        if not isinstance(of_inverse, float):
            of_inverse = (of_inverse + of_inverse.T) / 2
            of_shifted = -(inverse @ of_inverse @ inverse)
            of_dominant = of_dominant + self.xp.diagonal(of_shifted)
            of_read = -of_shifted
        else:
            of_read = 0.0
        weight = of_dominant * dominant
        of_weighted = trace.power * (weight.sum() / (trace.largest + SMALLEST))
        of_root = 2.0 * (of_weighted * trace.read) @ trace.root
        of_read = of_read + trace.root[:, None] * of_weighted * trace.root[None, :]
        of_t = of_root * trace.root / 2 - weight
        of_logarithm = weight.sum()  # of log(1 + e^-g), whose derivative is -(κ - 1)/κ
        if trace.covariance is None:
            return of_t, of_logarithm, None
        before = matrix.T @ of_read @ matrix
        if kept:
            old = self.old[position]
            spread = self.xp.spread(of_crossing @ matrix, old, len(before))
            before = before + (spread + spread.T) / 2 + self.xp.embedded(of_block, old, len(before))
        return of_t, of_logarithm, before
