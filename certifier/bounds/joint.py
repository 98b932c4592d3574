"""network -> the steps of its joint state: every nonlinear term reads a linear map of the values that are alive.

An *anchor* is the input or the output of a nonlinear term; between anchors everything is affine, so what a nonlinear
term reads is C s + b with s the anchors that are alive, one after the other.  C is materialised with an entrywise
enclosure of its rounding.  This is the trusted half of the multiplier method: `certifier.proof.multipliers` proves
statements about these maps, and the maps have to be those of the network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certifier.bounds.comparators import with_comparators
from certifier.flow import Network
from certifier.operators import Kronecker, Operator
from certifier.products import Bilinear
from certifier.proof.gram import magnitude_norm_upper
from certifier.proof.multipliers import LinearMap
from certifier.proof.rounding import (
    FLOAT64,
    TINY,
    add_upper,
    div_upper,
    gamma_upper,
    mul_upper,
    sqrt_upper,
)
from certifier.terms import Activation, Affine, Contraction, Term

Floats = NDArray[np.float64]

MAXIMAL_ORDER = 4608
"""Entries of the joint state with what a step adds: beyond that the proofs' factorisations take too long."""
ONE_THREAD = 1024
"""Up to this width of its steps one thread is faster than several."""
MAXIMAL_ENTRIES = 2**24
"""Entries of one materialised map."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Enclosed:
    """|exact - values| <= error entrywise.  Shapes: [d, n]: the transposed map, one row per entry of the anchor."""

    values: Floats
    error: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Slopes:
    """h_i = f(y_i) with every secant's slope in [lower_i, upper_i].  Shapes: [n]."""

    lower: Floats
    upper: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Stretch:
    """‖Δh‖ <= constant ‖Δy‖."""

    constant: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """h = φ(C s + b): what is read, the law of φ, and which anchors stay alive, `output` among them if it is read."""

    name: str
    output: str
    size: int
    law: Slopes | Stretch
    read: LinearMap
    kept: NDArray[np.intp]
    """Positions within (s, h) that stay alive, in the order of the next state."""


@dataclass(frozen=True, kw_only=True, eq=False)
class JointForm:
    """The steps of a network from its input to its readout f = C s + b."""

    input_size: int
    steps: tuple[Step, ...]
    readout: LinearMap

    @property
    def threads(self) -> int | None:
        """How many threads its searches and proofs should take; None for no limit.

        numpy and scipy bring a pool of threads each, which wait for one another in turns of small products.
        """
        widest = max((len(step.read.matrix) for step in self.steps), default=0)
        return 1 if widest <= ONE_THREAD else None


def obstacle(network: Network) -> str | None:
    """Why the network has no joint form of a size that can be handled; None if it has one."""
    network = with_comparators(network)
    try:
        largest = 0
        anchors = _anchors(network)
        alive = [network.input.name]
        readers = _last_readers(network, anchors)
        for position, term in enumerate(network.terms):
            if isinstance(term, Affine):
                continue
            order = sum(network.sizes[anchor] for anchor in alive) + network.sizes[term.output]
            largest = max(largest, order)
            alive = [anchor for anchor in (*alive, term.output) if readers.get(anchor, -1) > position]
        if largest > MAXIMAL_ORDER:
            return f"its joint state has {largest} entries, more than the {MAXIMAL_ORDER} that are proved densely"
        for value, read in anchors.items():
            entries = network.sizes[value] * sum(network.sizes[anchor] for anchor in read)
            if entries > MAXIMAL_ENTRIES:
                return f"the linear map to {value!r} has {entries} entries, more than are materialised"
    except _NoForm as reason:
        return str(reason)
    return None


def joint_form(network: Network, constants: Callable[[str], float]) -> JointForm:
    """The joint form of a network without an `obstacle`; small sorted groups become comparators first.

    `constants` gives any positive weights for the two factors of a live product; they steer tightness only.
    """
    builder = _Builder(with_comparators(network), constants)
    return builder.form()


