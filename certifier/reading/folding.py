"""Constant folding: a node whose inputs are all known is replaced by its value.

Only operators of the allow-list are evaluated, by the reference implementation of the standard, and only after shape
inference has shown that the result is within the limits.  The folded value is what is bounded *and* what is served.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx.shape_inference
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from certifier.errors import MalformedModel, UnsupportedNode
from certifier.graph import Array, Node
from certifier.limits import Limits
from certifier.reading.writing import make_node

FOLDABLE = frozenset(
    """Abs Add And ArgMax ArgMin Atan BatchNormalization Cast CastLike Ceil Celu Clip Concat Constant
    ConstantOfShape Conv Cos CumSum DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand
    EyeLike Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater
    GreaterOrEqual GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization IsNaN LayerNormalization
    LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization MatMul Max Mean Min Mish Mod Mul Neg NonZero Not
    OneHot Or PRelu Pad Pow QuantizeLinear RMSNormalization Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum
    ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Round
    ScatterElements ScatterND Selu Shape Sigmoid Sign Sin Size Slice Softmax Softplus Softsign SpaceToDepth Split
    Sqrt Squeeze Sub Sum Tan Tanh Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor""".split()
)


def fold(node: Node, values: Mapping[str, Array], *, opset: int, limits: Limits) -> dict[str, Array]:
    """The outputs of a node whose inputs are all in `values`.

    Raises: UnsupportedNode, ResourceLimitExceeded, MalformedModel.
    """
    if node.domain != "" or node.operator not in FOLDABLE:
        raise UnsupportedNode(node.name, node.operator, "cannot be evaluated ahead of time")
    named = [name for name in node.inputs if name]
    if node.operator in ("DequantizeLinear", "QuantizeLinear"):
        # The reference knows them from this version on, which only added element types.
        opset = max(opset, 19)
    model = _single_node_model(node, {name: values[name] for name in named}, opset)
    _demand_size(node, model, limits)
    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(model).run(None, {})
    except Exception as error:  # the reference raises whatever its numpy code raises
        raise MalformedModel(f"node {node.name!r} ({node.operator}) cannot be evaluated: {error}") from error
    outputs = [name for name in node.outputs if name]
    folded = {name: np.asarray(value) for name, value in zip(outputs, results, strict=True)}
    for value in folded.values():
        limits.demand("elements", value.size, f"node {node.name!r}")
    return folded


def _single_node_model(node: Node, values: Mapping[str, Array], opset: int) -> onnx.ModelProto:
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.outputs if name]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    graph = helper.make_graph([make_node(node)], "folding", [], outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def _demand_size(node: Node, model: onnx.ModelProto, limits: Limits) -> None:
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:  # shape inference raises several unrelated kinds of error
        raise MalformedModel(f"node {node.name!r} ({node.operator}): {error}") from error
    for value in inferred.graph.output:
        kind = value.type.tensor_type
        known = kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim)
        if known:
            size = 1
            for dim in kind.shape.dim:
                size *= dim.dim_value
            limits.demand("elements", size, f"node {node.name!r} ({node.operator})")
        elif node.operator in (
            "Range",
            "ConstantOfShape",
            "Expand",
            "Tile",
            "OneHot",
            "Upsample",
            "Pad",
            "EyeLike",
        ):
            _demand_amplified(node, model, limits)


def _demand_amplified(node: Node, model: onnx.ModelProto, limits: Limits) -> None:
    """Shape inference could not tell the size, so bound it from the inputs that set it."""
    arrays = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    where = f"node {node.name!r} ({node.operator})"
    if node.operator == "Range" and len(arrays) == 3:
        start, stop, step = (float(array.reshape(-1)[0]) for array in arrays)
        count = (stop - start) / step if step else float("inf")
        limits.demand("elements", max(0.0, count), where)
        return
    raise UnsupportedNode(node.name, node.operator, "its size cannot be told ahead of evaluating it")
