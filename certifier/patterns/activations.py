"""Elementwise patterns: GELU by erf and by tanh, SiLU and Swish, HardSwish, Mish; sigmoids in single steps.

Each function is taken with the constants that the graph holds.  Slopes, with D the derivative of the ideal function:

    k x (1 + erf(cx))          = 2k/(√2 c) gelu(√2 c x),     so its slope is 2k D(√2 c x);
    k x sigmoid(cx)            = k/c silu(cx),               so its slope is k D(cx);
    k sigmoid(cx)              has slopes from 0 to kc/4;
    k x tanh(softplus x)       is k times mish;
    k x clip(ax + b, 0, 1)     has the slopes 0, k and k (2t - b) for t = ax + b in [0, 1];
    k x (1 + tanh(ax + bx³))   with x = st, as = √(2/π): its slope is 2k (D(t) + δ), see `TANH_SENSITIVITY`.

Rounding: sigmoid, tanh and erf are ±1 or 0 exactly beyond |argument| = 37, so that the kernels' absolute errors (A5)
are multiplied by |x| <= 37/c at most; few other roundings are relative to the value.  `ABSOLUTE` is many times that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from certifier import elementwise
from certifier.graph import Node
from certifier.patterns.forms import Called, NoForm, Reader
from certifier.patterns.matching import PRECISIONS, Surroundings
from certifier.terms import Activation, Bend, Elementwise

Array = NDArray[Any]

CLOSENESS = 1e-6
"""How far, relatively, a constant with an ideal may lie from it: single precision is well within."""

TANH_SENSITIVITY = 0.5
"""|∂D/∂b| b <= 0.5 for D(t) = d/dt t(1 + tanh(At + bt³))/2, A = √(2/π), b within 1e-5 of 0.044715 A.

