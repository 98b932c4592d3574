"""Reaches at the end of a run of affine maps, from where it starts: the norm of the whole run instead of a product.

A run v = A_k (... (A_1 s + b_1) ...) + b_k = A s + b has ||v|| <= ||A|| ||s|| + ||b||, and ||A|| is often far below the
product of the ||A_i||.  Such factors multiply with every product of live values, so that they decide whether a deep
network's bound is finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certifier.flow import Network
from certifier.paths import Paths
from certifier.proof.execution import SLACK
from certifier.proof.reach import NormOf, Reach
from certifier.proof.rounding import add_upper, mul_upper, norm_upper
from certifier.terms import REFERENCE, Affine, Term

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A run that begins at a value of L2 norm `length` at most; its offset is within `radius` of `offset`."""

    length: float
    offset: Floats
    radius: Floats


class Runs:
    """The runs of one network, followed in order of evaluation."""

    def __init__(self, network: Network, norm_of: NormOf) -> None:
        self._norm_of, self._paths = norm_of, Paths(network, ())
        self._runs: dict[str, _Run] = {}
        # Where a run ends: its value is read by something else than one more map of it.
        self._ends = {network.output}
        for term in network.terms:
            if not _continues(term):
                self._ends.update(term.sources)

    def tightened(self, term: Term, sources: Sequence[Reach], reach: Reach) -> Reach:
        """The reach of the term's output, no longer than the run that ends here allows."""
        if not _continues(term):
            return reach
        run = self._runs.get(term.sources[0])
        is_first = run is None
        if run is None:
            zeros = np.zeros((1, sources[0].lower.size))
            run = _Run(length=sources[0].length_upper, offset=zeros, radius=zeros)
        if not np.isfinite(run.length):
            return reach
        with np.errstate(all="ignore"):
            offset = term.evaluate(run.offset)
            radius = term.stray([run.offset], [run.radius], offset, REFERENCE) * SLACK
        self._runs[term.output] = _Run(length=run.length, offset=offset, radius=radius)
        if is_first or term.output not in self._ends or not np.isfinite(offset).all() or not np.isfinite(radius).all():
            return reach
        chain = self._paths.chain(term.output)
        stretched = mul_upper(self._norm_of(chain.operator, chain.name), run.length)
        constant = norm_upper(add_upper(np.abs(offset), radius), None)
        return shortened(reach, float(add_upper(stretched, constant)))


def _continues(term: Term) -> bool:
    return isinstance(term, Affine) and len(term.sources) == 1


def shortened(reach: Reach, length: float) -> Reach:
    """The values of the reach whose L2 norm is at most `length`."""
    if not length < reach.length_upper:
        return reach
    return Reach.of(
        np.maximum(reach.lower, -length),
        np.minimum(reach.upper, length),
        (reach.group, np.minimum(reach.lengths, length)),
    )
