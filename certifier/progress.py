"""What a certification tells while it runs: its stage, how far it is, and the best bound that is proved by then."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
from pydantic import Field

from certifier.certificates import Constants
from certifier.documents import Document, RungName

OFTEN = 0.1
"""Seconds between two reports that differ in nothing but the share."""
SEARCH_BEGINS, SEARCH_ENDS = 0.3, 0.75
"""Shares of the whole work."""


class Progress(Document):
    """Where a certification stands.  Its bound is proved, but nothing is certified before the self-test has passed."""

    stage: str = Field(description="What is being done, in words.", examples=["tightening: pairs"])
    share: float = Field(ge=0, le=1, description="How much of the work is done, as far as that can be told.")
    method: RungName | None = Field(default=None, description="The method that is being tried; null outside a search.")
    lipschitz_upper: float | None = Field(
        default=None, description="The smallest Lipschitz constant of the whole network that is proved by now."
    )
    mean_pair_upper: float | None = Field(
        default=None, description="The mean of the smallest constants of the pairs of outputs that are proved by now."
    )


Report = Callable[[Progress], None]


class Telling:
    """Tells a report of every stage, method and better bound, and within a search of its share every tenth of a second.

    A report that raises ends the certification.
    """

    def __init__(self, report: Report) -> None:
        self._report, self._now = report, Progress(stage="", share=0.0)
        self._begun, self._seconds, self._next = 0.0, 0.0, 0.0

    def stage(self, stage: str, share: float) -> None:
        """A stage outside of the search begins."""
        self._say({"stage": stage, "share": share, "method": None})

    def step(self, stage: str) -> None:
        """The same goes on, with something else."""
        self._say({"stage": stage})

    def search(self, stage: str, seconds: float) -> None:
        """A search of that many seconds begins."""
        self._begun, self._seconds = time.monotonic(), seconds
        self._say({"stage": stage, "share": SEARCH_BEGINS, "method": None})

    def method(self, method: RungName, step: str) -> None:
        """The search goes on with that step of a method."""
        self._say({"stage": f"tightening: {step}", "share": self._share(), "method": method})

    def proved(self, constants: Constants) -> None:
        """These are the best constants so far."""
        pairs = constants.pairs
        mean = None
        if pairs is not None and len(pairs) > 1:
            mean = float(pairs[np.triu_indices(len(pairs), 1)].mean())
        self._say({
            "lipschitz_upper": constants.upper if np.isfinite(constants.upper) else None,
            "mean_pair_upper": mean if mean is not None and np.isfinite(mean) else None,
        })  # fmt: skip

    def look(self) -> None:
        """The search is alive."""
        if time.monotonic() >= self._next:
            self._say({"share": self._share()})

    def _share(self) -> float:
        spent = min((time.monotonic() - self._begun) / max(self._seconds, 1e-9), 1.0)
        return SEARCH_BEGINS + (SEARCH_ENDS - SEARCH_BEGINS) * spent

    def _say(self, news: Mapping[str, object]) -> None:
        self._now = self._now.model_copy(update=news)
        self._next = time.monotonic() + OFTEN
        self._report(self._now)
