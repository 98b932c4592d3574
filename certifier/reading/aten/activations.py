"""Activations of ATen.  Where the standard has the function under its own name, that name is used."""

from __future__ import annotations

import math

from certifier.graph import FLOATING
from certifier.reading.aten.registry import Call, aten
from certifier.reading.emitting import Ref


def _floating(call: Call, value: object) -> Ref:
    ref = call.tensor(value, "self")
    if ref.dtype not in FLOATING:
        raise call.refuse(f"is applied to {ref.dtype}, not to a floating-point tensor")
    return ref


@aten("relu", "sigmoid", "tanh", "erf", "softsign", "mish", "hardswish", "special_erf", "special_expit")
def named(call: Call, self: object) -> Ref:
    """One function of one variable, the same in both."""
    operators = {
        "relu": "Relu",
        "sigmoid": "Sigmoid",
        "special_expit": "Sigmoid",
        "tanh": "Tanh",
        "erf": "Erf",
        "special_erf": "Erf",
        "softsign": "Softsign",
        "mish": "Mish",
        "hardswish": "HardSwish",
    }
    return call.emit(operators[call.operator], [_floating(call, self)])


@aten("relu6")
def relu6(call: Call, self: object) -> Ref:
    """min(max(x, 0), 6)."""
    return clip(call, _floating(call, self), 0.0, 6.0)


@aten("hardtanh")
def hardtanh(call: Call, self: object, min_val: object = -1, max_val: object = 1) -> Ref:
    """min(max(x, min_val), max_val)."""
    return clip(call, _floating(call, self), call.number(min_val, "min_val"), call.number(max_val, "max_val"))


def clip(call: Call, ref: Ref, low: float | None, high: float | None) -> Ref:
    """min(max(x, low), high); either bound may be missing."""
    if any(bound is not None and math.isnan(bound) for bound in (low, high)):
        raise call.refuse("a bound is not a number")
    bounds = [
        None if low is None else call.constant(low, ref.dtype, "min"),
        None if high is None else call.constant(high, ref.dtype, "max"),
    ]
    return call.emit("Clip", [ref, *(bounds if high is not None else bounds[:1])])


@aten("leaky_relu")
def leaky_relu(call: Call, self: object, negative_slope: object = 0.01) -> Ref:
    """x for x >= 0, negative_slope x below."""
    return call.emit("LeakyRelu", [_floating(call, self)], {"alpha": float(call.number(negative_slope, "slope"))})


@aten("rrelu")
def rrelu(
    call: Call,
    self: object,
    lower: object = 0.125,
    upper: object = 1 / 3,
    training: object = False,
    generator: object = None,
) -> Ref:
    """In inference, a leaky ReLU with the mean of both slopes."""
    refuse_training(call, training)
    slope = (float(call.number(lower, "lower")) + float(call.number(upper, "upper"))) / 2
    return call.emit("LeakyRelu", [_floating(call, self)], {"alpha": slope})


def refuse_training(call: Call, training: object) -> None:
    """Training mode draws random numbers or changes statistics, so its output is no function of the input."""
    if call.flag(training, "training"):
        raise call.refuse("runs in training mode; export the model after model.eval()")


@aten("prelu")
def prelu(call: Call, self: object, weight: object) -> Ref:
    """x for x >= 0, weight x below, one weight for all or one per channel (axis 1)."""
    ref, slopes = _floating(call, self), call.tensor(weight, "weight")
    if slopes.size != 1 and ref.rank > 1:
        slopes = call.reshape(slopes, (slopes.size,) + (1,) * (ref.rank - 2))
    return call.emit("PRelu", [ref, slopes])


@aten("elu")
def elu(call: Call, self: object, alpha: object = 1, scale: object = 1, input_scale: object = 1) -> Ref:
    """scale x for x >= 0, scale alpha (exp(input_scale x) - 1) below."""
    ref = _floating(call, self)
    factor, inner = call.number(scale, "scale"), call.number(input_scale, "input_scale")
    if inner != 1:
        raise call.refuse("an input_scale other than 1 is not supported")
    result = call.emit("Elu", [ref], {"alpha": float(call.number(alpha, "alpha"))})
    return result if factor == 1 else call.emit("Mul", [result, call.constant(factor, ref.dtype, "scale")])


