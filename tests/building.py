"""Small ONNX models for the tests, an independent evaluation of them in float64, and the real `certify` on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from certifier.certification import CertifiedModel, certify
from certifier.documents import CertifyOptions
from certifier.limits import Limits
from certifier.prediction import Predictor
from certifier.search.state import Seal, SearchState

Array = NDArray[Any]

SEAL = Seal(key=b"the key of the tests")
REAL = CertifyOptions(method="product", arithmetic="real")
"""For tests of what exact arithmetic promises, to the last digit."""


class Model:
    """An ONNX graph under construction over one input `x` of `row_shape` per row; the batch axis is dynamic.

    Every weight is given in float64 and must be exact in `dtype`, so that `reference` evaluates the same network.
    """

    def __init__(self, *row_shape: int, dtype: Any = np.float32, opset: int = 18, ir_version: int = 10) -> None:
        self.row_shape, self.dtype, self.opset, self.ir_version = row_shape, np.dtype(dtype), opset, ir_version
        self.nodes: list[tuple[str, list[str], list[str], dict[str, Any]]] = []
        self.constants: dict[str, Array] = {}
        self.output = "x"

    def __repr__(self) -> str:
        lines = [
            f"{op}({', '.join(ins)}) -> {', '.join(outs)} {attributes}" for op, ins, outs, attributes in self.nodes
        ]
        return f"x{list(self.row_shape)} {self.dtype}: " + "; ".join(lines)

    def constant(self, value: Any, *, name: str | None = None) -> str:
        """A named constant; integers stay 64-bit integers."""
        array = np.asarray(value)
        array = array.astype(np.int64) if array.dtype.kind in "iu" else array.astype(np.float64)
        name = name or f"c{len(self.constants)}"
        self.constants[name] = array
        return name

    def add(self, operator: str, *operands: Any, outputs: Sequence[str] = (), **attributes: Any) -> str:
        """Append a node; an operand is a value's name or an array, which becomes a constant.

        The first output becomes the model's output; its name is returned.
        """
        inputs = [operand if isinstance(operand, str) else self.constant(operand) for operand in operands]
        names = list(outputs) or [f"v{len(self.nodes)}"]
        self.nodes.append((operator, inputs, names, attributes))
        self.output = names[0]
        return names[0]

    def then(self, operator: str, *operands: Any, **attributes: Any) -> str:
        """Append a node that reads the present output first."""
        return self.add(operator, self.output, *operands, **attributes)

    def linear(self, weight: Any, bias: Any = None) -> str:
        """y = W x + b.  Shapes: weight [out, in], bias [out]."""
        operands = [np.asarray(weight, dtype=np.float64).T] + ([] if bias is None else [np.asarray(bias, float)])
        return self.then("Gemm", *operands)

    def proto(self, dtype: Any = None) -> onnx.ModelProto:
        """The model in `dtype` (its own by default)."""
        kind = np.dtype(dtype or self.dtype)
        code = helper.np_dtype_to_tensor_dtype(kind)
        initializers = [
            numpy_helper.from_array(value if value.dtype == np.int64 else value.astype(kind), name)
            for name, value in self.constants.items()
        ]
        nodes = [helper.make_node(op, ins, outs, **attributes) for op, ins, outs, attributes in self.nodes]
        graph = helper.make_graph(
            nodes,
            "small",
            [helper.make_tensor_value_info("x", code, ["N", *self.row_shape])],
            [helper.make_tensor_value_info(self.output, code, None)],
            initializers,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=self.ir_version
        )
        # The checker wants the output's rank, which shape inference knows.
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph.output[0]
        if inferred.type.tensor_type.HasField("shape"):
            model.graph.output[0].CopyFrom(inferred)
        return model

    def data(self) -> bytes:
        """The model as ONNX bytes."""
        return self.proto().SerializeToString()

    def reference(self, *, batched: bool = False) -> Reference:
        """The network in float64, by the reference implementation of the standard."""
        return Reference(self, batched=batched)


def _windows(x: Array, taps: Sequence[int], strides: Sequence[int] | None, pads: Sequence[int] | None) -> Array:
    """Every window of two spatial axes, padding as NaN.  Shapes: [N, C, H, W] -> [N, C, H', W', taps]."""
    top, left, bottom, right = pads or (0, 0, 0, 0)
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, tuple(taps), axis=(2, 3))  # pyright: ignore
    down, across = strides or (1, 1)
    kept = windows[:, :, ::down, ::across]
    return kept.reshape(*kept.shape[:4], -1)


class MaxPool(OpRun):
    """The largest entry of each window; the reference's own poolings fail on unequal strides and pads."""

    def _run(self, x, kernel_shape=(1, 1), strides=None, pads=None, **_):
        return (np.nanmax(_windows(x, kernel_shape, strides, pads), axis=-1),)


