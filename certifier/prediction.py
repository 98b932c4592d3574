"""A certified model that answers: labels, margins, certified radii and difference bounds for rows of inputs.

The engine computes what is served.  What is certified is computed beside it: the float64 evaluation of the same
network with a bound of its rounding error, so that the margins behind a radius are proved and not merely observed.
"""

from __future__ import annotations

import math
import time
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certifier.box import OUTSIDE, Box
from certifier.certificates import LARGEST, NO_CLASS, Decisions
from certifier.changes import comparison, output_bounds
from certifier.documents import Certificate, OutputBounds, Preprocessing, RowComparison, RowPrediction
from certifier.engine import Engine
from certifier.errors import InvalidInput
from certifier.executing import arithmetic_of
from certifier.executions import Execution
from certifier.limits import Limits
from certifier.network import build_network
from certifier.packing import OtherLayout, unpack_constants, unpack_drifts
from certifier.parts import Given, InputParts
from certifier.proof.drifts import DriftsAt
from certifier.proof.execution import NOTHING, Enclosure, enclose
from certifier.proof.rounding import add_upper, div_lower, norm_upper
from certifier.reading.onnx import read_onnx
from certifier.refinement import Refiner, margin_goals
from certifier.rows import validated
from certifier.selftest import Subject, arithmetic_here
from certifier.serving import Decider
from certifier.terms import EXACT
from certifier.transforms import InputTransform

Floats = NDArray[np.float64]

DISAGREEMENT = "the engine's label differs from that of the exact network"
LARGER = "a larger radius was proved around the input"
NOT_REFINED = "nothing is certified of this input, or no other class can be reached at all"
OF_ANOTHER_BUILD = (
    "what rounding can do was stored by another build, for which it means something else; certify the model again"
)
CHUNK_ELEMENTS = 2**22
"""Rows are evaluated together as long as all their values stay below this many entries."""


