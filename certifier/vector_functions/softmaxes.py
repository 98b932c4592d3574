"""Softmax and its logarithm along an axis."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certifier.proof.rounding import gamma_upper, norm_upper, sqrt_upper
from certifier.terms import Precision, Rounding, VectorFunction

Array = NDArray[Any]

_KERNEL = 64
"""Roundings granted to an exponential, a logarithm and a quotient together (assumption A5)."""

_SMALLEST = 2.0**-1022


def roundings_upper(count: int, unit: float) -> float:
    """gamma_count, or infinity where it is undefined."""
    return gamma_upper(count, unit) if count * unit < 0.5 else np.inf


@dataclass(frozen=True, kw_only=True, eq=False)
class AlongAxis(VectorFunction):
    """A function of the `count` entries along the middle of three axes (before, count, after)."""

    name: str
    before: int
    count: int
    after: int

    def _cube(self, x: Array) -> Array:
        return x.reshape(x.shape[0], self.before, self.count, self.after)

    def evaluate(self, x: Array) -> Array:
        return self._along(self._cube(x)).reshape(x.shape)

    def pullback(self, gradient: Array, x: Array) -> Array:
        return self._along_pullback(self._cube(gradient), self._along(self._cube(x))).reshape(x.shape)

    def stray(self, x: Array, radius: Array, output: Array, at: Precision) -> Array:
        with np.errstate(all="ignore"):
            bound = self._along_stray(self._cube(x), self._cube(radius), self._cube(output), at)
        return np.where(np.isnan(bound), np.inf, bound).reshape(x.shape)

    def _length(self, bound: Array) -> Array:
        """The L2 norm per row of the batch of what bounds the cube's entries."""
        return norm_upper(bound, (1, 2, 3))[:, None]

    def _unit(self, at: Precision) -> float:
        return roundings_upper(2 * self.count + _KERNEL, at.unit)

    @abstractmethod
    def _along(self, cube: Array) -> Array:
        """The function along axis 2."""

    @abstractmethod
    def _along_pullback(self, gradient: Array, output: Array) -> Array:
        """J^T gradient along axis 2, from the function's value."""

    @abstractmethod
    def _along_stray(self, cube: Array, radius: Array, output: Array, at: Precision) -> Array:
        """`stray` along axis 2."""


