"""certificate, model, rows -> what holds, and label, margin and radius of every row: `lipcert verify --inputs`.

Everything rests on what was proved again: the constants and drifts that the document states, proved norms, and the
float64 evaluation of the network with a bound of its rounding.  No engine runs, so nothing is said of its answers but
what is proved of them: wherever a radius is positive, an execution that keeps to the assumptions gives the same label.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from numpy.typing import NDArray

from certifier.box import OUTSIDE
from certifier.certificates import NO_CLASS
from certifier.documents import RowPrediction, TensorDescription
from certifier.errors import InvalidInput
from certifier.limits import Limits
from certifier.parts import InputParts
from certifier.proof.execution import NOTHING, enclose
from certifier.rows import validated
from certifier.serving import Decider
from certifier.terms import EXACT
from certifier.verification import Verification, verified

Floats = NDArray[np.float64]
CHUNK_ELEMENTS = 2**22
"""Rows are evaluated together as long as all their values stay below this many entries."""


class Audit:
    """A certificate that was proved again, and answers rows without an engine."""

    def __init__(self, data: bytes, model: bytes, *, keys: list[Ed25519PublicKey], limits: Limits) -> None:
        """Raises: what `certifier.verification.verified` raises."""
        self._known = verified(data, model, keys=keys, limits=limits, with_gains=True)
        options = self._known.certificate.options
        self._decider = Decider(
            task=self._known.certificate.task, constants=self._known.constants, threshold=options.threshold or 0.5
        )

    @property
    def inputs(self) -> list[TensorDescription]:
        """The perturbed inputs, in the order of a joint row."""
        return self._known.certificate.model.inputs

    def of(self, rows: NDArray[Any], *, progress: Callable[[int], None]) -> Verification:
        """What was proved again, with label, margin and radius of every row.

        Radii are at most what the service certified, and less by little more than the room of a document's numbers.
        Shapes: [B, *row_shape].  Units: radii are L2 distances in the units of the rows, before any preprocessing.
        Raises: InvalidInput.
        """
        shape, network = InputParts.of(self.inputs).row_shape, self._known.subject.network
        size, found = max(1, CHUNK_ELEMENTS // sum(network.sizes.values())), list[RowPrediction]()
        for start in range(0, max(1, len(rows)), size):
            found += self._rows(validated(rows[start : start + size], "inputs", shape, first=start))
            progress(len(found))
        return self._known.verification.model_copy(update={"rows": found})

    def _rows(self, rows: Floats) -> list[RowPrediction]:
        network, drifts = self._known.subject.network, self._known.drifts
        enclosure = enclose(
            network,
            rows,
            input_radius=np.zeros_like(rows),
            precisions=EXACT,
            gains=self._known.gains,
            measured=NOTHING if drifts is None else drifts.measured,
        )
        if not np.isfinite(enclosure.centre).all():
            raise InvalidInput("inputs", "the network's outputs overflow on these inputs")
        refused = self._known.certificate.arithmetic.because
        inside = self._known.subject.box.holds(rows, np.zeros_like(rows))
        refusals = [refused if held else OUTSIDE for held in inside]
        if self._known.certificate.task == "regression":
            return [
                _answer(outputs, label=None, runner_up=None, margin=None, radius=None, because=because or NO_CLASS)
                for outputs, because in zip(enclosure.centre, refusals, strict=True)
            ]
        exact = self._decider.decide(
            enclosure.centre, enclosure.radius, None if drifts is None else drifts.at(enclosure.measures)
        )
        return [
            _answer(
                enclosure.centre[row],
                label=int(exact.label[row]),
                runner_up=int(exact.runner_up[row]),
                margin=float(exact.margin[row]),
                radius=float(exact.radius[row]) if because is None else 0.0,
                because=because or exact.because[row],
            )
            for row, because in enumerate(refusals)
        ]


def _answer(
    outputs: Floats,
    *,
    label: int | None,
    runner_up: int | None,
    margin: float | None,
    radius: float | None,
    because: str | None,
) -> RowPrediction:
    return RowPrediction(
        label=label,
        runner_up=runner_up,
        logits=outputs.tolist(),
        margin=margin,
        radius=radius,
        radius_method=None if radius is None else "global",
        certified=None,
        output_bounds=None,
        because=because,
    )