For t >= 0 it is at most b/2 sech²(w) (4t³ + 2t⁴(A + 3bt²)) for w >= At, and sech² w <= 4 e^(-2w).  With
t^n e^(-2At) <= (n/(2Ae))^n the summands 8t³, 3.2t⁴ and 0.432t⁶ are at most 2.7, 2.4 and 3.1 times e^(-2At): b times
8.2 is below 0.3.  D(t) + D(-t) = 1 for t < 0.
"""

RELATIVE, ABSOLUTE = 64.0, 4096.0
MODERATE = 2.0**6
"""Scales between 1/64 and 64 only, so that nothing underflows or overflows on the way that does not in the end."""

_GRID = np.concatenate([np.linspace(-12, 12, 97), *(s * np.logspace(-6, 4, 41) for s in (1, -1))])


def match(root: Node, around: Surroundings) -> Activation | None:
    """The activation that ends in `root`, as a function of the nearest value that makes it one."""
    for source in _candidates(root, around):
        reader = Reader(around, source)
        try:
            form = reader.node(root)
        except NoForm:
            continue
        function = _function(form) if isinstance(form, Called) else None
        if function is None or not around.is_closed(reader.inner, root):
            continue
        if not _agrees(root, around, source, reader.inner, function):
            continue
        return Activation(
            name=root.name,
            operator=root.operator,
            sources=(source,),
            output=root.outputs[0],
            shape=around.shapes[source],
            dtype=around.dtypes[source],
            function=function,
        )
    return None


def _candidates(root: Node, around: Surroundings) -> list[str]:
    """Values with a bound, nearest first, that everything before `root` may depend on."""
    queue, seen = [*root.inputs], set(root.inputs)
    for name in queue:
        node = around.inner(name)
        if node is None or len(queue) > 24:
            continue
        for each in node.inputs:
            if each not in seen and each not in around.constants:
                seen.add(each)
                queue.append(each)
    return [name for name in queue if around.dtypes.get(name) in PRECISIONS and name in around.shapes]


def _agrees(root: Node, around: Surroundings, source: str, inner: set[str], function: Elementwise) -> bool:
    samples = _GRID.reshape((1,) * (len(around.shapes[source]) - 1) + (-1,))
    computed = around.replay(inner, root, source, samples)
    if computed is None or computed.shape != samples.shape:
        return False
    expected = function.evaluate(samples)
    return bool(np.all(abs(computed - expected) <= 2.0**-40 * (1 + abs(samples))))


def _function(form: Called) -> Elementwise | None:
    if form.power not in (0, 1) or not 1 / MODERATE <= form.factor <= MODERATE:
        return None
    if any(value <= 0 for value in form.argument.coefficients.values()):
        return None
    powers = set(form.argument.coefficients)
    factor = float(form.factor)
    parts = {power: float(value) for power, value in form.argument.coefficients.items()}
    kind = (form.function, form.offset)
    if not 1 / MODERATE <= parts.get(1, 0.0) <= MODERATE:
        return None
    if form.power == 0:
        return _sigmoid(factor, parts[1]) if kind == ("sigmoid", 0) and powers == {1} else None
    if kind == ("erf", 1) and powers == {1} and _close(parts[1], math.sqrt(0.5)):
        return _gelu(factor, parts[1])
    if kind == ("tanh", 1) and powers == {1, 3}:
        first = math.sqrt(2 / math.pi)
        if _close(parts[1], first) and _close(parts[3], 0.044715 * first):
            return _gelu_tanh(factor, parts[1], parts[3])
    if kind == ("sigmoid", 0) and powers == {1}:
        return _swish(factor, parts[1])
    if kind == ("tanh of softplus", 0) and powers == {1} and parts[1] == 1:
        return _scaled(elementwise.mish(), factor, name="mish")
    if kind == ("clip", 0) and powers == {0, 1} and _close(parts[0], 0.5) and _close(parts[1] * 6, 1.0):
        return _hard_swish(factor, parts[1], parts[0])
    return None


def _close(value: float, ideal: float) -> bool:
    return abs(value - ideal) <= CLOSENESS * ideal


def _sigmoid(factor: float, rate: float) -> Elementwise:
    def derivative(x: Array) -> Array:
        argument = rate * np.clip(x, -1e300, 1e300)
        return factor * rate * special.expit(argument) * special.expit(-argument)

    # Both numbers were rounded from fractions, hence the room.
    steepest, room = factor * rate / 4, 2.0**-48
    return Elementwise(
        name="sigmoid",
        evaluate=lambda x: factor * special.expit(rate * np.clip(x, -1e300, 1e300)),
        derivative=derivative,
        slope_lower=0.0,
        slope_upper=steepest * (1 + room),
        ulps=RELATIVE,
        absolute_ulps=ABSOLUTE * factor,
        image=(0.0, factor * (1 + room)),
        bends=(elementwise.bend(0.0, steepest * (1 - room), steepest * (1 + room)),),
    )


def _swish(factor: float, rate: float) -> Elementwise:
    return _made(
        "swish",
        lambda x: factor * x * special.expit(rate * np.clip(x, -1e300, 1e300)),
        lambda x: factor * elementwise.swish(rate).derivative(x),
        elementwise.SILU_SLOPES,
        factor=factor,
        absolute=factor / rate,
        widening=0.0,
        places=(-elementwise.SILU_BEND / rate, elementwise.SILU_BEND / rate),
        jumps=False,
    )


def _gelu(factor: float, rate: float) -> Elementwise:
    stretch = math.sqrt(2) * rate
    return _made(
        "gelu",
        lambda x: 2 * factor * x * special.ndtr(stretch * np.clip(x, -1e300, 1e300)),
        lambda x: 2 * factor * elementwise.gelu().derivative(stretch * np.clip(x, -1e300, 1e300)),
        elementwise.GELU_SLOPES,
        factor=2 * factor,
        absolute=factor / rate,
        widening=0.0,
        places=(-elementwise.GELU_BEND / stretch, elementwise.GELU_BEND / stretch),
        jumps=False,
    )


def _gelu_tanh(factor: float, first: float, third: float) -> Elementwise:
    def argument(x: Array) -> Array:
        near = np.clip(x, -50.0, 50.0)
        return 2 * (first * near + third * near**3)

    def derivative(x: Array) -> Array:
        near = np.clip(x, -50.0, 50.0)
        value, inner = argument(near), 2 * (first + 3 * third * near**2)
        return 2 * factor * (special.expit(value) + near * inner * special.expit(value) * special.expit(-value))

    stretched = elementwise.GELU_TANH_BEND * math.sqrt(2 / math.pi) / first
    return _made(
        "gelu (tanh)",
        # (1 + tanh w)/2 = sigmoid(2w), which is 0 or 1 beyond 50.
        lambda x: 2 * factor * x * special.expit(argument(x)),
        derivative,
        elementwise.GELU_TANH_SLOPES,
        factor=2 * factor,
        absolute=2 * factor / first,
        # third/first³ is within 4.1 CLOSENESS of its ideal.
        widening=5 * CLOSENESS * TANH_SENSITIVITY,
        places=(-stretched, stretched),
        jumps=False,
    )


def _hard_swish(factor: float, rate: float, shift: float) -> Elementwise:
    def clipped(x: Array) -> Array:
        return np.clip(rate * np.clip(x, -1e300, 1e300) + shift, 0.0, 1.0)

    def derivative(x: Array) -> Array:
        inside = clipped(x)
        return factor * np.where(inside <= 0, 0.0, np.where(inside >= 1, 1.0, 2 * inside - shift))

    return _made(
        "hard swish",
        lambda x: factor * x * clipped(x),
        derivative,
        (min(0.0, -shift), max(1.0, 2.0 - shift)),
        factor=factor,
        absolute=factor / rate,
        widening=0.0,
        places=(-shift / rate, (1.0 - shift) / rate),
        jumps=True,
    )


def _scaled(function: Elementwise, factor: float, *, name: str) -> Elementwise:
    return _made(
        name,
        lambda x: factor * function.evaluate(x),
        lambda x: factor * function.derivative(x),
        (float(function.slope_lower), float(function.slope_upper)),
        factor=factor,
        absolute=factor,
        widening=0.0,
        places=elementwise.MISH_BENDS,
        jumps=False,
    )


def _made(
    name: str,
    evaluate: Callable[[Array], Array],
    derivative: Callable[[Array], Array],
    slopes: tuple[float, float],
    *,
    factor: float,
    absolute: float,
    widening: float,
    places: tuple[float, float],
    jumps: bool,
) -> Elementwise:
    """`factor` times the ideal `slopes`, `widening` wider; the factor was rounded from a fraction, hence the room.

    At `places` the derivative reaches them: it turns there, or jumps there from 0 and to `factor`.
    """
    room = 2.0**-48
    lower, upper = factor * ((slopes[0] - widening) * (1 + room)), factor * ((slopes[1] + widening) * (1 + room))
    # Places move with the coefficients, which are within CLOSENESS of the ideal ones.
    near = [2.0**-10 * abs(place) for place in places]
    return Elementwise(
        name=name,
        evaluate=evaluate,
        derivative=derivative,
        slope_lower=lower,
        slope_upper=upper,
        ulps=RELATIVE,
        absolute_ulps=ABSOLUTE * absolute,
        bends=(
            Bend(at=places[0], near=near[0], least=lower, most=0.0 if jumps else lower),
            Bend(at=places[1], near=near[1], least=factor if jumps else upper, most=upper),
        ),
    )
