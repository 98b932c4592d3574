"""An exported program (`.pt2`, written by torch.export.save) -> graph, without PyTorch.

The program is JSON: nodes that apply ATen operators to named values.  It is followed node by node with the batch axis
at 1; weights are raw bytes.  Whatever would need unpickling or compiled code is refused.
"""

from __future__ import annotations

import re

from certifier.errors import MalformedModel, UnsupportedModel, UnsupportedNode
from certifier.graph import Graph
from certifier.limits import Limits
from certifier.reading.emitting import Emitter, Ref
from certifier.reading.exported.archive import (
    Archive,
    Json,
    element_type,
    mapping,
    read_exported_archive,
    sequence,
    text,
)
from certifier.reading.exported.arguments import argument, output_names
from certifier.reading.exported.program import Program, calls

_SYMBOL = re.compile(r"Symbol\('\w{1,64}'(, \w{1,64}=\w{1,64}){0,8}\)|\w{1,64}")


def read_exported(data: bytes, *, limits: Limits) -> Graph:
    """The graph of an exported program, for one input row.

    Raises: MalformedModel, UnsupportedModel, UnsupportedNode, ResourceLimitExceeded.
    """
    archive = read_exported_archive(data, limits=limits)
    module = mapping(archive.program, "graph_module")
    graph, signature = mapping(module, "graph"), mapping(module, "signature")
    emitter = Emitter(limits=limits)
    program = Program(emitter=emitter, graph=graph)
    _bind_inputs(program, archive, signature)
    program.run()
    outputs = _outputs(program, signature)
    if not outputs:
        raise UnsupportedModel("the exported program has no tensor among its outputs")
    return emitter.graph(outputs)


def calls_of(data: bytes, *, limits: Limits) -> tuple[list[tuple[str, str]], list[UnsupportedNode]]:
    """Where each operator of an exported program is applied and its name, and the refusals of all that are unknown.

    Raises: MalformedModel, UnsupportedModel, ResourceLimitExceeded.
    """
    graph = mapping(mapping(read_exported_archive(data, limits=limits).program, "graph_module"), "graph")
    limits.demand("nodes", len(sequence(graph, "nodes")))
    found = calls(graph)
    unknown = [refusal for _, _, refusal in found if refusal is not None]
    return [(where, operator) for where, operator, _ in found], unknown


def _bind_inputs(program: Program, archive: Archive, signature: Json) -> None:
    specs, formal = sequence(signature, "input_specs"), sequence(program.graph, "inputs")
    if len(specs) != len(formal):
        raise MalformedModel(f"the exported program declares {len(specs)} inputs and takes {len(formal)}")
    metas = mapping(program.graph, "tensor_values")
    for spec in specs:
        kind, content = next(iter(spec.items()), ("", None))
        if not isinstance(content, dict) or len(spec) != 1:
            raise MalformedModel("an input of the exported program is not one tagged value")
        keys = {"parameter": "parameter_name", "buffer": "buffer_name", "tensor_constant": "tensor_constant_name"}
        if kind in keys:
            name, original = text(mapping(content, "arg"), "name"), text(content, keys[kind])
            array = archive.tensor(original, limits=program.emitter.limits)
            program.define(name, program.emitter.constant(array, original))
            program.memory.fresh([name])
            program.memory.keep(name)
        elif kind == "constant_input":
            value = mapping(content, "value")
            program.define(text(content, "name"), argument(value, program.lookup, text(content, "name")))
            program.memory.fresh([text(content, "name")])
        elif kind == "user_input":
            _bind_user_input(program, metas, mapping(content, "arg"))
        else:
            raise UnsupportedModel(f"the exported program takes an input of the kind {kind!r}, which is not supported")


def _bind_user_input(program: Program, metas: Json, given: Json) -> None:
    (name,) = output_names([given], "input") if "as_tensor" in given else (None,)
    if not isinstance(name, str):
        raise UnsupportedModel("the exported program takes an input that is not a tensor")
    meta = mapping(metas, name)
    sizes = [_size(size, name, axis) for axis, size in enumerate(sequence(meta, "sizes"))]
    batch_axis = bool(sizes) and (sizes[0] is None or (sizes[0] == 1 and len(sizes) > 1))
    shape = tuple(1 if size is None else size for size in sizes)
    ref = program.emitter.input(name, dtype=element_type(meta, name), shape=shape, batch_axis=batch_axis)
    program.define(name, ref)
    program.memory.fresh([name])


def _size(size: Json, name: str, axis: int) -> int | None:
    """The size of one axis of an input; None for a batch axis of any size."""
    if "as_int" in size:
        number = size["as_int"]
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise MalformedModel(f"axis {axis} of input {name!r} has no size")
        return number
    expression = size.get("as_expr")
    symbol = expression.get("expr_str") if isinstance(expression, dict) else None
    if axis == 0 and isinstance(symbol, str) and _SYMBOL.fullmatch(symbol):
        return None
    raise UnsupportedModel(
        f"axis {axis} of input {name!r} has no fixed size; export the model with fixed sizes for every axis but the "
        "batch"
    )


def _outputs(program: Program, signature: Json) -> list[Ref]:
    refs = []
    for spec in sequence(signature, "output_specs"):
        kind, content = next(iter(spec.items()), ("", None))
        if kind == "user_input_mutation":
            continue
        if kind != "user_output" or not isinstance(content, dict):
            raise UnsupportedModel(
                f"the exported program has an output of the kind {kind!r}; export it after model.eval(), without state"
            )
        value = argument(content.get("arg"), program.lookup, "output")
        if isinstance(value, Ref):
            refs.append(value)
        elif value is not None:
            raise UnsupportedModel("the exported program has an output that is not a tensor")
    return refs
