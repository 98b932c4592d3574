"""Another verifier of certificate files, written apart from the first: ball arithmetic, dense chains only.

It reads the file and the ONNX model by itself, and computes the constants that the multipliers imply in balls of 200
bits, so that no rounding has to be argued about.  It imports nothing of the library.
"""

from __future__ import annotations

import json
from typing import Any

import onnx
import safetensors.numpy
from flint import arb, arb_mat, ctx
from onnx import numpy_helper

BITS = 200
SLOPES = {
    "Relu": (0.0, 1.0),
    "Tanh": (0.0, 1.0),
    "Sigmoid": (0.0, 0.25),
    "Softplus": (0.0, 1.0),
}


def holds(model: bytes, certificate: bytes) -> bool:
    """Whether every constant of a pair follows from one family of multipliers, or from the norms of the layers."""
    ctx.prec = BITS
    size = int.from_bytes(certificate[:8], "little")
    tensors = safetensors.numpy.load(certificate)
    document = json.loads(json.loads(json.loads(certificate[8 : 8 + size])["__metadata__"]["lipcert"])["certificate"])
    layers, slopes = _chain(model)
    pairs = tensors["constants/pairs"]
    count = len(pairs)
    families = sorted({name.split("/")[1] for name in tensors if name.startswith("multipliers/")})
    forms = [
        _form(layers, slopes, [tensors[f"multipliers/{family}/{k}"] for k in range(len(slopes))]) for family in families
    ]
    scale = _product(layers, slopes, list(document["norms"].values()))
    last = layers[-1]
    if scale is not None:
        forms.append(last * last.transpose() * (scale * scale))
    known = [form for form in forms if form is not None]
    for t in range(count):
        for j in range(t):
            square = arb(float(pairs[t, j])) ** 2
            if not any(square >= form[t, t] + form[j, j] - form[t, j] - form[j, t] for form in known):
                return False
    return True


def implied(model: bytes, certificate: bytes, family: str) -> arb_mat | None:
    """Q of one family of multipliers."""
    ctx.prec = BITS
    tensors = safetensors.numpy.load(certificate)
    layers, slopes = _chain(model)
    return _form(layers, slopes, [tensors[f"multipliers/{family}/{k}"] for k in range(len(slopes))])


def _chain(model: bytes) -> tuple[list[arb_mat], list[tuple[float, float]]]:
    graph = onnx.load_model_from_string(model).graph
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    layers, slopes = [], []
    for node in graph.node:
        if node.op_type == "Gemm":
            layers.append(_matrix(constants[node.input[1]].T))
        else:
            slopes.append(SLOPES[node.op_type])
    assert len(layers) == len(slopes) + 1
    return layers, slopes


def _form(layers: list[arb_mat], slopes: list[tuple[float, float]], families: list[Any]) -> arb_mat | None:
    """Q with (e_t - e_j)ᵀ Q (e_t - e_j) >= L_tj²; None where the multipliers prove nothing."""
    precision = _diagonal([1.0] * layers[0].ncols())
    for weight, (lower, upper), family in zip(layers[:-1], slopes, families, strict=True):
        if len(family) != weight.nrows() or not all(float(each) > 0 for each in family):
            return None
        own = _diagonal([float(each) for each in family])
        first = precision + weight.transpose() * own * weight * (arb(lower) * arb(upper))
        if not _is_positive(first):
            return None
        cross = own * weight * ((arb(lower) + arb(upper)) / 2)
        precision = own - cross * first.inv() * cross.transpose()
        if not _is_positive(precision):
            return None
    return layers[-1] * precision.inv() * layers[-1].transpose()


def _product(layers: list[arb_mat], slopes: list[tuple[float, float]], norms: list[float]) -> arb | None:
    """The least product of claimed norms that are proved to be those of the layers before the last."""
    product = arb(1)
    for weight, (lower, upper) in zip(layers[:-1], slopes, strict=True):
        gram = weight * weight.transpose()
        proved = [norm for norm in sorted(norms) if _is_positive(_diagonal([norm**2] * weight.nrows()) - gram)]
        if not proved:
            return None
        product *= arb(proved[0]) * max(abs(lower), abs(upper))
    return product


def _is_positive(matrix: arb_mat) -> bool:
    """Certainly positive definite: every pivot of the elimination is certainly positive."""
    rows = [[matrix[i, j] for j in range(matrix.ncols())] for i in range(matrix.nrows())]
    for k, row in enumerate(rows):
        if not row[k] > 0:
            return False
        for other in rows[k + 1 :]:
            factor = other[k] / row[k]
            for j in range(k, len(row)):
                other[j] -= factor * row[j]
    return True


def _matrix(values: Any) -> arb_mat:
    return arb_mat([[arb(float(each)) for each in row] for row in values])


def _diagonal(values: list[Any]) -> arb_mat:
    return arb_mat([[values[i] if i == j else 0 for j in range(len(values))] for i in range(len(values))])
