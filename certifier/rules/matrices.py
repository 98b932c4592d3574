"""Products with constant matrices: Gemm and MatMul."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from certifier.operators import Composed, Kronecker, Rearrange
from certifier.rules.building import affine, linear, size_of
from certifier.rules.live_products import matrix_product
from certifier.rules.registry import Site, rule
from certifier.terms import Term


@rule("Gemm", since=(7, 9, 11, 13), attributes=("alpha", "beta", "transA", "transB"))
def gemm(site: Site) -> tuple[Term, ...]:
    """Y = alpha A' B' + beta C; B and C constant, A live (or the other way round).

    alpha = 1 keeps the weights exact; any other alpha is one rounding per weight.
    """
    alpha, beta = site.number("alpha", 1.0), site.number("beta", 1.0)
    left_live = not site.is_constant(0)
    role = "the matrix B" if left_live else "the matrix A"
    matrix = site.weights(1 if left_live else 0, role)
    if len(site.shape(0)) != 2 or len(site.shape(1)) != 2:
        raise site.refuse("needs two matrices")
    trans_live = site.integer("transA" if left_live else "transB", 0)
    trans_matrix = site.integer("transB" if left_live else "transA", 0)
    right = matrix.T if trans_matrix else matrix
    scaled, weight_error = (right, 0.0) if alpha == 1.0 else (_scaled(site, alpha, right), 2.0**-52)
    live = site.shape(0 if left_live else 1)
    if trans_live:
        live = live[::-1]
    if left_live:
        batch, inner = live
        if inner != scaled.shape[0]:
            raise site.refuse(f"A has {inner} columns, B has {scaled.shape[0]} rows")
        shape = (batch, scaled.shape[1])
        operator = Kronecker(np.ascontiguousarray(scaled.T), before=batch, after=1, weight_error=weight_error)
    else:
        inner, count = live
        if inner != scaled.shape[1]:
            raise site.refuse(f"A has {scaled.shape[1]} columns, B has {inner} rows")
        shape = (scaled.shape[0], count)
        operator = Kronecker(scaled, before=1, after=count, weight_error=weight_error)
    index = 0 if left_live else 1
    if trans_live and min(live) > 1:
        turned = np.arange(size_of(live)).reshape(live[::-1]).T
        operator = Composed([Rearrange(turned.reshape(-1), columns=size_of(live)), operator])
    # The engine multiplies sums of A' B' by alpha.
    late = {"swelling": max(1.0, abs(1.0 / alpha)) if alpha else math.inf, "amplification": max(1.0, abs(alpha))}
    if not site.has(2):
        return (replace(linear(site, operator, shape=shape, index=index), **late),)
    offset = beta * site.weights(2, "the bias C")
    return (replace(affine(site, operator, offset, shape=shape, roundings=4, index=index), **late),)


def _scaled(site: Site, alpha: float, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """alpha times the matrix, where rounding it is a matter of relative errors; else a refusal."""
    with np.errstate(over="ignore", under="ignore"):
        scaled = alpha * matrix
    if not np.isfinite(scaled).all() or ((np.abs(scaled) < 2.0**-1000) & (matrix != 0) & (alpha != 0)).any():
        raise site.refuse("alpha times the matrix leaves the range of double precision")
    return scaled


@rule("MatMul", since=(1, 9, 13))
def matmul(site: Site) -> tuple[Term, ...]:
    """Y = A B with a constant matrix, or with two live operands, which have a constant only where both are bounded."""
    if not site.is_constant(0) and not site.is_constant(1):
        return matrix_product(site)
    left_live = not site.is_constant(0)
    matrix = site.weights(1 if left_live else 0, "one operand")
    live_shape = site.shape(0 if left_live else 1)
    if matrix.ndim > 2:
        if size_of(matrix.shape[:-2]) != 1:
            raise site.refuse("a batch of constant matrices is not supported")
        matrix = matrix.reshape(matrix.shape[-2:])
        if len(live_shape) < 2:
            raise site.refuse("a vector times a batch of matrices is not supported")
    if left_live:
        columns = matrix.reshape(matrix.shape[0], -1)
        if not live_shape or live_shape[-1] != columns.shape[0]:
            raise site.refuse(f"shapes {live_shape} and {matrix.shape} do not match")
        operator = Kronecker(
            np.ascontiguousarray(columns.T), before=size_of(live_shape[:-1]), after=1, weight_error=0.0
        )
        shape = (*live_shape[:-1], *matrix.shape[1:])
        return (linear(site, operator, shape=shape, index=0),)
    rows = matrix.reshape(-1, matrix.shape[-1])
    inner_axis = -2 if len(live_shape) > 1 else -1
    if not live_shape or live_shape[inner_axis] != rows.shape[1]:
        raise site.refuse(f"shapes {matrix.shape} and {live_shape} do not match")
    after = live_shape[-1] if len(live_shape) > 1 else 1
    operator = Kronecker(rows, before=size_of(live_shape[:-2]), after=after, weight_error=0.0)
    tail = (after,) if len(live_shape) > 1 else ()
    shape = (*live_shape[:-2], *matrix.shape[:-1], *tail)
    return (linear(site, operator, shape=shape, index=1),)
