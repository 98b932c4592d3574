"""What a search hands to a checker: numbers that prove a bound if, and only if, the checker says so.

A witness is untrusted wherever it comes from, a search of this run or a certificate file.  A checker recomputes every
matrix from the network's own weights and takes nothing but numbers to try from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certifier.errors import NotProved

JSON = str | int | float | bool | None | Sequence["JSON"] | Mapping[str, "JSON"]
"""What a header may hold: a value that JSON writes down and reads back."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Witness:
    """Named arrays and a few facts that the checker of `method` can turn into proved constants.

    `header` says which problem the arrays belong to (names of values, sizes), small enough to be read by people.
    """

    method: str
    header: Mapping[str, JSON]
    arrays: Mapping[str, NDArray[np.float64]]

    def positive(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """The array of this name, all of whose entries are positive, finite and normal.

        Raises: NotProved if there is none, or none of this shape and kind.
        """
        array = self.arrays.get(name)
        if not isinstance(array, np.ndarray) or array.dtype != np.float64 or array.shape != shape:
            raise NotProved(f"the witness has no float64 array {name!r} of shape {shape}")
        if not (np.isfinite(array) & (array >= np.finfo(np.float64).tiny)).all():
            raise NotProved(f"the witness' array {name!r} is not positive and finite")
        return array