class Predictor:
    """Serves one certified model.  Thread-safe; holds one engine session."""

    def __init__(self, *, certificate: Certificate, served_model: bytes, constants: bytes) -> None:
        graph = read_onnx(served_model, limits=Limits(model_bytes=2**31, elements=2**31))
        self.certificate = certificate
        self._network = build_network(graph, limits=Limits(elements=2**31, value_elements=2**31), cut_head=False)
        self._parts = InputParts.of(certificate.model.inputs)
        # The served graph always runs one row; whether axis 0 counts rows is known from the upload.
        self._has_batch_axis = len(self._parts.names) > 1 or certificate.model.inputs[0].shape[:1] == [None]
        self._constants, self._gains = unpack_constants(constants)
        # What the certificate says counts; options of another time may not know of it.
        is_real = certificate.arithmetic.name == "real"
        self._execution = Execution.of("real" if is_real else certificate.options.arithmetic, self._network)
        self._drifts = None
        try:
            self._drifts = unpack_drifts(constants)
        except OtherLayout:
            certificate = certificate.model_copy(
                update={"arithmetic": arithmetic_of(self._execution, OF_ANOTHER_BUILD)}
            )
            self.certificate = certificate
        if not is_real and self._drifts is None and certificate.arithmetic.because is None:
            raise ValueError("the certificate speaks of an execution whose drifts are missing")
        self._engine = Engine(served_model, self._network.input)
        self._box = Box.of(certificate.options.input_box, self._parts)
        threshold = certificate.options.threshold or 0.5
        self._decider = Decider(task=certificate.task, constants=self._constants, threshold=threshold)
        subject = Subject(
            network=self._network,
            engine=self._engine,
            decider=self._decider,
            gains=self._gains,
            drifts=self._drifts,
            is_evaluated=self._execution.is_evaluated,
            box=self._box,
            lower=certificate.lipschitz.lower,
            upper=self._constants.upper,
        )
        self.arithmetic = arithmetic_here(certificate, self._execution, subject)

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one input row as callers give it; flat where several inputs are perturbed."""
        return self._parts.row_shape

    def rows(self, given: Given, *, field: str) -> NDArray[Any]:
        """Inputs given by name as rows of `row_shape`; an array as it is.

        Raises: InvalidInput, which begins with `field`, for names and shapes that do not fit.
        """
        return self._parts.rows(given, field)

    def predict(
        self,
        inputs: Given,
        *,
        epsilon: float | None,
        preprocessing: Preprocessing | None,
        refine: bool | None = None,
        refine_seconds: float | None = None,
    ) -> list[RowPrediction]:
        """One prediction per row of `inputs`.

        `refine` looks for larger radii around each row, for which all rows share `refine_seconds`; without them the
        certificate's options say so.
        Shapes: `inputs` [batch, *row_shape], or as `preprocessing.layout` orders the axes; or a mapping from the names
        of the certificate's `model.inputs` to an array [batch, *…] of each.
        Units: `epsilon` and every radius are L2 distances in the units of `inputs`.
        Raises: InvalidInput (wrong shape, NaN or infinite values, epsilon negative or not finite).
        """
        if epsilon is not None and not (math.isfinite(epsilon) and epsilon >= 0):
            raise InvalidInput("epsilon", f"must be a finite number of at least 0, not {epsilon}")
        if preprocessing is not None and self.certificate.options.preprocessing is not None:
            raise InvalidInput("preprocessing", "was already made part of the model when it was certified")
        if preprocessing is not None and len(self._parts.names) > 1:
            raise InvalidInput("preprocessing", "applies to models with one perturbed input")
        transform = InputTransform.of(preprocessing, self._network.input, self._has_batch_axis)
        rows, strays = transform.apply(validated(self.rows(inputs, field="inputs"), "inputs", transform.row_shape))
        options = self.certificate.options
        seconds = None
        if options.refine if refine is None else refine:
            seconds = options.refine_seconds if refine_seconds is None else refine_seconds
        predictions: list[RowPrediction] = []
        ending = time.monotonic() + (seconds or 0.0)
        for start in range(0, len(rows), self._chunk):
            part = slice(start, start + self._chunk)
            left = max(0.0, ending - time.monotonic())
            share = None if seconds is None else left * len(rows[part]) / (len(rows) - start)
            predictions.extend(self._predict(rows[part], strays[part], epsilon, transform.stretch_upper, share))
        return predictions

    def _predict(
        self, rows: Floats, strays: Floats, epsilon: float | None, stretch: float, seconds: float | None
    ) -> list[RowPrediction]:
        enclosure = self._enclose(rows, strays)
        around = None if self._drifts is None else self._drifts.at(enclosure.measures)
        served = enclosure.centre if self._execution.is_evaluated else self._engine.run(rows)
        if not np.isfinite(served).all():
            raise InvalidInput("inputs", "the model's outputs overflow on these inputs")
        inside = self._box.holds(rows, strays)
        refused = self.certificate.arithmetic.because
        bounds: list[OutputBounds | None] = [None] * len(rows)
        if epsilon is not None and refused is None:
            known = output_bounds(self._constants, enclosure, around, epsilon=epsilon, stretch=stretch)
            bounds = [bound if held else None for bound, held in zip(known, inside, strict=True)]
        if self.certificate.task == "regression":
            because = NO_CLASS if refused is None else refused
            facts = zip(served.tolist(), bounds, inside, strict=True)
            return [_regression(outputs, bound, because if held else OUTSIDE) for outputs, bound, held in facts]
        exact = self._decider.decide(enclosure.centre, enclosure.radius, around)
        shown = self._decider.rank(served)
        radius = exact.radius if refused is None else np.zeros_like(exact.radius)
        sound = inside & (exact.label == shown.label) & (refused is None)
        radius, refinement = self._refined(rows, strays, exact, radius, sound, around, seconds)
        if stretch != 1.0:
            radius = np.where(radius == LARGEST, LARGEST, div_lower(radius, stretch))
        disagree = (exact.label != shown.label) & (radius > 0)
        radius = np.where(disagree | ~inside, 0.0, radius)
        reasons = [
            OUTSIDE
            if not inside[row]
            else refused or (DISAGREEMENT if disagree[row] else exact.because[row] if radius[row] == 0 else None)
            for row in range(len(rows))
        ]
        return [
            RowPrediction(
                label=int(shown.label[row]),
                runner_up=int(shown.runner_up[row]),
                logits=served[row].tolist(),
                margin=float(shown.margin[row]),
                radius=float(radius[row]),
                radius_method="local" if refinement[row] == LARGER and radius[row] > 0 else "global",
                unrefined=None if refinement[row] == LARGER else refinement[row],
                certified=None if epsilon is None else bool(radius[row] > epsilon),
                output_bounds=bounds[row],
                because=reasons[row],
            )
            for row in range(len(rows))
        ]

    def _refined(
        self,
        rows: Floats,
        strays: Floats,
        exact: Decisions,
        radius: Floats,
        sound: NDArray[np.bool_],
        around: DriftsAt | None,
        seconds: float | None,
    ) -> tuple[Floats, list[str | None]]:
        """The larger of the global radius and one proved around the row, and what came of it: `LARGER`, or why not.

        None where it was not asked for.
        """
        if seconds is None:
            return radius, [None] * len(rows)
        refined, came = radius.copy(), [NOT_REFINED] * len(rows)
        chosen = np.flatnonzero(sound & (radius < LARGEST))
        if len(chosen):
            part = None if around is None else around.some(chosen)
            goals = margin_goals(self._decider, exact.label[chosen], self._network.output_size, part)
            found, because = self._refiner.refine(rows[chosen], goals, seconds=seconds)
            if part is not None:
                found = np.minimum(found, np.nextafter(part.room, 0.0))
            # The exact row is within its stray of the computed one.
            moved = norm_upper(strays[chosen], 1)
            found = np.where(moved == 0, found, np.nextafter(found - moved, -np.inf))
            larger = found > radius[chosen]
            refined[chosen] = np.where(larger, found, radius[chosen])
            for row, gained, reason in zip(chosen, larger, because, strict=True):
                came[row] = LARGER if gained else reason
        return refined, list(came)

    @cached_property
    def _refiner(self) -> Refiner:
        return Refiner(self._network, gains=self._gains, box=self._box)

    def compare(self, x: Given, y: Given) -> list[RowComparison]:
        """Input and output differences of paired rows, with their proved bounds.

        Shapes: x and y [batch, *row_shape], alike; or by name as in `predict`.
        Raises: InvalidInput, also for inputs outside of the certificate's box.
        """
        first = validated(self.rows(x, field="x"), "x", self.row_shape)
        second = validated(self.rows(y, field="y"), "y", self.row_shape)
        if first.shape != second.shape:
            raise InvalidInput("y", f"has {len(second)} rows, but x has {len(first)}")
        for field, values in (("x", first), ("y", second)):
            held = self._box.holds(values, np.zeros_like(values))
            if not held.all():
                raise InvalidInput(field, f"row {int(np.argmin(held))}: {OUTSIDE}")
        outputs = self._served(first), self._served(second)
        for field, computed in zip(("x", "y"), outputs, strict=True):
            if not np.isfinite(computed).all():
                raise InvalidInput(field, "the model's outputs overflow on these inputs")
        rounding = add_upper(self._rounding(first), self._rounding(second))
        return [
            comparison(self._constants, first[row], second[row], (outputs[0][row], outputs[1][row]), rounding[row])
            for row in range(len(first))
        ]

    @property
    def _chunk(self) -> int:
        return max(1, CHUNK_ELEMENTS // sum(self._network.sizes.values()))

    def _enclose(self, rows: Floats, strays: Floats) -> Enclosure:
        measured = NOTHING if self._drifts is None else self._drifts.measured
        return enclose(self._network, rows, input_radius=strays, precisions=EXACT, gains=self._gains, measured=measured)

    def _served(self, rows: Floats) -> Floats:
        return self._network.evaluate(rows) if self._execution.is_evaluated else self._engine.run(rows)

    def _rounding(self, rows: Floats) -> Floats:
        """Entrywise bounds of |executed - exact|: both lie around the float64 evaluation.  Shapes: [B, n] -> [B, c]."""
        precisions = self._execution.precisions
        if precisions is None:
            return np.zeros((len(rows), self._network.output_size))
        cast = rows if self._execution.is_evaluated else self._engine.cast(rows)
        with np.errstate(invalid="ignore"):
            # The difference of a number and the nearest one of a narrower type is exact.
            entering = np.abs(cast - rows)
        executed = enclose(self._network, rows, input_radius=entering, precisions=precisions, gains=self._gains)
        return add_upper(executed.radius, self._enclose(rows, np.zeros_like(rows)).radius)


def _regression(outputs: list[float], bounds: OutputBounds | None, because: str) -> RowPrediction:
    return RowPrediction(
        label=None,
        runner_up=None,
        logits=outputs,
        margin=None,
        radius=None,
        certified=None,
        output_bounds=bounds,
        because=because,
    )