class AveragePool(OpRun):
    """The mean of each window, with or without its padding."""

    def _run(self, x, kernel_shape=(1, 1), strides=None, pads=None, count_include_pad=0, **_):
        windows = _windows(x, kernel_shape, strides, pads)
        return (np.nan_to_num(windows).mean(axis=-1) if count_include_pad else np.nanmean(windows, axis=-1),)


class LpPool(OpRun):
    """The p-norm of each window."""

    def _run(self, x, kernel_shape=(1, 1), strides=None, pads=None, p=2, **_):
        powers = np.abs(np.nan_to_num(_windows(x, kernel_shape, strides, pads))) ** p
        return (powers.sum(axis=-1) ** (1 / p),)


class Reference:
    """An evaluation that shares no code with the library.  Shapes: [B, n] -> [B, c], both flat.

    `batched` evaluates all rows at once, for networks whose rows do not mix.
    """

    def __init__(self, model: Model, *, batched: bool) -> None:
        self._row_shape, self._batched = model.row_shape, batched
        self._evaluator = ReferenceEvaluator(model.proto(np.float64), new_ops=[MaxPool, AveragePool, LpPool])

    def __call__(self, rows: Array) -> Array:
        batch = np.asarray(rows, dtype=np.float64).reshape(-1, *self._row_shape)
        if self._batched:
            return self._run(batch).reshape(len(batch), -1)
        return np.array([self._run(row[None]).reshape(-1) for row in batch])

    def _run(self, batch: Array) -> Array:
        outputs: Any = self._evaluator.run(None, {"x": batch})
        return np.asarray(outputs[0], dtype=np.float64)

    def jacobian(self, point: Array, *, step: float = 1e-6) -> Array:
        """Secants along every coordinate.  Shapes: [n] -> [c, n]; exact for affine networks but for rounding."""
        moves = step * np.eye(point.size)
        return ((self(point + moves) - self(point - moves)) / (2 * step)).T


def sum_of_two_inputs(*, opset: int = 17) -> bytes:
    """(x, y) -> x + y: each input alone has constant 1, both together have the square root of 2."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in ("x", "y", "z")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "y"], ["z"])], "sum", values[:2], values[2:])
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()


def certify_bytes(
    data: bytes,
    *,
    options: CertifyOptions | None = None,
    limits: Limits | None = None,
    state: SearchState | None = None,
    seal: Seal = SEAL,
) -> CertifiedModel:
    """The real `certify`, without progress; by the product of norms where no options are given."""
    return certify(
        data,
        name="model",
        version=1,
        options=options or CertifyOptions(method="product"),
        limits=limits or Limits(),
        state=state or SearchState(),
        seal=seal,
        progress=lambda news: None,
    )


def certify_model(model: Model, **settings: Any) -> CertifiedModel:
    """`certify_bytes` of a model under construction."""
    return certify_bytes(model.data(), **settings)


def predictor_of(certified: CertifiedModel) -> Predictor:
    """What serves the certified model."""
    return Predictor(
        certificate=certified.certificate, served_model=certified.served_model, constants=certified.constants
    )


def single(values: Any) -> Array:
    """The nearest float32 numbers, as float64."""
    return np.asarray(values, dtype=np.float32).astype(np.float64)
