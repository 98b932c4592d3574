"""Convolutions with a constant kernel, and their transposes: 1 to 3 spatial axes."""

from __future__ import annotations

import math

import numpy as np

from certifier.operators import Adjoint, Convolution, Operator
from certifier.rules.building import affine, linear
from certifier.rules.geometry import Axis, demand_elements, integers_per_axis, kernel_shape, spatial_axes
from certifier.rules.registry import Site, rule
from certifier.terms import Term

_CONV = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


@rule("Conv", since=(1, 11, 22), attributes=_CONV)
def conv(site: Site) -> tuple[Term, ...]:
    """Y = W * X + B, zero padding, 1 to 3 spatial axes; W and B constant."""
    kernel, sizes, groups = _operands(site)
    channels = site.shape(0)[1]
    if kernel.shape[1] * groups != channels or kernel.shape[0] % groups:
        raise site.refuse(f"a kernel of shape {kernel.shape} in {groups} groups does not fit {channels} channels")
    taps = kernel_shape(site, len(sizes), kernel.shape[2:])
    operator = _convolution(kernel, spatial_axes(site, sizes, taps, ceil_mode=False), groups)
    return _with_bias(site, operator, (1, kernel.shape[0], *operator.output_shape))


@rule("ConvTranspose", since=(1, 11, 22), attributes=(*_CONV, "output_padding", "output_shape"))
def conv_transpose(site: Site) -> tuple[Term, ...]:
    """Y = W^T * X + B, the adjoint of the convolution from Y's space to X's; W and B constant."""
    kernel, sizes, groups = _operands(site)
    channels = site.shape(0)[1]
    if kernel.shape[0] != channels or channels % groups:
        raise site.refuse(f"a kernel of shape {kernel.shape} in {groups} groups does not fit {channels} channels")
    taps = kernel_shape(site, len(sizes), kernel.shape[2:])
    axes = _transposed_axes(site, sizes, taps)
    shape = (1, kernel.shape[1] * groups, *(axis.size for axis in axes))
    demand_elements(site, math.prod(shape))
    convolution = _convolution(kernel, axes, groups)
    if convolution.output_shape != tuple(sizes):
        raise site.refuse(f"output {shape[2:]} cannot be convolved back to the input's {tuple(sizes)}")
    return _with_bias(site, Adjoint(convolution), shape)


def _operands(site: Site) -> tuple[np.ndarray, tuple[int, ...], int]:
    kernel = site.weights(1, "the kernel W")
    site.live(0)
    shape = site.shape(0)
    if not 3 <= len(shape) <= 5 or kernel.ndim != len(shape):
        raise site.refuse(f"needs 1 to 3 spatial axes, got input {shape} and kernel {kernel.shape}")
    if shape[0] != 1:
        raise site.refuse(f"axis 0 of its input has {shape[0]} rows; the model folds other axes into the batch")
    if kernel.size == 0:
        raise site.refuse("the kernel is empty")
    groups = site.integer("group", 1)
    if groups < 1:
        raise site.refuse(f"group must be positive, not {groups}")
    return kernel, shape[2:], groups


def _convolution(kernel: np.ndarray, axes: tuple[Axis, ...], groups: int) -> Convolution:
    return Convolution(
        kernel,
        input_shape=tuple(axis.size for axis in axes),
        strides=tuple(axis.stride for axis in axes),
        pads_before=tuple(axis.before for axis in axes),
        pads_after=tuple(axis.after for axis in axes),
        dilations=tuple(axis.dilation for axis in axes),
        groups=groups,
        weight_error=0.0,
    )


def _with_bias(site: Site, operator: Operator, shape: tuple[int, ...]) -> tuple[Term, ...]:
    if not site.has(2):
        return (linear(site, operator, shape=shape),)
    bias = site.weights(2, "the bias B")
    if bias.shape != (shape[1],):
        raise site.refuse(f"a bias of shape {bias.shape} does not fit {shape[1]} output channels")
    offset = bias.reshape(1, -1, *(1 for _ in shape[2:]))
    return (affine(site, operator, offset, shape=shape, roundings=3),)


def _transposed_axes(site: Site, sizes: tuple[int, ...], taps: tuple[int, ...]) -> tuple[Axis, ...]:
    """The convolution that leads back from the transposed convolution's output, axis by axis."""
    count = len(sizes)
    strides = integers_per_axis(site, "strides", count, 1)
    dilations = integers_per_axis(site, "dilations", count, 1)
    if min(*strides, *dilations) < 1:
        raise site.refuse("strides and dilations must be positive")
    extra = integers_per_axis(site, "output_padding", count, 0)
    wanted = integers_per_axis(site, "output_shape", count, 0) if "output_shape" in site.node.attributes else None
    axes = []
    for i, size in enumerate(sizes):
        if not 0 <= extra[i] < strides[i]:
            raise site.refuse(f"output_padding {extra[i]} must be below the stride {strides[i]}")
        full = strides[i] * (size - 1) + dilations[i] * (taps[i] - 1) + 1 + extra[i]
        before, after = _transposed_pads(site, i, full, strides[i] * size, wanted[i] if wanted else None)
        if after < 0 and 1 + extra[i] >= strides[i]:
            raise site.refuse(f"output_shape {full + 1} cannot be convolved back to {size}")
        if full - before - after < 1:
            raise site.refuse(f"pads {before} and {after} leave nothing of {full} positions")
        axes.append(
            Axis(
                size=full - before - after,
                taps=taps[i],
                stride=strides[i],
                dilation=dilations[i],
                before=before,
                # What output_padding appends is read by the convolution before any padding behind it.
                after=max(after - extra[i], 0),
                windows=size,
            )
        )
    return tuple(axes)


def _transposed_pads(site: Site, axis: int, full: int, same: int, wanted: int | None) -> tuple[int, int]:
    """What is cropped on both sides of the full extent."""
    auto_pad = site.text("auto_pad", "NOTSET")
    if auto_pad not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise site.refuse(f"auto_pad {auto_pad!r} is not known")
    count = len(site.shape(0)) - 2
    pads = integers_per_axis(site, "pads", 2 * count, 0)
    if min(pads) < 0:
        raise site.refuse("negative pads are not supported")
    if auto_pad != "NOTSET" and any(pads):
        raise site.refuse(f"pads and auto_pad {auto_pad} exclude one another")
    if wanted is None and not auto_pad.startswith("SAME"):
        return pads[axis], pads[count + axis]
    total = full - (same if wanted is None else wanted)
    if total == -1 and wanted is not None:
        # One position more than the kernel reaches; implementations agree that it lies behind the others.
        return 0, -1
    if total < 0:
        raise site.refuse("the output would be larger than what the kernel reaches")
    if site.node.since < 11 and (total % 2 or wanted is None):
        raise site.refuse("how version 1 splits uneven automatic pads is read differently by implementations")
    smaller = total // 2
    return (smaller, total - smaller) if auto_pad == "SAME_UPPER" else (total - smaller, smaller)
