"""What the engine's rounding can take from a margin, as linear forms that serving evaluates with one multiply-add.

A form  c + c_s s + Σ_v c_v ‖v(x)‖ + Σ_i c_i ‖m_i(x)‖ + c_r r  bounds a drift ‖executed - exact‖ at every x' with
‖x' - x‖ <= r, where s is the stray of the network's input at x and m_i = |A_i||u_i| + |b_i| are the magnitudes that an
affine term sums; all coefficients are at least 0.  So for every pair of classes

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
    """A term that sums up the outputs themselves: each errs by `unit` times its own magnitudes at x."""

    term: str
    unit: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Drifts:
    """The drift of a network's outputs from the exact network, for all inputs.

    `values` and `sums` name the values and the terms whose norms the forms take, in order; `constants` is what every
    output errs by whatever the input; `peak` is the largest share that any number reaches of what its type can hold;
    `whole` bounds the L2 norm of the outputs' drift.
    Shapes: forms [values + sums + 3]: constant, stray of the input, norms of values and of sums, radius; constants [c].
    """

    values: tuple[str, ...]
    sums: tuple[str, ...]
    carried: tuple[Carried, ...]
    own: tuple[Own, ...]
    summed: tuple[Summed, ...]
    constants: Floats
    peak: Floats
    whole: Floats

    @property
    def is_finite(self) -> bool:
        """Whether every number that pairs and outputs need is finite; only then may it be evaluated."""
        arrays = [self.constants, self.peak, self.whole, np.array([part.unit for part in self.summed])]
        arrays += [array for part in self.carried for array in (part.form, part.outputs)]
        arrays += [part.pairs for part in self.carried if part.pairs is not None]
        arrays += [array for part in self.own for array in (part.form, part.gains)]
        return all(bool(np.isfinite(array).all()) for array in arrays)

    def without_idle_norms(self) -> Drifts:
        """The same drifts, for which nothing is measured that every form multiplies by 0."""
        forms = [self.peak, self.whole, *(part.form for part in (*self.carried, *self.own))]
        used = np.any(np.array(forms) != 0, axis=0)
        used[[0, 1, -1]] = True
        names = np.flatnonzero(used[2:-1])
        return replace(
            self,
            values=tuple(self.values[place] for place in names if place < len(self.values)),
            sums=tuple(self.sums[place - len(self.values)] for place in names if place >= len(self.values)),
            carried=tuple(replace(part, form=part.form[used]) for part in self.carried),
            own=tuple(replace(part, form=part.form[used]) for part in self.own),
            peak=self.peak[used],
            whole=self.whole[used],
        )

    @property
    def measured(self) -> Measured:
        """What has to be measured of an input."""
        return Measured(values=self.values, sums=self.sums, entries=tuple(part.term for part in self.summed))

    def at(self, *, strays: Floats, measures: Measures) -> DriftsAt:
        """The drifts around inputs of which all that is `measured` is known from above.  Shapes: strays [B]."""
        columns = [np.ones_like(strays), strays]
        columns += [measures.values[name] for name in self.values]
        columns += [measures.sums[name] for name in self.sums]
        entries = np.tile(self.constants, (len(strays), 1))
        for part in self.summed:
            entries = entries + part.unit * measures.entries[part.term]
        return DriftsAt(drifts=self, basis=np.array(columns).T, entries=entries)

    @cached_property
    def own_forms(self) -> Floats:
        """The form of every output's rounding in the last maps.  Shapes: [values + sums + 3, c]."""
        total = np.zeros((self.whole.size, self.constants.size))
        for part in self.own:
            total = add_upper(total, mul_upper(part.form[:, None], part.gains))
        return np.asarray(total)

    @cached_property
    def forms(self) -> Floats:
        """The forms of what was carried, of the peak and of the whole drift, side by side."""
        return np.array([*(part.form for part in self.carried), self.peak, self.whole]).T

    @cached_property
    def output_growths(self) -> Floats:
        """How fast the drift of every output grows with the radius.  Shapes: [c]."""
        growth = self.own_forms[-1]
        for part in self.carried:
            growth = add_upper(growth, mul_upper(part.outputs, part.form[-1]))
        return np.asarray(growth)

    @cached_property
    def pair_growths(self) -> Floats:
        """How fast the drift of every pair grows with the radius.  Shapes: [c, c]."""
        own = self.own_forms[-1]
        growth = add_upper(own, own[:, None])
        for part in self.carried:
            assert part.pairs is not None
            growth = add_upper(growth, mul_upper(part.pairs, part.form[-1]))
        return np.asarray(growth)


