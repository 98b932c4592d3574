"""Proved upper bounds on the spectral norm of a zero-padded convolution, by frequencies of a larger torus.

y[q] = Σ_t K_t x[stride·q + offset_t], x zero outside 0 … n-1, is a compression of the circular convolution
on a torus that no tap can cross back into the input (`axis_torus`), followed by subsampling. Its norm is
hence at most the largest ‖S^-½ [K̂(ω_1) … K̂(ω_S)]‖ over the coarse frequencies, S = ∏ strides, ω_1 … ω_S
the aliases of one. The torus of the size of the input is not a bound: kernel [1, -1] on 3 points has norm
1.802, on that torus 1.732.

Proofs: `docs/proofs/torus.md`. A transposed convolution is the adjoint of a convolution whose input is its
output.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import lcm, prod

import numpy as np
from numpy.typing import NDArray

from certifier.proof.frequencies import Torus, grid
from certifier.proof.gram import grams, magnitude_norm_upper, scaled
from certifier.proof.phases import PHASE_ERROR, cosine_sine
from certifier.proof.rounding import (
    FLOAT64,
    TINY,
    Float,
    add_lower,
    add_upper,
    div_upper,
    gamma_upper,
    mul_lower,
    mul_upper,
    sqrt_lower,
    sqrt_upper,
    sum_upper,
    times_power_of_two,
)
from certifier.proof.semidefinite import is_proved_below

Pairs = NDArray[np.int64]  # (n, 2): group and frequency
_CACHED_BYTES = 2 * 2**20  # a batch that stays in the processor's cache


@dataclass(frozen=True, kw_only=True)
class AxisTorus:
    """One axis of the torus: `size` points, every stride-th kept, tap t reading `offsets[t]` points ahead."""

    size: int
    stride: int
    offsets: tuple[int, ...]


def axis_torus(*, taps: int, length: int, outputs: int, stride: int, pad_before: int, dilation: int) -> AxisTorus:
    """The smallest torus on which the circular convolution restricts to the zero-padded one along this axis.

    Output q reads position stride·q + dilation·t - pad_before. The size N satisfies N >= length + max(0,
    pad_before), N > stride·(outputs-1) + dilation·(taps-1) - pad_before (the last position read), N >
    stride·(outputs-1), and stride divides N: nothing read wraps around into the input, and no two outputs
    coincide (Theorem 1). A single tap is a selection of points, of norm at most 1: the torus of one point,
    without stride (Theorem 3).

    Raises: ValueError unless taps, length, outputs, stride and dilation are at least 1.
    """
    if min(taps, length, outputs, stride, dilation) < 1:
        raise ValueError("taps, length, outputs, stride and dilation must be at least 1")
    if taps == 1:
        return AxisTorus(size=1, stride=1, offsets=(0,))
    last_row = stride * (outputs - 1)
    last_read = last_row + dilation * (taps - 1) - pad_before
    size = max(length + max(0, pad_before), last_read + 1, last_row + 1)
    size = -(-size // stride) * stride
    offsets = tuple(dilation * tap - pad_before for tap in range(taps))
    return AxisTorus(size=size, stride=stride, offsets=offsets)


class TorusProof:
    """Proves ‖conv‖₂ <= sqrt(mu/S)·2^exponent for every kernel within entry_error of the given one.

    mu bounds the largest eigenvalue of the Gram matrices of [K̂(ω_1) … K̂(ω_S)] of the kernel times
    2^-exponent, on the side where they are smaller. One frequency of each conjugate pair suffices
    (Theorem 4).

    Shapes: kernel (c_out, c_in/groups, *taps), real; entry_error None (exact), or as kernel; the rest one
        entry per axis. Gram matrices (n, m, m), one per pair (group, frequency); `pair_count` pairs in all.
    Units: memory_limit in bytes, for the Gram matrices kept and again for each batch of work; one frequency
        is computed whatever it takes.
    Raises: ValueError for shapes that do not fit together and for entries that are not finite.
    """

    groups: int
    frequencies: int  # representatives, one of each conjugate pair
    exponent: int
    distance: Float  # per group, of the computed symbols from the exact ones, in spectral norm and scaled units
    fallback_upper: float  # an upper bound that needs no search

    def __init__(
        self,
        kernel: NDArray,
        entry_error: NDArray | None,
        *,
        input_shape: Sequence[int],
        output_shape: Sequence[int],
        strides: Sequence[int],
        pads_before: Sequence[int],
        dilations: Sequence[int],
        groups: int,
        memory_limit: int,
    ) -> None:
        taps = np.shape(kernel)[2:]
        lists = (input_shape, output_shape, strides, pads_before, dilations)
        if np.ndim(kernel) < 3 or any(len(each) != len(taps) for each in lists):
            raise ValueError("one entry per spatial axis of the kernel is needed everywhere")
        if groups < 1 or np.shape(kernel)[0] % groups or 0 in np.shape(kernel):
            raise ValueError(f"kernel of shape {np.shape(kernel)} does not split into {groups} groups")
        self._axes = [
            axis_torus(taps=k, length=n, outputs=o, stride=s, pad_before=p, dilation=d)
            for k, n, o, s, p, d in zip(taps, *lists, strict=True)
        ]
        self.groups = groups
        self._memory_limit = memory_limit
        self._aliases = prod(axis.stride for axis in self._axes)
        form = scaled(kernel, entry_error)
        self.exponent, self._is_zero = form.exponent, form.is_zero
        self._bound_symbols(form.values, form.error, form.loss)
        rows, columns = self._kernel.shape[2] // self._channels, self._channels
        self._taps_matrix = np.ascontiguousarray(self._kernel.reshape(len(self._kernel), -1))
        self._rows = rows
        self.order = min(rows, self._aliases * columns)
        self._coarse = Torus(tuple(axis.size // axis.stride for axis in self._axes)).frequencies
        self.frequencies = len(self._coarse)
        self._kept: tuple[NDArray, Float] | None = None

    @property
    def pair_count(self) -> int:
        """How many pairs (group, frequency) there are to prove."""
        return self.groups * self.frequencies

    def _bound_symbols(self, values: Float, error: Float | None, loss: float) -> None:
        """Per group: distance >= ‖computed - exact‖₂ of [K̂(ω_1) … K̂(ω_S)], and fallback_upper.

        Entrywise |computed - exact| <= 1.5(γ_T(1+ε) + ε)·B + R, with B = Σ_t|K_t|, R = Σ_t entry errors, ε
        the phase error, T taps (Lemma 2); S blocks within ‖·‖ of each make √S‖·‖. One tap: the symbol is the
        kernel, exactly.
        """
        outputs, self._channels = values.shape[:2]
        taps = prod(values.shape[2:])
        grouped = values.reshape(self.groups, outputs // self.groups, self._channels, taps)
        self._kernel = np.ascontiguousarray(np.moveaxis(grouped, -1, 0)).reshape(taps, self.groups, -1)
        self._single_tap = taps == 1

        root = sqrt_upper(float(self._aliases))
        magnitude = magnitude_norm_upper(sum_upper(np.abs(grouped), axis=-1))
        entries = float(grouped[0].size)
        distance = mul_upper(np.full(self.groups, loss), entries)  # Σ of all |entries| bounds the norm
        if error is not None:
            spread = magnitude_norm_upper(sum_upper(error.reshape(grouped.shape), axis=-1))
            distance = add_upper(distance, spread)
        fallback = add_upper(magnitude, distance)
        self.fallback_upper = self._in_callers_units(float(np.max(fallback)))
        if not self._single_tap:
            rounding = gamma_upper(taps, FLOAT64)
            relative = add_upper(mul_upper(rounding, add_upper(1.0, PHASE_ERROR)), PHASE_ERROR)
            rounded = mul_upper(mul_upper(1.5, relative), magnitude)
            distance = add_upper(distance, add_upper(rounded, mul_upper(entries, 2.0**-1000)))
        self.distance = mul_upper(root, distance)

    def grams(self, pairs: Pairs | None) -> Iterator[tuple[Pairs, NDArray, Float]]:
        """(pairs, Gram matrices, error norms) in batches within the memory limit; all pairs, or those given.

        For the search as for the proof. They are kept between calls where all of them fit. A single-tap
        kernel has real Gram matrices. Shapes: (n, 2), (n, m, m), (n,).
        """
        wanted = self._all_pairs() if pairs is None else np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
        per_pair = 48 * self.order**2
        if self._kept is None and self.pair_count * per_pair <= 3 * self._memory_limit:
            self._kept = self._compute_every()
        if self._kept is not None:
            step = max(1, self._memory_limit // per_pair)
            for start in range(0, len(wanted), step):
                part = wanted[start : start + step]
                if len(part) == self.pair_count and pairs is None:
                    yield part, self._kept[0].reshape(-1, self.order, self.order), self._kept[1].reshape(-1)
                else:
                    yield part, self._kept[0][part[:, 1], part[:, 0]], self._kept[1][part[:, 1], part[:, 0]]
            return
        wanted = wanted[np.argsort(wanted[:, 1], kind="stable")]
        distinct, first = np.unique(wanted[:, 1], return_index=True)
        ends = np.append(first, len(wanted))
        for start, stop in self._parts(len(distinct)):
            part = wanted[ends[start] : ends[stop]]
            stack, errors = self._compute(distinct[start:stop])
            place = np.searchsorted(distinct[start:stop], part[:, 1])
            yield part, stack[place, part[:, 0]], errors[place, part[:, 0]]

    def prove(self, mu: float, pairs: Pairs | None) -> Pairs:
        """The pairs for which mu was not proved, of all or of those given; empty: proved for all of these.

        ‖A‖ <= ‖computed A‖ + distance <= sqrt(mu) if the Gram matrix of the computed A is ⪯ (sqrt(mu) -
        distance)²·I. A pair proved at a smaller mu stays proved at a larger one, so a search retries only
        what failed.
        """
        if self._is_zero and mu >= 0:
            return np.empty((0, 2), dtype=np.int64)
        if not (np.isfinite(mu) and mu > 0):
            return self._all_pairs() if pairs is None else np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
        root = np.maximum(add_lower(sqrt_lower(mu), -self.distance), 0.0)
        square = mul_lower(root, root)  # per group
        failing = [np.empty((0, 2), dtype=np.int64)]
        for part, stack, errors in self.grams(pairs):
            bounds = square[part[:, 0]]
            step = max(1, _CACHED_BYTES // (16 * self.order**2))
            for start in range(0, len(part), step):
                few = slice(start, start + step)
                failing.append(part[few][~is_proved_below(stack[few], errors[few], bounds[few])])
        return np.concatenate(failing)

    def norm_upper_from_mu(self, mu: float) -> float:
        """sqrt(mu/S)·2^exponent <= result: a bound on ‖conv‖₂ once every pair was proved for mu or less."""
        if self._is_zero and mu >= 0:
            return 0.0
        return self._in_callers_units(float(sqrt_upper(div_upper(mu, float(self._aliases)))))

    def mu_from_norm(self, norm: float) -> float:
        """About the mu for which `norm_upper_from_mu` gives `norm`; untrusted, for trying a claim."""
        return float(self._aliases * np.square(times_power_of_two(norm, -self.exponent)))

    def _in_callers_units(self, norm: float) -> float:
        return float(np.maximum(times_power_of_two(norm, self.exponent), TINY)) if norm > 0 else 0.0

    def _all_pairs(self) -> Pairs:
        frequency, group = np.divmod(np.arange(self.pair_count), self.groups)
        return np.stack([group, frequency], axis=1)

    def _parts(self, count: int) -> Iterator[tuple[int, int]]:
        """Ranges of frequencies whose symbols and Gram matrices fit the memory limit together."""
        symbol = self._taps_matrix.shape[1] * self._aliases
        step = max(1, self._memory_limit // (64 * symbol + 48 * self.groups * self.order**2))
        for start in range(0, count, step):
            yield start, min(count, start + step)

    def _compute(self, frequencies: NDArray[np.int64]) -> tuple[NDArray, Float]:
        """Gram matrices (F, groups, m, m) and their error norms (F, groups)."""
        symbols = self.symbols(frequencies)
        count = len(frequencies)
        stack, errors = grams(symbols.reshape(count * self.groups, *symbols.shape[2:]))
        return stack.reshape(count, self.groups, self.order, self.order), errors.reshape(count, self.groups)

    def _compute_every(self) -> tuple[NDArray, Float]:
        """`_compute` of all frequencies, few at a time, so that symbols stay in the processor's cache."""
        dtype = np.float64 if self._single_tap else np.complex128
        stack = np.empty((self.frequencies, self.groups, self.order, self.order), dtype=dtype)
        errors = np.empty((self.frequencies, self.groups))
        per_frequency = 64 * self._taps_matrix.shape[1] * self._aliases + 48 * self.groups * self.order**2
        step = max(1, 8 * _CACHED_BYTES // per_frequency)
        for start in range(0, self.frequencies, step):
            few = slice(start, min(start + step, self.frequencies))
            stack[few], errors[few] = self._compute(np.arange(few.start, few.stop))
        return stack, errors

    def symbols(self, frequencies: NDArray[np.int64]) -> NDArray:
        """[K̂(ω_1) … K̂(ω_S)] of the scaled kernel, within `distance` of the exact ones.

        K̂(ω) = Σ_t K_t e^{iω·offset_t}. Shapes: (F,) -> (F, groups, c_out/groups, S·c_in/groups).
        """
        shape = (len(frequencies), self._aliases, self.groups, self._rows, self._channels)
        if self._single_tap:
            return np.broadcast_to(self._kernel.reshape(shape[2:]), (len(frequencies), *shape[2:]))
        cosine, sine = self._phases(frequencies)
        symbols = np.empty(shape, dtype=np.complex128)
        symbols.real = (cosine @ self._taps_matrix).reshape(shape)
        symbols.imag = (sine @ self._taps_matrix).reshape(shape)
        aligned = np.moveaxis(symbols, 1, 3)  # (F, groups, rows, S, channels)
        return np.ascontiguousarray(aligned).reshape(*aligned.shape[:3], -1)

    def _phases(self, frequencies: NDArray[np.int64]) -> tuple[Float, Float]:
        """cos and sin of ω·offset for every frequency, alias and tap. Shapes: (F·S, T) each.

        ω = 2π·κ/N per axis, κ = coarse + (N/stride)·alias; over the common denominator of all N the angle
        is an integer, reduced exactly.
        """
        denominator = lcm(*(axis.size for axis in self._axes))
        aliases = grid([axis.stride for axis in self._axes])
        taps = grid([len(axis.offsets) for axis in self._axes])
        total = np.zeros((len(frequencies), len(aliases), len(taps)), dtype=np.int64)
        for position, axis in enumerate(self._axes):
            fine = self._coarse[frequencies, position, None] + axis.size // axis.stride * aliases[:, position]
            offset = np.asarray(axis.offsets, dtype=np.int64)[taps[:, position]] % axis.size
            total += (fine[:, :, None] * offset) % axis.size * (denominator // axis.size)
            total %= denominator
        return cosine_sine(total.reshape(-1, len(taps)), denominator)
