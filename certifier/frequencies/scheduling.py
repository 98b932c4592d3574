"""Operations on signals -> segments of steps on one joint state, and the torus of each segment.

The state holds the signals that are still read, on one torus.  Maps that keep the torus are applied as soon as their
sources are there, all that read a dying signal at once; maps with strides wait until every signal of the state goes
through one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from certifier.errors import NotProved
from certifier.frequencies.maps import Map, Part, identity_part
from certifier.frequencies.recording import Cut, Lowered, Operation, Slope, sources
from certifier.frequencies.views import NotCovered, Signal
from certifier.proof.frequency.narrowing import narrowed
from certifier.proof.frequency.steps import Block, Linear, Segment, Slopes, Step

MAXIMAL_STATE = 2**25
"""Numbers of the largest stack of matrices that is worked on, one matrix a frequency."""
INVERSE, EIGENVALUES = 5.0, 6.0
"""About how many products, in cubes of the order, a proved inverse and a proved largest eigenvalue take."""
OVERHEAD = 128
"""Passes over the entries of a matrix around a product of two, counted as a length of the product."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Schedule:
    """The segments; the last state is the signal of the output alone."""

    segments: tuple[Segment, ...]
    numbers: int
    """Of the largest stack of matrices."""
    work: float
    """About how many products of numbers a proof takes, what goes on around them included."""


def scheduled(lowered: Lowered, *, norm_only: bool) -> Schedule:
    """The segments that lead from the signal of the start, of variance one, to that of the output.

    `norm_only`: a last step may lead to another signal that is never shorter.
    Raises: NotCovered.
    """
    segments = _Scheduling(lowered).run()
    if norm_only:
        segments = (*segments[:-1], _narrowed(segments[-1]))
    return _measured(segments)


def _narrowed(segment: Segment) -> Segment:
    *before, last = segment.steps or (None,)
    if not isinstance(last, Linear):
        return segment
    try:
        return replace(segment, steps=(*before, narrowed(last, segment.widths()[-2])))
    except NotProved:
        return segment


