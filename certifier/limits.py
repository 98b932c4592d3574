"""What one model may cost: every limit is a typed number, and crossing it is a typed error."""

from __future__ import annotations

import time
from dataclasses import dataclass

from certifier.errors import ResourceLimitExceeded


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Upper limits on what reading and certifying one model may take.

    Units: `model_bytes` and `calibration_bytes` bytes; `elements` and `value_elements` array elements; `seconds`
    wall-clock seconds.
    """

    model_bytes: int = 640 * 2**20
    """Admits VGG-16 and VGG-19 in single precision (554 and 575 MB), whose certification peaks below 6 GiB."""
    nodes: int = 20_000
    elements: int = 256 * 2**20
    """All constants of the model together, after folding."""
    value_elements: int = 32 * 2**20
    """One intermediate tensor for one input row."""
    calibration_bytes: int = 256 * 2**20
    """A file of inputs that says which pairs of classes matter."""
    seconds: float = 900.0

    def demand(self, resource: str, actual: int | float, where: str = "") -> None:
        """`actual` is within the limit named `resource`.

        Raises: ResourceLimitExceeded.
        """
        limit = getattr(self, resource)
        if actual > limit:
            raise ResourceLimitExceeded(resource, limit=limit, actual=actual, where=where)


class Deadline:
    """The `seconds` of limits from now on, looked at between steps: none of them is broken off."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._started = limits, time.monotonic()

    def demand(self, where: str) -> None:
        """There is time left for the step `where`.

        Raises: ResourceLimitExceeded.
        """
        self._limits.demand("seconds", time.monotonic() - self._started, where)
