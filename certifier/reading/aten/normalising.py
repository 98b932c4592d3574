"""Normalisations of ATen, as they are in inference."""

from __future__ import annotations

import numpy as np

from certifier.reading.aten.activations import refuse_training
from certifier.reading.aten.registry import Call, aten
from certifier.reading.emitting import Ref


@aten("batch_norm", "cudnn_batch_norm", "miopen_batch_norm")
def batch_norm(
    call: Call,
    input: object,
    weight: object,
    bias: object,
    running_mean: object,
    running_var: object,
    training: object,
    momentum: object,
    eps: object,
    cudnn_enabled: object = True,
) -> Ref:
    """(x - mean) / sqrt(var + eps) weight + bias with the stored statistics, per channel (axis 1)."""
    refuse_training(call, training)
    return _batch_norm(call, input, (weight, bias, running_mean, running_var), eps)


@aten("native_batch_norm")
def native_batch_norm(
    call: Call,
    input: object,
    weight: object,
    bias: object,
    running_mean: object,
    running_var: object,
    training: object,
    momentum: object,
    eps: object,
) -> tuple[Ref, None, None]:
    """`batch_norm` with two outputs that are empty in inference."""
    refuse_training(call, training)
    return _batch_norm(call, input, (weight, bias, running_mean, running_var), eps), None, None


@aten("_native_batch_norm_legit", "_native_batch_norm_legit_functional")
def native_batch_norm_training(
    call: Call,
    input: object,
    weight: object,
    bias: object,
    running_mean: object,
    running_var: object,
    training: object,
    momentum: object = None,
    eps: object = None,
) -> Ref:
    """Batch normalisation by the batch's own statistics, which is refused; instance_norm decomposes into it."""
    raise call.refuse(
        "normalises by statistics of the whole batch; export the model after model.eval(), not decomposed"
    )


@aten("_native_batch_norm_legit_no_training")
def native_batch_norm_no_training(
    call: Call,
    input: object,
    weight: object,
    bias: object,
    running_mean: object,
    running_var: object,
    momentum: object,
    eps: object,
) -> tuple[Ref, None, None]:
    """`batch_norm` with two outputs that are empty in inference."""
    return _batch_norm(call, input, (weight, bias, running_mean, running_var), eps), None, None


def _batch_norm(call: Call, input: object, parameters: tuple[object, ...], eps: object) -> Ref:
    ref = call.tensor(input, "input")
    weight, bias, mean, variance = (call.optional(value, "a parameter") for value in parameters)
    if mean is None or variance is None:
        raise call.refuse("has no stored statistics, so it normalises by the batch, which mixes its rows")
    scale = _ones_like(call, mean, "weight") if weight is None else weight
    offset = _zeros_like(call, mean, "bias") if bias is None else bias
    return call.emit(
        "BatchNormalization", [ref, scale, offset, mean, variance], {"epsilon": float(call.number(eps, "eps"))}
    )


def _ones_like(call: Call, ref: Ref, role: str) -> Ref:
    return call.constant(np.ones(ref.shape), ref.dtype, role)


def _zeros_like(call: Call, ref: Ref, role: str) -> Ref:
    return call.constant(np.zeros(ref.shape), ref.dtype, role)


@aten("layer_norm")
def layer_norm(
    call: Call,
    input: object,
    normalized_shape: object,
    weight: object = None,
    bias: object = None,
    eps: object = 1e-05,
    cudnn_enable: object = True,
) -> Ref:
    """(x - mean) / sqrt(var + eps) weight + bias over the trailing axes."""
    ref, sizes = call.tensor(input, "input"), call.integers(normalized_shape, "normalized_shape")
    if not sizes or ref.shape[-len(sizes) :] != sizes:
        raise call.refuse(f"normalized_shape {list(sizes)} is not how the input {list(ref.shape)} ends")
    scale, offset = call.optional(weight, "weight"), call.optional(bias, "bias")
    if scale is None:
        scale = call.constant(np.ones(sizes), ref.dtype, "weight")
    attributes = {"axis": ref.rank - len(sizes), "epsilon": float(call.number(eps, "eps"))}
    return call.emit("LayerNormalization", [ref, scale, offset] if offset else [ref, scale], attributes)


