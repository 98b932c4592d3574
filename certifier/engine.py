"""The engine that serves: onnxruntime on the CPU, one input row at a time, with its freedom pinned down.

One row at a time, because the graph that was bounded is that of one row, and because batched answers need not be
bitwise equal to single ones (docs/adr/0004).  Telemetry is switched off before onnxruntime is first imported.
"""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime
from numpy._core._multiarray_umath import __cpu_features__  # pyright: ignore[reportAttributeAccessIssue]
from numpy.typing import NDArray

from certifier.documents import EngineDescription
from certifier.errors import UnsupportedModel
from certifier.graph import Tensor

DTYPES = {"float32": np.float32, "float64": np.float64, "float16": np.float16}


OPTIONS = {
    # One thread, so that no sum is split by how many there are.
    "intra_op_num_threads": "1",
    "inter_op_num_threads": "1",
    "execution_mode": "sequential",
    # No fusion: the weights that run are the weights that were bounded.
    "graph_optimization_level": "disabled",
    "enable_cpu_mem_arena": "0",
    "enable_mem_pattern": "0",
    "session.set_denormal_as_zero": "0",
    "session.intra_op.allow_spinning": "0",
    # No products of rounded factors (A3).
    "mlas.enable_gemm_fastmath_arm64_bfloat16": "0",
}
"""Everything about a session that can change what it computes, as certificates name it."""


def describe_engine() -> EngineDescription:
    """The engine that this process would serve with."""
    return EngineDescription(name=engine_name(), options=dict(OPTIONS), cpu=sorted(_instruction_sets()))


def _instruction_sets() -> list[str]:
    """Those that numpy finds, which looks for the ones that kernels are chosen by."""
    return [name for name, is_there in __cpu_features__.items() if is_there]


def _session_options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(OPTIONS["intra_op_num_threads"])
    options.inter_op_num_threads = int(OPTIONS["inter_op_num_threads"])
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    for key, value in OPTIONS.items():
        if "." in key:
            options.add_session_config_entry(key, value)
    options.log_severity_level = 3
    return options


def engine_name() -> str:
    """The engine and its version, as certificates name it."""
    return f"onnxruntime {onnxruntime.__version__}"


class Engine:
    """One session over a served model; `run` may be called from several threads."""

    def __init__(self, served_model: bytes, source: Tensor) -> None:
        if source.dtype not in DTYPES:
            raise UnsupportedModel(f"the engine cannot be fed {source.dtype}")
        self.source = source
        try:
            self._session = onnxruntime.InferenceSession(
                served_model, sess_options=_session_options(), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises its own family of C++ errors
            raise UnsupportedModel(f"the engine cannot load the model: {error}") from error
        self._outputs = [output.name for output in self._session.get_outputs()]

    def cast(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The rows as the engine sees them: rounded into its input type, given back as float64."""
        with np.errstate(over="ignore"):
            return rows.astype(DTYPES[self.source.dtype]).astype(np.float64)

    def run(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The engine's (first) output.  Shapes: [B, n] -> [B, c]; every row is one call.

        Raises: UnsupportedModel if a kernel refuses what the loaded model asks of it.
        """
        return np.array([self._run_row(row, self._outputs[:1])[0].reshape(-1) for row in rows], dtype=np.float64)

    def observe(self, row: NDArray[np.float64]) -> dict[str, NDArray[np.floating]]:
        """Every output of the model, by name and flat, in its own type.  Shapes: row [n].

        Raises: UnsupportedModel if a kernel refuses what the loaded model asks of it.
        """
        values = self._run_row(row, self._outputs)
        return {name: value.reshape(-1) for name, value in zip(self._outputs, values, strict=True)}

    def _run_row(self, row: NDArray[np.float64], outputs: list[str]) -> list[NDArray[np.floating]]:
        with np.errstate(over="ignore"):
            typed = row.astype(DTYPES[self.source.dtype]).reshape(self.source.shape)
        try:
            return [np.asarray(value) for value in self._session.run(outputs, {self.source.name: typed})]
        except Exception as error:  # some kernels check their attributes only when they run
            raise UnsupportedModel(f"the engine cannot run the model: {error}") from error
