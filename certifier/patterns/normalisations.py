"""LayerNorm, InstanceNorm and RMSNorm in single steps: γ z/√(c mean z² + ε) for z = x - mean x, or z = x.

    z / √v,    γ z (1/√v),    x w + (β - mean x · w) for w = γ/√v,          v = c mean z² + ε

The mean is over any axes, ε a positive constant under the root, γ any constant, and c > 0 what makes the mean a sum or
an unbiased estimate.  What follows is affine anyway.  Since z/√(c m + ε) = c^(-½) z/√(m + ε/c), its constant is that of
c^(-½) times the normalisation with ε/c: 1/√ε whatever c is, so that an inexactly known c does no harm.
"""

from __future__ import annotations

import math

import numpy as np

from certifier.operators import Diagonal, Operator, Rearrange, compose
from certifier.patterns.inverse_roots import Inverse, inverse_root, mean_of_groups
from certifier.patterns.matching import PRECISIONS
from certifier.patterns.tracing import Array, Groups, Trace, moves
from certifier.products import Bilinear, EntrywiseForm
from certifier.proof.rounding import div_lower
from certifier.terms import Affine, Contraction, Term
from certifier.vector_functions.normalising import Normalisation

LEAST_SCALE, GREATEST_SCALE = 2.0**-60, 2.0**60
"""Below the first γ/√v might be flushed to zero, beyond the second it or γ z might overflow, where the result does not:
neither is counted by the bound of the normalisation's own rounding, for whose inputs z and 1/√v are below 2^62."""


def match(root: Term, trace: Trace) -> list[Term] | None:
    """The terms of the normalisation that ends in `root`."""
    if root.dtype not in PRECISIONS:
        return None
    if isinstance(root, Bilinear):
        return _quotient(root, trace)
    return _distributed(root, trace) if isinstance(root, Affine) and len(root.sources) > 1 else None


def _quotient(root: Bilinear, trace: Trace) -> list[Term] | None:
    """z w."""
    for own in (0, 1):
        places = _broadcast(root, own)
        if places is None or not np.array_equal(places, np.arange(places.size)):
            continue
        inverse, others = inverse_root(root.sources[1 - own], root.dtype, trace), _broadcast(root, 1 - own)
        gamma = None if inverse is None else _multiple(root.sources[own], inverse.squared, root.dtype, trace)
        if inverse is None or others is None or gamma is None:
            continue
        if np.array_equal(inverse.read[others], inverse.groups.spread()):
            source = _uncentred(inverse.squared, inverse.groups, root.dtype, trace)
            scales = (inverse.scale[others], np.broadcast_to(gamma, places.shape))
            centred = source is not None
            return _terms(root, inverse, source or inverse.squared, scales, None, trace, centred=centred)
    return None


def _multiple(value: str, of: str, dtype: str, trace: Trace) -> Array | None:
    """γ, where `value` is γ times the value `of`, entry by entry."""
    if trace.equal(value, of):
        return np.ones(1)
    term = trace.affine(value)
    if term is None or len(term.sources) != 1 or not trace.is_plain([term], dtype):
        return None
    operator = term.operators[0]
    if not isinstance(operator, Diagonal) or operator.weight_error != 0 or not trace.equal(term.sources[0], of):
        return None
    return operator.values


def _distributed(root: Affine, trace: Trace) -> list[Term] | None:
    """x w - mean x · w + β."""
    size = math.prod(root.shape)
    expanded = trace.expand(root.output, size, ())
    if expanded is None or len(expanded[0]) != 2 or any(term.dtype != root.dtype for term in expanded[1]):
        return None
    paths = expanded[0]
    for plus, minus in (tuple(paths), tuple(paths)[::-1]):
        ahead, behind = trace.producers.get(plus), trace.producers.get(minus)
        if not isinstance(ahead, Bilinear) or not isinstance(behind, Bilinear):
            return None
        if len(paths[plus]) != 1 or len(paths[minus]) != 1 or {ahead.dtype, behind.dtype} != {root.dtype}:
            continue
        at, back, sign = moves(paths[plus][0], factor=1.0), moves(paths[minus][0], factor=-1.0), 1.0
        if back is None:
            back, sign = moves(paths[minus][0], factor=1.0), -1.0
        if at is None or back is None or not np.array_equal(at, np.arange(size)):
            continue
        for own, other in ((0, 0), (0, 1), (1, 0), (1, 1)):
            shared = ahead.sources[1 - own]
            if behind.sources[1 - other] != shared:
                continue
            inverse = inverse_root(shared, root.dtype, trace)
            entries, weights = _broadcast(ahead, own), _broadcast(ahead, 1 - own)
            means, again = _broadcast(behind, other), _broadcast(behind, 1 - other)
            if inverse is None or entries is None or weights is None or means is None or again is None:
                continue
            source = _uncentred(inverse.squared, inverse.groups, root.dtype, trace)
            if source is None or source != ahead.sources[own] or not np.array_equal(entries, np.arange(size)):
                continue
            read = _mean_of(behind.sources[other], source, inverse.groups, root.dtype, trace, factor=sign)
            spread = inverse.groups.spread()
            if read is None or not np.array_equal(read[means[back]], spread):
                continue
            if not np.array_equal(inverse.read[weights], spread):
                continue
            if np.array_equal(inverse.scale[weights], inverse.scale[again[back]]) and np.array_equal(
                inverse.read[again[back]], spread
            ):
                offset = trace.offset(root, paths)
                return _terms(root, inverse, source, (inverse.scale[weights],), offset, trace, centred=True)
    return None


