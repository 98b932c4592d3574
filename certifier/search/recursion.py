"""The recursion of `certifier.proof.frequency` in tensors that can be differentiated. Untrusted.

Every point of the parametrisation is feasible: an activation's T = S·λmax(S^-½ Σ_yy S^-½)/sigmoid(g) with S = diag(exp
t), the largest over all frequencies, and a restart's d = exp(t)·λmax likewise.  At g = 0, t = 0 an activation loses
nothing against the product of norms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from certifier.proof.frequencies import Torus
from certifier.proof.frequency.checking import multiplier_name, restart_name
from certifier.proof.frequency.steps import Segment, Slopes
from certifier.proof.frequency.symbols import symbols
from certifier.search.thinning import thin_sizes

MARGIN = 1e-6
"""How far the multipliers lie above what is computed here, relatively: its own rounding, and more."""
FIRST_STEPS, POWER_STEPS = 12, 3
"""Multiplications a time that tell at which frequency a covariance is largest; the vectors are kept."""
LARGEST_SHARE = 0.95
"""Of a kept multiplier that a covariance may use before it is enlarged."""


class _Inverse(torch.autograd.Function):
    """P⁻¹ of Hermitian positive definite P, from its Cholesky factor."""

    @staticmethod
    def forward(context: Any, gap: Tensor, factor: Tensor) -> Tensor:
        inverse = torch.cholesky_inverse(factor)
        context.save_for_backward(inverse)
        return inverse

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (inverse,) = context.saved_tensors
        return -(inverse @ gradients[0] @ inverse), None


@dataclass(eq=False)
class _Peak:
    """max over frequencies of λmax(W^-½ M W^-½), differentiable at the frequency that attains it.

    Which one that is, a few steps of power iteration from where it was last time tell, or `worse` from outside.
    """

    vectors: Tensor | None = None

    def __call__(self, matrices: Tensor, weights: Tensor, worse: Tensor | None = None) -> Tensor:
        root = torch.rsqrt(weights)
        with torch.no_grad():
            scaled = root[:, None] * matrices * root
            if worse is not None:
                position = int(worse[torch.argmax(torch.linalg.eigvalsh(scaled[worse])[:, -1])])
            else:
                position = self._guess(scaled)
            vector = torch.linalg.eigh(scaled[position])[1][:, -1]
            if self.vectors is not None:
                self.vectors[position, :, 0] = vector
        vector = root * vector
        value = vector.conj() @ (matrices[position] @ vector)
        return value.real if value.is_complex() else value

    def _guess(self, scaled: Tensor) -> int:
        if len(scaled) == 1:
            return 0
        vectors, steps = self.vectors, POWER_STEPS
        if vectors is None or vectors.dtype != scaled.dtype:
            vectors = scaled @ torch.cos(torch.arange(scaled.shape[-1]) ** 2).to(scaled)[:, None]
            steps = FIRST_STEPS
        sizes = vectors
        for _ in range(steps):
            vectors = scaled @ vectors
            sizes = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
            vectors = vectors / sizes.clamp_min(1e-300)
        self.vectors = vectors
        return int(torch.argmax(sizes[:, 0, 0]))


@dataclass(eq=False)
class _Step:
    """A step's constants as tensors, and where its peak was last."""

    factor: Tensor | None = None
    strides: int = 1
    nearest: Tensor | None = None
    conjugate: Tensor | None = None
    index: Tensor | None = None
    opposite: Tensor | None = None
    weights: Tensor | None = None
    slopes: Slopes | None = None
    middle: Tensor | None = None
    half: Tensor | None = None
    peak: _Peak = field(default_factory=_Peak)