def _measured(segments: tuple[Segment, ...]) -> Schedule:
    """With what a proof of them takes.

    Raises: NotCovered for matrices that are too many to be worked on.
    """
    numbers, work = 0, 0.0
    for segment in segments:
        sizes, is_alike = segment.sizes, True
        for step, width in zip(segment.steps, segment.widths(), strict=False):
            if isinstance(step, Linear):
                is_alike = is_alike and all(block.is_pointwise for block in step.blocks)
                work += _frequencies(sizes, is_alike) * float(step.rows * width * (step.rows + width + OVERHEAD))
                numbers = max(numbers, _frequencies(sizes, is_alike) * step.rows**2)
                sizes = tuple(n // s for n, s in zip(sizes, step.strides or sizes, strict=True))
            else:
                active = len(step.lower)
                inverse = INVERSE * active**2 * (active + OVERHEAD)
                work += _frequencies(sizes, is_alike) * (inverse + width * active * (width + active + OVERHEAD))
        last = segment.widths()[-1]
        work += _frequencies(sizes, is_alike) * EIGENVALUES * float(last**2 * (last + OVERHEAD))
    if numbers > MAXIMAL_STATE:
        raise NotCovered(f"matrices of {numbers} numbers in all are more than is worked on")
    return Schedule(segments=segments, numbers=numbers, work=work)


def _frequencies(sizes: tuple[int, ...], is_alike: bool) -> int:
    return 1 if is_alike else math.prod(sizes) // 2 + 1


class _Scheduling:
    def __init__(self, lowered: Lowered) -> None:
        self.output = lowered.output.signal
        self.start = lowered.start
        self.pending: list[Operation] = list(lowered.operations)
        self.state: list[Signal] = [lowered.start]
        self.steps: list[Step] = []
        self.segments: list[Segment] = []
        self._open(lowered.start)

    def _open(self, start: Signal) -> None:
        """A new torus, whose sizes follow from what is reached on it."""
        axes = len(start.box)
        self.needed: list[tuple[tuple[int, ...], tuple[int, ...]]] = [((1,) * axes, start.box)]
        self.stride: tuple[int, ...] = (1,) * axes
        self.is_point = start.is_point

    def run(self) -> tuple[Segment, ...]:
        squares, inherited = np.ones(self.start.channels), np.full(self.start.channels, -1)
        while self.pending:
            cut = self._advance()
            if cut is not None:
                self._close(squares, inherited)
                channels = cut.output.channels
                squares = np.full(channels, cut.square)
                inherited = np.arange(channels) if cut.per_channel else np.full(channels, -1)
                self.state, self.steps = [cut.output], []
                self._open(cut.output)
        if len(self.state) != 1 or self.state[0] is not self.output:
            raise NotCovered("the output is not all that is left")
        self._close(squares, inherited)
        return tuple(self.segments)

    def _close(self, squares: NDArray[np.float64], inherited: NDArray[np.int64]) -> None:
        self.segments.append(Segment(sizes=self._sizes(), squares=squares, sources=inherited, steps=tuple(self.steps)))

    def _sizes(self) -> tuple[int, ...]:
        """The least multiple of all strides that holds what every level needs."""
        whole = self.needed[-1][0]
        for stride, _ in self.needed:
            whole = tuple(map(max, whole, stride))
        sizes = []
        for axis, multiple in enumerate(whole):
            least = max(stride[axis] * reach[axis] for stride, reach in self.needed)
            sizes.append(-(-least // multiple) * multiple)
        return tuple(sizes)

    def _advance(self) -> Cut | None:
        """Apply one operation, or a group of maps; a cut is returned for the caller to start anew."""
        for operation in self.pending:
            if isinstance(operation, Map):
                if operation.keeps_torus and self._is_ready(operation):
                    self._apply(self._group(operation))
                    return None
            elif isinstance(operation, Slope):
                if self._has(operation.source):
                    self._activate(operation)
                    return None
            elif self._has(operation.source) and len(self.state) == 1:
                if self._is_read(operation.source, [operation]):
                    raise NotCovered("a pooling's input is also read elsewhere")
                self.pending.remove(operation)
                return operation
        self._stride()
        return None

    def _has(self, signal: Signal) -> bool:
        return any(signal is each for each in self.state)

    def _is_ready(self, operation: Map) -> bool:
        return all(self._has(part.source) for part in operation.parts)

    def _is_read(self, signal: Signal, by_others_than: Sequence[Operation]) -> bool:
        if signal is self.output:
            return True
        others = (operation for operation in self.pending if operation not in by_others_than)
        return any(signal is source for operation in others for source in sources(operation))

    def _group(self, first: Map) -> list[Map]:
        """`first`, with every other ready map whose sources all are sources of it: those may then be dropped."""
        sources = {id(part.source) for part in first.parts}
        group = [first]
        for operation in self.pending:
            if (
                isinstance(operation, Map)
                and operation is not first
                and operation.keeps_torus
                and self._is_ready(operation)
                and {id(part.source) for part in operation.parts} <= sources
            ):
                group.append(operation)
        return group

    def _apply(self, group: list[Map]) -> None:
        kept = [signal for signal in self.state if self._is_read(signal, group)]
        entries = [(signal, (identity_part(signal),)) for signal in kept]
        entries += [(operation.output, operation.parts) for operation in group]
        self._linear(entries, group[0].strides)
        for operation in group:
            self._need(self.stride, operation.reach)
            self.pending.remove(operation)

    def _need(self, stride: tuple[int, ...], reach: tuple[int, ...]) -> None:
        """The torus at this level has to hold `reach`; one that was left for a single point holds nothing else."""
        if self.is_point and math.prod(reach) > 1:
            raise NotCovered("more than the point of a torus of one point is read")
        self.needed.append((stride, reach))

    def _linear(self, entries: list[tuple[Signal, tuple[Part, ...]]], strides: tuple[int, ...] | None) -> None:
        columns = dict(zip(map(id, self.state), _starts(self.state), strict=True))
        outputs = [signal for signal, _ in entries]
        blocks = []
        for (signal, parts), row in zip(entries, _starts(outputs), strict=True):
            for part in parts:
                blocks.append(
                    Block(
                        row=row,
                        column=columns[id(part.source)],
                        channels=signal.channels,
                        kernel=part.kernel,
                        offsets=part.offsets,
                        relative_error=part.relative_error,
                    )
                )
        rows = sum(signal.channels for signal in outputs)
        self.steps.append(Linear(blocks=tuple(blocks), rows=rows, strides=strides))
        self.state = outputs

    def _activate(self, operation: Slope) -> None:
        if self._is_read(operation.source, [operation]):
            # Both y and φ(y) are needed: a copy of y is activated.
            copy = Signal(operation.source.channels, operation.source.box, is_clean=False, is_point=self.is_point)
            entries = [(signal, (identity_part(signal),)) for signal in self.state]
            self._linear([*entries, (copy, (identity_part(operation.source),))], (1,) * len(operation.source.box))
            source = copy
        else:
            source = operation.source
        position = next(index for index, signal in enumerate(self.state) if signal is source)
        start = _starts(self.state)[position]
        self.steps.append(Slopes(start=start, lower=operation.lower, upper=operation.upper))
        self.state[position] = operation.output
        self.pending.remove(operation)

    def _stride(self) -> None:
        """All signals of the state through maps with one and the same stride."""
        group = [
            operation
            for operation in self.pending
            if isinstance(operation, Map) and not operation.keeps_torus and self._is_ready(operation)
        ]
        if not group or len({operation.strides for operation in group}) != 1:
            raise NotCovered("values of different resolutions are alive at the same time")
        if any(self._is_read(signal, group) for signal in self.state):
            raise NotCovered("a value skips a change of resolution")
        strides = group[0].strides
        reach = reduce(lambda a, b: tuple(map(max, a, b)), (operation.reach for operation in group))
        self._need(self.stride, reach)
        if strides is None:
            self.is_point = True
        else:
            self.stride = tuple(a * b for a, b in zip(self.stride, strides, strict=True))
            self.needed.extend((self.stride, operation.output.box) for operation in group)
        self._linear([(operation.output, operation.parts) for operation in group], strides)
        for operation in group:
            self.pending.remove(operation)


def _starts(signals: list[Signal]) -> list[int]:
    starts, total = [], 0
    for signal in signals:
        starts.append(total)
        total += signal.channels
    return starts
