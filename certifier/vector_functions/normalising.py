"""Normalisation by mean and root mean square within groups."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certifier.proof.rounding import div_upper, norm_upper, sqrt_lower
from certifier.terms import REFERENCE, Precision, Rounding, VectorFunction
from certifier.vector_functions.softmaxes import roundings_upper

Array = NDArray[Any]
PER_SPREAD = 4.0
"""How many times its deviation a group's root mean square may be where rounding in the centring is bounded."""

LARGEST_EPSILON = 2.0**-32
"""What ε may be of the largest numbers; patterns multiply it by how many entries a sum of squares has."""


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

    def room_lower(self, x: Array, length: Array) -> Array:
        """√(E[x'²]) <= ρ s(x') in every group while (1 + 1/ρ) ‖x' - x‖ <= √n s(x) - ‖x‖/ρ in every group.

        √n s is the norm of (z, √(n ε)), so it is 1-Lipschitz.
        """
        slack = 2.0**-20
        with np.errstate(all="ignore"):
            grouped = self._grouped(x)
            nearby = _Nearby(self, grouped, np.zeros_like(grouped), None, REFERENCE)
            spread = nearby.least[:, :, 0] * math.sqrt(grouped.shape[2]) * (1 - slack)
            reserve = (spread - norm_upper(grouped, 2) / PER_SPREAD * (1 + slack)).min(axis=1)
            room = reserve / (1 + 1 / PER_SPREAD) * (1 - slack) - length[:, 0] * (1 + slack)
            known = np.isfinite(x).all(axis=1) & np.isfinite(room)
        return np.where(known, np.maximum(room, 0.0), 0.0)[:, None]

    def rounding(self, at: Precision) -> Rounding | None:
        return self._rounding_of_centred(at) if self.centred else self._rounding_of_uncentred(at)

    def _fits(self, at: Precision) -> bool:
        """Whether neither ε beside a variance nor a scale over a deviation leaves the range of the type."""
        count = self.scale.size // self.groups
        top, floor = float(np.max(np.abs(self.scale), initial=0.0)), float(sqrt_lower(self.epsilon))
        largest = max(top / floor, PER_SPREAD * math.sqrt(count) * top)
        return 8 * largest <= 0.25 / at.tiny and self.epsilon <= LARGEST_EPSILON / at.tiny

    def _rounding_of_centred(self, at: Precision) -> Rounding | None:
        """Where E[x²] <= ρ² s² in every group, ρ = `PER_SPREAD` (`docs/proofs/execution.md`).

        Of two passes or of E[x²] - E[x]², s² errs by at most `share` of itself, 1/s by `inverse` of itself, and z by
        unit (|x| + E|x|), whose norm is at most 2 ρ unit √n s in a group.
        """
        count = self.scale.size // self.groups
        unit = roundings_upper(3 * count + 16, at.unit)
        top, floor = float(np.max(np.abs(self.scale), initial=0.0)), float(sqrt_lower(self.epsilon))
        share = unit * (PER_SPREAD**2 + 2) + 16 * count * at.tiny / self.epsilon
        if not (share < 0.25 and 16 * count * at.tiny <= at.unit and self._fits(at)):
            return None
        room = 1.0 + 2.0**-20
        lost = 2 * PER_SPREAD * unit
        inverse = share / 2 * (1 + share)
        relative = (1 + lost) * (inverse + unit * (1 + inverse)) + lost
        shift = float(norm_upper(self.shift, None))
        flushed = 16 * count * at.tiny * (1 + top * (1 + 1 / floor))
        return Rounding(
            of_output=0.0,
            of_input=8 * at.tiny,
            absolute=(unit * shift + (top * relative + flushed) * math.sqrt(self.scale.size)) * room,
            largest_input=0.25 * math.sqrt(0.25 / at.tiny / count),
            is_local=True,
        )

    def _rounding_of_uncentred(self, at: Precision) -> Rounding | None:
        """At radius 0, with `unit` as in `_Nearby`: E[x²] is at most s², and the least s within its rounding is at
        least s (1 - 3 unit), so that share <= 3 unit + 4 tiny/ε; the kernel's error of x/s is at most
        2 (2 share + 3 unit) of it, and |scale x/s| <= |F(x)| + |shift|.
        """
        count = self.scale.size // self.groups
        unit = roundings_upper(3 * count + 16, at.unit)
        share = 3 * unit + 8 * at.tiny / self.epsilon
        if not (share < 2.0**-6 and self._fits(at)):
            return None
        room = 1.0 + 2.0**-20
        relative = 2 * (2 * share + 3 * unit)
        shift = float(norm_upper(self.shift, None))
        flushed = 8 * at.tiny * (1 + 2 * float(np.max(np.abs(self.scale), initial=0.0)) / math.sqrt(self.epsilon))
        return Rounding(
            of_output=relative * room,
            of_input=0.0,
            absolute=((relative + unit) * shift + flushed * math.sqrt(self.scale.size)) * room,
            largest_input=0.25 * math.sqrt(0.25 / at.tiny / count),
            is_local=False,
        )

    def _overflows(self, x: Array, radius: Array, at: Precision) -> Array:
        """Whether an engine may square numbers too large; 1/tiny is below the largest number of every precision."""
        if not self._fits(at):
            return np.ones((len(x), 1), dtype=np.bool_)
        reach = 2 * (np.abs(x) + radius).max(axis=1, keepdims=True)
        return ~(reach < math.sqrt(0.25 / at.tiny / (x.shape[1] / self.groups)))


class _Nearby:
    """What `Normalisation.stray` adds up, at groups x that stray by at most `radius`, and `length` in the L2 norm.

    Shapes: x and radius [B, groups, n]; length [B, 1]; moved and kernel [B, groups, n]; steepest [B, 1];
    least, the deviation of every group from below, [B, groups, 1].
    """

    def __init__(self, function: Normalisation, x: Array, radius: Array, length: Array | None, at: Precision) -> None:
        count = x.shape[2]
        # n + 2 roundings for each of two means, doubled by the square of one, and those of root and quotient.
        unit = roundings_upper(3 * count + 16, at.unit)
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
        self.least = least
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