@dataclass(frozen=True, kw_only=True, eq=False)
class DriftsAt:
    """Drifts around each of a batch of inputs, as a fixed part and a growth per unit of radius.

    `entries` is what every output errs by at the input itself in the sums that form it, or whatever the input.
    Shapes: basis [B, values + sums + 2]; entries [B, c].
    Arithmetic: no number is negative, so that every sum here errs by less than `SLACK` and `NEGLIGIBLE` allow.
    """

    drifts: Drifts
    basis: Floats
    entries: Floats

    def some(self, rows: NDArray[np.intp]) -> DriftsAt:
        """Around these inputs of them."""
        return DriftsAt(drifts=self.drifts, basis=self.basis[rows], entries=self.entries[rows])

    def pairs(self, label: NDArray[np.intp]) -> tuple[Floats, Floats]:
        """(fixed, growth) of the drift of f_label - f_j, for every j.  Shapes: label [B] -> [B, c] each."""
        with np.errstate(over="ignore", invalid="ignore"):
            fixed = self._own + self._own[np.arange(len(label)), label][:, None]
            for part, here in zip(self.drifts.carried, self._here.T, strict=False):
                assert part.pairs is not None
                fixed = fixed + part.pairs[label] * here[:, None]
        return _raised(fixed), self.drifts.pair_growths[label]

    def outputs(self) -> tuple[Floats, Floats]:
        """(fixed, growth) of every output's drift.  Shapes: [B, c] each."""
        with np.errstate(over="ignore", invalid="ignore"):
            fixed = self._own
            for part, here in zip(self.drifts.carried, self._here.T, strict=False):
                fixed = fixed + part.outputs * here[:, None]
        return _raised(fixed), np.broadcast_to(self.drifts.output_growths, fixed.shape)

    def outputs_within(self, distance: float) -> Floats:
        """What every output may drift at any input within `distance`; +inf where a number could overflow.

        Shapes: [B, c].
        """
        return self._within(*self.outputs(), distance)

    def whole_within(self, distance: float) -> Floats:
        """The same of the L2 norm of all outputs together.  Shapes: [B]."""
        fixed, growth = self.whole()
        return self._within(fixed[:, None], np.full(1, growth), distance)[:, 0]

    def _within(self, fixed: Floats, growth: Floats, distance: float) -> Floats:
        with np.errstate(over="ignore", invalid="ignore"):
            reached = _raised(fixed + growth * distance)
        return np.where((distance < self.room)[:, None], reached, np.inf)

    def whole(self) -> tuple[Floats, float]:
        """(fixed, growth) of the L2 norm of the outputs' drift.  Shapes: [B]."""
        return self._here[:, -1], float(self.drifts.whole[-1])

    @cached_property
    def room(self) -> Floats:
        """How far an input may move before any number could overflow, rounded down; 0 where it is not known.

        Shapes: [B].
        """
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            room = (1.0 - self._here[:, -2]) / (self.drifts.peak[-1] * SLACK)
            return np.where((room > NEGLIGIBLE) & np.isfinite(room), room / SLACK, 0.0)

    @cached_property
    def _own(self) -> Floats:
        with np.errstate(over="ignore", invalid="ignore"):
            return self.entries + self.basis @ self.drifts.own_forms[:-1]

    @cached_property
    def _here(self) -> Floats:
        """What was carried to each part, the peak and the whole drift, at the inputs.  Shapes: [B, parts]."""
        with np.errstate(over="ignore", invalid="ignore"):
            return _raised(self.basis @ self.drifts.forms[:-1])


def _raised(sums: Floats) -> Floats:
    """Above the exact sums of numbers that are not negative; +inf where they are not known."""
    with np.errstate(over="ignore", invalid="ignore"):
        raised = sums * SLACK + NEGLIGIBLE
    return np.where(np.isfinite(raised), raised, np.inf)


def execution_margin_error(drifts: DriftsAt, label: NDArray[np.intp], radius: Floats) -> Floats:
    """What rounding can take from f_label - f_j at any input within `radius`, for every j; rounded up.

    A margin that is at least m over the ball in exact arithmetic is at least m minus this in the engine's.  +inf where
    a number could overflow within the radius.
    Shapes: label and radius [B] -> [B, c].
    """
    fixed, growth = drifts.pairs(label)
    error = add_upper(fixed, mul_upper(growth, radius[:, None]))
    return np.where((radius < drifts.room)[:, None], error, np.inf)
