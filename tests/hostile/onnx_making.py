"""Hostile ONNX models, and the refusal that each must get."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from certifier.errors import CertifierError
from tests.building import certify_bytes

RELU = helper.make_node("Relu", ["x"], ["y"])
ADD = helper.make_node("Add", ["x", "c"], ["y"])


def tensor_of(name: str, value: Any) -> onnx.TensorProto:
    array = np.asarray(value)
    return numpy_helper.from_array(array.astype(np.int64 if array.dtype.kind in "iu" else np.float32), name)


def model_of(
    *nodes: onnx.NodeProto,
    constants: Sequence[onnx.TensorProto] = (),
    shape: Sequence[int | None] = (None, 3),
    functions: Sequence[onnx.FunctionProto] = (),
    opsets: Sequence[tuple[str, int]] = (("", 18),),
) -> onnx.ModelProto:
    """A float32 model from `x` to `y`."""
    graph = helper.make_graph(
        list(nodes),
        "hostile",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * len(shape))],
        list(constants),
    )
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets]
    return helper.make_model(graph, opset_imports=imports, ir_version=10, functions=list(functions))


def refusal_of(model: onnx.ModelProto | bytes, kind: type[CertifierError], **settings_: Any) -> CertifierError:
    """The refusal, which took neither long nor much memory."""
    data = model if isinstance(model, bytes) else model.SerializeToString()
    tracemalloc.start()
    try:
        with pytest.raises(kind) as refused:
            certify_bytes(data, **settings_)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * 2**20
    return refused.value
