"""The state Σ(ω) of a stack of signals, and the steps that keep (I) of `certifier.proof.frequency`."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certifier.errors import NotProved
from certifier.proof.frequencies import Torus
from certifier.proof.frequency.congruence import (
    chunks,
    congruence,
    dominance_gap,
    frobenius_upper,
    hermitian,
    inverse_upper,
    is_dominated,
    largest_eigenvalue_upper,
    raised_diagonal,
)
from certifier.proof.frequency.steps import Block, Bound, Linear, Slopes
from certifier.proof.frequency.symbols import stray_upper, symbols
from certifier.proof.rounding import (
    FLOAT64,
    Float,
    add_upper,
    div_upper,
    gamma_upper,
    mul_upper,
    sqrt_upper,
    sum_upper,
)

UNDERFLOW = 2.0**-960


@dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """Σ of (I) at the torus' frequencies, one of each pair, exactly Hermitian.

    Shapes: (F, channels, channels), or (1, channels, channels) where it is the same matrix at all of them.
    """

    torus: Torus
    matrices: NDArray

    @property
    def channels(self) -> int:
        return self.matrices.shape[-1]

    @property
    def is_alike(self) -> bool:
        """Whether one matrix stands for all frequencies."""
        return len(self.matrices) == 1

    @staticmethod
    def diagonal(torus: Torus, variances: Float) -> "State":
        """Σ = diag(variances) at every frequency: Σ_c ‖s_c‖²/variance_c <= ‖Δx‖²."""
        zeros = np.zeros((1, len(variances), len(variances)))
        return State(torus=torus, matrices=raised_diagonal(zeros, variances))

    def mapped(self, step: Linear) -> "State":
        """After s -> A s and keeping every strides-th point: S⁻¹ Σ_j A Σ Aᴴ over the S aliases, rounded up.

        Raises: NotProved.
        """
        if step.strides is None:
            return self._at_one_point(step)
        if self.is_alike and all(block.is_pointwise for block in step.blocks):
            # The mean over aliases of what is alike is that itself.
            image, error = self._image(step, slice(0, 1))
            return State(torus=self.torus.coarse(step.strides), matrices=raised_diagonal(image, error[:, None]))
        images, errors = [], []
        for few in self._chunks(step):
            image, error = self._image(step, few)
            images.append(image)
            errors.append(error)
        image, error = np.concatenate(images), np.concatenate(errors)
        if all(stride == 1 for stride in step.strides):
            return State(torus=self.torus, matrices=raised_diagonal(image, error[:, None]))
        index, opposite = self.torus.places(self.torus.aliases(step.strides))
        total = np.zeros((len(index), step.rows, step.rows), dtype=np.complex128)
        for alias in range(index.shape[1]):
            part = image[index[:, alias]]
            np.conjugate(part, out=part, where=opposite[:, alias, None, None])
            total += part
        mass = sum_upper(frobenius_upper(image)[index], axis=1)
        matrices = _mean(total, mass, sum_upper(error[index], axis=1), index.shape[1])
        return State(torus=self.torus.coarse(step.strides), matrices=matrices)

    def _at_one_point(self, step: Linear) -> "State":
        """The aliases are all frequencies, in pairs: the sum of a pair is twice the real part."""
        total = np.zeros((1, step.rows, step.rows))
        mass, errors = np.float64(0.0), np.float64(0.0)
        for few in self._chunks(step):
            image, error = self._image(step, few)
            weights = self.torus.multiplicities[few].astype(np.float64)
            total[0] += np.tensordot(weights, np.real(image), axes=1)
            mass = add_upper(mass, sum_upper(weights * frobenius_upper(image), axis=None))
            errors = add_upper(errors, sum_upper(weights * error, axis=None))
        matrices = _mean(total, np.atleast_1d(mass), np.atleast_1d(errors), self.torus.points)
        return State(torus=Torus(tuple(1 for _ in self.torus.sizes)), matrices=matrices)

    def _chunks(self, step: Linear) -> Iterator[slice]:
        taps = max(block.taps for block in step.blocks)
        return chunks(len(self.torus.frequencies), 96 * max(step.rows, self.channels) ** 2 + 64 * taps)

    def _image(self, step: Linear, few: slice) -> tuple[NDArray, Float]:
        factor = symbols(step, self.torus, self.channels, few)
        return congruence(factor, self.matrices if self.is_alike else self.matrices[few], stray_upper(step))

    def activated(self, step: Slopes, multipliers: Float) -> "State":
        """After y -> φ(y) = m y + η w: Σ + Σ_sy G Σ_ys with y scaled by m, and η² T added, rounded up.

        Raises: NotProved if T - Σ_yy is not proved positive definite at some frequency.
        """
        rows = step.rows
        middle, half = step.middle_and_half()
        inverse = inverse_upper(dominance_gap(self.matrices[:, rows, rows], multipliers))
        image, error = congruence(np.ascontiguousarray(self.matrices[:, :, rows]), inverse, 0.0)
        scale = np.ones(self.channels)
        scale[rows] = middle
        updated = (self.matrices + image) * scale[:, None] * scale
        largest = float(np.max(np.abs(scale), initial=1.0))
        # The sum and both products round; the congruence's own error is scaled with its matrix.
        rounded = mul_upper(gamma_upper(8, FLOAT64), add_upper(frobenius_upper(self.matrices), frobenius_upper(image)))
        error = add_upper(mul_upper(mul_upper(largest, largest), add_upper(error, rounded)), UNDERFLOW)
        added = np.zeros(self.channels)
        added[rows] = mul_upper(mul_upper(half, half), multipliers)
        matrices = raised_diagonal(raised_diagonal(hermitian(updated), error[:, None]), added)
        return State(torus=self.torus, matrices=matrices)

    def restarted(self, variances: Float) -> Float:
        """The same variances, once Σ(ω) ⪯ diag(variances) is proved for all ω.

        Raises: NotProved.
        """
        if not is_dominated(self.matrices, variances):
            raise NotProved("a restart's variances are not proved to dominate")
        return variances

    def bound(self) -> Bound:
        """|aᵀΔf|² <= aᵀ(mean of Σ over all frequencies)a·‖Δx‖² at every point, and `norm_upper` of all together."""
        upper = self.norm_upper()
        is_point = self.torus.points == 1
        mean = (
            (self if self.is_alike else self.mapped(_one_point(self.channels, len(self.torus.sizes)))).matrices[0].real
        )
        variances = np.maximum(np.diagonal(mean), 0.0)
        outputs = np.minimum(sqrt_upper(variances), upper)
        pairs = None
        if is_point:
            squares = add_upper(add_upper(variances[:, None], variances[None, :]), -2.0 * mean)
            pairs = sqrt_upper(np.maximum(squares, 0.0))
            np.fill_diagonal(pairs, 0.0)
        return Bound(upper=upper, outputs=outputs, pairs=pairs)

    def norm_upper(self) -> float:
        """‖Δf‖² <= λmax(Σ)·‖Δx‖², rounded up; for the signals of the state as f."""
        return float(sqrt_upper(largest_eigenvalue_upper(self.matrices)))


def _mean(total: NDArray, mass: Float, errors: Float, count: int) -> NDArray:
    """total/count, raised by what the sum of at most 2·count terms, the quotient and each term may be off.

    Shapes: total (n, m, m); mass, errors (n,): the sums of the terms' norms and of their errors.
    """
    spread = mul_upper(gamma_upper(2 * count + 4, FLOAT64), mass)
    slack = add_upper(div_upper(add_upper(spread, errors), float(count)), UNDERFLOW)
    return raised_diagonal(hermitian(total / count), slack[:, None])


def _one_point(channels: int, axes: int) -> Linear:
    offsets = np.zeros((1, axes), dtype=np.int64)
    identity = Block(row=0, column=0, channels=channels, kernel=None, offsets=offsets, relative_error=0.0)
    return Linear(blocks=(identity,), rows=channels, strides=None)
