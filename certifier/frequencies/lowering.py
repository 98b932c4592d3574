"""Terms -> operations on signals, from one value of the network on.

Where a term of one source has no form on a torus, its Lipschitz constant stands for it: the region behind it starts
anew.  A term of several sources that has none raises `NotCovered` with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from certifier.flow import Network
from certifier.frequencies.layout import Layouts
from certifier.frequencies.linear import Shapes, per_channel, through
from certifier.frequencies.maps import demand_writable, identity_part
from certifier.frequencies.recording import Cut, Lowered, Recorder
from certifier.frequencies.views import NotCovered, Signal, View
from certifier.operators import Composed, Identity, Operator, Placed, compose
from certifier.proof.rounding import mul_upper, sqrt_upper
from certifier.terms import Activation, Affine, Contraction, Term
from certifier.vector_functions.pooling import WindowMaximum

Indices = NDArray[np.intp]
NormUpper = Callable[[Operator, str], float]
"""A proved norm of an operator, remembered under a name."""


def lower(network: Network, origin: str, norm_upper: NormUpper) -> Lowered:
    """The operations from the value `origin` on.

    Raises: NotCovered; NotProved where a norm that is needed is not proved.
    """
    return _Lowering(network, origin, norm_upper).run()


class _Lowering:
    def __init__(self, network: Network, origin: str, norm_upper: NormUpper) -> None:
        self.network, self.origin, self.norm_upper = network, origin, norm_upper
        self.recorder = Recorder()
        self.layouts = Layouts(network)
        self.views: dict[str, View] = {}
        self.cuts: list[str] = []

    def run(self) -> Lowered:
        start = self.views[self.origin] = self.layouts.fresh(self.origin)
        for term in self.network.terms:
            known = [source in self.views for source in term.sources]
            if any(known) and term.output != self.origin:
                if not all(known):
                    raise NotCovered(f"node {term.name!r} also reads what lies before {self.origin!r}")
                self.views[term.output] = self._covered(term)
        output = self.views.get(self.network.output)
        if output is None or np.any(output.all_indices < 0):
            raise NotCovered("an output is constant, or does not depend on the start")
        return Lowered(
            origin=self.origin,
            start=start.signal,
            operations=self.recorder.needed(output.signal),
            output=output,
            cuts=tuple(self.cuts),
        )

    def _covered(self, term: Term) -> View:
        try:
            return self._term(term)
        except NotCovered as error:
            refusal = NotCovered(f"node {term.name!r} ({term.operator}): {error}")
            if len(term.sources) > 1:
                raise refusal from error
        try:
            view = self._cut(term)
        except NotCovered as error:
            raise refusal from error
        self.cuts.append(term.name)
        return view

    def _term(self, term: Term) -> View:
        if isinstance(term, Activation):
            return self._activation(term)
        if isinstance(term, Contraction) and len(term.sources) == 1:
            return self._contraction(term)
        if not isinstance(term, Affine):
            raise NotCovered("a product of two values that depend on the input has no form on a torus")
        if len(term.sources) == 1:
            source = term.sources[0]
            return through(
                self.recorder,
                self.views[source],
                term.operators[0],
                shapes=Shapes(before=self.layouts.shapes[source], after=term.shape),
                is_sole=self.layouts.is_sole(source),
            )
        return self._stack(term) if term.arrangement == "stack" else self._sum(term)

    def _activation(self, term: Activation) -> View:
        view = self.recorder.whole(self.views[term.sources[0]], term.shape)
        size = view.signal.size
        slopes = [np.asarray(each, float) for each in (term.function.slope_lower, term.function.slope_upper)]
        lower, upper = per_channel(view, *(np.broadcast_to(each, (size,)) for each in slopes))
        return View(self.recorder.slope(view.signal, lower, upper), view.indices)

    # --- what only a constant is known of ------------------------------------------------------------------------

    def _contraction(self, term: Contraction) -> View:
        """‖F(y) - F(y')‖ <= K‖y - y'‖; a maximum over windows of each channel obeys that channel by channel."""
        view, function = self.views[term.sources[0]], term.function
        per_channel = (
            isinstance(function, WindowMaximum)
            and function.windows.after == 1
            and function.windows.before == view.signal.channels
            and view.indices is None
        )
        return self._cut_by(term, function.constant_upper, per_channel)

    def _cut(self, term: Term) -> View:
        """By the constant of a term of one source, whatever it is."""
        if isinstance(term, Activation):
            constant = float(np.max(term.steepest))
        elif isinstance(term, Affine):
            constant = self.norm_upper(term.operators[0], term.name)
        else:
            raise NotCovered("it has no constant of its own")
        return self._cut_by(term, constant, False)

    def _cut_by(self, term: Term, constant: float, per_channel: bool) -> View:
        view = self.views[term.sources[0]]
        seen = view.all_indices[view.all_indices >= 0]
        if not len(seen) or not math.isfinite(constant) or constant <= 0:
            raise NotCovered("its constant is not positive and finite")
        # An entry that is read r times counts as often.
        repeats = float(sqrt_upper(float(np.bincount(seen).max())))
        constant = float(mul_upper(constant, repeats))
        fresh = self.layouts.fresh(term.output)
        if fresh.signal.channels != view.signal.channels or fresh.indices is not None:
            per_channel = False
        square = float(mul_upper(constant, constant))
        cut = Cut(output=fresh.signal, source=view.signal, square=square, per_channel=per_channel)
        self.recorder.operations.append(cut)
        return fresh

    # --- terms of several sources --------------------------------------------------------------------------------

    def _sum(self, term: Affine) -> View:
        views: list[tuple[View, bool]] = []
        for source, operator in zip(term.sources, term.operators, strict=True):
            is_sole = self.layouts.is_sole(source)
            before = self.views[source]
            shapes = Shapes(before=self.layouts.shapes[source], after=term.shape)
            view = through(self.recorder, before, operator, shapes=shapes, is_sole=is_sole)
            view = self.recorder.whole(view, term.shape)
            views.append((view, is_sole or view.signal is not before.signal))
        first = views[0][0]
        if any(not np.array_equal(view.all_indices, first.all_indices) for view, _ in views):
            views = [(self.recorder.natural(view, term.shape), is_sole) for view, is_sole in views]
            first = views[0][0]
        if len({(view.signal.channels, view.signal.box, view.signal.is_point) for view, _ in views}) != 1:
            raise NotCovered("summands have different shapes")
        # Maps that nobody else reads are joined to the sum, as far as they keep the torus, or all leave it alike.
        producers = [self.recorder.producer(view.signal) if is_sole else None for view, is_sole in views]
        strides = {None if each is None else each.strides for each in producers}
        alike = len(strides) == 1 and all(each is not None and not each.keeps_torus for each in producers)
        parts = []
        reach, kept = first.signal.box, (1,) * len(first.signal.box)
        for (view, _), producer in zip(views, producers, strict=True):
            if producer is None or not (alike or producer.keeps_torus):
                parts.append(identity_part(view.signal))
                continue
            parts.extend(producer.parts)
            reach = tuple(map(max, reach, producer.reach))
            kept = producer.strides
        signal = first.signal
        is_clean = signal.is_point or all(part.kernel is None and part.source.is_clean for part in parts)
        output = Signal(signal.channels, signal.box, is_clean=is_clean, is_point=signal.is_point)
        self.recorder.map(output, tuple(parts), kept, reach)
        return View(output, first.indices)

    def _stack(self, term: Affine) -> View:
        """Channels beside one another, where the parts lie in whole channels of the flat value."""
        views, placements = [], list[Placed]()
        for source, operator in zip(term.sources, term.operators, strict=True):
            leading, placed = _split(operator)
            if placed is None:
                raise NotCovered("tensors are put together in another way than side by side")
            before = self.views[source]
            shape = self.layouts.shapes[source]
            moved = compose([*leading, Identity(placed.columns)])
            inner = through(self.recorder, before, moved, shapes=Shapes(before=shape, after=None), is_sole=False)
            views.append(self.recorder.natural(inner, () if leading else shape))
            placements.append(placed)
        box, is_point = views[0].signal.box, views[0].signal.is_point
        if any((view.signal.box, view.signal.is_point) != (box, is_point) for view in views):
            raise NotCovered("tensors of different sizes are concatenated")
        points = math.prod(box)
        targets = [_target_channels(placed, points) for placed in placements]
        total, parts = math.prod(term.shape) // points, []
        for view, channels in zip(views, targets, strict=True):
            demand_writable(total, view.signal.channels)
            kernel = np.zeros((total, view.signal.channels, 1))
            kernel[channels, np.arange(view.signal.channels)] = 1.0
            parts.append(replace(identity_part(view.signal), kernel=kernel))
        output = Signal(total, box, is_clean=all(view.signal.is_clean for view in views), is_point=is_point)
        self.recorder.map(output, tuple(parts), (1,) * len(box), box)
        return View(output, None)


def _target_channels(placed: Placed, points: int) -> Indices:
    """The channel of the whole that every channel of a part becomes.

    Raises: NotCovered where a channel is torn.
    """
    if placed.before == 1:
        start = placed.start * placed.after
        if start % points or placed.rows % points:
            raise NotCovered("tensors are concatenated within a channel")
        return start // points + np.arange(placed.columns // points)
    if placed.after % points:
        raise NotCovered("tensors are concatenated along another axis than their channels")
    within = placed.after // points
    every = np.arange(placed.before * placed.total * within).reshape(placed.before, placed.total, within)
    return every[:, placed.start : placed.start + placed.own].ravel()


def _split(operator: Operator) -> tuple[tuple[Operator, ...], Placed | None]:
    """What happens to a part before it is placed."""
    parts = operator.parts if isinstance(operator, Composed) else (operator,)
    last = parts[-1]
    return (parts[:-1], last) if isinstance(last, Placed) else (parts, None)
