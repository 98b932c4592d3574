"""Attention of ATen: the scaled dot product, and the whole layers that PyTorch's inference fast path calls."""

from __future__ import annotations

import math

import numpy as np

from certifier.reading.aten.activations import gelu
from certifier.reading.aten.normalising import layer_norm
from certifier.reading.aten.products import linear, transposed
from certifier.reading.aten.reductions import reduced
from certifier.reading.aten.registry import Call, aten
from certifier.reading.aten.values import refuse_random
from certifier.reading.emitting import Ref


@aten("scaled_dot_product_attention")
def scaled_dot_product_attention(
    call: Call,
    query: object,
    key: object,
    value: object,
    attn_mask: object = None,
    dropout_p: object = 0.0,
    is_causal: object = False,
    *,
    scale: object = None,
    enable_gqa: object = False,
) -> Ref:
    """softmax(query keyᵀ scale + mask) value, with the root of the scale on either factor, as PyTorch writes it out."""
    refuse_random(call, dropout_p)
    queries, keys, values = (call.tensor(each, "an operand") for each in (query, key, value))
    if call.flag(enable_gqa, "enable_gqa"):
        raise call.refuse("grouped-query attention is not supported")
    factor = queries.shape[-1] ** -0.5 if scale is None else float(call.number(scale, "scale"))
    scores = _scores(call, queries, keys, factor)
    mask = call.optional(attn_mask, "attn_mask")
    if call.flag(is_causal, "is_causal"):
        if mask is not None:
            raise call.refuse("takes a mask or is causal, not both")
        mask = call.constant(np.tri(scores.shape[-2], scores.shape[-1]), "bool", "causal")
    if mask is not None and mask.dtype == "bool":
        floor = call.constant(-math.inf, scores.dtype, "masked")
        scores = call.emit("Where", [mask, scores, floor])
    elif mask is not None:
        scores = call.emit("Add", [scores, call.cast(mask, scores.dtype)])
    return call.emit("MatMul", [call.emit("Softmax", [scores], {"axis": -1}), values])


def _scores(call: Call, queries: Ref, keys: Ref, factor: float) -> Ref:
    root = math.sqrt(abs(factor))
    scaled = call.emit("Mul", [queries, call.constant(math.copysign(root, factor), queries.dtype, "scale")])
    turned = transposed(call, call.emit("Mul", [keys, call.constant(root, keys.dtype, "root")]))
    return call.emit("MatMul", [scaled, turned])


@aten("_native_multi_head_attention")
def native_multi_head_attention(
    call: Call,
    query: object,
    key: object,
    value: object,
    embed_dim: object,
    num_head: object,
    qkv_weight: object,
    qkv_bias: object,
    proj_weight: object,
    proj_bias: object,
    mask: object = None,
    need_weights: object = True,
    average_attn_weights: object = True,
    mask_type: object = None,
) -> tuple[Ref, Ref | None]:
    """What nn.MultiheadAttention computes of (batch, tokens, width), and the attention's weights."""
    if mask is not None:
        raise call.refuse("masks of the fast path are not supported; export the model outside of torch.no_grad()")
    heads, width = call.integer(num_head, "num_head"), call.integer(embed_dim, "embed_dim")
    weights = np.split(call.known(qkv_weight, "qkv_weight"), 3)
    biases = np.split(call.known(qkv_bias, "qkv_bias"), 3)
    split = []
    for role, operand, weight, bias in zip(
        ("query", "key", "value"), (query, key, value), weights, biases, strict=True
    ):
        ref = call.tensor(operand, role)
        matrix, offset = (
            call.emitter.constant(array, f"{call.where}/{role}/{kind}")
            for array, kind in ((weight, "weight"), (bias, "bias"))
        )
        cube = call.reshape(linear(call, ref, matrix, offset), (*ref.shape[:2], heads, width // heads))
        split.append(call.transpose(cube, (0, 2, 1, 3)))
    scores = _scores(call, split[0], split[1], split[0].shape[-1] ** -0.5)
    shares = call.emit("Softmax", [scores], {"axis": -1})
    mixed = call.transpose(call.emit("MatMul", [shares, split[2]]), (0, 2, 1, 3))
    result = linear(call, call.reshape(mixed, (*mixed.shape[:2], width)), proj_weight, proj_bias)
    if not call.flag(need_weights, "need_weights"):
        return result, None
    averaged = call.flag(average_attn_weights, "average_attn_weights")
    return result, reduced(call, "ReduceMean", shares, 1, False) if averaged else shares


@aten("_transformer_encoder_layer_fwd")
def transformer_encoder_layer(
    call: Call,
    src: object,
    embed_dim: object,
    num_heads: object,
    qkv_weight: object,
    qkv_bias: object,
    proj_weight: object,
    proj_bias: object,
    use_gelu: object,
    norm_first: object,
    eps: object,
    norm_weight_1: object,
    norm_bias_1: object,
    norm_weight_2: object,
    norm_bias_2: object,
    ffn_weight_1: object,
    ffn_bias_1: object,
    ffn_weight_2: object,
    ffn_bias_2: object,
    mask: object = None,
    mask_type: object = None,
) -> Ref:
    """What nn.TransformerEncoderLayer computes: attention and a perceptron, each added to what it reads."""
    width = call.integer(embed_dim, "embed_dim")

    def attention(x: Ref) -> Ref:
        return native_multi_head_attention(
            call, x, x, x, width, num_heads, qkv_weight, qkv_bias, proj_weight, proj_bias, mask, False
        )[0]

    def perceptron(x: Ref) -> Ref:
        hidden = linear(call, x, ffn_weight_1, ffn_bias_1)
        active = gelu(call, hidden) if call.flag(use_gelu, "use_gelu") else call.emit("Relu", [hidden])
        return linear(call, active, ffn_weight_2, ffn_bias_2)

    def first(x: Ref) -> Ref:
        return layer_norm(call, x, [width], norm_weight_1, norm_bias_1, eps)

    def second(x: Ref) -> Ref:
        return layer_norm(call, x, [width], norm_weight_2, norm_bias_2, eps)

    x = call.tensor(src, "src")
    if call.flag(norm_first, "norm_first"):
        x = call.emit("Add", [x, attention(first(x))])
        return call.emit("Add", [x, perceptron(second(x))])
    x = first(call.emit("Add", [x, attention(x)]))
    return second(call.emit("Add", [x, perceptron(x)]))
