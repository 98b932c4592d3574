"""The drift of a network's outputs: what reaches them, followed output by output through the last run of affine maps.

Unrolled, with T_i the maps behind the i-th of the run and a = e_k or e_t - e_j (`docs/proofs/execution.md`):

    |aᵀ(f̂ - f)| <= ‖(A_k…A_1)ᵀ a‖ ‖û_0 - u_0‖ + Σ_i |a|ᵀ|T_i| |δ_i|

so that what came before the run costs a pair of classes the norm of the difference of two rows only.
Arithmetic: coefficients are rounded up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from certifier.flow import Network
from certifier.operators import Composed, Identity, Operator, compose
from certifier.proof.drifts import Carried, Drifts, Own, Summed
from certifier.proof.execution import Gains
from certifier.proof.following import Following, MagnitudeOf, NoDrift, offset_magnitude, sum_per_rounding
from certifier.proof.forms import up
from certifier.proof.readout import (
    MAXIMAL_ENTRIES,
    MAXIMAL_OUTPUTS,
    MAXIMAL_PAIR_OUTPUTS,
    direct_readout,
    rows_enclosure,
)
from certifier.proof.rounding import add_upper, gamma_upper, mul_upper, norm_upper, sqrt_upper
from certifier.terms import BLURRING, REFERENCE, Affine, Precision

__all__ = ["NoDrift", "drifts"]

Floats = NDArray[np.float64]
NormOf = Callable[[Operator], float]
ROOT_TWO = float(sqrt_upper(2.0))


def drifts(
    network: Network, *, gains: Gains, precisions: Mapping[str, Precision], magnitude_of: MagnitudeOf, norm_of: NormOf
) -> Drifts:
    """The drift of the network's outputs from the exact network, for executions at `precisions`.

    Raises: NoDrift, with the reason in words.
    """
    following = Following(network, gains, precisions, magnitude_of)
    producers = {term.output: term for term in network.terms}
    count = network.output_size
    carried: list[Carried] = []
    own: list[Own] = []
    summed: list[Summed] = []
    constants = np.zeros(count)
    tail: Operator = Identity(count)
    value = network.output
    while True:
        term = producers.get(value)
        if not isinstance(term, Affine) or not _is_writable(term, tail):
            carried.append(_carried(following, value, tail, norm_of))
            break
        through = [compose([operator, tail]) for operator in term.operators]
        if not term.is_exact:
            relative, absolute = following.roundings(term)
            seen = _rows(tail)
            is_last = isinstance(tail, Identity)
            if is_last:
                unit = float(mul_upper(relative, sum_per_rounding(term)))
                summed.append(Summed(term=term.output, unit=unit))
            for source, operator in zip(term.sources, through, strict=True):
                lengths = _rows(operator.absolute())
                entering = following.moved(source) if is_last else following.executed(source)
                own.append(Own(form=entering, gains=mul_upper(relative, lengths)))
            for blur in term.blurs:
                lengths = _rows(compose([blur, tail]).absolute())
                own.append(Own(form=following.executed(term.sources[0]), gains=mul_upper(BLURRING, lengths)))
            constants = add_upper(constants, mul_upper(mul_upper(absolute, up(math.sqrt(tail.columns))), seen))
            if not is_last:
                constants = add_upper(constants, mul_upper(relative, _image_upper(tail, offset_magnitude(term))))
        first, *others = term.sources
        if others:
            carried += [
                _carried(following, source, operator, norm_of)
                for source, operator in zip(term.sources, through, strict=True)
            ]
            break
        tail, value = through[0], first
    result = Drifts(
        values=following.values,
        sums=following.sums,
        carried=tuple(carried),
        own=tuple(own),
        summed=tuple(summed),
        constants=constants,
        rooms=tuple(following.rooms),
        peak=following.peak,
        whole=following.drift(network.output),
    ).without_idle_norms()
    if not result.is_finite:
        raise NoDrift("the bound of the engine's rounding overflows")
    return result


def _carried(following: Following, value: str, tail: Operator, norm_of: NormOf) -> Carried:
    form = following.drift(value)
    if isinstance(tail, Identity):
        pairs = np.full((tail.rows, tail.rows), ROOT_TWO) if tail.rows <= MAXIMAL_PAIR_OUTPUTS else None
        return Carried(form=form, outputs=np.ones(tail.rows), pairs=pairs)
    readout = direct_readout([(1.0, tail)], norm_of) if tail.rows <= MAXIMAL_OUTPUTS else None
    if readout is None:
        return Carried(form=form, outputs=np.full(tail.rows, norm_of(tail)), pairs=None)
    return Carried(form=form, outputs=np.asarray(readout.outputs), pairs=readout.pairs)


def _is_writable(term: Affine, tail: Operator) -> bool:
    """Whether the rows of the run so far can be looked at one by one."""
    largest = max(operator.columns for operator in term.operators)
    return tail.rows <= MAXIMAL_OUTPUTS and tail.rows * largest <= MAXIMAL_ENTRIES


def _rows(operator: Operator) -> Floats:
    """The norm of every row of a map that is small enough to be written out."""
    if isinstance(operator, Identity):
        return np.ones(operator.rows)
    rows, error = rows_enclosure(operator)
    return np.asarray(add_upper(norm_upper(rows, 1), norm_upper(error, 1)))


def _image_upper(operator: Operator, magnitude: Floats) -> Floats:
    """|A| m, entrywise, rounded up."""
    parts = operator.parts if isinstance(operator, Composed) else (operator,)
    image = magnitude
    for part in parts:
        with np.errstate(over="ignore", invalid="ignore"):
            image = part.absolute().forward(image[None])[0]
        relative = 1.0 + 2.0 * gamma_upper(part.fan_in + 8, REFERENCE.unit) + 2.0 * part.weight_error
        image = np.where(np.isnan(image), np.inf, mul_upper(image, relative))
        if part.fan_in:
            image = add_upper(image, 8.0 * part.fan_in * REFERENCE.tiny)
    return np.asarray(image)