class Softmax(AlongAxis):
    """||p(x) - p(y)|| <= ½ ||x - y|| for p_i = e^(x_i) / Σ_j e^(x_j).

    The Jacobian diag(p) - p p^T is symmetric with absolute row sums p_i (1 - p_i) + Σ_(j≠i) p_i p_j
    = 2 p_i (1 - p_i) <= ½, and its norm is at most the largest of them.
    """

    @property
    def constant_upper(self) -> float:
        return 0.5

    def _along(self, cube: Array) -> Array:
        powers = np.exp(cube - cube.max(axis=2, keepdims=True))
        return powers / powers.sum(axis=2, keepdims=True)

    def _along_pullback(self, gradient: Array, output: Array) -> Array:
        return output * (gradient - (gradient * output).sum(axis=2, keepdims=True))

    def _along_stray(self, cube: Array, radius: Array, output: Array, at: Precision) -> Array:
        """Movement of the input, then the kernel's relative error on what the value can have become.

        log p_i moves by at most t = radius_i + max radius, and p by at most ½||radius|| and at most 1.
        An exponential's argument d <= 0 is rounded by u|d|, so its value errs by a factor near 1 + u|d| or
        is flushed to zero; the sum, at least 1, errs likewise with Σ p_j |d_j| <= log n.
        """
        largest = radius.max(axis=2, keepdims=True)
        by_norm = 0.5 * norm_upper(radius, 2)[:, :, None] * (1 + self._unit(at))
        # What underflowed in the centre may have grown into sight: hence the smallest normal number.
        by_factor = (output + _SMALLEST) * np.expm1(radius + largest) * (1 + self._unit(at))
        moved = np.minimum(np.minimum(by_factor, by_norm), 1.0)
        return moved + self._kernel(cube, largest, output, moved, at)

    def stray_length(self, x: Array, radius: Array, length: Array, output: Array, at: Precision) -> Array:
        """The Jacobian diag(p) - p p^T, between 0 and diag(p), has norm max p at most; p stays near the output's."""
        cube, values = self._cube(x), self._cube(output)
        with np.errstate(all="ignore"):
            largest = self._cube(radius).max(axis=2, keepdims=True)
            moved = np.minimum(0.5 * length, 1.0)[:, :, None, None]
            grown = np.minimum(values + moved, (values + _SMALLEST) * np.exp(2 * largest)) * (1 + self._unit(at))
            steepest = np.minimum(grown.max(axis=(1, 2, 3))[:, None], 0.5)
            kernel = self._kernel(cube, largest, values, moved, at)
            return steepest * length * (1 + self._unit(at)) + self._length(kernel)

    def rounding(self, at: Precision) -> Rounding | None:
        """`stray` at radius 0: p_i |d_i| is at most 0.375 in every entry."""
        unit, room = self._unit(at), 1.0 + 2.0**-20
        if not math.isfinite(unit):
            return None
        entries = self.before * self.count * self.after
        absolute = 0.75 * unit + (4 + self.count) * at.tiny
        return Rounding(
            of_output=2 * unit * (1 + math.log(self.count)) * room,
            of_input=0.0,
            absolute=absolute * math.sqrt(entries) * room,
            largest_input=0.25 / at.tiny,
            is_local=False,
        )

    def _kernel(self, cube: Array, largest: Array, output: Array, moved: Array, at: Precision) -> Array:
        depth = cube.max(axis=2, keepdims=True) - cube + 2 * largest
        reach = np.minimum(output + moved, 1.0)
        # p_i |d_i| <= |d_i| e^(d_i) <= 1/e.
        weighted = np.minimum(reach * depth, 0.375)
        kernel = 2 * self._unit(at) * (reach * (1 + math.log(self.count)) + weighted)
        return kernel + (4 + self.count) * at.tiny


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskedSoftmax(Softmax):
    """Softmax over the `allowed` entries of each row, 0 at the others: ||p(x) - p(y)|| <= ½ ||x - y|| again.

    Leaving entries out is a projection and putting zeros in an embedding, both of norm 1.  The engine's exponential of
    minus infinity is zero or too small for a normal number.

    Shapes: allowed [n], with at least one entry in each row.
    """

    allowed: Array

    @property
    def _mask(self) -> Array:
        return self.allowed.reshape(self.before, self.count, self.after)

    def _along(self, cube: Array) -> Array:
        return super()._along(np.where(self._mask, cube, -np.inf))

    def _along_stray(self, cube: Array, radius: Array, output: Array, at: Precision) -> Array:
        """As without the masked entries, whose places the largest of the others takes, which is nowhere deep."""
        largest = np.where(self._mask, cube, -np.inf).max(axis=2, keepdims=True)
        bound = super()._along_stray(np.where(self._mask, cube, largest), np.where(self._mask, radius, 0.0), output, at)
        return np.where(self._mask, bound, (4 + self.count) * at.tiny)


class LogSoftmax(AlongAxis):
    """||l(x) - l(y)|| <= √n ||x - y|| for l_i = x_i - log Σ_j e^(x_j); no smaller constant holds for n > 1.

    The Jacobian is J = I - 1 p^T for a probability vector p.  Its norm is convex in p, so largest at a corner
    p = e_k, where J has the rows e_i - e_k (i ≠ k) and one of zeros: J J^T is I + 1 1^T on n - 1 coordinates,
    whose largest eigenvalue is n.  Near corners, which p approaches, it is as close to √n as one likes.
    """

    @property
    def constant_upper(self) -> float:
        return float(sqrt_upper(float(self.count)))

    def _along(self, cube: Array) -> Array:
        shifted = cube - cube.max(axis=2, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=2, keepdims=True))

    def _along_pullback(self, gradient: Array, output: Array) -> Array:
        return gradient - np.exp(output) * gradient.sum(axis=2, keepdims=True)

    def _along_stray(self, cube: Array, radius: Array, output: Array, at: Precision) -> Array:
        """log Σ exp is 1-Lipschitz in the largest entry; every step errs relative to x, max x or log n."""
        largest = radius.max(axis=2, keepdims=True)
        size = 2 * (np.abs(cube).max(axis=2, keepdims=True) + largest) + np.abs(cube) + radius
        kernel = 2 * self._unit(at) * (1 + math.log(self.count) + size)
        return radius + largest + kernel + (4 + self.count) * at.tiny

    def rounding(self, at: Precision) -> Rounding | None:
        """`stray` at radius 0: a row's largest entry counts once for each of its entries."""
        unit, room = self._unit(at), 1.0 + 2.0**-20
        if not math.isfinite(unit):
            return None
        entries = self.before * self.count * self.after
        absolute = 2 * unit * (1 + math.log(self.count)) + (4 + self.count) * at.tiny
        return Rounding(
            of_output=0.0,
            of_input=2 * unit * (2 * math.sqrt(self.count) + 1) * room,
            absolute=absolute * math.sqrt(entries) * room,
            largest_input=0.25 / at.tiny,
            is_local=False,
        )
