"""Matrix products and convolutions of ATen."""

from __future__ import annotations

from collections.abc import Sequence

from certifier.reading.aten.registry import Call, aten
from certifier.reading.emitting import Ref


@aten("linear")
def linear(call: Call, input: object, weight: object, bias: object = None) -> Ref:
    """input weightᵀ + bias over the last axis."""
    ref, matrix, offset = call.tensor(input, "input"), call.tensor(weight, "weight"), call.optional(bias, "bias")
    if ref.rank == 2 and matrix.rank == 2:
        return call.emit("Gemm", [ref, matrix, offset] if offset else [ref, matrix], {"transB": 1})
    product = call.emit("MatMul", [ref, transposed(call, matrix)])
    return call.emit("Add", [product, offset]) if offset else product


def transposed(call: Call, matrix: Ref) -> Ref:
    """The matrix with its last two axes exchanged; a constant keeps its name."""
    if matrix.rank < 2:
        return matrix
    value = call.emitter.value(matrix)
    if value is not None:
        return call.emitter.constant(value.swapaxes(-1, -2), f"{matrix.name}.T")
    order = list(range(matrix.rank))
    order[-1], order[-2] = order[-2], order[-1]
    return call.transpose(matrix, order)


@aten("mm", "bmm", "matmul", "mv", "dot", "vdot", "__matmul__")
def matmul(call: Call, self: object, mat2: object) -> Ref:
    """The matrix product with numpy's broadcasting of leading axes."""
    return call.emit("MatMul", list(call.operands(call.tensor(self, "self"), call.tensor(mat2, "mat2"))))


@aten("addmm")
def addmm(call: Call, self: object, mat1: object, mat2: object, *, beta: object = 1, alpha: object = 1) -> Ref:
    """beta self + alpha mat1 mat2."""
    offset, first, second = (call.tensor(value, "an operand") for value in (self, mat1, mat2))
    attributes = {"alpha": float(call.number(alpha, "alpha")), "beta": float(call.number(beta, "beta"))}
    return call.emit("Gemm", [first, second, offset], attributes)


@aten("baddbmm")
def baddbmm(call: Call, self: object, batch1: object, batch2: object, *, beta: object = 1, alpha: object = 1) -> Ref:
    """beta self + alpha batch1 batch2."""
    product = call.emit("MatMul", [call.tensor(batch1, "batch1"), call.tensor(batch2, "batch2")])
    offset = call.tensor(self, "self")
    factor, weight = call.number(alpha, "alpha"), call.number(beta, "beta")
    if factor != 1:
        product = call.emit("Mul", [product, call.constant(factor, product.dtype, "alpha")])
    if weight == 0:
        return product
    if weight != 1:
        offset = call.emit("Mul", [offset, call.constant(weight, offset.dtype, "beta")])
    return call.emit("Add", [offset, product])


@aten("einsum", shares=True)
def einsum(call: Call, equation: object, tensors: object, *, path: object = None) -> Ref:
    """A sum of products over named axes."""
    if not isinstance(equation, str):
        raise call.refuse("the equation must be a string")
    return call.emit("Einsum", call.tensors(tensors, "operands"), {"equation": equation.replace(" ", "")})


@aten("conv1d", "conv2d", "conv3d")
def conv(
    call: Call,
    input: object,
    weight: object,
    bias: object = None,
    stride: object = 1,
    padding: object = 0,
    dilation: object = 1,
    groups: object = 1,
) -> Ref:
    """The cross-correlation of each channel group with its kernels."""
    count = {"conv1d": 1, "conv2d": 2, "conv3d": 3}[call.operator]
    return _convolution(call, (input, weight, bias), (stride, padding, dilation, groups), count)


@aten("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def conv_transpose(
    call: Call,
    input: object,
    weight: object,
    bias: object = None,
    stride: object = 1,
    padding: object = 0,
    output_padding: object = 0,
    groups: object = 1,
    dilation: object = 1,
) -> Ref:
    """The adjoint of `conv`."""
    count = int(call.operator[-2])
    extra = call.integers(output_padding, "output_padding", count)
    return _transposed_convolution(call, (input, weight, bias), (stride, padding, dilation, groups), extra, count)


@aten("convolution", "_convolution", "convolution_overrideable", "mkldnn_convolution")
def convolution(
    call: Call,
    input: object,
    weight: object,
    bias: object,
    stride: object,
    padding: object,
    dilation: object,
    transposed: object,
    output_padding: object,
    groups: object,
    benchmark: object = False,
    deterministic: object = False,
    cudnn_enabled: object = True,
    allow_tf32: object = True,
) -> Ref:
    """Either of both, as PyTorch keeps them inside."""
    count = call.tensor(weight, "weight").rank - 2
    settings = (stride, padding, dilation, groups)
    if not call.flag(transposed, "transposed"):
        return _convolution(call, (input, weight, bias), settings, count)
    extra = call.integers(output_padding, "output_padding", count)
    return _transposed_convolution(call, (input, weight, bias), settings, extra, count)


def _convolution(call: Call, tensors: Sequence[object], settings: Sequence[object], count: int) -> Ref:
    stride, padding, dilation, groups = settings
    steps, spread = call.integers(stride, "stride", count), call.integers(dilation, "dilation", count)
    kernel = call.tensor(tensors[1], "weight").shape[2:]
    attributes: dict[str, object] = {"strides": steps, "dilations": spread, "group": call.integer(groups, "groups")}
    attributes["pads"] = _pads(call, padding, kernel, steps, spread)
    return _batched(call, "Conv", tensors, attributes, count)


def _pads(
    call: Call, padding: object, kernel: tuple[int, ...], steps: tuple[int, ...], spread: tuple[int, ...]
) -> tuple[int, ...]:
    if padding == "valid":
        return (0,) * (2 * len(kernel))
    if padding == "same":
        if any(step != 1 for step in steps):
            raise call.refuse("padding='same' needs a stride of 1")
        total = [width * (size - 1) for width, size in zip(spread, kernel, strict=True)]
        return tuple(each // 2 for each in total) + tuple(each - each // 2 for each in total)
    return call.integers(padding, "padding", len(kernel)) * 2


def _transposed_convolution(
    call: Call, tensors: Sequence[object], settings: Sequence[object], extra: tuple[int, ...], count: int
) -> Ref:
    stride, padding, dilation, groups = settings
    attributes: dict[str, object] = {
        "strides": call.integers(stride, "stride", count),
        "dilations": call.integers(dilation, "dilation", count),
        "group": call.integer(groups, "groups"),
        "pads": call.integers(padding, "padding", count) * 2,
    }
    if any(extra):
        attributes["output_padding"] = extra
    return _batched(call, "ConvTranspose", tensors, attributes, count)


def _batched(call: Call, operator: str, tensors: Sequence[object], attributes: dict[str, object], count: int) -> Ref:
    """The operator on (N, C, …); an input without N, which PyTorch allows, gets one of size 1 and loses it again."""
    ref, weight, bias = (call.optional(value, "an operand") for value in tensors)
    if ref is None or weight is None or weight.rank != count + 2 or ref.rank not in (count + 1, count + 2):
        raise call.refuse("the ranks of input and weight do not fit")
    single = ref.rank == count + 1
    operand = call.reshape(ref, (1, *ref.shape)) if single else ref
    result = call.emit(operator, [operand, weight, bias] if bias else [operand, weight], attributes)
    return call.reshape(result, result.shape[1:]) if single else result
