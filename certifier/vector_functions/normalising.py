"""Softmax, its logarithm, and normalisation by mean and root mean square within groups."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certifier.proof.rounding import div_upper, gamma_upper, norm_upper, sqrt_lower, sqrt_upper
from certifier.terms import Precision, VectorFunction

Array = NDArray[Any]

_KERNEL = 64
"""Roundings granted to an exponential, a logarithm and a quotient together (assumption A5)."""

_SMALLEST = 2.0**-1022


def _roundings_upper(count: int, unit: float) -> float:
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
        return _roundings_upper(2 * self.count + _KERNEL, at.unit)

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


@dataclass(frozen=True, kw_only=True, eq=False)
class Normalisation(VectorFunction):
    """||F(x) - F(y)|| <= max|scale|/√ε ||x - y|| for F(x) = scale z/√(mean z² + ε) + shift in each group.

    z is x less its group's mean if `centred`, else x itself; groups are `groups` equal consecutive blocks,
    and `scale` and `shift` have one entry for every entry of x.
    Centring is an orthogonal projection (norm 1).  With s = √(‖z‖²/n + ε) the rest has the symmetric Jacobian
    (I - z z^T/(n s²))/s, with eigenvalues 1/s and, along z, (1 - ‖z‖²/(n s²))/s = ε/s³ in (0, 1/s]: its norm
    is at most 1/s <= 1/√ε.  Scaling multiplies by at most max|scale|.
    """

    name: str
    groups: int
    scale: Array
    shift: Array
    epsilon: float
    centred: bool

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise ValueError("normalisation has a Lipschitz constant only for epsilon > 0")

    @property
    def constant_upper(self) -> float:
        return float(div_upper(np.max(np.abs(self.scale), initial=0.0), sqrt_lower(self.epsilon)))

    def _grouped(self, x: Array) -> Array:
        return x.reshape(x.shape[0], self.groups, -1)

    def deviation(self, grouped: Array) -> tuple[Array, Array]:
        """(z, s) per group.  Shapes: [B, groups, n]."""
        z = grouped - grouped.mean(axis=2, keepdims=True) if self.centred else grouped
        return z, np.sqrt(np.square(z).mean(axis=2, keepdims=True) + self.epsilon)

    def evaluate(self, x: Array) -> Array:
        z, s = self.deviation(self._grouped(x))
        return (z / s).reshape(x.shape) * self.scale + self.shift

    def pullback(self, gradient: Array, x: Array) -> Array:
        z, s = self.deviation(self._grouped(x))
        scaled = self._grouped(gradient * self.scale)
        normal = z / s
        back = (scaled - normal * (scaled * normal).mean(axis=2, keepdims=True)) / s
        if self.centred:
            back = back - back.mean(axis=2, keepdims=True)
        return back.reshape(x.shape)

    def stray(self, x: Array, radius: Array, output: Array, at: Precision) -> Array:
        """Movement of the input over the least s within reach, then the rounding of every step.

        s is 1/√n-Lipschitz, so at least s - ‖radius‖/√n, and √ε.  z/s moves by at most ‖radius‖ over the
        least s, and by at most |Δz| + |z|/s·|Δs| over it.  Whether the engine takes the variance of centred
        values or E[x²] - E[x]², it errs by at most gamma(3n + 16)·E[x²]; relative to the variance plus ε that
        is `share`, and 1/s then errs by (1 - share)^(-1/2) - 1.  Near share = 1 the engine may divide by
        zero or take the root of a negative number: there the bound is infinite.
        """
        with np.errstate(all="ignore"):
            nearby = _Nearby(self, self._grouped(x), self._grouped(radius), None, at)
            bound = nearby.moved + nearby.kernel
        bound = np.where(np.isnan(bound), np.inf, bound).reshape(x.shape)
        return np.where(self._overflows(x, radius, at), np.inf, bound)

    def stray_length(self, x: Array, radius: Array, length: Array, output: Array, at: Precision) -> Array:
        """‖Δx‖ over the least s within reach, where ‖Δx‖ bounds the movement of every group, then the rounding."""
        with np.errstate(all="ignore"):
            nearby = _Nearby(self, self._grouped(x), self._grouped(radius), length, at)
            kernel = norm_upper(nearby.kernel, (1, 2))[:, None]
            bound = nearby.steepest * length + kernel
        return np.where(np.isnan(bound) | self._overflows(x, radius, at), np.inf, bound)

    def _overflows(self, x: Array, radius: Array, at: Precision) -> Array:
        """Whether an engine may square numbers too large; 1/tiny is below the largest number of every precision."""
        reach = 2 * (np.abs(x) + radius).max(axis=1, keepdims=True)
        return ~(reach < math.sqrt(0.25 / at.tiny / (x.shape[1] / self.groups)))


class _Nearby:
    """What `Normalisation.stray` adds up, at groups x that stray by at most `radius`, and `length` in the L2 norm.

    Shapes: x and radius [B, groups, n]; length [B, 1]; moved and kernel [B, groups, n]; steepest [B, 1].
    """

    def __init__(self, function: Normalisation, x: Array, radius: Array, length: Array | None, at: Precision) -> None:
        count = x.shape[2]
        # n + 2 roundings for each of two means, doubled by the square of one, and those of root and quotient.
        unit = _roundings_upper(3 * count + 16, at.unit)
        scale = np.abs(function.scale).reshape(1, function.groups, count)
        shift = np.abs(function.shift).reshape(1, function.groups, count)
        z, s = function.deviation(x)
        spread = norm_upper(radius, 2)[:, :, None] * (1 + unit)
        if length is not None:
            spread = np.minimum(spread, length[:, :, None])
        reach = np.abs(x) + radius
        power = np.square(reach).mean(axis=2, keepdims=True) * (1 + unit) + at.tiny
        # The formula's own variance is as inexact as any, and cancels in the same way.
        floor = float(sqrt_lower(function.epsilon))
        own = np.sqrt(np.maximum(np.square(s) * (1 - unit) - unit * power, 0.0))
        centre = np.maximum(own, floor)
        shrinking = spread / math.sqrt(count)
        least = np.maximum(centre * (1 - unit) - shrinking, floor)
        share = unit * (power / np.square(least) + 1) + 4 * at.tiny / np.square(least)
        inverse = np.where(share < 0.99, 1 / np.sqrt(1 - share) - 1, np.inf)
        mean = reach.mean(axis=2, keepdims=True) if function.centred else 0.0
        shift_of_z = radius + (radius.mean(axis=2, keepdims=True) if function.centred else 0.0)
        size_of_z = np.abs(z) + unit * (reach + mean)
        by_entry = (shift_of_z + size_of_z / centre * shrinking) / least * (1 + unit)
        kernel = (size_of_z + shift_of_z) * (inverse + unit) + (1 + inverse) * unit * (reach + mean)
        flushed = 8 * at.tiny * (1 + scale / least)
        self.moved = scale * np.minimum(spread / least, by_entry)
        self.kernel = scale * 2 * kernel / least + unit * shift + flushed
        self.steepest = (scale.max(axis=2, keepdims=True) / least * (1 + unit)).max(axis=1)