class _NoForm(Exception):
    """Says why."""


def _anchors(network: Network) -> Mapping[str, tuple[str, ...]]:
    """For every value, the anchors that it is an affine function of (itself for an anchor)."""
    anchors: dict[str, tuple[str, ...]] = {network.input.name: (network.input.name,)}
    for term in network.terms:
        if isinstance(term, Affine):
            anchors[term.output] = tuple(dict.fromkeys(a for source in term.sources for a in anchors[source]))
        elif isinstance(term, (Activation, Contraction, Bilinear)):
            anchors[term.output] = (term.output,)
        else:
            raise _NoForm(f"node {term.name!r} ({term.operator}) has no incremental law")
    return anchors


def _last_readers(network: Network, anchors: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """The position of the last nonlinear term that reads an anchor, the readout counting as one behind the end."""
    last: dict[str, int] = {}
    for position, term in enumerate(network.terms):
        if not isinstance(term, Affine):
            last.update({anchor: position for source in term.sources for anchor in anchors[source]})
    last.update(dict.fromkeys(anchors[network.output], len(network.terms)))
    return last


class _Builder:
    def __init__(self, network: Network, constants: Callable[[str], float]) -> None:
        self.network, self.constants = network, constants
        self.anchors = _anchors(network)
        self.readers = _last_readers(network, self.anchors)
        self.maps: dict[str, dict[str, Enclosed | None]] = {network.input.name: {network.input.name: None}}
        self.alive = [network.input.name]

    def form(self) -> JointForm:
        network, steps = self.network, list[Step]()
        for position, term in enumerate(network.terms):
            if isinstance(term, Affine):
                self.maps[term.output] = self._through(term)
            else:
                steps.append(self._step(position, term))
                self.maps[term.output] = {term.output: None}
            for source in set(term.sources):
                if network.last_reader[source] == position and source != network.output:
                    self.maps.pop(source, None)
        return JointForm(
            input_size=network.input_size, steps=tuple(steps), readout=_linear(*self._joined(network.output))
        )

    def _step(self, position: int, term: Term) -> Step:
        size = self.network.sizes[term.output]
        law: Slopes | Stretch
        if isinstance(term, Activation):
            shape = (self.network.sizes[term.sources[0]],)
            law = Slopes(
                lower=np.broadcast_to(np.asarray(term.function.slope_lower, dtype=np.float64), shape),
                upper=np.broadcast_to(np.asarray(term.function.slope_upper, dtype=np.float64), shape),
            )
            read = _linear(*self._joined(term.sources[0]))
        elif isinstance(term, Contraction):
            law = Stretch(constant=term.function.constant_upper)
            read = _linear(*self._joined(term.sources[0]))
        else:
            assert isinstance(term, Bilinear)
            law, read = Stretch(constant=1.0), self._factors(term)
        extents = {anchor: self.network.sizes[anchor] for anchor in self.alive} | {term.output: size}
        starts = dict(zip(extents, np.cumsum([0, *extents.values()]), strict=False))
        self.alive = [anchor for anchor in extents if self.readers.get(anchor, -1) > position]
        kept = [np.arange(starts[anchor], starts[anchor] + extents[anchor]) for anchor in self.alive]
        return Step(
            name=term.name,
            output=term.output,
            size=size,
            law=law,
            read=read,
            kept=np.concatenate(kept) if kept else np.zeros(0, dtype=np.intp),
        )

    def _joined(self, value: str) -> tuple[Floats, Floats]:
        """The map from the whole state to `value`, with zeros for anchors it does not read.  Shapes: [d, n] each."""
        rows = self.network.sizes[value]
        values, errors = [], []
        for anchor in self.alive:
            width = self.network.sizes[anchor]
            if anchor not in self.maps[value]:
                values.append(np.zeros((width, rows)))
                errors.append(np.zeros((width, rows)))
                continue
            part = self.maps[value][anchor] or Enclosed(values=np.eye(width), error=np.zeros((width, width)))
            values.append(part.values)
            errors.append(part.error)
        return np.concatenate(values), np.concatenate(errors)

    def _factors(self, term: Bilinear) -> LinearMap:
        """(a u, b v) with ‖ΔB(u, v)‖² <= ‖a Δu‖² + ‖b Δv‖².

        From ‖ΔB‖ <= p‖Δu‖ + q‖Δv‖ and (x + y)² <= (1 + t) x² + (1 + 1/t) y² for every t > 0.
        """
        assert term.factors is not None
        p, q = term.factors
        first, second = (max(self.constants(source), TINY) for source in term.sources)
        ratio = float(np.clip((q * second) / max(p * first, TINY), 2.0**-20, 2.0**20))
        weights = (
            mul_upper(p, sqrt_upper(add_upper(1.0, ratio))),
            mul_upper(q, sqrt_upper(add_upper(1.0, div_upper(1.0, ratio)))),
        )
        values, errors = [], []
        for source, weight in zip(term.sources, weights, strict=True):
            part, error = self._joined(source)
            scaled = weight * part
            values.append(scaled)
            errors.append(add_upper(mul_upper(weight, error), mul_upper(2 * FLOAT64, np.abs(scaled)) + TINY))
        return _linear(np.concatenate(values, axis=1), np.concatenate(errors, axis=1))

    def _through(self, term: Affine) -> dict[str, Enclosed | None]:
        maps: dict[str, Enclosed] = {}
        for source, operator in zip(term.sources, term.operators, strict=True):
            for anchor, part in self.maps[source].items():
                width = self.network.sizes[anchor]
                applied = _apply(operator, part, width)
                maps[anchor] = applied if anchor not in maps else _added(maps[anchor], applied)
        return dict(maps)


def _apply(operator: Operator, part: Enclosed | None, width: int) -> Enclosed:
    """operator ∘ part, enclosed; None stands for the identity of `width` entries."""
    if part is None and isinstance(operator, Kronecker) and operator.before == operator.after == 1:
        matrix = np.ascontiguousarray(np.asarray(operator.dense(), dtype=np.float64).T)
        return Enclosed(values=matrix, error=mul_upper(operator.weight_error, np.abs(matrix)))
    part = part or Enclosed(values=np.eye(width), error=np.zeros((width, width)))
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.asarray(operator.forward(part.values), dtype=np.float64)
        absolute = operator.absolute()
        carried = np.asarray(absolute.forward(part.error), dtype=np.float64)
        if operator.fan_in == 0 and operator.weight_error == 0.0:
            return Enclosed(values=values, error=carried)
        magnitude = np.asarray(absolute.forward(np.abs(part.values)), dtype=np.float64)
    count = operator.fan_in + 4
    # The magnitudes are rounded themselves, by at most gamma(count) relatively, which the doubled terms cover.
    relative = add_upper(mul_upper(2.0, gamma_upper(count, FLOAT64)), mul_upper(2.0, operator.weight_error))
    lost = 4.0 * count * TINY * max(1.0, float(np.max(magnitude, initial=0.0)))
    error = add_upper(mul_upper(relative, _raised(magnitude + carried)), add_upper(_raised(carried), lost))
    return Enclosed(values=values, error=error)


def _raised(magnitude: Floats) -> Floats:
    """Non-negative, with NaN read as infinite."""
    return np.where(np.isnan(magnitude), np.inf, np.abs(magnitude))


def _added(first: Enclosed, second: Enclosed) -> Enclosed:
    with np.errstate(over="ignore", invalid="ignore"):
        values = first.values + second.values
    error = add_upper(add_upper(first.error, second.error), mul_upper(2 * FLOAT64, np.abs(values)))
    return Enclosed(values=values, error=error)


def _linear(values: Floats, error: Floats) -> LinearMap:
    distance = float(magnitude_norm_upper(error)) if error.size else 0.0
    return LinearMap(matrix=np.ascontiguousarray(values.T), distance=distance if math.isfinite(distance) else math.inf)
