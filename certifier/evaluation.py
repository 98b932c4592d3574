"""Predictor, inputs, epsilons -> clean accuracy, certified shares and the distribution of the radii.

A row counts as certified for epsilon when its radius is greater than epsilon, whatever its label; it counts as
certified and correct when, besides, the predicted label is the given one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from certifier.documents import Arithmetic, Document, LipschitzBound, RowPrediction
from certifier.errors import InvalidInput
from certifier.prediction import Predictor

Labels = NDArray[np.int64]

BLOCK_ROWS = 512
BLOCK_ELEMENTS = 2**22
"""Rows are converted and predicted in blocks of at most so many entries, so that inputs may be larger than memory."""
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


class RadiusDistribution(Document):
    """How the certified radii are distributed; rows without a certificate count with radius 0."""

    mean: float
    median: float
    quantiles: dict[str, float] = Field(
        description="By share of the rows: `0` is the smallest radius, `1` the largest."
    )


class Evaluation(Document):
    """What a certified classifier achieves on a set of inputs.  Units: radii and epsilons in those of the inputs."""

    rows: int
    clean_accuracy: float | None = Field(description="Share of the rows with the right label; null without labels.")
    certified: dict[str, float] = Field(description="By epsilon: share of the rows whose radius is greater.")
    certified_correct: dict[str, float | None] = Field(
        description="By epsilon: share of the rows with a greater radius and the right label; null without labels."
    )
    radius: RadiusDistribution
    refined: float = Field(description="Share of the rows whose radius was proved around the input itself.")
    lipschitz: LipschitzBound
    arithmetic: Arithmetic


def evaluate(
    predictor: Predictor,
    inputs: NDArray[Any],
    *,
    labels: Labels | None,
    epsilons: Mapping[str, float],
    progress: Callable[[int], None],
    refine: bool | None = None,
    refine_seconds: float | None = None,
) -> Evaluation:
    """The shares of `inputs` that are right, certified, and both.

    `epsilons` gives each value the key under which its shares are returned; `progress` is told how many rows are done.
    `refine` and `refine_seconds` are those of `predictions`.
    Shapes: inputs [N, *predictor.row_shape] of any real dtype; labels [N].
    Arithmetic: every single radius is rounded down; means and quantiles of them are computed to nearest.
    Raises: InvalidInput (no classifier, no rows, wrong shapes, labels out of range, NaN, a negative epsilon).
    """
    certificate = predictor.certificate
    if certificate.task == "regression":
        raise InvalidInput("model", "is a regressor: it has no classes, so there are no radii to evaluate")
    for key, epsilon in epsilons.items():
        if not (math.isfinite(epsilon) and epsilon >= 0):
            raise InvalidInput("epsilon", f"must be a finite number of at least 0, not {key}")
    if inputs.ndim == 0 or len(inputs) == 0:
        raise InvalidInput("inputs", "holds no rows")
    if labels is not None:
        _demand_labels(labels, len(inputs), 2 if certificate.task == "binary" else certificate.classes)
    predicted = np.empty(len(inputs), dtype=np.int64)
    radii = np.empty(len(inputs), dtype=np.float64)
    rows = predictions(predictor, inputs, epsilon=None, progress=progress, refine=refine, refine_seconds=refine_seconds)
    refined = 0
    for position, row in enumerate(rows):
        refined += row.radius_method == "local"
        # A classifier's rows have both; had one none, -1 would be wrong and 0 uncertified.
        predicted[position] = -1 if row.label is None else row.label
        radii[position] = 0.0 if row.radius is None else row.radius
    correct = None if labels is None else predicted == labels
    beyond = {key: radii > epsilon for key, epsilon in epsilons.items()}
    return Evaluation(
        rows=len(inputs),
        clean_accuracy=None if correct is None else float(correct.mean()),
        certified={key: float(share.mean()) for key, share in beyond.items()},
        certified_correct={
            key: None if correct is None else float((share & correct).mean()) for key, share in beyond.items()
        },
        radius=_distribution(radii),
        refined=refined / len(inputs),
        lipschitz=certificate.lipschitz,
        arithmetic=predictor.arithmetic,
    )


def predictions(
    predictor: Predictor,
    inputs: NDArray[Any],
    *,
    epsilon: float | None,
    progress: Callable[[int], None],
    refine: bool | None = None,
    refine_seconds: float | None = None,
) -> Iterator[RowPrediction]:
    """`Predictor.predict` of any number of rows, block by block; `refine_seconds` are for each row here.

    Shapes: inputs [N, *predictor.row_shape] of any real dtype.
    Raises: InvalidInput, with rows counted from the first of all.
    """
    if inputs.ndim == 0 or len(inputs) == 0:
        raise InvalidInput("inputs", "holds no rows")
    size = max(1, min(BLOCK_ROWS, BLOCK_ELEMENTS // max(1, math.prod(inputs.shape[1:]))))
    for start in range(0, len(inputs), size):
        block = inputs[start : start + size]
        _demand_finite(block, start)
        seconds = None if refine_seconds is None else refine_seconds * len(block)
        yield from predictor.predict(block, epsilon=epsilon, preprocessing=None, refine=refine, refine_seconds=seconds)
        progress(start + len(block))


def _demand_finite(block: NDArray[Any], start: int) -> None:
    if block.dtype.kind == "f":
        finite = np.isfinite(block).reshape(len(block), -1).all(axis=1)
        if not finite.all():
            raise InvalidInput("inputs", f"row {start + int(np.argmin(finite))} holds NaN or infinite values")


def _demand_labels(labels: Labels, rows: int, classes: int) -> None:
    if labels.shape != (rows,):
        raise InvalidInput("labels", f"has shape {list(labels.shape)}, but there are {rows} rows of inputs")
    outside = (labels < 0) | (labels >= classes)
    if outside.any():
        row = int(np.argmax(outside))
        raise InvalidInput("labels", f"row {row} is {labels[row]}, but the classes are 0 to {classes - 1}")


def _distribution(radii: NDArray[np.float64]) -> RadiusDistribution:
    # In units of the largest: a radius may be the largest float, and the mean must stay finite.
    largest = float(radii.max())
    mean = min(largest, largest * math.fsum(radii / largest / len(radii))) if largest > 0 else 0.0
    quantiles = np.quantile(radii, QUANTILES)
    return RadiusDistribution(
        mean=mean,
        median=float(quantiles[QUANTILES.index(0.5)]),
        quantiles={f"{share:g}": float(value) for share, value in zip(QUANTILES, quantiles, strict=True)},
    )
