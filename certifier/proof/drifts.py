"""What the engine's rounding can take from a margin, as linear forms that serving evaluates with one multiply-add.

A form  c + c_s s + Σ_v c_v ‖v(x)‖ + Σ_i c_i ‖m_i(x)‖ + c_r r  bounds a drift ‖executed - exact‖ at every x' with
‖x' - x‖ <= r, where s is the stray of the network's input at x and m_i = |A_i||u_i| + |b_i| are the magnitudes that an
affine term sums; all coefficients are at least 0.  So for every pair of classes

    executed f_t(x') - f_j(x')  >=  f_t(x) - f_j(x) - L_tj r - (fixed_tj + growth_tj r)

and the label stays t while  margin_tj - fixed_tj > (L_tj + growth_tj) r.  `certifier.proof.drifting` derives the forms.
Arithmetic: rounded up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certifier.proof.execution import SLACK, Measured, Measures
from certifier.proof.rounding import add_upper, div_lower, mul_upper

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

    @property
    def measured(self) -> Measured:
        """What has to be measured of an input."""
        return Measured(values=self.values, sums=self.sums, entries=tuple(part.term for part in self.summed))

    def at(self, *, strays: Floats, measures: Measures) -> DriftsAt:
        """The drifts around inputs of which all that is `measured` is known from above.  Shapes: strays [B]."""
        columns = [np.ones_like(strays), strays]
        columns += [measures.values[name] for name in self.values]
        columns += [measures.sums[name] for name in self.sums]
        entries = np.broadcast_to(self.constants, (len(strays), self.constants.size))
        for part in self.summed:
            entries = add_upper(entries, mul_upper(part.unit, measures.entries[part.term]))
        return DriftsAt(drifts=self, basis=np.array(columns).T, entries=np.asarray(entries))


@dataclass(frozen=True, kw_only=True, eq=False)
class DriftsAt:
    """Drifts around each of a batch of inputs, as a fixed part and a growth per unit of radius.

    `entries` is what every output errs by at the input itself in the sums that form it, or whatever the input.
    Shapes: basis [B, values + sums + 2]; entries [B, c].
    """

    drifts: Drifts
    basis: Floats
    entries: Floats

    def some(self, rows: NDArray[np.intp]) -> DriftsAt:
        """Around these inputs of them."""
        return DriftsAt(drifts=self.drifts, basis=self.basis[rows], entries=self.entries[rows])

    def pairs(self, label: NDArray[np.intp]) -> tuple[Floats, Floats]:
        """(fixed, growth) of the drift of f_label - f_j, for every j.  Shapes: label [B] -> [B, c] each."""
        each = np.arange(len(label))
        fixed, growth = self.outputs(carried=False)
        fixed = add_upper(fixed, fixed[each, label][:, None])
        growth = add_upper(growth, growth[each, label][:, None])
        for part in self.drifts.carried:
            assert part.pairs is not None
            here, slope = self._split(part.form)
            fixed = add_upper(fixed, mul_upper(part.pairs[label], here[:, None]))
            growth = add_upper(growth, mul_upper(part.pairs[label], slope))
        return fixed, growth

    def outputs(self, *, carried: bool = True) -> tuple[Floats, Floats]:
        """(fixed, growth) of every output's drift; `carried=False` leaves out what came before the last maps.

        Shapes: [B, c] each.
        """
        fixed, growth = self.entries, np.zeros(self.entries.shape)
        shares = [(part.form, part.gains) for part in self.drifts.own]
        if carried:
            shares += [(part.form, part.outputs) for part in self.drifts.carried]
        for form, gains in shares:
            here, slope = self._split(form)
            fixed = add_upper(fixed, mul_upper(gains, here[:, None]))
            growth = add_upper(growth, mul_upper(gains, slope))
        return np.asarray(fixed), np.asarray(growth)

    def whole(self) -> tuple[Floats, float]:
        """(fixed, growth) of the L2 norm of the outputs' drift.  Shapes: [B]."""
        return self._split(self.drifts.whole)

    def room(self) -> Floats:
        """How far an input may move before any number could overflow, rounded down; 0 where it is not known.

        Shapes: [B].
        """
        here, slope = self._split(self.drifts.peak)
        left = np.maximum(np.nextafter(1.0 - here, -np.inf), 0.0)
        return np.asarray(div_lower(left, slope))

    def _split(self, form: Floats) -> tuple[Floats, float]:
        with np.errstate(over="ignore", invalid="ignore"):
            # No summand is negative, so that the sum errs by less than `SLACK` allows.
            here = self.basis @ form[:-1] * SLACK + NEGLIGIBLE
        return np.where(np.isfinite(here), here, np.inf), float(form[-1])


def execution_margin_error(drifts: DriftsAt, label: NDArray[np.intp], radius: Floats) -> Floats:
    """What rounding can take from f_label - f_j at any input within `radius`, for every j; rounded up.

    A margin that is at least m over the ball in exact arithmetic is at least m minus this in the engine's.  +inf where
    a number could overflow within the radius.
    Shapes: label and radius [B] -> [B, c].
    """
    fixed, growth = drifts.pairs(label)
    error = add_upper(fixed, mul_upper(growth, radius[:, None]))
    return np.where((radius < drifts.room())[:, None], error, np.inf)
