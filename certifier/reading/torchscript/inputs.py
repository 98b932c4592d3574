"""What the module's forward is given: tensors whose shapes the caller, the trace or the program tells."""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass

from certifier.errors import InvalidInput, UnsupportedModel
from certifier.reading.torchscript.archive import Archive
from certifier.reading.torchscript.evaluator import Evaluator
from certifier.reading.torchscript.modules import Objects
from certifier.reading.torchscript.operators import Operators, missing_shape
from certifier.reading.torchscript.pickle import TensorSpec, read_pickle
from certifier.reading.torchscript.tensors import dtype_of
from certifier.reading.torchscript.values import Cell, Memory, Method

_LARGEST_AXIS = 2**40


@dataclass(frozen=True)
class Declared:
    """What is known of the inputs before the program is read."""

    archive: Archive
    objects: Objects
    input_shape: tuple[int, ...] | None

    def traced(self) -> list[TensorSpec]:
        """The example inputs that a trace records (their shapes, not their values); empty if there are none."""
        if "traced_inputs.pkl" not in self.archive:
            return []
        saved = read_pickle(self.archive.blob("traced_inputs.pkl"), folder="traced_inputs")
        example = saved.get("forward") if isinstance(saved, dict) else None
        if not isinstance(example, list) or not all(isinstance(each, TensorSpec) for each in example):
            return []
        return example


def declare_inputs(method: Method, declared: Declared, evaluator: Evaluator, operators: Operators) -> list[object]:
    """The arguments of forward: tensors for its tensor parameters, the defaults of all others.

    Raises: InvalidInput, UnsupportedModel, ResourceLimitExceeded.
    """
    function = method.definition.node
    assert isinstance(function, ast.FunctionDef)
    parameters = function.args.args[1:]
    first_default = len(parameters) - len(function.args.defaults)
    required = parameters[: max(first_default, 0)]
    strange = [each.arg for each in required if not _is_tensor(each.annotation)]
    if strange or not parameters:
        what = f"the argument {strange[0]!r} of forward is no tensor" if strange else "forward takes no argument"
        raise UnsupportedModel(f"{what}; export a module that takes tensors alone")
    tensors = required or parameters[:1]
    example = declared.traced()
    given: list[object] = []
    for position, parameter in enumerate(parameters):
        if parameter in tensors:
            spec = example[position] if position < len(example) else None
            given.append(_input(parameter.arg, spec, len(tensors), declared, operators))
        else:
            given.append(evaluator.default(method, function.args.defaults[position - first_default]))
    return given


def _is_tensor(annotation: ast.expr | None) -> bool:
    return annotation is None or (isinstance(annotation, ast.Name) and annotation.id == "Tensor")


def _input(name: str, spec: TensorSpec | None, count: int, declared: Declared, operators: Operators) -> Cell:
    dtype = _dtype(spec, declared)
    shape = _shape(name, spec, count, declared)
    memory = Memory("")
    if shape is None:
        operators.pending = Cell(None, [memory])
        operators.pending_name, operators.pending_dtype = name, dtype
        return operators.pending
    batch_axis = len(shape) > 1 and shape[0] == 1
    return Cell(operators.emitter.input(name, dtype=dtype, shape=shape, batch_axis=batch_axis), [memory])


def _dtype(spec: TensorSpec | None, declared: Declared) -> str:
    """The trace's element type, or else that of the model's first floating-point tensor."""
    return dtype_of(spec) if spec is not None else declared.objects.floating_dtype() or "float32"


def _shape(name: str, spec: TensorSpec | None, count: int, declared: Declared) -> tuple[int, ...] | None:
    shape = declared.input_shape
    if shape is not None:
        if count > 1:
            raise UnsupportedModel(f"forward takes {count} tensors, but options.input_shape tells one shape")
        if any(isinstance(size, bool) or not isinstance(size, int) or not 0 < size < _LARGEST_AXIS for size in shape):
            raise InvalidInput("options.input_shape", f"{list(shape)} is not a list of sizes")
        if len(shape) > 1 and shape[0] != 1:
            raise InvalidInput("options.input_shape", f"the batch axis of {list(shape)} must be 1, for one input row")
        return shape
    if spec is not None and math.prod(spec.shape) > 0:
        if len(spec.shape) > 1 and spec.shape[0] != 1:
            raise missing_shape(f"the trace was made with shape {list(spec.shape)}")
        return spec.shape
    if count > 1:
        raise UnsupportedModel(
            f"forward takes {count} tensors ({name!r} among them), whose shapes a scripted archive does not tell; "
            "trace the module with one example row instead"
        )
    return None
