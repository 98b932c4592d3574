"""Entrywise arithmetic: sums, differences, scaling and extremes of live and constant values, broadcast.

A live operand that is broadcast r-fold is read through a rearrangement that repeats its entries (norm √r).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from certifier import elementwise
from certifier.operators import Diagonal, Identity, Operator, Placed, Rearrange, compose
from certifier.rules.building import Floats, activation, contraction, linear, size_of
from certifier.rules.live_products import entrywise_product, quotient
from certifier.rules.registry import Site, rule
from certifier.rules.steep import constant_power, scaled_reciprocal
from certifier.terms import Affine, Term
from certifier.vector_functions.extremes import EntrywiseExtreme


@rule("Add", since=(7, 13, 14))
def add(site: Site) -> tuple[Term, ...]:
    """C = A + B; each live or constant, broadcast as numpy does."""
    return (_combination(site, (1.0, 1.0), weight_error=0.0, roundings=1),)


@rule("Sub", since=(7, 13, 14))
def sub(site: Site) -> tuple[Term, ...]:
    """C = A - B; each live or constant, broadcast as numpy does."""
    return (_combination(site, (1.0, -1.0), weight_error=0.0, roundings=1),)


@rule("Sum", since=(6, 8, 13))
def total(site: Site) -> tuple[Term, ...]:
    """Y = X_1 + ... + X_k; each live or constant, broadcast as numpy does."""
    count = len(site.node.inputs)
    return (_combination(site, (1.0,) * count, weight_error=0.0, roundings=count),)


@rule("Mean", since=(6, 8, 13))
def mean(site: Site) -> tuple[Term, ...]:
    """Y = (X_1 + ... + X_k)/k; each live or constant, broadcast as numpy does."""
    count = len(site.node.inputs)
    shares, error = (1.0 / count,) * count, _inverse_error(np.float64(count))
    # The engine adds k numbers and divides, or multiplies by a rounded 1/k.
    combined = _combination(site, shares, weight_error=error, roundings=count + 3)
    return (replace(combined, swelling=float(count)),)


@rule("Neg", since=(6, 13))
def neg(site: Site) -> tuple[Term, ...]:
    """Y = -X."""
    shape = site.shape(0)
    return (linear(site, Diagonal(np.full(size_of(shape), -1.0), weight_error=0.0), shape=shape),)


@rule("Mul", since=(7, 13, 14))
def mul(site: Site) -> tuple[Term, ...]:
    """C = A B, broadcast as numpy does; two live operands have a constant only where both are bounded."""
    if not site.is_constant(0) and not site.is_constant(1):
        first, second = (site.live(0), site.shape(0)), (site.live(1), site.shape(1))
        return (entrywise_product(site, first, second, _broadcast_shape(site)),)
    index = 1 if site.is_constant(0) else 0
    return (_scaled(site, index, site.weights(1 - index, "the other factor"), weight_error=0.0),)


@rule("Div", since=(7, 13, 14))
def div(site: Site) -> tuple[Term, ...]:
    """C = A/B, broadcast as numpy does; a live B has a constant only where it is bounded away from zero."""
    if site.is_constant(0):
        return scaled_reciprocal(site, site.weights(0, "the dividend"), _broadcast_shape(site))
    if not site.is_constant(1):
        return quotient(site, _broadcast_shape(site))
    divisor = site.weights(1, "the divisor")
    if np.any(divisor == 0):
        raise site.refuse("division by zero")
    with np.errstate(over="ignore", under="ignore"):
        inverse = 1.0 / divisor
    # Below the smallest normal number the relative error of 1/c has no bound.
    if not np.all(np.isfinite(inverse)) or np.any(abs(inverse) < np.finfo(np.float64).tiny):
        raise site.refuse("the divisor is too small or too large to be inverted")
    return (_scaled(site, 0, inverse, weight_error=_inverse_error(divisor)),)


@rule("Pow", since=(7, 12, 13, 15))
def power(site: Site) -> tuple[Term, ...]:
    """Z = X^Y for one constant exponent; for others than 1, a constant only on bounded ranges of X."""
    if not site.is_constant(1):
        raise site.refuse("an exponent that depends on the input has no Lipschitz constant")
    exponents = np.unique(np.asarray(site.constant(1, "the exponent"), dtype=np.float64))
    shape = _broadcast_shape(site)
    if len(exponents) != 1:
        raise site.refuse("needs one exponent for all entries")
    if exponents[0] != 1.0:
        return constant_power(site, float(exponents[0]), shape)
    return (linear(site, _widened(site, 0, shape), shape=shape),)


@rule("Max", since=(6, 8, 12, 13))
def maximum(site: Site) -> tuple[Term, ...]:
    """Y = max(X_1, ..., X_k) entrywise; each live or constant, broadcast as numpy does."""
    return _extreme(site, largest=True)


@rule("Min", since=(6, 8, 12, 13))
def minimum(site: Site) -> tuple[Term, ...]:
    """Y = min(X_1, ..., X_k) entrywise; each live or constant, broadcast as numpy does."""
    return _extreme(site, largest=False)


def _extreme(site: Site, *, largest: bool) -> tuple[Term, ...]:
    """Live operands first, by a contraction of their stack; then the constants, by one activation."""
    shape, (live, constant) = _broadcast_shape(site), _operands(site)
    result = site.node.outputs[0]
    terms: list[Term] = []
    source = f"{result}/live" if constant else result
    operators = tuple(_widened(site, index, shape) for index in live)
    if len(live) == 1:
        if not constant or not isinstance(operators[0], Identity):
            terms.append(linear(site, operators[0], shape=shape, index=live[0], output=source))
        else:
            source = site.live(live[0])
    else:
        stacked = Affine(
            name=site.node.name,
            operator=site.node.operator,
            sources=tuple(site.live(index) for index in live),
            output=f"{result}/stack",
            shape=(len(live), *shape),
            dtype=site.dtype,
            operators=tuple(_in_row(operator, row, len(live)) for row, operator in enumerate(operators)),
            offset=None,
            offset_magnitude=None,
            arrangement="stack",
            roundings=0,
            swelling=1.0,
            amplification=1.0,
        )
        function = EntrywiseExtreme(name="largest" if largest else "smallest", count=len(live), largest=largest)
        chosen = contraction(site, function, shape=shape, source=stacked.output, output=source, index=live[0])
        terms += [stacked, chosen]
    if constant:
        choose, make = (np.maximum, elementwise.maximum) if largest else (np.minimum, elementwise.minimum)
        values = [np.broadcast_to(site.weights(index, f"operand {index}"), shape) for index in constant]
        bound = values[0]
        for value in values[1:]:
            bound = choose(bound, value)
        terms.append(activation(site, make(bound.reshape(-1)), shape=shape, index=live[0], source=source))
    return tuple(terms)


def _in_row(operator: Operator, row: int, rows: int) -> Operator:
    """The broadcast `operator`, its result in block `row` of `rows` equal blocks that are zero elsewhere."""
    return compose([operator, Placed(before=1, own=1, after=operator.rows, total=rows, start=row)])


def _combination(site: Site, coefficients: Sequence[float], *, weight_error: float, roundings: int) -> Affine:
    """Σ coefficients_i X_i over live and constant operands; an operand used twice is two parts."""
    shape, (live, constant) = _broadcast_shape(site), _operands(site)
    operators = []
    for index in live:
        parts, factor = [_widened(site, index, shape)], coefficients[index]
        if factor != 1.0:
            parts.append(Diagonal(np.full(size_of(shape), factor), weight_error=weight_error))
        operators.append(compose(parts))
    offset: Floats | None = None
    magnitude: Floats | None = None
    if constant:
        offset, magnitude = np.zeros(shape), np.zeros(shape)
        for index in constant:
            value = coefficients[index] * site.weights(index, f"operand {index}")
            offset, magnitude = offset + value, magnitude + abs(value)
        offset, magnitude = offset.reshape(-1), magnitude.reshape(-1)
    moves_only = len(live) == 1 and not constant
    return Affine(
        name=site.node.name,
        operator=site.node.operator,
        sources=tuple(site.live(index) for index in live),
        output=site.node.outputs[0],
        shape=shape,
        dtype=site.dtype,
        operators=tuple(operators),
        offset=offset,
        offset_magnitude=magnitude,
        arrangement="sum",
        roundings=0 if moves_only else roundings,
        swelling=1.0,
        amplification=1.0,
    )


def _scaled(site: Site, index: int, factor: Floats, *, weight_error: float) -> Affine:
    """factor X entrywise for live input number `index`."""
    shape = _broadcast_shape(site)
    values = np.broadcast_to(factor, shape).reshape(-1)
    operator = compose([_widened(site, index, shape), Diagonal(values, weight_error=weight_error)])
    return linear(site, operator, shape=shape, index=index)


def _operands(site: Site) -> tuple[list[int], list[int]]:
    """The numbers of the live and of the constant operands."""
    numbers = range(len(site.node.inputs))
    if any(not site.has(index) for index in numbers):
        raise site.refuse("an operand is missing")
    live = [index for index in numbers if not site.is_constant(index)]
    return live, [index for index in numbers if site.is_constant(index)]


def _broadcast_shape(site: Site) -> tuple[int, ...]:
    """The shape of all operands broadcast together, as numpy and ONNX do."""
    shapes = [site.shape(index) for index in range(len(site.node.inputs))]
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise site.refuse(f"shapes {', '.join(map(str, shapes))} do not broadcast together") from None


def _widened(site: Site, index: int, shape: tuple[int, ...]) -> Operator:
    """The map that broadcasts live operand number `index` to `shape`."""
    own = site.shape(index)
    count = size_of(own)
    if count == size_of(shape):
        return Identity(count)
    indices = np.broadcast_to(np.arange(count).reshape(own), shape)
    return Rearrange(indices, columns=count)


def _inverse_error(divisor: np.ndarray | np.float64) -> float:
    """Relative error of fl(1/c): none for powers of two, else at most 2^-53, stated with room."""
    mantissas = np.frexp(np.abs(divisor))[0]
    return 0.0 if np.all(mantissas == 0.5) else 2.0**-52