@aten("native_layer_norm")
def native_layer_norm(
    call: Call, input: object, normalized_shape: object, weight: object, bias: object, eps: object
) -> tuple[Ref, None, None]:
    """`layer_norm` with two outputs that only its derivative reads."""
    return layer_norm(call, input, normalized_shape, weight, bias, eps), None, None


@aten("rms_norm")
def rms_norm(call: Call, input: object, normalized_shape: object, weight: object = None, eps: object = None) -> Ref:
    """x / sqrt(mean(x²) + eps) weight over the trailing axes, written out."""
    ref, sizes = call.tensor(input, "input"), call.integers(normalized_shape, "normalized_shape")
    if not sizes or ref.shape[-len(sizes) :] != sizes:
        raise call.refuse(f"normalized_shape {list(sizes)} is not how the input {list(ref.shape)} ends")
    if eps is None:
        raise call.refuse("eps must be given, so that the model does not depend on the element type it runs in")
    axes = call.integers_constant(range(ref.rank - len(sizes), ref.rank), "axes")
    mean = call.emit("ReduceMean", [call.emit("Mul", [ref, ref]), axes], {"keepdims": 1})
    floored = call.emit("Add", [mean, call.constant(float(call.number(eps, "eps")), ref.dtype, "eps")])
    result = call.emit("Div", [ref, call.emit("Sqrt", [floored])])
    scale = call.optional(weight, "weight")
    return result if scale is None else call.emit("Mul", [result, scale])


@aten("group_norm")
def group_norm(
    call: Call,
    input: object,
    num_groups: object,
    weight: object = None,
    bias: object = None,
    eps: object = 1e-05,
    cudnn_enabled: object = True,
) -> Ref:
    """Each group of channels of each row normalised by its own mean and variance."""
    ref, groups = call.tensor(input, "input"), call.integer(num_groups, "num_groups")
    channels = ref.shape[1]
    scale, offset = call.optional(weight, "weight"), call.optional(bias, "bias")
    inputs = [
        ref,
        call.constant(np.ones(channels), ref.dtype, "weight") if scale is None else scale,
        call.constant(np.zeros(channels), ref.dtype, "bias") if offset is None else offset,
    ]
    attributes = {"num_groups": groups, "epsilon": float(call.number(eps, "eps"))}
    return call.emit("GroupNormalization", inputs, attributes)


@aten("native_group_norm")
def native_group_norm(
    call: Call,
    input: object,
    weight: object,
    bias: object,
    N: object,
    C: object,
    HxW: object,
    group: object,
    eps: object,
) -> tuple[Ref, None, None]:
    """`group_norm` with two outputs that only its derivative reads."""
    return group_norm(call, input, group, weight, bias, eps), None, None


@aten("instance_norm")
def instance_norm(
    call: Call,
    input: object,
    weight: object,
    bias: object,
    running_mean: object,
    running_var: object,
    use_input_stats: object,
    momentum: object,
    eps: object,
    cudnn_enabled: object = True,
) -> Ref:
    """Each channel of each row normalised by its own mean and variance, or by the stored ones."""
    if not call.flag(use_input_stats, "use_input_stats"):
        return _batch_norm(call, input, (weight, bias, running_mean, running_var), eps)
    if running_mean is not None and running_var is not None:
        raise call.refuse("updates its statistics while it runs; export the model after model.eval()")
    ref = call.tensor(input, "input")
    scale, offset = call.optional(weight, "weight"), call.optional(bias, "bias")
    inputs = [
        ref,
        call.constant(np.ones(ref.shape[1]), ref.dtype, "weight") if scale is None else scale,
        call.constant(np.zeros(ref.shape[1]), ref.dtype, "bias") if offset is None else offset,
    ]
    return call.emit("InstanceNormalization", inputs, {"epsilon": float(call.number(eps, "eps"))})
