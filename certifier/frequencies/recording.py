"""What a network becomes: signals, and the maps, slopes and cuts between them, written down in order of evaluation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certifier.frequencies.maps import MAXIMAL_KERNELS, Map, Part, Windows, convolved, demand_writable, dense_part
from certifier.frequencies.views import NotCovered, Signal, View

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Slope:
    """output_c = φ_c(source_c) inside the box and 0 outside, with slopes in [lower, upper]. Shapes: (channels,)."""

    output: Signal
    source: Signal
    lower: Array
    upper: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Cut:
    """‖output_c‖² <= square·‖source_c‖² per channel, or over all channels together where not `per_channel`."""

    output: Signal
    source: Signal
    square: float
    per_channel: bool


Operation = Map | Slope | Cut


def sources(operation: Operation) -> list[Signal]:
    """The signals that an operation reads."""
    return [part.source for part in operation.parts] if isinstance(operation, Map) else [operation.source]


@dataclass(frozen=True, kw_only=True, eq=False)
class Lowered:
    """What leads from `start`, the signal of the value `origin`, to the network's output, in order of evaluation.

    `cuts` names the terms that have no form of their own here, so that their Lipschitz constants stand for them.
    """

    origin: str
    start: Signal
    operations: tuple[Operation, ...]
    output: View
    cuts: tuple[str, ...]


@dataclass(kw_only=True, eq=False)
class Recorder:
    """Operations in order, which map made which signal, and the masked version of what was masked."""

    operations: list[Operation] = field(default_factory=list)
    _producers: dict[int, Map] = field(default_factory=dict)
    _masks: dict[int, Signal] = field(default_factory=dict)
    _written: int = 0

    def producer(self, signal: Signal) -> Map | None:
        """The map that made the signal."""
        return self._producers.get(id(signal))

    def map(
        self, output: Signal, parts: tuple[Part, ...], strides: tuple[int, ...] | None, reach: tuple[int, ...]
    ) -> None:
        """output = the sum of the parts.

        Raises: NotCovered where kernels would take too much memory together.
        """
        self._written += sum(part.kernel.size for part in parts if part.kernel is not None)
        if self._written > MAXIMAL_KERNELS:
            raise NotCovered("kernels are too large to be written out together")
        made = Map(output=output, parts=parts, strides=strides, reach=reach)
        self.operations.append(made)
        self._producers[id(output)] = made

    def slope(self, source: Signal, lower: Array, upper: Array) -> Signal:
        """φ(source), zero outside the box: off a single point the mask widens the slopes to their hull with 0."""
        if not np.isfinite(lower).all() or not np.isfinite(upper).all():
            raise NotCovered("its slopes are not bounded")
        if not source.is_point:
            lower, upper = np.minimum(lower, 0.0), np.maximum(upper, 0.0)
        if np.all(lower == 0) and np.all(upper == 0):
            raise NotCovered("it is constant")
        output = Signal(source.channels, source.box, is_clean=True, is_point=source.is_point)
        self.operations.append(Slope(output=output, source=source, lower=lower, upper=upper))
        return output

    def masked(self, signal: Signal) -> Signal:
        """The signal with zeros outside its box: a slope of 0 there, of 1 inside."""
        if signal.is_clean:
            return signal
        if id(signal) not in self._masks:
            ones = np.ones(signal.channels)
            self._masks[id(signal)] = self.slope(signal, ones, ones)
        return self._masks[id(signal)]

    def dense(self, view: View, matrix: Array, error: float) -> View:
        """y = W x, every entry of y a channel at one point."""
        part = dense_part(view, matrix, error)
        box = (1,) * len(view.signal.box)
        output = Signal(matrix.shape[0], box, is_clean=True, is_point=True)
        self.map(output, (part,), box if view.signal.is_point else None, view.signal.box)
        return View(output, None)

    def convolution(self, view: View, windows: Windows) -> View:
        """The convolution of a view; what it reads as zero is masked first.

        Where a tensor was cropped, and what the convolution reads as zero lies in the box of the signal, the tensor
        becomes a signal of its own.
        """
        try:
            return self._convolved(view, windows)
        except NotCovered:
            channels = windows.kernel.shape[1] * windows.groups
            own = self._convolved(view, Windows.selection(channels, windows.shape))
        return self._convolved(own, windows)

    def _convolved(self, view: View, windows: Windows) -> View:
        reading = convolved(view, windows)
        if reading.outside and view.signal.is_point:
            # On a torus of one point every neighbour is the point itself, not a zero.
            raise NotCovered("zeros around a single point are read")
        if reading.outside and not view.signal.is_clean:
            reading = convolved(View(self.masked(view.signal), view.indices), windows)
        is_point = math.prod(windows.output_shape) == 1
        output = Signal(len(windows.kernel), windows.output_shape, is_clean=is_point, is_point=is_point)
        self.map(output, (reading.part,), None if is_point else reading.strides, reading.reach)
        return View(output, None)

    def whole(self, view: View, shape: tuple[int, ...]) -> View:
        """A view of every entry of a signal's box, by a selection where it is not one already."""
        return view if view.is_whole else self._selected(view, shape)

    def natural(self, view: View, shape: tuple[int, ...]) -> View:
        """A view of every entry of a signal's box in its own order, by a selection where it is not one already."""
        is_natural = view.is_whole and np.array_equal(view.all_indices, np.arange(view.signal.size))
        return View(view.signal, None) if is_natural else self._selected(view, shape)

    def _selected(self, view: View, shape: tuple[int, ...]) -> View:
        if view.signal.is_point:
            demand_writable(len(view.all_indices), len(view.all_indices))
            return self.dense(view, np.eye(len(view.all_indices)), 0.0)
        box, entries = view.signal.box, len(view.all_indices)
        if len(shape) == len(box) + 2:
            return self.convolution(view, Windows.selection(shape[1], shape[2:]))
        # Reshaped in between: perhaps it is whole channels all the same, as a selection finds out.
        if entries % view.signal.points:
            raise NotCovered("a part of a tensor is read after its shape was lost")
        return self.convolution(view, Windows.selection(entries // view.signal.points, box))

    def needed(self, output: Signal) -> tuple[Operation, ...]:
        """The operations that the output rests on: maps that were joined to others are left out."""
        wanted, kept = {id(output)}, []
        for operation in reversed(self.operations):
            if id(operation.output) in wanted:
                kept.append(operation)
                wanted.update(id(source) for source in sources(operation))
        return tuple(kept[::-1])
