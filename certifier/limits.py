"""What one model may cost: every limit is a typed number, and crossing it is a typed error."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from certifier.errors import NotFinished, ResourceLimitExceeded


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

        Raises: NotFinished.
        """
        if time.monotonic() - self._started > self._limits.seconds:
            raise NotFinished(where, seconds=self._limits.seconds)


class Budget:
    """Seconds of search from now on, all gone at once when the caller calls the search off.

    A search looks at it between its steps, none of which is broken off; `on_look` hears of every look.
    """

    def __init__(self, seconds: float, *, is_cancelled: Callable[[], bool], on_look: Callable[[], None]) -> None:
        self._seconds, self._ending = seconds, time.monotonic() + seconds
        self._is_cancelled, self._on_look = is_cancelled, on_look
        self.is_cut = False
        """Whether a look found that the search was called off."""

    @classmethod
    def of(cls, seconds: float) -> Budget:
        """One that nobody calls off."""
        return cls(seconds, is_cancelled=lambda: False, on_look=lambda: None)

    def left(self) -> float:
        """Seconds left, 0 once they are spent or the search is called off."""
        self._on_look()
        self.is_cut = self.is_cut or self._is_cancelled()
        return 0.0 if self.is_cut else max(self._ending - time.monotonic(), 0.0)

    def spent(self) -> float:
        """The share that is gone, in [0, 1]."""
        left = self.left()
        return 1.0 - left / self._seconds if left > 0 else 1.0

    def part(self, seconds: float) -> Budget:
        """At most that many of the seconds that are left; they end with the whole."""
        return Budget(seconds, is_cancelled=lambda: self.left() <= 0, on_look=lambda: None)
