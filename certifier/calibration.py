"""A file of inputs -> how much each pair of classes matters: where a search spends its time, and nothing else.

Untrusted like every search: whatever the inputs are, constants are proved as without them.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certifier.documents import Task
from certifier.errors import InvalidInput
from certifier.limits import Budget, Limits
from certifier.parts import InputParts, as_rows

Floats = NDArray[np.float64]

FIELD = "calibration"
MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 10_000
SHARPNESS = 8.0
"""How fast a pair's weight falls with its margin: at twice the smallest radius of a row it counts 1/256 of the row."""
FLOOR = 1e-3
"""The weight of a pair that no input comes near, relative to the mean: it is made smaller too where that is free."""
MAXIMAL_ROWS = 2**14
"""Rows that are evaluated, spread evenly over the file."""


def calibration_digest(data: bytes | None, named: str | None) -> str | None:
    """SHA-256 of the file of inputs, which `options.calibration` may name; None without a file.

    Raises: InvalidInput where the options name another file, or one that was not given.
    """
    if data is None:
        if named is not None:
            raise InvalidInput("options.calibration", "names a file of inputs, but none was given")
        return None
    digest = hashlib.sha256(data).hexdigest()
    if named not in (None, digest):
        raise InvalidInput("options.calibration", f"is not the digest of the file of inputs, which is {digest}")
    return digest


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """Inputs for whose radii constants are to be made small.  Shapes: rows [N, n], finite."""

    rows: Floats

    @classmethod
    def read(cls, data: bytes, *, task: Task, parts: InputParts, limits: Limits) -> Calibration:
        """The inputs of a .npy file; nothing is unpickled, and no more is read than is there.

        Shapes: [N, *row_shape], as callers give rows, or flat.
        Raises: InvalidInput, also where the task has no pairs of classes; ResourceLimitExceeded.
        """
        limits.demand("calibration_bytes", len(data))
        if task != "classification":
            raise InvalidInput(FIELD, f"chooses among pairs of classes, and the task is {task}")
        array = _array(data)
        if array.dtype.kind not in "fiub":
            raise InvalidInput(FIELD, f"must hold numbers, not {array.dtype}")
        rows = as_rows(array, parts.row_shape, field=FIELD)
        if len(rows) == 0:
            raise InvalidInput(FIELD, "holds no rows")
        with np.errstate(over="ignore"):
            rows = rows.reshape(len(rows), -1).astype(np.float64)
        bad = ~np.isfinite(rows).all(axis=1)
        if bad.any():
            raise InvalidInput(FIELD, f"row {int(np.argmax(bad))} holds NaN or infinite values")
        return cls(rows=rows)

    def weights(
        self, run: Callable[[Floats], Floats], constants: Floats | None, *, budget: Budget
    ) -> tuple[Floats, str]:
        """How much each pair of classes matters, and in words what that rests on.

        `run` gives the logits of rows; as many are asked for as the budget allows, at least one, from all over it.
        Shapes: constants [c, c], any that are known -> [c, c].
        """
        count = min(len(self.rows), MAXIMAL_ROWS)
        chosen = np.linspace(0, len(self.rows) - 1, count).astype(np.intp)
        logits: list[Floats] = []
        # Shuffled, so that what time cuts off is as mixed as what it leaves.
        for position in np.random.default_rng(0).permutation(chosen):
            logits.append(run(self.rows[position : position + 1])[0])
            if budget.left() <= 0:
                break
        note = (
            f"the search favoured the pairs of classes that {len(logits)} of the {len(self.rows)} calibration inputs "
            "come near; the constants hold for all inputs"
        )
        return pair_weights(np.array(logits), constants), note


def _array(data: bytes) -> NDArray[np.generic]:
    """What a .npy file holds.  The size that its header claims is that of the file, or nothing is allocated."""
    if not data.startswith(MAGIC):
        raise InvalidInput(FIELD, "is no .npy file")
    file = io.BytesIO(data)
    try:
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[np.lib.format.read_magic(file)]
        shape, is_fortran, dtype = read_header(file, max_header_size=LONGEST_HEADER)
    except Exception as error:  # any damage of the header: text, literal, dtype, version
        raise InvalidInput(FIELD, f"cannot be read as .npy: {error}") from error
    if dtype.hasobject:
        raise InvalidInput(FIELD, "holds pickled objects, which are never loaded; save an array of numbers")
    count = math.prod(shape)
    if any(size < 0 for size in shape) or len(data) - file.tell() != count * dtype.itemsize:
        raise InvalidInput(FIELD, f"claims shape {list(shape)} of {dtype}, which is not the size of the file")
    array = np.frombuffer(data, dtype=dtype, count=count, offset=file.tell()) if count else np.zeros(0, dtype)
    return array.reshape(shape, order="F" if is_fortran else "C")


def pair_weights(logits: Floats, constants: Floats | None) -> Floats:
    """How much each pair of classes matters for the radii of these rows; every row counts alike.

    A row's radius is the least of its margins over the pairs' constants, so the pairs near that least one share the
    row: a pair whose own radius is r times as large gets r^-8 of its share.
    Shapes: logits [N, c]; constants [c, c], any known ones, or None -> [c, c], symmetric, of mean 1 off the diagonal.
    """
    classes = logits.shape[1]
    scale = np.ones((classes, classes)) if constants is None else constants
    weights = np.zeros((classes, classes))
    for row in logits[np.isfinite(logits).all(axis=1)]:
        label = int(np.argmax(row))
        others = np.arange(classes) != label
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            radii = np.nan_to_num((row[label] - row[others]) / scale[label][others], nan=np.inf, posinf=np.inf)
            least = float(radii.min())
            nearness = np.where(radii > least, (least / radii) ** SHARPNESS, 1.0)
        weights[label, others] += nearness / nearness.sum()
    weights += weights.T
    mean = weights.sum() / max(classes * (classes - 1), 1)
    if not mean > 0:
        return 1.0 - np.eye(classes)
    weights = np.maximum(weights / mean, FLOOR)
    np.fill_diagonal(weights, 0.0)
    return weights / (weights.sum() / (classes * (classes - 1)))