def _broadcast(term: Bilinear, index: int) -> Array | None:
    """For every entry of an entrywise product, where it finds its operand number `index`."""
    if not isinstance(term.form, EntrywiseForm):
        return None
    own = term.form.first if index == 0 else term.form.second
    return np.broadcast_to(np.arange(math.prod(own)).reshape(own), term.form.shape).reshape(-1)


def _uncentred(value: str, groups: Groups, dtype: str, trace: Trace) -> str | None:
    """x, where `value` is x less the mean of x over each of the groups."""
    term = trace.affine(value)
    if term is None or len(term.sources) != 2 or term.offset is not None:
        return None
    for source in term.sources:
        expanded = trace.expand(value, math.prod(term.shape), (source,))
        if expanded is None or set(expanded[0]) != {source} or not trace.is_plain(expanded[1], dtype):
            continue
        operators = expanded[0][source]
        own = [each for each in operators if moves(each, factor=1.0) is not None]
        means = [mean for each in operators if (mean := mean_of_groups(each, factor=-1.0)) is not None]
        if len(operators) != 2 or len(own) != 1 or len(means) != 1 or means[0][0] != groups:
            continue
        same = moves(own[0], factor=1.0)
        if (
            same is not None
            and np.array_equal(same, np.arange(own[0].columns))
            and np.array_equal(means[0][1], groups.spread())
        ):
            return source
    return None


def _mean_of(value: str, source: str, groups: Groups, dtype: str, trace: Trace, *, factor: float) -> Array | None:
    """`read`, where entry k of `value` is `factor` times the mean of `source` over group read_k."""
    term = trace.producers.get(value)
    expanded = None if term is None else trace.expand(value, math.prod(term.shape), (source,))
    if expanded is None or set(expanded[0]) != {source} or not trace.is_plain(expanded[1], dtype):
        return None
    operators = expanded[0][source]
    mean = mean_of_groups(operators[0], factor=factor) if len(operators) == 1 else None
    return mean[1] if mean is not None and mean[0] == groups else None


def _terms(
    root: Term,
    inverse: Inverse,
    source: str,
    scales: tuple[Array, ...],
    offset: Array | None,
    trace: Trace,
    *,
    centred: bool,
) -> list[Term] | None:
    """Groups gathered side by side, the normalisation, then everything put back, scaled and shifted."""
    for scale in scales:
        if bool(np.any((scale != 0) & (abs(scale) < LEAST_SCALE) | (abs(scale) > GREATEST_SCALE))):
            return None
    groups, size = inverse.groups, math.prod(root.shape)
    order = np.arange(size).reshape(groups.before, groups.count, groups.after).swapaxes(1, 2).reshape(-1)
    name, terms = source, list[Term]()
    if groups.after > 1:
        name = trace.fresh(f"{root.output}/gathered")
        gathering = Rearrange(order, columns=size)
        terms.append(_linear(root, source, name, gathering, None, amplification=1.0))
    function = Normalisation(
        name="normalisation" if centred else "root mean square normalisation",
        groups=groups.before * groups.after,
        scale=np.ones(size),
        shift=np.zeros(size),
        epsilon=inverse.epsilon if inverse.factor == 1 else float(div_lower(inverse.epsilon, inverse.factor)),
        centred=centred,
    )
    after: list[Operator] = [Rearrange(np.argsort(order), columns=size)] if groups.after > 1 else []
    after += [Diagonal(scale, weight_error=0.0) for scale in scales if bool(np.any(scale != 1))]
    if inverse.factor != 1:
        after.append(Diagonal(np.full(size, 1 / math.sqrt(inverse.factor)), weight_error=2.0**-50))
    is_last = not after and offset is None
    normal = root.output if is_last else trace.fresh(f"{root.output}/normalised")
    terms.append(
        Contraction(
            name=root.name,
            operator=root.operator,
            sources=(name,),
            output=normal,
            shape=root.shape,
            dtype=root.dtype,
            function=function,
        )
    )
    if not is_last:
        ending = compose(after) if after else Rearrange(np.arange(size), columns=size)
        # What is flushed of γ z is multiplied by a scale over the root.
        steepest = float(np.max(np.abs(scales[0]), initial=0.0)) / math.sqrt(inverse.epsilon)
        amplification = max(1.0, steepest * (1 + 2.0**-10))
        terms.append(_linear(root, normal, root.output, ending, offset, amplification=amplification))
    return terms


def _linear(
    root: Term, source: str, output: str, operator: Operator, offset: Array | None, *, amplification: float
) -> Affine:
    return Affine(
        name=root.name,
        operator=root.operator,
        sources=(source,),
        output=output,
        shape=root.shape,
        dtype=root.dtype,
        operators=(operator,),
        offset=offset,
        offset_magnitude=None if offset is None else abs(offset),
        arrangement="sum",
        # Of γ/√v, of two products, of β less one of them, and of the sum.
        roundings=0 if operator.fan_in == 0 and offset is None else 8,
        swelling=1.0,
        amplification=amplification,
    )
