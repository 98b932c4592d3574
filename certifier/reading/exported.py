"""An exported program (`.pt2`, written by torch.export.save) -> graph, without PyTorch.

The program is JSON: nodes that apply ATen operators to named values.  It is followed node by node with the batch axis
at 1; weights are raw bytes.  Whatever would need unpickling or compiled code is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from certifier.errors import MalformedModel, UnsupportedModel, UnsupportedNode
from certifier.graph import Graph
from certifier.limits import Limits
from certifier.reading import aten_registry
from certifier.reading.aten import lower
from certifier.reading.emitting import Emitter, Ref
from certifier.reading.exported_archive import (
    Archive,
    Json,
    element_type,
    mapping,
    read_exported_archive,
    sequence,
    text,
)
from certifier.reading.exported_arguments import SCALAR_FUNCTIONS, argument, names, output_names
from certifier.reading.exported_memory import Memory

_SYMBOL = re.compile(r"Symbol\('\w{1,64}'(, \w{1,64}=\w{1,64}){0,8}\)|\w{1,64}")
_ATEN = re.compile(r"torch\.ops\.aten\.(\w{1,128})\.\w{1,128}")
_PASSES_THROUGH = ("wrap_with_set_grad_enabled", "wrap_with_autocast")
_DEEPEST_CALL = 16


def read_exported(data: bytes, *, limits: Limits) -> Graph:
    """The graph of an exported program, for one input row.

    Raises: MalformedModel, UnsupportedModel, UnsupportedNode, ResourceLimitExceeded.
    """
    archive = read_exported_archive(data, limits=limits)
    module = mapping(archive.program, "graph_module")
    graph, signature = mapping(module, "graph"), mapping(module, "signature")
    emitter = Emitter(limits=limits)
    program = _Program(emitter=emitter, graph=graph)
    _bind_inputs(program, archive, signature)
    program.run()
    outputs = _outputs(program, signature)
    if not outputs:
        raise UnsupportedModel("the exported program has no tensor among its outputs")
    return emitter.graph(outputs)


@dataclass(kw_only=True)
class _Program:
    """One graph being followed: its values by name, and the memory that they are in."""

    emitter: Emitter
    graph: Json
    depth: int = 0
    values: dict[str, object] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)

    def define(self, name: str, value: object) -> None:
        """`name` stands for `value` from here on; a name stands for one value only."""
        if name in self.values:
            raise MalformedModel(f"the exported program computes {name!r} twice")
        self.values[name] = value

    def lookup(self, name: str) -> object:
        """The value called `name`."""
        if name not in self.values:
            raise MalformedModel(f"the exported program reads {name!r}, which nothing before it computes")
        return self.values[name]

    def run(self) -> None:
        """Follow every node in order."""
        nodes = sequence(self.graph, "nodes")
        self.emitter.limits.demand("nodes", len(nodes))
        last_read = {name: position for position, node in enumerate(nodes) for name in names(node.get("inputs"))}
        last_read |= dict.fromkeys(names(self.graph.get("outputs")), len(nodes))
        for position, node in enumerate(nodes):
            self._apply(node, last_read, position)

    def _apply(self, node: Json, last_read: Mapping[str, int], position: int) -> None:
        target, where = text(node, "target"), _where(node, position)
        inputs = sequence(node, "inputs")
        outputs = output_names(sequence(node, "outputs"), where)
        if target.removeprefix("torch.ops.higher_order.") in _PASSES_THROUGH:
            self._call(inputs, outputs, where, target)
            return
        positional, keywords = self._arguments(inputs, where)
        if target in SCALAR_FUNCTIONS:
            self._define_all(outputs, _scalar(target, positional, where), where, target)
            return
        match = _ATEN.fullmatch(target)
        if match is None:
            raise UnsupportedNode(where, target.removeprefix("torch.ops."), "only ATen operators are supported")
        operator = match[1]
        result = lower(self.emitter, operator, positional, keywords, where=where)
        flat = self._define_all(outputs, result, where, operator)
        first = next(iter(names([item.get("arg") for item in inputs[:1]])), None)
        if operator.endswith("_") and not operator.endswith("__") and first is not None:
            self._write(first, flat, result, (operator, where), last_read, position)
        elif aten_registry.shares_memory(operator):
            for owner in [name for item in inputs for name in names(item.get("arg"))][:1]:
                self.memory.share(flat, owner)
        else:
            self.memory.fresh(flat)

    def _arguments(self, inputs: list[Json], where: str) -> tuple[list[object], dict[str, object]]:
        positional: list[object] = []
        keywords: dict[str, object] = {}
        for item in inputs:
            value = argument(item.get("arg"), self.lookup, where)
            if item.get("kind") == 2:
                keywords[text(item, "name")] = value
            else:
                positional.append(value)
        return positional, keywords

    def _define_all(self, outputs: list[object], result: object, where: str, operator: str) -> list[str]:
        """Give every name of a node its part of the result; the names that there are."""
        if not outputs:
            return []
        single = len(outputs) == 1
        if single and not isinstance(outputs[0], list) and isinstance(result, (list, tuple)):
            result = result[0] if result else None
        parts = [result] if single else result
        if not isinstance(parts, (list, tuple)) or len(parts) < len(outputs):
            raise UnsupportedNode(where, operator, f"gives one result where {len(outputs)} are named")
        flat: list[str] = []
        for name, part in zip(outputs, parts, strict=False):
            if isinstance(name, list):
                if not isinstance(part, (list, tuple)) or len(part) != len(name):
                    raise UnsupportedNode(where, operator, f"gives another number of parts than the {len(name)} named")
                for each, value in zip(name, part, strict=True):
                    self.define(each, value)
                    flat.append(each)
            elif isinstance(name, str) and name:
                self.define(name, part)
                flat.append(name)
        return flat

    def _write(
        self,
        target: str,
        results: list[str],
        result: object,
        place: tuple[str, str],
        last_read: Mapping[str, int],
        position: int,
    ) -> None:
        """What is written in place is the new value of every name of its memory."""
        operator, where = place
        old = self.values[target]
        changed = not (isinstance(result, Ref) and isinstance(old, Ref) and result.name == old.name)
        if changed and self.memory.is_kept(target):
            raise UnsupportedNode(where, operator, "changes a parameter, a buffer or a value of an outer program")
        if changed:
            for name in self.memory.others(target):
                if last_read.get(name, -1) > position and name not in results:
                    raise UnsupportedNode(
                        where, operator, f"writes in place to what {name!r}, which is read again, may be a view of"
                    )
            self.values[target] = result
        self.memory.share(results, target)

    def _call(self, inputs: list[Json], outputs: list[object], where: str, target: str) -> None:
        """Follow a sub-graph that only changes how gradients are kept; under autocast, only if it is switched off."""
        if self.depth >= _DEEPEST_CALL:
            raise UnsupportedNode(where, target, "its sub-graphs are nested too deeply")
        arguments = [item.get("arg") for item in inputs]
        graphs = [item["as_graph"] for item in arguments if isinstance(item, dict) and "as_graph" in item]
        place = next((i for i, item in enumerate(arguments) if isinstance(item, dict) and "as_graph" in item), 0)
        if len(graphs) != 1 or not isinstance(graphs[0], dict):
            raise UnsupportedNode(where, target, "does not call exactly one sub-graph")
        if target.endswith("autocast") and not any(item == {"as_bool": False} for item in arguments[:place]):
            raise UnsupportedNode(where, target, "autocast changes element types; export the model without it")
        graph = mapping(graphs[0], "graph")
        inner = _Program(emitter=self.emitter, graph=graph, depth=self.depth + 1)
        formal = output_names(sequence(graph, "inputs"), where)
        actual = arguments[place + 1 :]
        if len(formal) != len(actual):
            raise MalformedModel(f"node {where!r} calls its sub-graph with {len(actual)} arguments, not {len(formal)}")
        for name, value in zip(formal, actual, strict=True):
            if isinstance(name, str):
                inner.define(name, argument(value, self.lookup, where))
                inner.memory.fresh([name])
                inner.memory.keep(name)
        inner.run()
        results = [argument(item, inner.lookup, where) for item in sequence(graph, "outputs")]
        listed = len(outputs) == 1 and isinstance(outputs[0], list)
        flat = self._define_all(outputs, results if listed or len(outputs) > 1 else results[:1], where, target)
        self.memory.fresh(flat)
        given = [str(name) for name in output_names(sequence(graph, "outputs"), where) if isinstance(name, str)]
        for name in flat:
            # What the sub-graph gives may be a view of what it was given, or of something else that it gives.
            if any(inner.memory.is_kept(each) or set(inner.memory.others(each)) & set(given) for each in given):
                self.memory.keep(name)


def _scalar(target: str, positional: list[object], where: str) -> object:
    if not all(isinstance(value, (bool, int, float)) for value in positional):
        raise UnsupportedNode(where, target, "is supported for known numbers only")
    try:
        value = SCALAR_FUNCTIONS[target](*positional)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UnsupportedNode(where, target, f"cannot be computed: {error}") from error
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        # Without this, forty products in a row would not fit any memory.
        raise UnsupportedNode(where, target, "gives a number that does not fit 64 bits")
    return value


def _where(node: Json, position: int) -> str:
    """How people find the node: the path of its module, and its own name."""
    name = node.get("name")
    own = name if isinstance(name, str) and name else f"node_{position}"
    metadata = node.get("metadata")
    stack = metadata.get("nn_module_stack") if isinstance(metadata, dict) else None
    parts = stack.rsplit(";", 1)[-1].split(",") if isinstance(stack, str) else []
    path = parts[1] if len(parts) == 3 and re.fullmatch(r"[\w.]{1,200}", parts[1]) else ""
    return f"{path}/{own}"[:256] if path else own[:256]


def _bind_inputs(program: _Program, archive: Archive, signature: Json) -> None:
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
        elif kind == "user_input":
            _bind_user_input(program, metas, mapping(content, "arg"))
        else:
            raise UnsupportedModel(f"the exported program takes an input of the kind {kind!r}, which is not supported")


def _bind_user_input(program: _Program, metas: Json, given: Json) -> None:
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


def _outputs(program: _Program, signature: Json) -> list[Ref]:
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
