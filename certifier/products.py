"""Products of two values that both depend on the input: entrywise (gates) and of matrices (attention).

For B bilinear, B(u, v) - B(u', v') = B(u, v - v') + B(u - u', v'), so

    Lip(B(u, v)) <= sup ||B(u, .)|| Lip(v) + sup ||B(., v)|| Lip(u),

which is finite only where both factors are bounded: `factors` are the two suprema, once ranges are known.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certifier.proof.gram import gram_norm_upper
from certifier.proof.rounding import gamma_upper, mul_upper, norm_upper, sqrt_upper
from certifier.terms import Precision, Term

Array = NDArray[Any]
SQUARINGS = 3
"""Of Gram matrices when bounding spectral norms: within 6 % for a smaller side of 8, 36 % for one of 128."""


class Form(ABC):
    """A bilinear map of two tensors, on flat values."""

    shape: tuple[int, ...]

    @property
    @abstractmethod
    def fan_in(self) -> int:
        """The number of products summed into one entry."""

    @abstractmethod
    def __call__(self, first: Array, second: Array) -> Array:
        """B(u, v).  Shapes: [B, n], [B, m] -> [B, k]."""

    @abstractmethod
    def pullback(self, gradient: Array, first: Array, second: Array) -> tuple[Array, Array]:
        """The gradients with respect to u and v."""

    @abstractmethod
    def norms_upper(self, first: Array, second: Array) -> tuple[Array, Array]:
        """(||B(u, .)||, ||B(., v)||), rounded up.  Shapes: [B] each."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EntrywiseForm(Form):
    """u_i v_i, with both operands broadcast to `shape`."""

    first: tuple[int, ...]
    second: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def fan_in(self) -> int:
        return 1

    def __call__(self, first: Array, second: Array) -> Array:
        product = self._aligned(first, self.first) * self._aligned(second, self.second)
        return product.reshape(len(product), -1)

    def _aligned(self, x: Array, own: tuple[int, ...]) -> Array:
        """With the batch axis in front of axes that broadcast to `shape`."""
        return x.reshape(x.shape[0], *(1,) * (len(self.shape) - len(own)), *own)

    def pullback(self, gradient: Array, first: Array, second: Array) -> tuple[Array, Array]:
        cube = gradient.reshape(gradient.shape[0], *self.shape)
        return (
            _summed(cube * self._aligned(second, self.second), first, self._aligned(first, self.first).shape),
            _summed(cube * self._aligned(first, self.first), second, self._aligned(second, self.second).shape),
        )

    def norms_upper(self, first: Array, second: Array) -> tuple[Array, Array]:
        return (
            self._norm_upper(np.abs(self._aligned(first, self.first)), self._aligned(second, self.second).shape),
            self._norm_upper(np.abs(self._aligned(second, self.second)), self._aligned(first, self.first).shape),
        )

    def _norm_upper(self, held: Array, other: tuple[int, ...]) -> Array:
        """Of d -> held d for d of shape `other`: an entry of d that is broadcast meets several of `held`."""
        spread = tuple(axis for axis in range(1, len(other)) if other[axis] != (1, *self.shape)[axis])
        held = np.broadcast_to(held, (held.shape[0], *self.shape))
        lengths = norm_upper(held, spread) if spread else held
        return np.max(lengths.reshape(len(held), -1), axis=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class MatrixForm(Form):
    """A batch of matrix products U V; leading axes broadcast as numpy does.

    Shapes: `first` [..., r, k], `second` [..., k, c], `shape` [..., r, c], each of rank two at least.
    """

    first: tuple[int, ...]
    second: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def fan_in(self) -> int:
        return self.first[-1]

    def __call__(self, first: Array, second: Array) -> Array:
        product = np.matmul(self._aligned(first, self.first), self._aligned(second, self.second))
        return product.reshape(len(product), -1)

    def _aligned(self, x: Array, own: tuple[int, ...]) -> Array:
        missing = max(len(self.first), len(self.second)) - len(own)
        return x.reshape(x.shape[0], *(1,) * missing, *own)

    def pullback(self, gradient: Array, first: Array, second: Array) -> tuple[Array, Array]:
        left, right = self._aligned(first, self.first), self._aligned(second, self.second)
        cube = gradient.reshape(gradient.shape[0], *self.shape)
        return (
            _summed(np.matmul(cube, right.swapaxes(-1, -2)), first, left.shape),
            _summed(np.matmul(left.swapaxes(-1, -2), cube), second, right.shape),
        )

    def norms_upper(self, first: Array, second: Array) -> tuple[Array, Array]:
        left, right = self._aligned(first, self.first), self._aligned(second, self.second)
        return self._norm_upper(left, right), self._norm_upper(right, left)

    def _norm_upper(self, held: Array, other: Array) -> Array:
        """The largest spectral norm in the batch of `held`, √r times where `other` is broadcast r-fold."""
        norms = gram_norm_upper(held.reshape(-1, *held.shape[-2:]), squarings=SQUARINGS)
        repeats = math.prod(self.shape[:-2]) // math.prod(other.shape[1:-2])
        return np.asarray(mul_upper(norms.reshape(len(held), -1).max(axis=1), sqrt_upper(float(repeats))))


def _summed(gradient: Array, operand: Array, shape: tuple[int, ...]) -> Array:
    """The gradient with respect to an operand of `shape` that was broadcast."""
    axes = tuple(axis for axis in range(1, len(shape)) if shape[axis] == 1 and gradient.shape[axis] != 1)
    return gradient.sum(axis=axes, keepdims=True).reshape(operand.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class Bilinear(Term):
    """y = B(u, v) for two live values, which may be the same one."""

    name: str
    operator: str
    sources: tuple[str, ...]
    output: str
    shape: tuple[int, ...]
    dtype: str
    form: EntrywiseForm | MatrixForm
    factors: tuple[float, float] | None
    """(sup ||B(., v)||, sup ||B(u, .)||), which stretch differences of u and of v; None until ranges are known."""

    def evaluate(self, *values: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            return self.form(*values)

    def pullback(self, gradient: Array, *values: Array) -> tuple[Array, ...]:
        return self.form.pullback(gradient, *values)

    def stray(self, values: Sequence[Array], radii: Sequence[Array], output: Array, at: Precision) -> Array:
        """|u'v' - uv| <= |u| r_v + r_u (|v| + r_v), and the rounding of what is executed."""
        (u, v), (r, s) = (np.abs(values[0]), np.abs(values[1])), radii
        return self.form(u, s) + self.form(r, v + s) + self.own_rounding(values, radii, output, at)

    def own_rounding(self, values: Sequence[Array], radii: Sequence[Array], output: Array, at: Precision) -> Array:
        count = self.form.fan_in + 1
        if count * at.unit >= 0.25:
            return np.full_like(output, math.inf)
        size = self.form(np.abs(values[0]) + radii[0], np.abs(values[1]) + radii[1])
        return np.where(at.holds(size), gamma_upper(count, at.unit) * size + 2 * count * at.tiny, np.inf)

    def stray_length(
        self,
        values: Sequence[Array],
        radii: Sequence[Array],
        lengths: Sequence[Array],
        output: Array,
        at: Precision,
    ) -> Array | None:
        """||B(u', v') - B(u, v)|| <= ||B(u, .)|| ||v' - v|| + (||B(., v)|| + ||v' - v||) ||u' - u||, and the rounding.

        ||B(d, e)|| <= ||d|| ||e||: entrywise or block by block, no pair of operands meets twice under broadcasting.
        """
        by_first, by_second = self.form.norms_upper(values[0], values[1])
        own = norm_upper(self.own_rounding(values, radii, output, at), 1)[:, None]
        return by_first[:, None] * lengths[1] + (by_second[:, None] + lengths[1]) * lengths[0] + own