@aten("celu")
def celu(call: Call, self: object, alpha: object = 1.0) -> Ref:
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1))."""
    return call.emit("Celu", [_floating(call, self)], {"alpha": float(call.number(alpha, "alpha"))})


@aten("selu")
def selu(call: Call, self: object) -> Ref:
    """gamma (max(0, x) + min(0, alpha (exp(x) - 1))) with the constants of the self-normalising network."""
    return call.emit("Selu", [_floating(call, self)])


@aten("gelu")
def gelu(call: Call, self: object, *, approximate: object = "none") -> Ref:
    """x Phi(x), or its tanh approximation."""
    if approximate not in ("none", "tanh"):
        raise call.refuse(f"approximate={approximate!r} is not supported")
    return call.emit("Gelu", [_floating(call, self)], {"approximate": str(approximate)})


@aten("silu")
def silu(call: Call, self: object) -> Ref:
    """x sigmoid(x)."""
    ref = _floating(call, self)
    return call.emit("Mul", [ref, call.emit("Sigmoid", [ref])])


@aten("hardsigmoid")
def hardsigmoid(call: Call, self: object) -> Ref:
    """min(max(x / 6 + 1/2, 0), 1)."""
    return call.emit("HardSigmoid", [_floating(call, self)], {"alpha": 1 / 6, "beta": 0.5})


@aten("softplus")
def softplus(call: Call, self: object, beta: object = 1, threshold: object = 20) -> Ref:
    """log(1 + exp(beta x)) / beta, and x itself where beta x is over `threshold`.

    At the usual threshold of 20 or more the two agree within exp(-20), which PyTorch's own cut leaves out.
    """
    ref, sharpness = _floating(call, self), float(call.number(beta, "beta"))
    if float(call.number(threshold, "threshold")) < 20 or not 0 < sharpness < math.inf:
        raise call.refuse("is supported for a positive beta and a threshold of at least 20")
    if sharpness == 1:
        return call.emit("Softplus", [ref])
    factor = call.constant(sharpness, ref.dtype, "beta")
    return call.emit("Div", [call.emit("Softplus", [call.emit("Mul", [ref, factor])]), factor])


@aten("log_sigmoid")
def log_sigmoid(call: Call, self: object) -> Ref:
    """log sigmoid(x) = -softplus(-x)."""
    return call.emit("Neg", [call.emit("Softplus", [call.emit("Neg", [_floating(call, self)])])])


@aten("tanhshrink")
def tanhshrink(call: Call, self: object) -> Ref:
    """x - tanh(x)."""
    ref = _floating(call, self)
    return call.emit("Sub", [ref, call.emit("Tanh", [ref])])


@aten("softshrink", "hardshrink")
def shrink(call: Call, self: object, lambd: object = 0.5) -> Ref:
    """x moved towards zero by lambd (soft), or zeroed (hard), where |x| is over it or not."""
    ref, width = _floating(call, self), float(call.number(lambd, "lambd"))
    bias = width if call.operator.startswith("soft") else 0.0
    return call.emit("Shrink", [ref], {"lambd": width, "bias": bias})


@aten("threshold")
def threshold(call: Call, self: object, threshold: object, value: object) -> Ref:
    """x where x is over `threshold`, `value` elsewhere; max(x, t) where both are one number t."""
    ref, cut, other = _floating(call, self), call.number(threshold, "threshold"), call.number(value, "value")
    if cut == other:
        return clip(call, ref, cut, None)
    over = call.emit("Greater", [ref, call.constant(cut, ref.dtype, "threshold")])
    return call.emit("Where", [over, ref, call.constant(other, ref.dtype, "value")])


@aten("softmax", "log_softmax", "special_softmax", "special_log_softmax")
def softmax(call: Call, self: object, dim: object, dtype: object = None) -> Ref:
    """exp(x) / sum(exp(x)) along `dim`, or its logarithm."""
    ref = call.cast(call.tensor(self, "self"), call.dtype(dtype))
    operator = "LogSoftmax" if "log" in call.operator else "Softmax"
    return call.emit(operator, [_floating(call, ref)], {"axis": call.axis(dim, ref.rank)})


@aten("_softmax", "_log_softmax", "_safe_softmax")
def inner_softmax(call: Call, self: object, dim: object, half_to_float: object = False) -> Ref:
    """What `softmax` becomes inside PyTorch."""
    if call.flag(half_to_float is not None and half_to_float, "half_to_float"):
        raise call.refuse("half_to_float is not supported")
    ref = _floating(call, self)
    operator = "LogSoftmax" if "log" in call.operator else "Softmax"
    return call.emit(operator, [ref], {"axis": call.axis(dim, ref.rank)})


@aten("softmin")
def softmin(call: Call, self: object, dim: object, dtype: object = None) -> Ref:
    """softmax(-x)."""
    ref = call.cast(call.tensor(self, "self"), call.dtype(dtype))
    negated = call.emit("Neg", [_floating(call, ref)])
    return call.emit("Softmax", [negated], {"axis": call.axis(dim, ref.rank)})


@aten("glu")
def glu(call: Call, self: object, dim: object = -1) -> Ref:
    """a sigmoid(b), where a and b are the halves of x along `dim`."""
    ref = _floating(call, self)
    axis = call.axis(dim, ref.rank)
    if ref.shape[axis] % 2:
        raise call.refuse("the axis that is halved has an odd size")
    first, second = call.emitter.node(
        "Split", [ref], {"axis": axis, "num_outputs": 2}, outputs=2, name=f"{call.where}/halves"
    )
    return call.emit("Mul", [first, call.emit("Sigmoid", [second])])
