"""What the engine's rounding can take from a margin, as linear forms that serving evaluates with one multiply-add.

A form  c + c_s s + Σ_v c_v ‖v(x)‖ + Σ_i c_i ‖δ_i(x)‖ + c_r r  bounds a drift ‖executed - exact‖ at every x' with
‖x' - x‖ <= r, where s is the stray of the network's input at x and δ_i bounds what an affine term rounds off in the
float64 evaluation of x; all coefficients are at least 0.  So for every pair of classes

    executed f_t(x') - f_j(x')  >=  f_t(x) - f_j(x) - L_tj r - (fixed_tj + growth_tj r)

and the label stays t while  margin_tj - fixed_tj > (L_tj + growth_tj) r.  `certifier.proof.drifting` derives the forms.
Arithmetic: rounded up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from certifier.proof.execution import SLACK, Measured, Measures
from certifier.proof.rounding import add_upper, mul_upper

Floats = NDArray[np.float64]

LARGEST = {"float64": 2.0**1023, "float32": 2.0**127, "float16": 2.0**15, "bfloat16": 2.0**127}
"""Numbers up to here do not overflow, not even when they are rounded."""
NEGLIGIBLE = 2.0**-1000
"""More than everything that underflows when a form is evaluated."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Carried:
    """The drift of one value, and how much of it reaches every output and every difference of two.

    Shapes: form [m]; outputs [c]; pairs [c, c] or None for too many outputs.
    """

    form: Floats
    outputs: Floats
    pairs: Floats | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Own:
    """Rounding of the last maps: the size that enters them, and its share per output.  Shapes: form [m]; gains [c]."""

    form: Floats
    gains: Floats


@dataclass(frozen=True, kw_only=True)
class Summed:
    """A term that sums up the outputs themselves: each errs by `unit` times its own rounding in float64 at x."""

    term: str
    unit: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Room:
    """Forms hold while `form`, how far what `term` reads has moved, is below what `VectorFunction.room_lower` allows.

    Shapes: form [m].
    """

    term: str
    form: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Drifts:
    """The drift of a network's outputs from the exact network, for all inputs.

    `values` and `sums` name the values and the terms whose norms the forms take, in order; `constants` is what every
    output errs by whatever the input; `peak` sums up the shares that numbers reach of what their types hold, and drifts
    of what they may come to; where it stays below 1 and `rooms` suffice, so does all the rest; `whole` bounds the L2
    norm of the outputs' drift.
    Shapes: forms [values + sums + 3]: constant, stray of the input, norms of values and of sums, radius; constants [c].
    """

    values: tuple[str, ...]
    sums: tuple[str, ...]
    carried: tuple[Carried, ...]
    own: tuple[Own, ...]
    summed: tuple[Summed, ...]
    constants: Floats
    rooms: tuple[Room, ...]
    peak: Floats
    whole: Floats

    @property
    def is_finite(self) -> bool:
        """Whether every number that pairs and outputs need is finite; only then may it be evaluated."""
        arrays = [self.constants, self.peak, self.whole, np.array([part.unit for part in self.summed])]
        arrays += [array for part in self.carried for array in (part.form, part.outputs)]
        arrays += [part.pairs for part in self.carried if part.pairs is not None]
        arrays += [array for part in self.own for array in (part.form, part.gains)]
        arrays += [part.form for part in self.rooms]
        return all(bool(np.isfinite(array).all()) for array in arrays)

    def without_idle_norms(self) -> Drifts:
        """The same drifts, for which nothing is measured that every form multiplies by 0."""
        forms = [self.peak, self.whole, *(part.form for part in (*self.carried, *self.own, *self.rooms))]
        used = np.any(np.array(forms) != 0, axis=0)
        used[[0, 1, -1]] = True
        names = np.flatnonzero(used[2:-1])
        return replace(
            self,
            values=tuple(self.values[place] for place in names if place < len(self.values)),
            sums=tuple(self.sums[place - len(self.values)] for place in names if place >= len(self.values)),
            carried=tuple(replace(part, form=part.form[used]) for part in self.carried),
            own=tuple(replace(part, form=part.form[used]) for part in self.own),
            rooms=tuple(replace(part, form=part.form[used]) for part in self.rooms),
            peak=self.peak[used],
            whole=self.whole[used],
        )

    @cached_property
    def measured(self) -> Measured:
        """What has to be measured of an input."""
        entries, rooms = (frozenset(part.term for part in parts) for parts in (self.summed, self.rooms))
        return Measured(values=frozenset(self.values), sums=frozenset(self.sums), entries=entries, rooms=rooms)

    def at(self, measures: Measures) -> DriftsAt:
        """The drifts around inputs of which all that is `measured` is known from above."""
        columns = [measures.stray, *map(measures.values.__getitem__, self.values)]
        columns += map(measures.sums.__getitem__, self.sums)
        constants, slopes, units = self._tables
        with np.errstate(over="ignore", invalid="ignore"):
            fixed = np.concatenate(columns, axis=1) @ slopes
            fixed += constants
            both = fixed[:, -2 * self.constants.size :].reshape(len(fixed), 2, -1)
            for part, unit in zip(self.summed, units, strict=True):
                entries = unit * measures.entries[part.term]
                both += entries[:, None]
            # Numbers, since what has limits grows by no less than the least normal number where it grows at all.
            *growths, peak = self._limited_growths
            first = len(self.carried)
            room = (1.0 - fixed[:, first + len(growths)]) / peak
            for place, (part, growth) in enumerate(zip(self.rooms, growths, strict=True), first):
                room = np.minimum(room, (measures.rooms[part.term][:, 0] - fixed[:, place]) / growth)
        return DriftsAt(drifts=self, fixed=fixed, room=np.where(room > NEGLIGIBLE, room, 0.0))

    @cached_property
    def table(self) -> Floats:
        """All forms side by side, one a column, so that one product evaluates them.

        Shapes: [values + sums + 3, carried + rooms + 2 + 2 c]: carried drifts, rooms, peak, whole, the drift of every
        output, and its own rounding in the last maps.
        """
        own = np.zeros((self.whole.size, self.constants.size))
        own[0] = self.constants
        for part in self.own:
            own = add_upper(own, mul_upper(part.form[:, None], part.gains))
        outputs = own
        for part in self.carried:
            outputs = add_upper(outputs, mul_upper(part.form[:, None], part.outputs))
        single = np.array([*(part.form for part in (*self.carried, *self.rooms)), self.peak, self.whole]).T
        return np.concatenate([single, outputs, own], axis=1)

    @cached_property
    def _tables(self) -> tuple[Floats, Floats, list[float]]:
        """The constants of all forms, all else but the radius, and the units of `summed`.

        All are above what rounds and underflows in the sums and products that follow.
        """
        constants = add_upper(mul_upper(self.table[0], SLACK), NEGLIGIBLE)
        slopes = np.ascontiguousarray(mul_upper(self.table[1:-1], SLACK))
        return np.asarray(constants), slopes, [float(mul_upper(part.unit, SLACK)) for part in self.summed]

    @cached_property
    def growths(self) -> Floats:
        """How fast the whole drift and that of every output grow with the radius, above what a few sums and products
        with it round.  Shapes: [1 + c]."""
        count = self.constants.size
        return np.asarray(mul_upper(self.table[-1, -2 * count - 1 : -count], SLACK))

    @cached_property
    def pair_growths(self) -> Floats:
        """How fast the drift of every pair grows with the radius.  Shapes: [c, c]."""
        own = self.table[-1, -self.constants.size :]
        growth = add_upper(own, own[:, None])
        for part in self.carried:
            assert part.pairs is not None
            growth = add_upper(growth, mul_upper(part.pairs, part.form[-1]))
        return np.asarray(growth)

    @cached_property
    def _limited_growths(self) -> list[float]:
        """How fast the forms of rooms and the peak grow, above what dividing by it rounds; infinite if they do not."""
        growths = mul_upper([*(part.form[-1] for part in self.rooms), self.peak[-1]], SLACK)
        return np.where(growths == 0, np.inf, growths).tolist()


