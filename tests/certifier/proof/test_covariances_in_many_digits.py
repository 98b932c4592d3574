"""The state of the proof on frequencies lies above the exact one, worked out in 100 digits, after every step.

Weights lie anywhere within many decades, kernels are off by as much as they are allowed to be, multipliers only just
dominate; the sizes of tori are odd, even and one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mpmath as mp
import numpy as np
import pytest

from certifier.proof.frequencies import Torus, grid
from certifier.proof.frequency.state import State
from certifier.proof.frequency.steps import Block, Linear, Slopes

Matrix = Any  # of mpmath
SIZES = ((1,), (3,), (4,), (6,), (2, 3), (4, 2))
DIGITS = 100


@dataclass(frozen=True, kw_only=True)
class Exact:
    """One matrix for every frequency of a torus, none left out."""

    torus: Torus
    matrices: dict[tuple[int, ...], Matrix]

    @staticmethod
    def diagonal(torus: Torus, variances: np.ndarray) -> Exact:
        matrix = mp.diag([mp.mpf(float(variance)) for variance in variances])
        return Exact(torus=torus, matrices={_place(each): matrix for each in grid(torus.sizes)})

    def mapped(self, step: Linear, signs: list[np.ndarray]) -> Exact:
        """The mean over aliases of A Σ Aᴴ, where every weight is off by its relative error, up or down."""
        strides = self.torus.sizes if step.strides is None else step.strides
        coarse = self.torus.coarse(strides)
        images = {}
        for place, matrix in self.matrices.items():
            symbol = self._symbol(step, place, matrix.rows, signs)
            images[place] = symbol * matrix * symbol.H
        means = {}
        for place in grid(coarse.sizes):
            aliases = [_place(place + move * np.array(coarse.sizes)) for move in grid(strides)]
            total = mp.zeros(step.rows, step.rows)
            for alias in aliases:
                total += images[alias]
            means[_place(place)] = total / len(aliases)
        return Exact(torus=coarse, matrices=means)

    def _symbol(self, step: Linear, place: tuple[int, ...], columns: int, signs: list[np.ndarray]) -> Matrix:
        symbol = mp.zeros(step.rows, columns)
        for block, sign in zip(step.blocks, signs, strict=True):
            kernel = np.eye(block.channels)[:, :, None] if block.kernel is None else block.kernel
            for tap, offset in enumerate(block.offsets):
                turn = sum(mp.mpf(int(o) * k) / n for o, k, n in zip(offset, place, self.torus.sizes, strict=True))
                phase = mp.expjpi(2 * turn)
                for row, column in zip(*np.nonzero(kernel[:, :, tap]), strict=True):
                    off = 1 + mp.mpf(block.relative_error) * int(sign[row, column, tap])
                    weight = mp.mpf(float(kernel[row, column, tap])) * off
                    symbol[block.row + int(row), block.column + int(column)] += weight * phase
        return symbol

    def activated(self, step: Slopes, multipliers: np.ndarray) -> Exact:
        """(M(Σ + Σ_sy (T - Σ_yy)⁻¹ Σ_ys)M, with η²T added where y is)."""
        rows = range(step.start, step.start + len(step.lower))
        lower, upper, t = ([mp.mpf(float(x)) for x in each] for each in (step.lower, step.upper, multipliers))
        after = {}
        for place, matrix in self.matrices.items():
            size = matrix.rows
            gap = mp.diag(t) - mp.matrix([[matrix[a, b] for b in rows] for a in rows])
            across = mp.matrix([[matrix[a, b] for b in rows] for a in range(size)])
            scale = mp.eye(size)
            for a, low, high in zip(rows, lower, upper, strict=True):
                scale[a, a] = (low + high) / 2
            updated = scale * (matrix + across * gap**-1 * across.H) * scale
            for a, low, high, multiplier in zip(rows, lower, upper, t, strict=True):
                updated[a, a] += ((high - low) / 2) ** 2 * multiplier
            after[place] = updated
        return Exact(torus=self.torus, matrices=after)

    def is_below(self, state: State) -> bool:
        """Whether every computed matrix less the exact one is positive semidefinite, rows and columns scaled."""
        assert state.torus == self.torus
        shape = (len(state.torus.frequencies), *state.matrices.shape[1:])
        for place, computed in zip(state.torus.frequencies, np.broadcast_to(state.matrices, shape), strict=True):
            difference = mp.matrix(computed.tolist()) - self.matrices[_place(place)]
            roots = [1 / mp.sqrt(abs(difference[a, a])) if difference[a, a] else 1 for a in range(difference.rows)]
            scaled = mp.diag(roots) * difference * mp.diag(roots)
            if min(mp.eighe((scaled + scaled.H) / 2, eigvals_only=True)) < -(mp.mpf(10) ** (20 - DIGITS)):
                return False
        return True


def _place(frequency: np.ndarray) -> tuple[int, ...]:
    return tuple(map(int, frequency))


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Steps at random, with entries between 10^-span and 10^span."""

    generator: np.random.Generator
    span: float

    def size(self, *shape: int) -> np.ndarray:
        return 10.0 ** self.generator.uniform(-self.span, self.span, shape)

    def integer(self, least: int, most: int) -> int:
        return int(self.generator.integers(least, most + 1))

    def linear(self, torus: Torus, channels: int) -> tuple[Linear, list[np.ndarray]]:
        rows, axes = self.integer(1, 3), len(torus.sizes)
        blocks, signs = [], []
        for _ in range(self.integer(1, 3)):
            row, column = self.integer(0, rows - 1), self.integer(0, channels - 1)
            height, width, taps = self.integer(1, rows - row), self.integer(1, channels - column), self.integer(1, 3)
            kernel: np.ndarray | None = self.generator.standard_normal((height, width, taps))
            kernel *= self.size(height, width, taps)
            offsets = self.generator.integers(-4, 9, (taps, axes)) * (self.generator.random() < 0.8)
            error = float(10.0 ** self.generator.uniform(-17, -2)) if self.generator.random() < 0.3 else 0.0
            if self.generator.random() < 0.25:
                height, kernel, offsets, error = min(height, width), None, np.zeros((1, axes), dtype=np.int64), 0.0
            blocks.append(
                Block(row=row, column=column, channels=height, kernel=kernel, offsets=offsets, relative_error=error)
            )
            signs.append(self.generator.integers(0, 2, (3, 3, 3)) * 2 - 1)
        ones = (1,) * axes
        divisors = [[s for s in range(1, n + 1) if n % s == 0] for n in torus.sizes]
        strides = [ones, tuple(int(self.generator.choice(each)) for each in divisors), None][self.integer(0, 2)]
        return Linear(blocks=tuple(blocks), rows=rows, strides=strides), signs

    def slopes(self, state: State) -> tuple[Slopes, np.ndarray]:
        start = self.integer(0, state.channels - 1)
        count = self.integer(1, state.channels - start)
        lower = self.generator.standard_normal(count)
        upper = lower + self.generator.random(count) * (self.generator.random() < 0.8)
        rows = slice(start, start + count)
        covariance = state.matrices[:, rows, rows]
        root = np.sqrt(np.real(np.diagonal(covariance, axis1=1, axis2=2)).max(axis=0))
        largest = np.linalg.eigvalsh(covariance / root[:, None] / root).max()
        slack = 1 + 10.0 ** self.generator.uniform(-8, 1)
        return Slopes(start=start, lower=lower, upper=upper), largest * slack * root**2


@pytest.mark.parametrize("span", [0.0, 3.0, 8.0])
def test_computed_covariances_lie_above_exact_ones(span: float) -> None:
    with mp.workdps(DIGITS):
        for seed in range(24):
            draw = Draw(generator=np.random.default_rng(seed), span=span)
            torus = Torus(SIZES[seed % len(SIZES)])
            variances = draw.size(draw.integer(1, 3))
            state, exact = State.diagonal(torus, variances), Exact.diagonal(torus, variances)
            for _ in range(3):
                if draw.generator.random() < 0.6:
                    step, signs = draw.linear(state.torus, state.channels)
                    state, exact = state.mapped(step), exact.mapped(step, signs)
                else:
                    slopes, multipliers = draw.slopes(state)
                    state, exact = state.activated(slopes, multipliers), exact.activated(slopes, multipliers)
                assert exact.is_below(state), f"seed {seed}"