class Recursion:
    """The constants of one chain of segments, and its free parameters t, g and restarts' t."""

    def __init__(
        self,
        segments: Sequence[Segment],
        *,
        weights: NDArray[np.float64] | None,
        norm_only: bool,
        points: int | None,
        device: str,
    ) -> None:
        """`weights` says how much each pair of channels of the last state matters; None: all alike.

        `norm_only`: only the largest eigenvalue of the last state matters.  `points` per axis are left of the last
        torus of a thinned chain; None: all.
        """
        self.device, self.points, self.weights, self.norm_only = device, points, weights, norm_only
        self.segments = segments
        self.steps = [self._prepared(segment) for segment in segments]
        self.parameters: list[Tensor] = []
        for steps in self.steps:
            for step in steps:
                if step.slopes is not None:
                    self.parameters += [self._zeros(len(step.slopes.lower)), self._zeros(1)]
        self.restarts = [self._zeros(segment.widths()[-1]) for segment in segments[:-1]]
        self._last = [_Peak() for _ in segments]

    @property
    def every(self) -> list[Tensor]:
        """All free parameters."""
        return [*self.parameters, *self.restarts]

    def _zeros(self, count: int) -> Tensor:
        return torch.zeros(count, dtype=torch.float64, device=self.device, requires_grad=True)

    def _tensor(self, array: Any) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(array), device=self.device)

    def _prepared(self, segment: Segment) -> list[_Step]:
        whole = Torus(segment.sizes)
        torus = whole if self.points is None else Torus(thin_sizes(segment, self.points))
        steps = []
        for step, width in zip(segment.steps, segment.widths(), strict=False):
            if isinstance(step, Slopes):
                middle, half = step.middle_and_half()
                steps.append(_Step(slopes=step, middle=self._tensor(middle), half=self._tensor(half)))
                continue
            prepared = _Step()
            if step.strides is None and torus.sizes != whole.sizes:
                # A matrix reads single points, so it needs all frequencies: each takes the nearest covariance.
                near = np.rint(whole.frequencies * np.array(torus.sizes) / np.array(whole.sizes)).astype(np.int64)
                nearest, conjugate = torus.places(near)
                prepared.nearest, prepared.conjugate = self._tensor(nearest), self._tensor(conjugate)
                torus = whole
            is_alike = step.strides is not None and all(block.is_pointwise for block in step.blocks)
            prepared.factor = self._tensor(symbols(step, torus, width, slice(0, 1) if is_alike else slice(None)))
            if step.strides is None:
                prepared.weights = self._tensor(torus.multiplicities / torus.points)
                torus = whole = Torus(tuple(1 for _ in torus.sizes))
            elif math.prod(step.strides) > 1:
                index, opposite = torus.places(torus.aliases(step.strides))
                prepared.index, prepared.opposite = self._tensor(index), self._tensor(opposite)
                torus, whole = torus.coarse(step.strides), whole.coarse(step.strides)
            steps.append(prepared)
        return steps

    def begin_at(self, arrays: Mapping[str, NDArray[np.float64]]) -> None:
        """Begin at a witness of this network or one like it, if that is better than where one begins without.

        Arrays that do not fit are passed over. T of the witness is W at g = logit of how much of it is used; where
        that is too much, it is enlarged.
        """
        if not arrays:
            return
        with torch.no_grad():
            cold, _ = self.evaluate()
            warm, _ = self.evaluate({name: self._tensor(array) for name, array in arrays.items()})
            if not bool(warm < cold):
                for parameter in self.every:
                    parameter.zero_()

    def evaluate(self, given: Mapping[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective and the witness' arrays at the present parameters, those of `given` arrays being set first."""
        parameters, arrays, given = iter(self.parameters), {}, given or {}
        state = before = None
        for position, (segment, steps) in enumerate(zip(self.segments, self.steps, strict=True)):
            state = self._start(segment, before)
            for number, step in enumerate(steps):
                if step.slopes is None:
                    state = _mapped(state, step)
                else:
                    name, scale, gain = multiplier_name(position, number), next(parameters), next(parameters)
                    _set(state, step, scale, gain, given.get(name))
                    state, arrays[name] = _activated(state, step, scale, gain)
            if position + 1 < len(self.segments):
                name, scale = restart_name(position), self.restarts[position]
                if name in given and given[name].shape == scale.shape:
                    scale.copy_(torch.log(given[name]))
                share = torch.ones((), dtype=torch.float64, device=self.device)
                before, _, _ = _dominating(state, torch.exp(scale), share, self._last[position])
                arrays[name] = before
        assert state is not None
        return self._objective(state), arrays

    def _start(self, segment: Segment, before: Tensor | None) -> Tensor:
        variances = self._tensor(segment.squares)
        if before is not None:
            sources = self._tensor(segment.sources)
            variances = variances * torch.where(sources >= 0, before[sources], before.max())
        return torch.diag(variances)[None]

    def _objective(self, state: Tensor) -> Tensor:
        """The mean logarithm of the pair constants, or of all outputs together where there are no pairs."""
        if len(state) > 1 or self.norm_only:
            return 0.5 * torch.log(self._last[-1](state, torch.ones_like(state[0, :, 0].real)))
        matrix = state[0].real if state.is_complex() else state[0]
        variances = torch.diagonal(matrix)
        count = len(variances)
        if count == 1:
            return 0.5 * torch.log(variances[0])
        first, second = torch.triu_indices(count, count, offset=1, device=state.device)
        squares = variances[first] + variances[second] - 2 * matrix[first, second]
        logarithms = 0.5 * torch.log(squares.clamp_min(1e-300))
        if self.weights is None or self.weights.shape != (count, count):
            return logarithms.mean()
        weights = self._tensor(self.weights)[first, second]
        return (weights * logarithms).sum() / weights.sum().clamp_min(1e-300)


def _mapped(state: Tensor, step: _Step) -> Tensor:
    factor = step.factor
    assert factor is not None
    if step.nearest is not None and len(state) > 1:
        assert step.conjugate is not None
        state = state[step.nearest]
        state = torch.where(step.conjugate[:, None, None], state.conj(), state) if state.is_complex() else state
    if factor.is_complex() != state.is_complex():
        factor, state = factor.to(torch.complex128), state.to(torch.complex128)
    image = factor @ state @ factor.mH
    if step.weights is not None:
        return (step.weights[:, None, None] * (image.real if image.is_complex() else image)).sum(dim=0)[None]
    if step.index is None or step.opposite is None or len(image) == 1:
        # The mean over aliases of what is alike is that itself.
        return image
    gathered = image[step.index]
    if gathered.is_complex():
        gathered = torch.where(step.opposite[:, :, None, None], gathered.conj(), gathered)
    return gathered.mean(dim=1)


def _set(state: Tensor, step: _Step, scale: Tensor, gain: Tensor, multipliers: Tensor | None) -> None:
    """Parameters that give these multipliers, or larger ones where they do not dominate the covariance."""
    if multipliers is None or multipliers.shape != scale.shape:
        return
    assert step.slopes is not None
    rows = step.slopes.rows
    used = torch.clamp(step.peak(state[:, rows, rows], multipliers), 1e-6, LARGEST_SHARE)
    scale.copy_(torch.log(multipliers))
    gain.copy_(torch.log(used / (1 - used)).reshape(1))


def _activated(state: Tensor, step: _Step, scale: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    assert step.slopes is not None and step.middle is not None and step.half is not None
    rows = step.slopes.rows
    weights = torch.exp(scale)
    inner = state[:, rows, rows]
    multipliers, gap, factor = _dominating(inner, weights, torch.sigmoid(gain), step.peak)
    across = state[:, :, rows]
    updated = state + across @ _Inverse.apply(gap, factor) @ across.mH
    factors = torch.ones(state.shape[-1], dtype=torch.float64, device=state.device)
    factors[rows] = step.middle
    added = torch.zeros_like(factors)
    added = torch.cat([added[: rows.start], step.half**2 * multipliers, added[rows.stop :]])
    return factors[:, None] * updated * factors + torch.diag(added), multipliers


def _dominating(inner: Tensor, weights: Tensor, share: Tensor, peak: _Peak) -> tuple[Tensor, Tensor, Tensor]:
    """T = W·λmax/share, T - Σ_yy at every frequency, and its Cholesky factor, which shows that T is large enough."""
    worse: Tensor | None = None
    for _ in range(4):
        multipliers = weights * (peak(inner, weights, worse) / share) * (1 + MARGIN)
        gap = torch.diag(multipliers) - inner
        with torch.no_grad():
            factor, failed = torch.linalg.cholesky_ex(gap)
        if not bool(failed.any()):
            return multipliers, gap, factor
        worse = torch.nonzero(failed)[:, 0] if worse is None else torch.arange(len(inner), device=inner.device)
    raise FloatingPointError("no multiplier dominates the covariance")