@dataclass(frozen=True, kw_only=True, eq=False)
class DriftsAt:
    """Drifts around each of a batch of inputs, as a fixed part and a growth per unit of radius.

    `fixed` is the fixed part of all that `Drifts.table` has columns for.  `room` is how far an input may move before
    any number could overflow or forms cease to hold, rounded down; 0 where it is not known.
    Shapes: fixed [B, carried + rooms + 2 + 2 c]; room [B].
    Arithmetic: no number is negative, so that `fixed` is above the exact sums by more than what rounds and underflows
    in the few sums and products that follow; it may hold anything but numbers where they are not known.
    """

    drifts: Drifts
    fixed: Floats
    room: Floats

    def some(self, rows: NDArray[np.intp]) -> DriftsAt:
        """Around these inputs of them."""
        return DriftsAt(drifts=self.drifts, fixed=self.fixed[rows], room=self.room[rows])

    def pairs(self, label: NDArray[np.intp]) -> tuple[Floats, Floats]:
        """(fixed, growth) of the drift of f_label - f_j, for every j.  Shapes: label [B] -> [B, c] each."""
        own = self.fixed[:, -self.drifts.constants.size :]
        with np.errstate(over="ignore", invalid="ignore"):
            fixed = own + own[np.arange(len(label)), label][:, None]
            for place, part in enumerate(self.drifts.carried):
                assert part.pairs is not None
                fixed += part.pairs[label] * self.fixed[:, place, None]
        return _known(fixed), self.drifts.pair_growths[label]

    def outputs(self) -> tuple[Floats, Floats]:
        """(fixed, growth) of every output's drift.  Shapes: [B, c] each."""
        fixed = _known(self._whole_and_outputs[:, 1:])
        return fixed, np.broadcast_to(self.drifts.growths[1:], fixed.shape)

    def whole(self) -> tuple[Floats, float]:
        """(fixed, growth) of the L2 norm of the outputs' drift.  Shapes: [B]."""
        return _known(self._whole_and_outputs[:, 0]), float(self.drifts.growths[0])

    def within(self, distance: float) -> Floats:
        """What the outputs may drift at any input within `distance`: the L2 norm of all of them, then every one.

        +inf where a number could overflow.  Shapes: [B, 1 + c].
        """
        with np.errstate(over="ignore", invalid="ignore"):
            reached = self._whole_and_outputs + self.drifts.growths * distance
        return np.where((distance < self.room)[:, None], _known(reached), np.inf)

    @property
    def _whole_and_outputs(self) -> Floats:
        count = self.drifts.constants.size
        return self.fixed[:, -2 * count - 1 : -count]


def _known(sums: Floats) -> Floats:
    """The same numbers, +inf where they are none."""
    return np.fmin(sums, np.inf)


def execution_margin_error(drifts: DriftsAt, label: NDArray[np.intp], radius: Floats) -> Floats:
    """What rounding can take from f_label - f_j at any input within `radius`, for every j; rounded up.

    A margin that is at least m over the ball in exact arithmetic is at least m minus this in the engine's.  +inf where
    a number could overflow within the radius.
    Shapes: label and radius [B] -> [B, c].
    """
    fixed, growth = drifts.pairs(label)
    error = add_upper(fixed, mul_upper(growth, radius[:, None]))
    return np.where((radius < drifts.room)[:, None], error, np.inf)
