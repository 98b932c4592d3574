"""The box of inputs for which a certificate speaks; without a declared one, all inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certifier.documents import InputBox
from certifier.errors import InvalidInput
from certifier.parts import InputParts
from certifier.proof.rounding import add_upper

Floats = NDArray[np.float64]

OUTSIDE = "the input lies outside of the input box that the certificate was made for"


@dataclass(frozen=True, kw_only=True, eq=False)
class Box:
    """lower <= x <= upper entrywise, for flat rows of the network's input; ends may be infinite.

    Shapes: both [n].
    """

    lower: Floats
    upper: Floats

    @classmethod
    def everything(cls, size: int) -> Box:
        """All rows of `size` entries."""
        return cls(lower=np.full(size, -np.inf), upper=np.full(size, np.inf))

    @classmethod
    def of(cls, declared: InputBox | None, parts: InputParts) -> Box:
        """The declared box for rows made of `parts`, to which its numbers broadcast.

        Raises: InvalidInput if they do not, or if an upper end is below its lower one.
        """
        if declared is None:
            return cls.everything(parts.size)
        lower = parts.spread(declared.lower, "options.input_box.lower")
        upper = parts.spread(declared.upper, "options.input_box.upper")
        if (upper < lower).any():
            place = int(np.argmax(upper < lower))
            raise InvalidInput(
                "options.input_box", f"entry {place} has upper {upper[place]} below lower {lower[place]}"
            )
        return cls(lower=lower, upper=upper)

    @property
    def is_everything(self) -> bool:
        """Whether every input is inside."""
        return bool(np.isneginf(self.lower).all() and np.isposinf(self.upper).all())

    def clip(self, rows: Floats) -> Floats:
        """The nearest points of the box.  Shapes: [B, n]."""
        return np.minimum(np.maximum(rows, self.lower), self.upper)

    def holds(self, rows: Floats, strays: Floats) -> NDArray[np.bool_]:
        """Whether all inputs within `strays` of each row are inside.  Shapes: [B, n], [B, n] -> [B]."""
        above = add_upper(rows, strays) if strays.any() else rows
        below = -add_upper(-rows, strays) if strays.any() else rows
        return np.asarray(((below >= self.lower) & (above <= self.upper)).all(axis=1))
