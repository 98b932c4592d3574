"""Convolutions, tap by tap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np

from certifier.operators.operator import Array, Operator


class Convolution(Operator):
    """Cross-correlation with zero padding in any number of spatial axes, as ONNX Conv defines it.

    Shapes: kernel [c_out, c_in/groups, *taps]; input [c_in, *input_shape]; output [c_out, *output_shape].
    """

    def __init__(
        self,
        kernel: Array,
        *,
        input_shape: tuple[int, ...],
        strides: tuple[int, ...],
        pads_before: tuple[int, ...],
        pads_after: tuple[int, ...],
        dilations: tuple[int, ...],
        groups: int,
        weight_error: float,
    ) -> None:
        self.kernel, self.input_shape, self.strides = kernel, input_shape, strides
        self.pads_before, self.pads_after = pads_before, pads_after
        self.dilations, self.groups = dilations, groups
        self._weight_error = float(weight_error)
        self.output_shape = tuple(
            (n + before + after - dilation * (taps - 1) - 1) // stride + 1
            for n, before, after, dilation, taps, stride in zip(
                input_shape, pads_before, pads_after, dilations, kernel.shape[2:], strides, strict=True
            )
        )
        if min(self.output_shape) < 1:
            raise ValueError("the kernel does not fit into the padded input")
        if min(*pads_before, *pads_after) < 0:
            raise ValueError("a convolution's pads must not be negative")
        self.channels_in, self.channels_out = kernel.shape[1] * groups, kernel.shape[0]
        self.rows = self.channels_out * math.prod(self.output_shape)
        self.columns = self.channels_in * math.prod(input_shape)

    def _taps(self) -> list[tuple[tuple[int, ...], tuple[slice, ...]]]:
        """Every tap with the slice of the padded input that it meets."""
        taps = []
        for tap in product(*(range(size) for size in self.kernel.shape[2:])):
            window = tuple(
                slice(dilation * index, dilation * index + stride * (count - 1) + 1, stride)
                for index, dilation, stride, count in zip(
                    tap, self.dilations, self.strides, self.output_shape, strict=True
                )
            )
            taps.append((tap, window))
        return taps

    @property
    def _padded_shape(self) -> tuple[int, ...]:
        return tuple(
            n + before + after
            for n, before, after in zip(self.input_shape, self.pads_before, self.pads_after, strict=True)
        )

    @property
    def _interior(self) -> tuple[slice, ...]:
        return tuple(slice(before, before + n) for before, n in zip(self.pads_before, self.input_shape, strict=True))

    def forward(self, x: Array) -> Array:
        batch, groups = x.shape[0], self.groups
        grouped = (batch, groups, self.channels_in // groups)
        padded = np.zeros((*grouped, *self._padded_shape), dtype=x.dtype)
        padded[(..., *self._interior)] = x.reshape(*grouped, *self.input_shape)
        kernel = self.kernel.reshape(groups, self.channels_out // groups, *self.kernel.shape[1:])
        points = math.prod(self.output_shape)
        out = np.zeros((batch, groups, self.channels_out // groups, points), dtype=np.result_type(x, self.kernel))
        for tap, window in self._taps():
            seen = padded[(..., *window)].reshape(*grouped, points)
            out += kernel[(..., *tap)] @ seen
        return out.reshape(batch, -1)

    def adjoint(self, y: Array) -> Array:
        batch, groups = y.shape[0], self.groups
        given = y.reshape(batch, groups, self.channels_out // groups, *self.output_shape)
        # Functionals of single entries are zero outside of a few rows, which add nothing.
        used = np.flatnonzero(given.any(axis=tuple(axis for axis in range(given.ndim) if axis != 3)))
        first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
        given = given[:, :, :, first:last]
        points, shape = math.prod(given.shape[3:]), given.shape[3:]
        given = given.reshape(batch, groups, self.channels_out // groups, points)
        kernel = self.kernel.reshape(groups, self.channels_out // groups, *self.kernel.shape[1:])
        grouped = (batch, groups, self.channels_in // groups)
        padded = np.zeros((*grouped, *self._padded_shape), dtype=np.result_type(y, self.kernel))
        for tap, (rows, *others) in self._taps():
            start = rows.start + first * rows.step
            window = (slice(start, start + (last - first - 1) * rows.step + 1, rows.step), *others)
            spread = np.swapaxes(kernel[(..., *tap)], -1, -2) @ given
            padded[(..., *window)] += spread.reshape(*grouped, *shape)
        return padded[(..., *self._interior)].reshape(batch, -1)

    def with_kernel(self, kernel: Array, *, weight_error: float) -> Convolution:
        """The same geometry with other weights."""
        return Convolution(
            kernel,
            input_shape=self.input_shape,
            strides=self.strides,
            pads_before=self.pads_before,
            pads_after=self.pads_after,
            dilations=self.dilations,
            groups=self.groups,
            weight_error=weight_error,
        )

    def absolute(self) -> Operator:
        return self.with_kernel(abs(self.kernel), weight_error=self._weight_error)

    @property
    def fan_in(self) -> int:
        return math.prod(self.kernel.shape[1:])

    @property
    def fan_out(self) -> int:
        return (self.channels_out // self.groups) * math.prod(self.kernel.shape[2:])

    @property
    def weight_error(self) -> float:
        return self._weight_error

    def describe(self) -> str:
        return "convolution " + "x".join(map(str, self.kernel.shape))

    def _fingerprint(self) -> Sequence[object]:
        geometry = (self.input_shape, self.strides, self.pads_before, self.pads_after, self.dilations)
        return (self.kernel, geometry, self.groups, self._weight_error)
