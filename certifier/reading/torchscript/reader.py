"""TorchScript archives -> graph, by reading: nothing of an upload is ever loaded, imported or run.

The zip's members are bytes in memory, its pickles describe data, and its code is parsed and evaluated symbolically.
Parameters keep their qualified names ("layer1.0.conv1.weight"), and a tensor that has two names is one constant.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

from certifier.errors import MalformedModel, ResourceLimitExceeded, UnsupportedModel, UnsupportedNode
from certifier.graph import Graph
from certifier.limits import Limits
from certifier.reading.emitting import Emitter, Ref
from certifier.reading.torchscript.archive import Archive, refuse_legacy
from certifier.reading.torchscript.code import Code, Definition
from certifier.reading.torchscript.evaluator import Evaluator
from certifier.reading.torchscript.inputs import Declared, declare_inputs
from certifier.reading.torchscript.modules import Objects
from certifier.reading.torchscript.operators import Operators
from certifier.reading.torchscript.pickle import read_pickle
from certifier.reading.torchscript.tensors import Tensors
from certifier.reading.torchscript.values import Cell, Method, Record

_OLDEST_VERSION, _NEWEST_VERSION = 1, 10
_MOST_VALUES = 1000
_FOLDED = (
    "the weights that spectral normalisation divides are computed once, in the model's own arithmetic, and kept as "
    "constants; they may differ from PyTorch's by its rounding"
)


def read_torchscript(data: bytes, *, limits: Limits, input_shape: tuple[int, ...] | None) -> Graph:
    """The graph of a traced, scripted or frozen module, for one input row.

    Shapes: `input_shape` is the whole shape of the input with batch axis 1; None where the archive tells it (the
    example of a trace with batch axis 1) or where the program multiplies its input with a matrix at once.
    Raises: MalformedModel, ResourceLimitExceeded, UnsupportedModel, UnsupportedNode (named as file:line); InvalidInput
    for `options.input_shape`.
    """
    limits.demand("model_bytes", len(data))
    refuse_legacy(data)
    try:
        return _read(data, limits, input_shape)
    except RecursionError as error:
        raise ResourceLimitExceeded("nesting", limit=1000, actual=1001, where="the program") from error


def _read(data: bytes, limits: Limits, input_shape: tuple[int, ...] | None) -> Graph:
    archive = Archive(data, limits=limits)
    archive.demand_program()
    version = _version(archive)
    emitter, code = Emitter(limits=limits), Code(archive)
    constants = read_pickle(archive.blob("constants.pkl"), folder="constants") if "constants.pkl" in archive else ()
    root = read_pickle(archive.blob("data.pkl"), folder="data")
    objects = Objects(root, constants, code, Tensors(archive, limits=limits), emitter)
    definition = objects.root.definition
    forward = definition.method("forward")
    if forward is None:
        raise UnsupportedModel(f"the module {objects.root.stub.qualified} has no method forward")
    method = Method(Definition(forward, definition.file), objects.root, "forward")
    operators = Operators(emitter, version=version)
    evaluator = Evaluator(code, objects, operators)
    declared = Declared(archive, objects, input_shape)
    given = declare_inputs(method, declared, evaluator, operators)
    result = evaluator.call(method, given, {}, method.definition.where)
    outputs = _outputs(result, operators, method)
    graph = emitter.graph(outputs)
    taken = {tensor.name for tensor in graph.inputs} | {name for node in graph.nodes for name in node.outputs}
    carried = {name: value for name, value in objects.estimates(limits) if name not in taken}
    notes = (*graph.notes, _FOLDED) if carried else graph.notes
    return replace(graph, constants={**carried, **graph.constants}, notes=notes)


def _version(archive: Archive) -> int:
    for name in ("version", ".data/version"):
        if name in archive:
            text = archive.blob(name, largest=64).strip()
            if not text.isdigit():
                raise MalformedModel("the archive's version is not a number")
            version = int(text)
            if not _OLDEST_VERSION <= version <= _NEWEST_VERSION:
                raise UnsupportedModel(
                    f"archive version {version} is outside the supported range {_OLDEST_VERSION} to {_NEWEST_VERSION}"
                )
            return version
    raise MalformedModel("the archive does not tell its version")


def _outputs(result: object, operators: Operators, method: Method) -> list[Ref]:
    """The tensors of what forward returns, in order."""
    where, refs, pending = method.definition.where, list[Ref](), [result]
    for count in itertools.count():
        if not pending:
            break
        if count + len(pending) > _MOST_VALUES:
            # Lists that hold one list twice, level by level, are small and mean very many values.
            raise ResourceLimitExceeded("outputs", limit=_MOST_VALUES, actual=count + len(pending), where=where)
        value = pending.pop()
        if isinstance(value, Cell):
            refs.append(operators.read(value, where, "return"))
        elif isinstance(value, (list, tuple)):
            pending.extend(value[::-1])
        elif isinstance(value, Record):
            pending.extend(value.values[::-1])
        elif isinstance(value, dict):
            pending.extend(list(value.values())[::-1])
        elif value is not None:
            raise UnsupportedNode(where, "return", "forward returns something that is no tensor")
    if not refs:
        raise UnsupportedNode(where, "return", "forward returns no tensor")
    return refs
