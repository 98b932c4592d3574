"""Operators -> maps of signals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certifier.frequencies.maps import (
    Part,
    Windows,
    demand_writable,
    equal_windows,
    identity_part,
    pooling_windows,
)
from certifier.frequencies.recording import Recorder
from certifier.frequencies.views import NotCovered, Signal, View
from certifier.operators import Composed, Convolution, Diagonal, Identity, Kronecker, Operator, Rearrange
from certifier.proof.rounding import add_lower, add_upper, mul_upper

Array = NDArray[Any]
MAXIMAL_MATRIX = 2**25
"""Entries of a map at one point that is written out, and of the covariance of what it leads to."""


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Of the tensors that an operator reads and writes, where they are known."""

    before: tuple[int, ...] | None
    after: tuple[int, ...] | None


def through(recorder: Recorder, view: View, operator: Operator, *, shapes: Shapes, is_sole: bool) -> View:
    """The view of A v; `is_sole`: nobody but this operator reads v.

    Raises: NotCovered.
    """
    parts = operator.parts if isinstance(operator, Composed) else (operator,)
    for position, part in enumerate(parts):
        is_first, is_last = position == 0, position + 1 == len(parts)
        around = Shapes(before=shapes.before if is_first else None, after=shapes.after if is_last else None)
        view = _part(recorder, view, part, around, is_sole or not is_first)
    return view


def _part(recorder: Recorder, view: View, operator: Operator, shapes: Shapes, is_sole: bool) -> View:
    if isinstance(operator, Identity):
        return view
    if isinstance(operator, Rearrange):
        return view.rearranged(operator.indices)
    if isinstance(operator, Diagonal):
        values = np.broadcast_to(np.asarray(operator.values, dtype=np.float64).ravel(), (operator.rows,))
        return _scaling(recorder, view, values, operator.weight_error, shapes.after, is_sole)
    if view.signal.is_point and isinstance(operator, (Convolution, Kronecker)):
        if max(operator.columns, operator.rows) * operator.rows > MAXIMAL_MATRIX:
            raise NotCovered("a matrix is too large to be written out")
        # Products with 0 and 1 summed with zeros: every entry is a weight, exactly.
        if operator.columns <= operator.rows:
            matrix = operator.forward(np.eye(operator.columns)).T
        else:
            matrix = operator.adjoint(np.eye(operator.rows))
        return recorder.dense(view, np.asarray(matrix, dtype=np.float64), operator.weight_error)
    if isinstance(operator, Convolution):
        return recorder.convolution(view, Windows.of(operator))
    if isinstance(operator, Kronecker):
        return _kronecker(recorder, view, operator, shapes)
    raise NotCovered(f"a {operator.describe()} has no form on a torus")


def _scaling(
    recorder: Recorder, view: View, values: Array, error: float, shape: tuple[int, ...] | None, is_sole: bool
) -> View:
    """diag(values) v, exact within a relative error; where it differs from point to point, a function of slopes."""
    signal = view.signal
    seen = view.all_indices >= 0
    channels = view.all_indices[seen] // signal.points
    factors = np.ones(signal.channels)
    factors[channels] = values[seen]
    if np.any(factors[channels] != values[seen]):
        return _local_scaling(recorder, view, values, error, shape)
    producer = recorder.producer(signal) if is_sole else None
    parts: tuple[Part, ...] = (identity_part(signal),) if producer is None else producer.parts
    output = Signal(signal.channels, signal.box, is_clean=signal.is_clean, is_point=signal.is_point)
    recorder.map(
        output,
        tuple(part.scaled(factors, error) for part in parts),
        (1,) * len(signal.box) if producer is None else producer.strides,
        signal.box if producer is None else producer.reach,
    )
    return View(output, view.indices)


def _local_scaling(recorder: Recorder, view: View, values: Array, error: float, shape: tuple[int, ...] | None) -> View:
    """Per channel the slopes lie between the smallest and the largest value."""
    if shape is None and not view.is_whole:
        raise NotCovered("a scaling differs from point to point")
    view = recorder.whole(view, shape or ())
    spread = mul_upper(np.abs(values), error)
    lower, upper = per_channel(view, add_lower(values, -spread), add_upper(values, spread))
    return View(recorder.slope(view.signal, lower, upper), view.indices)


def per_channel(view: View, lower: Array, upper: Array) -> tuple[Array, Array]:
    """The smallest and the largest entry in each channel of the signal that the view is the whole of."""
    signal = view.signal
    order = np.arange(signal.size) if view.indices is None else np.argsort(view.indices)
    low, high = (np.asarray(each)[order].reshape(signal.channels, signal.points) for each in (lower, upper))
    return low.min(axis=1), high.max(axis=1)


def _kronecker(recorder: Recorder, view: View, operator: Kronecker, shapes: Shapes) -> View:
    signal = view.signal
    height, width = operator.core_shape
    if operator.after == 1 and shapes.before is not None and shapes.after is not None and _is_map(signal, shapes):
        try:
            return _pooling(recorder, view, operator, shapes.before[2:], shapes.after)
        except NotCovered:
            if operator.before > 1:
                raise
    if operator.before == operator.after == 1:
        demand_writable(height, width)
        return recorder.dense(view, np.asarray(operator.dense(), dtype=np.float64), operator.weight_error)
    if operator.after == 1 and height == 1:
        # One number of every channel.
        if operator.rows * operator.columns > MAXIMAL_MATRIX:
            raise NotCovered("a matrix is too large to be written out")
        blocks = np.kron(np.eye(operator.before), operator.dense())
        return recorder.dense(view, blocks, operator.weight_error)
    if operator.after % signal.points == 0:
        # Of channels alone: I (x) W (x) I over them.
        within = operator.after // signal.points
        demand_writable(operator.before * height * within, operator.before * width * within)
        kernel = np.kron(np.kron(np.eye(operator.before), operator.dense()), np.eye(within))
        axes = (1,) * len(signal.box)
        pointwise = Convolution(
            np.asarray(kernel, dtype=np.float64).reshape(*kernel.shape, *axes),
            input_shape=signal.box,
            strides=axes,
            pads_before=(0,) * len(axes),
            pads_after=(0,) * len(axes),
            dilations=axes,
            groups=1,
            weight_error=operator.weight_error,
        )
        return recorder.convolution(view, Windows.of(pointwise))
    raise NotCovered("a matrix mixes points and channels")


def _is_map(signal: Signal, shapes: Shapes) -> bool:
    """Whether the result is a tensor of several points with the axes of the one that is read."""
    assert shapes.before is not None and shapes.after is not None
    return len(shapes.before) == len(shapes.after) == len(signal.box) + 2 and math.prod(shapes.after[2:]) > 1


def _pooling(
    recorder: Recorder, view: View, operator: Kronecker, points: tuple[int, ...], shape: tuple[int, ...]
) -> View:
    """An average over windows: a depthwise convolution, or one of ones with a scaling that the borders make local."""
    try:
        return recorder.convolution(view, pooling_windows(operator, operator.before, points, shape[2:]))
    except NotCovered:
        ones, heights = equal_windows(operator)
        summed = recorder.convolution(view, pooling_windows(ones, operator.before, points, shape[2:]))
        return _local_scaling(recorder, summed, np.tile(heights, operator.before), operator.weight_error, shape)
