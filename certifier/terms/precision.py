"""How finely executions compute: unit roundoffs, and what they may flush to zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Precision:
    """The unit roundoff of an execution, and the largest magnitude that may be flushed to zero.

    For an engine `unit` includes the float64 reference's own roundoff; underflow flushes to zero at worst (A2).
    """

    unit: float
    tiny: float

    def holds(self, size: Any) -> Any:
        """Whether numbers of at most `size`, as computed in float64, overflow nowhere, not even when they are rounded.

        1/tiny is below the largest number of every precision by a factor of 2 or more; no NaN holds.
        """
        return size < 0.5 / self.tiny


REFERENCE = Precision(unit=2.0**-53, tiny=2.0**-1022)
"""The float64 reference against the exact network, which is the execution that rounds nothing."""
PRECISIONS = {
    "float64": Precision(unit=2.0**-52, tiny=2.0**-1022),
    "float32": Precision(unit=2.0**-24 + 2.0**-52, tiny=2.0**-126),
    "float16": Precision(unit=2.0**-11 + 2.0**-52, tiny=2.0**-14),
    "bfloat16": Precision(unit=2.0**-8 + 2.0**-52, tiny=2.0**-126),
}
EXACT = dict.fromkeys(PRECISIONS, REFERENCE)
"""The precisions under which `enclose` encloses the exact network: float64's own rounding, whatever the dtype."""
