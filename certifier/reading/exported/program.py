"""An exported program's graph, followed node by node: every ATen operator is lowered where it stands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from certifier.errors import MalformedModel, UnsupportedNode
from certifier.reading import quantised
from certifier.reading.aten import registry
from certifier.reading.aten.table import lower, unknown
from certifier.reading.aten.views import VIEWS, View
from certifier.reading.emitting import Emitter, Ref
from certifier.reading.exported.archive import Json, mapping, sequence, text
from certifier.reading.exported.arguments import SCALAR_FUNCTIONS, argument, names, output_names
from certifier.reading.exported.memory import Memory, Views

_ATEN = re.compile(r"torch\.ops\.aten\.(\w{1,128})\.\w{1,128}")
_PASSES_THROUGH = ("wrap_with_set_grad_enabled", "wrap_with_autocast")
_DEEPEST_CALL = 16


@dataclass(kw_only=True)
class Program:
    """One graph being followed: its values by name, and the memory that they are in."""

    emitter: Emitter
    graph: Json
    depth: int = 0
    values: dict[str, object] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)
    views: Views = field(default_factory=Views)

    def define(self, name: str, value: object) -> None:
        """`name` stands for `value` from here on; a name stands for one value only."""
        if name in self.values:
            raise MalformedModel(f"the exported program computes {name!r} twice")
        self.values[name] = value

    def lookup(self, name: str) -> object:
        """The value called `name`."""
        if name not in self.values:
            raise MalformedModel(f"the exported program reads {name!r}, which nothing before it computes")
        self.views.renew(name, self.values, self.emitter)
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
            self.memory.fresh(self._define_all(outputs, _scalar(target, positional, where), where, target))
            return
        match = _ATEN.fullmatch(target)
        if match is None:
            raise _foreign(target, where)
        operator = match[1]
        result = lower(self.emitter, operator, positional, keywords, where=where)
        flat = self._define_all(outputs, result, where, operator)
        owner = self._first_tensor(inputs)
        if operator.endswith("_") and not operator.endswith("__"):
            if owner is None or not (positional and isinstance(positional[0], Ref)):
                raise UnsupportedNode(where, operator, "writes in place to something other than a named tensor")
            self._write(owner, flat, result, (operator, where), last_read, position)
        elif registry.shares_memory(operator) and owner is not None:
            self.memory.share(flat, owner)
            if operator in VIEWS and self._reads_one_tensor(inputs) and isinstance(positional[0], Ref):
                several = isinstance(result, (list, tuple))
                if not several or len(flat) == len(result):
                    view = View(operator=operator, arguments=positional[1:], keywords=keywords, part=None)
                    self.views.add(flat, owner, view, several=several, where=where)
        else:
            self.memory.fresh(flat)

    def _first_tensor(self, inputs: list[Json]) -> str | None:
        """The name of the first tensor among the arguments, whose memory the result may be in."""
        for item in inputs:
            for name in sorted(names(item.get("arg"))):
                if isinstance(self.values.get(name), Ref):
                    return name
        return None

    def _reads_one_tensor(self, inputs: list[Json]) -> bool:
        read = [name for item in inputs for name in names(item.get("arg"))]
        return sum(isinstance(self.values.get(name), Ref) for name in read) == 1

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
            assert isinstance(result, Ref)
            known = self.views.written(target, result, self.values, (self.emitter, operator, where))
            for name in sorted(self.memory.others(target) - known):
                if last_read.get(name, -1) > position and name not in results:
                    raise UnsupportedNode(
                        where, operator, f"writes in place to what {name!r}, which is read again, may be a view of"
                    )
        self.memory.share(results, target)
        self.views.add(results, target, None, several=False, where=where)

    def _call(self, inputs: list[Json], outputs: list[object], where: str, target: str) -> None:
        """Follow a sub-graph that only changes how gradients are kept; under autocast, only if it is switched off."""
        if self.depth >= _DEEPEST_CALL:
            raise UnsupportedNode(where, target, "its sub-graphs are nested too deeply")
        arguments = [item.get("arg") for item in inputs]
        graphs = [item["as_graph"] for item in arguments if isinstance(item, dict) and "as_graph" in item]
        place = next((i for i, item in enumerate(arguments) if isinstance(item, dict) and "as_graph" in item), 0)
        if len(graphs) != 1 or not isinstance(graphs[0], dict):
            raise UnsupportedNode(where, target, "does not call exactly one sub-graph")
        switches = [item["as_bool"] for item in arguments[:place] if isinstance(item, dict) and "as_bool" in item]
        if target.endswith("autocast") and switches[:1] != [False]:
            raise UnsupportedNode(where, target, "autocast changes element types; export the model without it")
        graph = mapping(graphs[0], "graph")
        inner = Program(emitter=self.emitter, graph=graph, depth=self.depth + 1)
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


def calls(graph: Json) -> list[tuple[str, str, UnsupportedNode | None]]:
    """Where each node of a graph stands, its operator, and the refusal if that has no lowering."""
    found = []
    for position, node in enumerate(sequence(graph, "nodes")):
        target, where = text(node, "target"), _where(node, position)
        match = _ATEN.fullmatch(target)
        if match is not None:
            found.append((where, match[1], unknown(match[1], where)))
        elif target not in SCALAR_FUNCTIONS and target.removeprefix("torch.ops.higher_order.") not in _PASSES_THROUGH:
            found.append((where, target.removeprefix("torch.ops."), _foreign(target, where)))
    return found


def _foreign(target: str, where: str) -> UnsupportedNode:
    name = target.removeprefix("torch.ops.")
    if quantised.is_quantised(name):
        return UnsupportedNode(where, name, quantised.REASON, remedy=quantised.REMEDY)
    return UnsupportedNode(where, name, "only ATen operators are supported")


def _where(node: Json, position: int) -> str:
    """How people find the node: the path of its module, and its own name."""
    name = node.get("name")
    own = name if isinstance(name, str) and name else f"node_{position}"
    metadata = node.get("metadata")
    stack = metadata.get("nn_module_stack") if isinstance(metadata, dict) else None
    parts = stack.rsplit(";", 1)[-1].split(",") if isinstance(stack, str) else []
    path = parts[1] if len(parts) == 3 and re.fullmatch(r"[\w.]{1,200}", parts[1]) else ""
    return f"{path}/{own}"[:256] if path else own[:256]
