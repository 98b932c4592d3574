"""Maxima, p-norms and log-sum-exps over windows, with constants counted from the actual windows.

Reference for the stray of sums: Higham 2002, section 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certifier.proof.rounding import gamma_upper, sqrt_upper
from certifier.terms import Precision, Rounding, VectorFunction

Array = NDArray[Any]
_CHUNK = 2**20


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """Window m reads the entries `indices[m, :]` of the middle axis of [before, width, after]; -1 is padding.

    No two windows read the same entry at the same tap, so a tap's column can be scattered without collisions.
    """

    indices: Array
    width: int
    before: int
    after: int

    @property
    def columns(self) -> int:
        """Entries of the flat input."""
        return self.before * self.width * self.after

    @property
    def rows(self) -> int:
        """Entries of the flat output."""
        return self.before * self.indices.shape[0] * self.after

    @cached_property
    def sizes(self) -> Array:
        """How many entries each window holds, padding left out."""
        return np.count_nonzero(self.indices >= 0, axis=1)

    @cached_property
    def overlap(self) -> int:
        """The largest number of windows that hold one entry."""
        return int(np.bincount(self.indices[self.indices >= 0], minlength=1).max())

    def padded(self, x: Array, fill: float) -> Array:
        """x as [B, before, width + 1, after], whose last entry `fill` is what the padding reads."""
        cube = x.reshape(x.shape[0], self.before, self.width, self.after)
        edge = np.full((x.shape[0], self.before, 1, self.after), fill, dtype=cube.dtype)
        return np.concatenate([cube, edge], axis=2)

    def pieces(self, x: Array, fill: float) -> Iterator[Array]:
        """The windows' entries, some taps at a time.  Shapes: [B, n] -> [B, before, windows, taps, after] each."""
        cube = self.padded(x, fill)
        per_tap = max(1, x.shape[0] * self.before * self.indices.shape[0] * self.after)
        step = max(1, _CHUNK // per_tap)
        for start in range(0, self.indices.shape[1], step):
            yield cube[:, :, self.indices[:, start : start + step], :]

    def maximum(self, x: Array, fill: float) -> Array:
        """The largest entry of each window.  Shapes: [B, n] -> [B, before, windows, after]."""
        out = None
        for piece in self.pieces(x, fill):
            largest = piece.max(axis=3)
            out = largest if out is None else np.maximum(out, largest)
        assert out is not None
        return out

    def scatter(self, x: Array, weight: Any) -> Array:
        """The adjoint of reading: sum over taps of `weight(entries of the tap)` at the entries' places."""
        cube = self.padded(x, 0.0)
        out = np.zeros_like(cube)
        for tap in range(self.indices.shape[1]):
            places = self.indices[:, tap]
            # Windows differ at one tap, so only the padding's slot collides, and it is dropped.
            out[:, :, places, :] += np.where((places >= 0)[:, None], weight(cube[:, :, places, :], places), 0.0)
        return out[:, :, :-1, :].reshape(x.shape[0], -1)


class WindowMaximum(VectorFunction):
    """h_m = max of window m: Lipschitz with the root of the largest number of windows that hold one entry.

    Proof.  |max_W x - max_W y| <= max_W |x - y| (if i attains max_W x, then max_W x - max_W y <= x_i - y_i),
    and max_W |d|^2 <= sum_W d^2.  Summed over the windows, every d_i^2 counts once for each window that holds i,
    so ||F(x) - F(y)||^2 <= overlap ||d||^2.  It is attained by x = t e_i, y = 0, t > 0, when `overlap` windows
    hold i.  Padding is -infinity, so it never attains the maximum of a window that holds an entry.
    """

    name = "maximum over windows"

    def __init__(self, windows: Windows, *, smallest: bool) -> None:
        if int(windows.sizes.min(initial=1)) < 1:
            raise ValueError("a window of padding alone has no maximum")
        self.windows, self.smallest = windows, smallest

    @property
    def constant_upper(self) -> float:
        return _root_upper(self.windows.overlap)

    def evaluate(self, x: Array) -> Array:
        signed = -x if self.smallest else x
        out = self.windows.maximum(signed, -np.inf).reshape(x.shape[0], -1)
        return -out if self.smallest else out

    def pullback(self, gradient: Array, x: Array) -> Array:
        signed = -x if self.smallest else x
        best = self.windows.maximum(signed, -np.inf)
        incoming = gradient.reshape(best.shape)
        taken = np.zeros(best.shape, dtype=bool)

        def first_largest(entries: Array, places: Array) -> Array:
            chosen = (entries == best) & ~taken & (places >= 0)[:, None]
            taken[chosen] = True
            return np.where(chosen, incoming, 0.0)

        return self.windows.scatter(signed, first_largest)

    @property
    def only_selects(self) -> bool:
        return True

    def stray(self, x: Array, radius: Array, output: Array, at: Precision) -> Array:
        """The largest radius of the window: comparing and moving numbers rounds nothing."""
        return self.windows.maximum(radius, 0.0).reshape(output.shape)


class WindowNorm(VectorFunction):
    """h_m = (sum over window m of |x_i|^p)^(1/p), p >= 2: Lipschitz with the root of the windows' overlap.

    Proof.  | ||x||_p - ||y||_p | <= ||x - y||_p <= ||x - y||_2 for p >= 2 within each window; summed over the
    windows as for the maximum.
    """

    name = "p-norm over windows"

    def __init__(self, windows: Windows, *, p: int) -> None:
        if p < 2:
            raise ValueError("the constant is proved for p >= 2")
        self.windows, self.p = windows, p

    @property
    def constant_upper(self) -> float:
        return _root_upper(self.windows.overlap)

    def _norm(self, x: Array) -> Array:
        scale = self.windows.maximum(abs(x), 0.0)
        # Powers of numbers below 1 do not overflow; an infinite entry is left as it is.
        safe = np.where((scale > 0) & np.isfinite(scale), scale, 1.0)
        total = np.zeros(scale.shape)
        for piece in self.windows.pieces(x, 0.0):
            total += ((abs(piece) / safe[:, :, :, None, :]) ** self.p).sum(axis=3)
        return safe * total ** (1.0 / self.p)

    def evaluate(self, x: Array) -> Array:
        return self._norm(x).reshape(x.shape[0], -1)

    def pullback(self, gradient: Array, x: Array) -> Array:
        norm = self._norm(x)
        safe = np.where(norm > 0, norm, 1.0)
        incoming = np.where(norm > 0, gradient.reshape(norm.shape), 0.0)

        def slope(entries: Array, places: Array) -> Array:
            return incoming * np.sign(entries) * (abs(entries) / safe) ** (self.p - 1)

        return self.windows.scatter(x, slope)

    def stray(self, x: Array, radius: Array, output: Array, at: Precision) -> Array:
        """||radius||_p carried over, plus the kernel's own rounding at the largest value reached.

        Each of k powers errs by a few units (assumption A5), their sum by k more; the root divides that by p and
        adds its own, and rounding the exponent 1/p costs |log sum|/p units, at most |log tiny| while the sum
        neither overflows nor underflows.  Powers that flush to zero take at most k tiny from the sum, so at most
        (2 k tiny)^(1/p) from its root.  A sum that may exceed 1/tiny could overflow: no bound.
        """
        carried = self._norm(radius).reshape(output.shape)
        taps = self.windows.indices.shape[1]
        exponent_rounding = 0 if self.p == 2 else math.ceil(-math.log(at.tiny))
        reach = output + carried
        own = _gamma(taps + 12 + exponent_rounding, at.unit) * reach
        flushed = (2.0 * taps * at.tiny) ** (1.0 / self.p)
        overflows = reach >= (1.0 / at.tiny) ** (1.0 / self.p)
        return np.where(overflows, np.inf, carried + own + flushed)

    def rounding(self, at: Precision) -> Rounding | None:
        """`stray` at radius 0; no window's norm exceeds that of the whole input."""
        taps = self.windows.indices.shape[1]
        exponent_rounding = 0 if self.p == 2 else math.ceil(-math.log(at.tiny))
        flushed = (2.0 * taps * at.tiny) ** (1.0 / self.p)
        return _finite_rounding(
            of_output=_gamma(taps + 12 + exponent_rounding, at.unit),
            absolute=flushed * math.sqrt(self.windows.rows),
            largest_input=0.5 * (1.0 / at.tiny) ** (1.0 / self.p),
        )


class WindowLogSumExp(VectorFunction):
    """h_m = log sum over window m of exp x_i: Lipschitz with the root of the windows' overlap.

    Proof.  The gradient of one window is a softmax, of L1 norm 1, hence |F_m(x) - F_m(y)| <= max |x - y| over the
    window; summed over the windows as for the maximum.
    """

    name = "log-sum-exp over windows"

    def __init__(self, windows: Windows) -> None:
        if int(windows.sizes.min(initial=1)) < 1:
            raise ValueError("a window of padding alone has no log-sum-exp")
        self.windows = windows

    @property
    def constant_upper(self) -> float:
        return _root_upper(self.windows.overlap)

    def _value(self, x: Array) -> Array:
        largest = self.windows.maximum(x, -np.inf)
        total = np.zeros(largest.shape)
        for piece in self.windows.pieces(x, -np.inf):
            total += np.exp(piece - largest[:, :, :, None, :]).sum(axis=3)
        return largest + np.log(total)

    def evaluate(self, x: Array) -> Array:
        return self._value(x).reshape(x.shape[0], -1)

    def pullback(self, gradient: Array, x: Array) -> Array:
        value = self._value(x)
        incoming = gradient.reshape(value.shape)
        return self.windows.scatter(x, lambda entries, places: incoming * np.exp(entries - value))

    def stray(self, x: Array, radius: Array, output: Array, at: Precision) -> Array:
        """The largest radius of the window, plus the kernel's rounding when it subtracts the maximum first.

        With t_i = max - x_i >= 0: rounding t_i costs e^-t_i t_i u <= u/e, each exponential a few units, the sum
        of k terms gamma_k, all relative to a sum that is at least 1; the logarithm a few units of at most log k;
        the last addition one unit of the result.  An engine that does not subtract the maximum overflows instead,
        which shows as a value that is not finite.
        """
        carried = self.windows.maximum(radius, 0.0).reshape(output.shape)
        taps = self.windows.indices.shape[1]
        spread = 1.0 + math.log(taps)
        own = _gamma(2 * taps + 16, at.unit) * spread + 4 * at.unit * (abs(output) + carried + spread)
        return carried + own + 4 * taps * at.tiny

    def rounding(self, at: Precision) -> Rounding | None:
        """`stray` at radius 0, for inputs so small that not even plain exponentials over- or underflow."""
        taps = self.windows.indices.shape[1]
        spread = 1.0 + math.log(taps)
        own = _gamma(2 * taps + 16, at.unit) * spread + 4 * at.unit * spread + 4 * taps * at.tiny
        return _finite_rounding(
            of_output=4 * at.unit,
            absolute=own * math.sqrt(self.windows.rows),
            largest_input=0.5 * math.log(1.0 / at.tiny),
        )


def _finite_rounding(*, of_output: float, absolute: float, largest_input: float) -> Rounding | None:
    """With room for the rounding of the formulas; None where the precision is too low for them."""
    if not math.isfinite(of_output) or not math.isfinite(absolute):
        return None
    room = 1.0 + 2.0**-20
    return Rounding(
        of_output=of_output * room,
        of_input=0.0,
        absolute=absolute * room,
        largest_input=largest_input,
        is_local=False,
    )


def _gamma(count: int, unit: float) -> float:
    """gamma_count, or infinity where the precision is too low for an error analysis of so many roundings."""
    return gamma_upper(count, unit) if count * unit < 0.25 else math.inf


def _root_upper(count: int) -> float:
    """sqrt(count), exact for squares."""
    root = math.isqrt(count)
    return float(root) if root * root == count else float(sqrt_upper(float(count)))
