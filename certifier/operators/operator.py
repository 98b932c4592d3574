"""A linear map, written once: forward, adjoint, |A| and fan-in.

An `Operator` maps flat row-major vectors of `columns` entries to flat vectors of `rows` entries; `forward` and
`adjoint` take a batch `[B, columns]` or `[B, rows]`.  `fan_in` is the largest number of products that any entry of
`forward` sums, so that one application in floating point errs by at most gamma(fan_in) |A||x| entrywise, whatever
the order of summation; a map that only moves numbers has fan-in 0 and is exact.  `weight_error` bounds the relative
error of the stored weights against the exact ones (0 for weights taken from a model; a few roundings for 1/9).
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

KEPT_WEIGHTS = 2**18
"""|A| of maps of up to so many weights is kept once it was formed; larger ones are formed anew, to save memory."""


class Operator(ABC):
    """A real linear map between flat vectors."""

    rows: int
    columns: int

    @abstractmethod
    def forward(self, x: Array) -> Array:
        """A x for every row x of `x`.  Shapes: [B, columns] -> [B, rows]."""

    @abstractmethod
    def adjoint(self, y: Array) -> Array:
        """A^T y for every row y of `y`.  Shapes: [B, rows] -> [B, columns]."""

    @abstractmethod
    def absolute(self) -> Operator:
        """|A|, entrywise (or an entrywise upper bound of it where parts are composed)."""

    @property
    @abstractmethod
    def fan_in(self) -> int:
        """The largest number of products summed into one entry of `forward`; 0 if entries are only moved."""

    @property
    @abstractmethod
    def fan_out(self) -> int:
        """The same for `adjoint`."""

    @property
    @abstractmethod
    def weight_error(self) -> float:
        """Relative entrywise error of the stored map against the exact one, in the sense of |A_stored|."""

    @abstractmethod
    def describe(self) -> str:
        """A few words for people: kind and size."""

    @abstractmethod
    def _fingerprint(self) -> Sequence[object]:
        """Everything that determines the map: numbers, tuples, arrays, operators."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the map's kind and weights: equal digests, equal maps."""
        state = hashlib.sha256(type(self).__name__.encode())
        for part in (self.rows, self.columns, *self._fingerprint()):
            _feed(state, part)
        return state.hexdigest()


def _feed(state: Any, part: object) -> None:
    if isinstance(part, Operator):
        state.update(b"operator" + part.digest.encode())
    elif isinstance(part, np.ndarray):
        contiguous = np.ascontiguousarray(part)
        state.update(f"array{contiguous.dtype.str}{contiguous.shape}".encode())
        state.update(contiguous)
    else:
        state.update(f"{type(part).__name__}{part!r};".encode())
