"""How far any execution may drift from the exact network, at every input of a ball: linear forms with few coefficients.

For a value v write v̂ for what is executed, δ for the rounding of its own term, and take all norms at one input x' of
the ball of radius r around x.  Then (`docs/proofs/execution.md`)

    ‖v(x')‖       <= ‖v(x)‖ + Λ_v r                                                    Λ_v: product of proved norms
    ‖v̂ - v‖(x')   <= Σ_i K_i ‖û_i - u_i‖ + ‖δ‖                                          K_i: constants of the term
    affine:     ‖δ‖ <= γ_k (‖m(x)‖ + Σ_i ‖|A_i|‖ (Λ_i r + ‖û_i - u_i‖)) + underflow    m = Σ_i |A_i||u_i| + |b|
    activation: ‖δ‖ <= u (ulps (‖v(x')‖ + K ‖û - u‖) + absolute √m) + underflow

so that every drift is a *form*  c + Σ_v c_v ‖v(x)‖ + Σ_i c_i ‖m_i(x)‖ + c_r r  with coefficients that depend on the
network alone.  The norms come from the float64 evaluation of x, which proves its margins anyway: m_i in parts of the
rounding that is known there.

Arithmetic: coefficients are rounded up.  Reference: Higham 2002, section 3.1; Murray 2026, arXiv 2603.13334.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certifier.flow import Network
from certifier.operators import Operator
from certifier.products import Bilinear
from certifier.proof.drifts import LARGEST, Room
from certifier.proof.execution import Gain, Gains
from certifier.proof.forms import sum_of, times, total_of, up
from certifier.proof.rounding import add_upper, gamma_upper, mul_upper, norm_upper
from certifier.steep import Steep
from certifier.terms import BLURRING, INNER, REFERENCE, Activation, Affine, Contraction, Elementwise, Precision, Term

Floats = NDArray[np.float64]
MagnitudeOf = Callable[[Operator, str], float]
"""A proved upper bound of ‖|A|‖, for an operator and the name of its layer."""


class NoDrift(Exception):
    """Why no bound of the drift is known that holds on a whole ball."""


@dataclass(frozen=True, kw_only=True)
class _Value:
    """Forms of one value: its drift, and its size at x'; a run of affine maps carries where it began.

    `drift` is at most stretch · entered + gathered, and Λ of the size at most stretch · entered_growth.
    """

    drift: Floats
    growth: float
    entered: Floats
    entered_growth: float
    gathered: Floats
    stretch: float


class Following:
    """The drifts of all values, by one walk over the terms.

    Positions of a form: constant, stray of the input, norms of `values` and of the magnitudes of `sums`, radius.
    Raises: NoDrift.
    """

    def __init__(
        self, network: Network, gains: Gains, precisions: Mapping[str, Precision], magnitude_of: MagnitudeOf
    ) -> None:
        self.network, self._gains, self._magnitude_of = network, gains, magnitude_of
        # Against the exact network; `Precision` compares with its float64 evaluation, which has a roundoff too.
        self._precisions = {
            dtype: Precision(unit=at.unit + REFERENCE.unit, tiny=at.tiny) for dtype, at in precisions.items()
        }
        self.values = _measured(network)
        self.sums = tuple(term.output for term in network.terms if isinstance(term, Affine) and not term.is_exact)
        self._position = {name: place for place, name in enumerate(self.values, start=2)}
        self._summed = {name: place for place, name in enumerate(self.sums, start=2 + len(self.values))}
        self.rooms: list[Room] = []
        self._length = len(self.values) + len(self.sums) + 3
        self._values: dict[str, _Value] = {network.input.name: self._input()}
        self.peak = times(2.0 / LARGEST[network.input.dtype], self.executed(network.input.name))
        for term in network.terms:
            self._values[term.output] = self._after(term)

    def _form(self, *, constant: float = 0.0, stray: float = 0.0, radius: float = 0.0) -> Floats:
        form = np.zeros(self._length)
        form[0], form[1], form[-1] = constant, stray, radius
        return form

    def _size(self, value: str) -> Floats:
        """‖v(x')‖ of a measured value."""
        form = self._form(radius=self._values[value].growth)
        form[self._position[value]] = 1.0
        return form

    def drift(self, value: str) -> Floats:
        """‖v̂ - v‖(x')."""
        return self._values[value].drift

    def executed(self, value: str) -> Floats:
        """‖v̂(x')‖ of a measured value."""
        return sum_of(self._size(value), self._values[value].drift)

    def moved(self, value: str) -> Floats:
        """‖v̂(x') - v(x)‖."""
        return sum_of(self._form(radius=self._values[value].growth), self._values[value].drift)

    def _input(self) -> _Value:
        """The caller's numbers are transformed in float64 and cast to the type that the engine is fed.

        Transforming errs at x' by at most the stray at x and 2^-49 r (`certifier.transforms`).
        """
        source = self.network.input
        unit = 0.0 if source.dtype == "float64" else self._precisions[source.dtype].unit
        tiny = self._precisions[source.dtype].tiny * math.sqrt(self.network.input_size)
        drift = self._form(constant=up(2.0 * tiny), stray=1.0 + unit, radius=up(unit + 2.0**-48))
        drift[self._position[source.name]] = unit
        return _fresh(drift, 1.0)

    def _after(self, term: Term) -> _Value:
        gain = self._gains.get(term.output)
        if isinstance(term, Affine) and gain is not None:
            return self._after_affine(term, gain)
        if isinstance(term, Activation) and isinstance(term.function, Steep):
            held = term.function.held()
            if held is not None:
                return self._after_steep(term, *held)
        elif gain is not None and isinstance(term, (Activation, Contraction)):
            return self._after_function(term, gain.sources[0], gain.sources[0])
        if isinstance(term, Bilinear) and term.factors is not None:
            return self._after_product(term, *term.factors)
        raise NoDrift(
            f"the rounding of {term.operator} (node {term.name!r}) has no bound that holds on a whole ball of inputs"
        )

    def _after_steep(self, term: Activation, cap: float, held: float) -> _Value:
        """Exact values at x' are in their range, and û stays within a cap of it, where no slope exceeds `held`."""
        self.peak = sum_of(self.peak, times(up(1.0 / cap), self._values[term.sources[0]].drift))
        return self._after_function(term, held, float(np.max(term.steepest, initial=0.0)))

    def _after_function(self, term: Activation | Contraction, by_drift: float, by_moving: float) -> _Value:
        """Constants for what is executed beside what is exact, and for exact values beside each other."""
        source = self._values[term.sources[0]]
        drift, growth = times(by_drift, source.drift), float(mul_upper(by_moving, source.growth))
        # What the exact function gives at the executed source.
        self._values[term.output] = _fresh(drift, growth)
        reached = self.executed(term.output)
        if not (isinstance(term, Activation) and _never_enlarges(term.function)):
            self.peak = sum_of(self.peak, times(2.0 / LARGEST[term.dtype], reached))
        if isinstance(term, Contraction):
            return _fresh(sum_of(drift, self._own_of_contraction(term, reached)), growth)
        if not _is_exact(term.function):
            self.peak = sum_of(self.peak, times(INNER / LARGEST[term.dtype], self.executed(term.sources[0])))
        return _fresh(sum_of(drift, self._own_of_activation(term, reached)), growth)

    def _own_of_activation(self, term: Activation, reached: Floats) -> Floats:
        function, at = term.function, self._precisions[term.dtype]
        if _is_exact(function):
            return self._form()
        root = math.sqrt(math.prod(term.shape))
        absolute = mul_upper(up(at.unit * function.absolute_ulps + 4.0 * at.tiny), up(root))
        return sum_of(times(up(at.unit * function.ulps), reached), self._form(constant=float(absolute)))

    def _own_of_contraction(self, term: Contraction, reached: Floats) -> Floats:
        if term.function.only_selects:
            return self._form()
        own = term.function.rounding(self._precisions[term.dtype])
        if own is None:
            raise NoDrift(
                f"the rounding of {term.operator} (node {term.name!r}) depends on where its input lies, "
                "so no bound of it holds on a whole ball of inputs"
            )
        entering = self.executed(term.sources[0])
        self.peak = sum_of(self.peak, times(up(1.0 / own.largest_input), entering))
        if own.is_local:
            self.rooms.append(Room(term=term.output, form=self.moved(term.sources[0])))
        return sum_of(times(own.of_output, reached), times(own.of_input, entering), self._form(constant=own.absolute))

    def _after_product(self, term: Bilinear, by_first: float, by_second: float) -> _Value:
        """B(û, v̂) - B(u, v) = B(û - u, v) + B(u, v̂ - v) + B(û - u, v̂ - v), where the drift of one stays below a cap.

        It is that of the larger factor, which is also called the first here: rounding moves it less in proportion.
        The factors bound what |u| and |v| do as well, and ‖B(d, e)‖ <= ‖d‖ ‖e‖ (`certifier.products`).
        """
        at, count = self._precisions[term.dtype], term.form.fan_in + 1
        if count * at.unit >= 0.25:
            raise NoDrift(f"node {term.name!r} ({term.operator}) sums too many products for {term.dtype}")
        name, other = term.sources
        # No ratio that networks have by design: the last bits, which differ between machines, decide nothing.
        if by_first > 1.9 * by_second:
            name, other, by_first, by_second = other, name, by_second, by_first
        first, second = self._values[name], self._values[other]
        cap = by_second or 1.0
        self.peak = sum_of(self.peak, times(up(1.0 / cap), first.drift))
        held = float(add_upper(by_second, cap))
        size = times(held, self.executed(other))
        self.peak = sum_of(self.peak, times(2.0 / LARGEST[term.dtype], size))
        flushed = self._form(constant=up(up(2.0 * count * at.tiny * math.sqrt(math.prod(term.shape)))))
        own = sum_of(times(gamma_upper(count, at.unit), size), flushed)
        drift = sum_of(times(by_first, first.drift), times(held, second.drift), own)
        return _fresh(
            drift, total_of([float(mul_upper(by_first, first.growth)), float(mul_upper(by_second, second.growth))])
        )

    def _after_affine(self, term: Affine, gain: Gain) -> _Value:
        own = self._form()
        if not term.is_exact:
            relative, absolute = self.roundings(term)
            reached = self._form()
            reached[self._summed[term.output]] = sum_per_rounding(term)
            for source, operator in zip(term.sources, term.operators, strict=True):
                reached = sum_of(reached, times(self._magnitude_of(operator, term.name), self.moved(source)))
            root = up(math.sqrt(math.prod(term.shape)))
            own = sum_of(times(relative, reached), self._form(constant=float(mul_upper(absolute, root))))
            for blur in term.blurs:
                moved = times(self._magnitude_of(blur, term.name), self.executed(term.sources[0]))
                own, reached = sum_of(own, times(BLURRING, moved)), sum_of(reached, moved)
            self.peak = sum_of(self.peak, times(up(2.0 * term.swelling / LARGEST[term.dtype]), reached))
        first, *others = term.sources
        if others:
            drift, growths = own, []
            for constant, name in zip(gain.sources, term.sources, strict=True):
                drift = sum_of(drift, times(constant, self._values[name].drift))
                growths.append(float(mul_upper(constant, self._values[name].growth)))
            stacked = term.arrangement == "stack"
            growth = norm_upper(np.array(growths), None) if stacked else total_of(growths)
            return _fresh(drift, float(growth))
        source = self._values[first]
        stretch = float(mul_upper(source.stretch, gain.sources[0]))
        stretch = stretch if gain.chain is None else min(stretch, gain.chain)
        gathered = sum_of(times(gain.sources[0], source.gathered), own)
        return _Value(
            drift=sum_of(times(stretch, source.entered), gathered),
            growth=float(mul_upper(stretch, source.entered_growth)),
            entered=source.entered,
            entered_growth=source.entered_growth,
            gathered=gathered,
            stretch=stretch,
        )

    def roundings(self, term: Affine) -> tuple[float, float]:
        """(γ, underflow per entry) of one affine term, as `Affine.own_rounding` counts them."""
        at = self._precisions[term.dtype]
        if term.count * at.unit >= 0.25:
            raise NoDrift(f"node {term.name!r} ({term.operator}) sums too many products for {term.dtype}")
        return gamma_upper(term.count, at.unit), up(term.flushed(at))


def _measured(network: Network) -> tuple[str, ...]:
    """The values whose norms the forms speak of: what terms that round read, and what functions that round write."""
    names = {network.input.name: None}
    for term in network.terms:
        if isinstance(term, Affine) and term.is_exact:
            continue
        names |= dict.fromkeys(term.sources)
        if not isinstance(term, Affine):
            names[term.output] = None
    return tuple(names)


def _is_exact(function: Elementwise) -> bool:
    return function.ulps == 0 and function.absolute_ulps == 0


def _never_enlarges(function: Elementwise) -> bool:
    """|f(u)| <= |u| for whatever is executed, so that f overflows nowhere."""
    at_zero = np.asarray(function.evaluate(np.zeros((1, np.size(function.slope_upper)))))
    return _is_exact(function) and bool(np.max(function.steepest) <= 1) and not at_zero.any()


def _fresh(drift: Floats, growth: float) -> _Value:
    """A value at which a run of affine maps may begin."""
    return _Value(
        drift=drift,
        growth=growth,
        entered=drift,
        entered_growth=growth,
        gathered=np.zeros_like(drift),
        stretch=1.0,
    )


def sum_per_rounding(term: Affine) -> float:
    """s with m <= s δ: magnitudes in parts of how the float64 evaluation bounds the rounding of summing them.

    With k roundings of unit u' that is at least γ_k m >= k u' m.
    """
    return up(1.0 / (term.count * REFERENCE.unit))


def offset_magnitude(term: Affine) -> Floats:
    """|b|, or what is added up to form b."""
    return np.zeros(math.prod(term.shape)) if term.offset_magnitude is None else np.abs(term.offset_magnitude)
