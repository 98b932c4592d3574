"""Reductions along axes: sums, means, extremes, norms and log-sum-exps."""

from __future__ import annotations

import math

import numpy as np

from certifier.rules.building import contraction, identity, linear
from certifier.rules.geometry import demand_elements
from certifier.rules.poolings import absolute_then, mean, total
from certifier.rules.registry import Site, rule
from certifier.terms import Term
from certifier.vector_functions.pooling import WindowLogSumExp, WindowMaximum, WindowNorm, Windows

_REDUCE = ("axes", "keepdims", "noop_with_empty_axes")


@rule("ReduceSum", since=(1, 11, 13), attributes=_REDUCE)
def reduce_sum(site: Site) -> tuple[Term, ...]:
    """Sum along constant axes."""
    windows, shape = _reduction(site)
    return (identity(site),) if windows is None else (linear(site, total(windows), shape=shape),)


@rule("ReduceMean", since=(1, 11, 13, 18), attributes=_REDUCE)
def reduce_mean(site: Site) -> tuple[Term, ...]:
    """Mean along constant axes."""
    windows, shape = _reduction(site)
    return (identity(site),) if windows is None else (mean(site, windows, shape),)


@rule("ReduceMax", since=(1, 11, 12, 13, 18, 20), attributes=_REDUCE)
def reduce_max(site: Site) -> tuple[Term, ...]:
    """Largest entry along constant axes; constant 1."""
    return _extreme(site, smallest=False)


@rule("ReduceMin", since=(1, 11, 12, 13, 18, 20), attributes=_REDUCE)
def reduce_min(site: Site) -> tuple[Term, ...]:
    """Smallest entry along constant axes; constant 1."""
    return _extreme(site, smallest=True)


@rule("ReduceL1", since=(1, 11, 13, 18), attributes=_REDUCE)
def reduce_l1(site: Site) -> tuple[Term, ...]:
    """Σ|x| along constant axes: Abs, then the sum."""
    windows, shape = _reduction(site)
    return absolute_then(site, total(_never_noop(site, windows)), shape)


@rule("ReduceL2", since=(1, 11, 13, 18), attributes=_REDUCE)
def reduce_l2(site: Site) -> tuple[Term, ...]:
    """√(Σx²) along constant axes; constant 1."""
    windows, shape = _reduction(site)
    return (contraction(site, WindowNorm(_never_noop(site, windows), p=2), shape=shape),)


@rule("ReduceLogSumExp", since=(1, 11, 13, 18, 28), attributes=_REDUCE)
def reduce_log_sum_exp(site: Site) -> tuple[Term, ...]:
    """log Σ exp x along constant axes; constant 1, the gradient is a softmax."""
    windows, shape = _reduction(site)
    return (contraction(site, WindowLogSumExp(_never_noop(site, windows)), shape=shape),)


def _extreme(site: Site, *, smallest: bool) -> tuple[Term, ...]:
    windows, shape = _reduction(site)
    if windows is None:
        return (identity(site),)
    return (contraction(site, WindowMaximum(windows, smallest=smallest), shape=shape),)


def _never_noop(site: Site, windows: Windows | None) -> Windows:
    if windows is None:
        raise site.refuse("noop_with_empty_axes is read differently for an operator that is no plain reduction")
    return windows


def _reduction(site: Site) -> tuple[Windows | None, tuple[int, ...]]:
    """The entries that each output gathers, and the output's shape; None where nothing is reduced."""
    site.live(0)
    shape = site.shape(0)
    if site.has(1):
        named = tuple(int(axis) for axis in np.asarray(site.constant(1, "the axes")).reshape(-1))
    else:
        named = site.integers("axes", ())
    if not named:
        if site.integer("noop_with_empty_axes", 0):
            return None, shape
        named = tuple(range(len(shape)))
    axes = normalised_axes(site, named, len(shape))
    keep = bool(site.integer("keepdims", 1))
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    reduced = kept if keep else tuple(size for axis, size in enumerate(shape) if axis not in axes)
    return _windows(site, shape, axes), reduced


def normalised_axes(site: Site, axes: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """`axes` counted from the front, each at most once."""
    if any(not -rank <= axis < rank for axis in axes):
        raise site.refuse(f"axes {axes} are outside of rank {rank}")
    counted = tuple(axis % rank for axis in axes)
    if len(set(counted)) != len(counted):
        raise site.refuse(f"axes {axes} name one axis twice")
    return counted


def _windows(site: Site, shape: tuple[int, ...], axes: tuple[int, ...]) -> Windows:
    if not axes:  # a scalar: its only entry is its own window
        return Windows(indices=np.zeros((1, 1), dtype=np.int64), width=1, before=1, after=1)
    first, last = min(axes), max(axes)
    middle = shape[first : last + 1]
    demand_elements(site, math.prod(middle))
    places = np.arange(math.prod(middle)).reshape(middle)
    inner = [axis - first for axis in sorted(axes)]
    kept = [axis for axis in range(len(middle)) if axis not in inner]
    gathered = math.prod(middle[axis] for axis in inner)
    return Windows(
        indices=places.transpose(kept + inner).reshape(-1, gathered),
        width=places.size,
        before=math.prod(shape[:first]),
        after=math.prod(shape[last + 1 :]),
    )
