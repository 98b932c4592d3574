"""Poolings over windows and over whole maps: largest, average, p-norm."""

from __future__ import annotations

import math

import numpy as np
from scipy import sparse

from certifier import elementwise
from certifier.operators import Kronecker
from certifier.rules.building import activation, average, contraction, linear
from certifier.rules.geometry import Axis, kernel_shape, spatial_axes, windows_of
from certifier.rules.registry import Site, rule
from certifier.terms import Affine, Term
from certifier.vector_functions.pooling import WindowMaximum, WindowNorm, Windows

_POOL = ("auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides")


@rule("MaxPool", since=(8, 10, 11, 12, 22), attributes=(*_POOL, "storage_order"))
def max_pool(site: Site) -> tuple[Term, ...]:
    """Largest entry of each window, padding left out; constant √(windows that hold one entry).

    The second output (Indices) is discontinuous and never computed, so a node that reads it is refused, and
    `storage_order`, which concerns it alone, is of no effect.
    """
    windows, shape, _ = _windows(site)
    if int(windows.sizes.min()) < 1:
        raise site.refuse("a window holds padding only")
    return (contraction(site, WindowMaximum(windows, smallest=False), shape=shape),)


@rule("AveragePool", since=(7, 10, 11, 19, 22), attributes=(*_POOL, "count_include_pad"))
def average_pool(site: Site) -> tuple[Term, ...]:
    """Mean of each window; padding counts if count_include_pad = 1, a last window's overhang never does."""
    windows, shape, axes = _windows(site)
    if site.integer("count_include_pad", 0):
        divisors = np.ones(1)
        for axis in axes:
            inside = axis.positions() < axis.size + axis.after
            divisors = np.multiply.outer(divisors, np.count_nonzero(inside, axis=1))
        divisors = divisors.reshape(-1)
    else:
        divisors = windows.sizes
    if divisors.min() < 1:
        raise site.refuse("a window holds padding only")
    operator = _weighted_sum(windows, divisors)
    return (average(site, operator, shape=shape, divisor=float(divisors.max())),)


@rule("LpPool", since=(2, 11, 18, 22), attributes=(*_POOL, "p"))
def lp_pool(site: Site) -> tuple[Term, ...]:
    """(Σ|x|^p)^(1/p) over each window, p >= 1 whole; constant √(windows that hold one entry) for p >= 2."""
    windows, shape, _ = _windows(site)
    return _norm(site, windows, shape)


@rule("GlobalMaxPool", since=(1, 22))
def global_max_pool(site: Site) -> tuple[Term, ...]:
    """Largest entry of each channel; constant 1."""
    windows, shape = _whole(site)
    return (contraction(site, WindowMaximum(windows, smallest=False), shape=shape),)


@rule("GlobalAveragePool", since=(1, 22))
def global_average_pool(site: Site) -> tuple[Term, ...]:
    """Mean of each channel."""
    windows, shape = _whole(site)
    return (mean(site, windows, shape),)


@rule("GlobalLpPool", since=(2, 22), attributes=("p",))
def global_lp_pool(site: Site) -> tuple[Term, ...]:
    """(Σ|x|^p)^(1/p) over each channel, p >= 1 whole; constant 1 for p >= 2."""
    windows, shape = _whole(site)
    return _norm(site, windows, shape)


def total(windows: Windows) -> Kronecker:
    """The sum of each window."""
    return _weighted_sum(windows, np.ones(1))


def mean(site: Site, windows: Windows, shape: tuple[int, ...]) -> Affine:
    """The mean of each window."""
    operator = _weighted_sum(windows, windows.sizes)
    return average(site, operator, shape=shape, divisor=float(windows.sizes.max()))


def absolute_then(site: Site, operator: Kronecker, shape: tuple[int, ...]) -> tuple[Term, ...]:
    """A |x|: the absolute value as a term of its own, then the linear map."""
    middle = f"{site.node.outputs[0]}/absolute"
    return (
        activation(site, elementwise.absolute(), output=middle),
        linear(site, operator, shape=shape, source=middle),
    )


def _windows(site: Site) -> tuple[Windows, tuple[int, ...], tuple[Axis, ...]]:
    """The windows, the output's shape and the axes' geometry."""
    site.live(0)
    shape = site.shape(0)
    if len(shape) < 3:
        raise site.refuse(f"needs a batch axis, a channel axis and spatial axes, got {shape}")
    taps = kernel_shape(site, len(shape) - 2, None)
    axes = spatial_axes(site, shape[2:], taps, ceil_mode=bool(site.integer("ceil_mode", 0)))
    if site.text("auto_pad", "NOTSET").startswith("SAME"):
        if any(axis.dilation > 1 for axis in axes):
            raise site.refuse("automatic pads with dilation are read differently by different implementations")
        if any((axis.windows - 1) * axis.stride + axis.extent < axis.size for axis in axes):
            raise site.refuse("automatic pads would be negative, which implementations read differently")
    windows = windows_of(site, axes, before=shape[0] * shape[1])
    return windows, (*shape[:2], *(axis.windows for axis in axes)), axes


def _whole(site: Site) -> tuple[Windows, tuple[int, ...]]:
    site.live(0)
    shape = site.shape(0)
    if len(shape) < 3:
        raise site.refuse(f"needs a batch axis, a channel axis and spatial axes, got {shape}")
    width = math.prod(shape[2:])
    windows = Windows(indices=np.arange(width)[None, :], width=width, before=shape[0] * shape[1], after=1)
    return windows, (*shape[:2], *(1 for _ in shape[2:]))


def _norm(site: Site, windows: Windows, shape: tuple[int, ...]) -> tuple[Term, ...]:
    p = site.integer("p", 2)
    if p < 1:
        raise site.refuse(f"p must be at least 1, not {p}")
    if p == 1:
        return absolute_then(site, total(windows), shape)
    return (contraction(site, WindowNorm(windows, p=p), shape=shape),)


def _weighted_sum(windows: Windows, divisors: np.ndarray) -> Kronecker:
    """The sum of each window by its divisor; 1/divisor is rounded once unless it is a power of two."""
    count, taps = windows.indices.shape
    is_exact = bool(np.all(np.frexp(np.asarray(divisors, dtype=np.float64))[0] == 0.5))
    weights = np.broadcast_to(1.0 / np.asarray(divisors, dtype=np.float64), (count,))
    row = np.repeat(np.arange(count), taps)
    column = windows.indices.reshape(-1)
    inside = column >= 0
    matrix = sparse.csr_array(
        (np.repeat(weights, taps)[inside], (row[inside], column[inside])), shape=(count, windows.width)
    )
    return Kronecker(
        matrix.toarray() if count == 1 else matrix,
        before=windows.before,
        after=windows.after,
        weight_error=0.0 if is_exact else 2.0**-52,
    )
