"""Norms of entrywise magnitudes: `proof.magnitudes` bounds them with the positive vectors that are proposed here.

The vectors are untrusted: a bad one makes a bound looser, never wrong.  They take a fixed number of steps from a fixed
start, so that whoever verifies a certificate comes to the same bounds without any search.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certifier.operators import Convolution, Kronecker, Operator
from certifier.proof.magnitudes import magnitude_norm_upper

Floats = NDArray[np.float64]

STEPS = 12
WHOLE_STEPS = 3
"""Maps without a small core are applied as a whole, which takes longer."""
CHEAP = 2**24
"""Products of one application up to which a convolution is applied as a whole, too."""


class MagnitudeNorms:
    """Proved norms of the entrywise magnitudes of one network's maps, each bounded once."""

    def __init__(self, *, before: Callable[[str], None]) -> None:
        """`before` is told of every layer and may raise to end the proofs."""
        self._before = before
        self._known: dict[str, float] = {}

    def norm_upper(self, operator: Operator, name: str) -> float:
        """‖|A|‖ <= result for the entrywise magnitude of a map; it is no less than ‖A‖.  `name` is the layer's."""
        known = self._known.get(operator.digest)
        if known is None:
            self._before(name or operator.describe())
            known = magnitude_norm_upper(operator, positive_vector(operator))
            self._known[operator.digest] = known
        return known


def positive_vector(operator: Operator) -> Floats:
    """A vector near the largest eigenvector of |A|ᵀ|A|, positive or nearly so.  Shapes: [columns]."""
    if isinstance(operator, Kronecker):
        return _spread(_eigenvector(abs(operator.matrix)), operator.before, operator.after)
    if isinstance(operator, Convolution):
        taps = tuple(range(2, operator.kernel.ndim))
        sums = abs(operator.kernel).sum(axis=taps)
        per_group = sums.reshape(operator.groups, -1, sums.shape[1])
        channels = np.concatenate([_eigenvector(block) for block in per_group])
        start = _spread(channels, 1, operator.columns // len(channels))
        return _applied(operator, start) if operator.columns * operator.fan_out <= CHEAP else start
    return _applied(operator, np.ones(operator.columns))


def _applied(operator: Operator, start: Floats) -> Floats:
    magnitude, vector = operator.absolute(), start[None]
    for _ in range(WHOLE_STEPS):
        vector = _scaled(magnitude.adjoint(magnitude.forward(vector)))
    return vector[0]


def _eigenvector(matrix: NDArray[Any]) -> Floats:
    vector = np.ones(matrix.shape[1])
    for _ in range(STEPS):
        vector = _scaled(matrix.T @ (matrix @ vector))
    return vector


def _spread(core: Floats, before: int, after: int) -> Floats:
    return np.broadcast_to(core[None, :, None], (before, core.size, after)).reshape(-1)


def _scaled(vector: Floats) -> Floats:
    largest = float(np.max(vector, initial=0.0))
    return vector / largest if np.isfinite(largest) and largest > 0 else np.ones_like(vector)
