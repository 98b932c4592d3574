"""Radii that were proved, row by row: the only place where an analysis of a ball becomes a radius.

A goal is a functional of the output that has to stay positive, as f_t - f_j for a class.  A ball of radius r in which
every goal of a row stays positive gives r; one that is too large still gives the distance at which the first goal's
lower line may reach zero (`docs/proofs/local-refinement.md`, Corollary).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certifier.proof.local.analysis import Analysis
from certifier.proof.local.backward import Below

Array = NDArray[Any]
Picked = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True, eq=False)
class Goals:
    """coefficients . f(x') + constants - growth ||x' - x|| > 0 is wanted, for every row and goal.

    Shapes: coefficients [B, m, c]; constants, rounded down, and growth >= 0, rounded up, [B, m].
    """

    coefficients: Array
    constants: Array
    growth: Array

    def some(self, rows: Picked) -> Goals:
        """Those of these rows."""
        return Goals(coefficients=self.coefficients[rows], constants=self.constants[rows], growth=self.growth[rows])


class Ledger:
    """The largest radius that was proved of every row so far.  Shapes: x [B, n], radii [B]."""

    def __init__(self, x: Array, goals: Goals) -> None:
        self._x, self.goals, self.radii = x, goals, np.zeros(len(x))

    def judge(self, analysis: Analysis, rows: Picked) -> Verdict:
        """What an analysis of `rows`, one ball each, says of their goals; recorded at once.

        Raises: ValueError if the analysis is of other rows.
        """
        if not np.array_equal(self._x[rows], analysis.balls.x):
            raise ValueError("the analysis is of other rows")
        return Verdict(self, analysis, rows)


class Verdict:
    """The goals of some rows over the balls of one analysis; every bound that is found is recorded.

    Shapes: `below` [B, m].
    """

    def __init__(self, ledger: Ledger, analysis: Analysis, rows: Picked) -> None:
        self._ledger, self._rows, self.analysis = ledger, rows, analysis
        self._goals = ledger.goals.some(rows)
        count, each = self._goals.constants.shape
        self.owners = np.repeat(np.arange(count), each)
        self.coefficients = self._goals.coefficients.reshape(count * each, -1)
        self.below = self._shaped(self._bounds(np.arange(count * each), {}))
        self._record()

    def sharpen(self, picked: Picked, slopes: Mapping[str, tuple[Array, Array]]) -> None:
        """Bound these goals, counted row by row, once more through lines of the given slopes; the better one stays."""
        own = self.analysis.with_slopes(self.owners[picked], slopes)
        found = self._bounds(picked, own)
        radii = self.analysis.balls.radii[self.owners[picked]]
        base, steepness = self.below.base.ravel().copy(), self.below.steepness.ravel().copy()
        take = found.at(radii) > Below(base=base[picked], steepness=steepness[picked]).at(radii)
        base[picked] = np.where(take, found.base, base[picked])
        steepness[picked] = np.where(take, found.steepness, steepness[picked])
        self.below = self._shaped(Below(base=base, steepness=steepness))
        self._record()

    def _bounds(self, picked: Picked, own: Mapping[str, Any]) -> Below:
        constants, growth = self._goals.constants.ravel()[picked], self._goals.growth.ravel()[picked]
        owners = self.owners[picked]
        found = self.analysis.below(self.coefficients[picked], constants, owners, own=own, seen=None)
        with np.errstate(all="ignore"):
            steepness = np.where(growth == 0, found.steepness, np.nextafter(found.steepness + growth, np.inf))
        known = np.isfinite(steepness)
        return Below(base=np.where(known, found.base, -np.inf), steepness=np.where(known, steepness, 0.0))

    def _shaped(self, below: Below) -> Below:
        shape = self._goals.constants.shape
        return Below(base=below.base.reshape(shape), steepness=below.steepness.reshape(shape))

    def _record(self) -> None:
        proved = self.below.radii(self.analysis.balls.radii[:, None]).min(axis=1)
        self._ledger.radii[self._rows] = np.maximum(self._ledger.radii[self._rows], proved)
