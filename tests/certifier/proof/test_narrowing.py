"""A step of fewer rows makes no vector shorter than the one that it stands for, and hardly any longer."""

from __future__ import annotations

import numpy as np
import pytest

from certifier.proof.frequency.narrowing import narrowed
from certifier.proof.frequency.steps import Block, Linear


def pointwise(*kernels: tuple[np.ndarray, int], error: float = 0.0, strides: tuple[int, ...] = (1, 1)) -> Linear:
    """A step of kernels at offset zero, each from its column on."""
    offsets = np.zeros((1, 2), dtype=np.int64)
    blocks = tuple(
        Block(row=0, column=column, channels=0, kernel=kernel[:, :, None], offsets=offsets, relative_error=error)
        for kernel, column in kernels
    )
    return Linear(blocks=blocks, rows=len(kernels[0][0]), strides=strides)


def lengths(step: Linear, columns: int, signs: np.ndarray | float = 0.0) -> np.ndarray:
    """AᵀA in long doubles, with every weight off by its relative error towards `signs`."""
    matrix = np.zeros((step.rows, columns), dtype=np.longdouble)
    for block in step.blocks:
        assert block.kernel is not None
        kernel = block.kernel.astype(np.longdouble)[:, :, 0] * (1 + np.longdouble(block.relative_error) * signs)
        matrix[:, block.column : block.column + kernel.shape[1]] += kernel
    return matrix.T @ matrix


@pytest.mark.parametrize("error", [0.0, 1e-6])
@pytest.mark.parametrize("seed", range(5))
def test_no_vector_gets_shorter(seed: int, error: float) -> None:
    generator = np.random.default_rng(seed)
    size = 10.0 ** generator.uniform(-6, 6)
    step = pointwise(
        (size * generator.standard_normal((12, 3)), 0), (generator.standard_normal((12, 2)), 2), error=error
    )
    found = narrowed(step, 4)
    assert found.rows == 4 and found.strides == (1, 1)
    signs = generator.integers(0, 2, (12, 1)) * 2.0 - 1.0
    for exact in (lengths(step, 4), lengths(step, 4, signs), lengths(step, 4, 1.0)):
        gained = np.asarray(lengths(found, 4) - exact, dtype=np.float64)
        largest = float(np.linalg.eigvalsh(np.asarray(exact, dtype=np.float64))[-1])
        # The differences are exact to far more than what is left as room.
        assert np.linalg.eigvalsh(gained)[0] > 0
        assert np.linalg.eigvalsh(gained)[-1] <= (1e-8 + 100 * error) * largest


def test_rows_that_depend_on_one_another_are_no_obstacle() -> None:
    kernel = np.outer(np.arange(1.0, 7.0), [1.0, -2.0, 0.5])
    found = narrowed(pointwise((kernel, 0), strides=(2, 2)), 3)
    assert found.rows == 3 and found.strides == (2, 2)
    assert np.linalg.eigvalsh(np.asarray(lengths(found, 3), dtype=np.float64) - kernel.T @ kernel)[0] > 0


def test_steps_that_gain_nothing_or_read_neighbours_stay_as_they_are() -> None:
    wide = pointwise((np.ones((2, 3)), 0))
    assert narrowed(wide, 3) is wide
    offsets = np.array([[0, 1]])
    block = Block(row=0, column=0, channels=0, kernel=np.ones((5, 2, 1)), offsets=offsets, relative_error=0.0)
    neighbours = Linear(blocks=(block,), rows=5, strides=(1, 1))
    assert narrowed(neighbours, 2) is neighbours
