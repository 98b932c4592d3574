"""The saved objects of an archive as values: modules with their paths, tensors with their qualified names."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from certifier.errors import MalformedModel, ResourceLimitExceeded, UnsupportedModel, UnsupportedNode
from certifier.graph import FLOATING, Array
from certifier.limits import Limits
from certifier.reading.emitting import Emitter
from certifier.reading.torchscript.code import Code, Definition
from certifier.reading.torchscript.pickle import Stub, TensorSpec
from certifier.reading.torchscript.tensors import Tensors, dtype_of
from certifier.reading.torchscript.values import Cell, Kept, KeptMapping, Memory, Module

_ESTIMATES = ("_u", "_v")
"""Endings of the buffers in which spectral normalisation keeps its singular-vector estimates."""
MOST_NESTED = 64


class Objects:
    """Turns what the pickles describe into values; one tensor is one constant, however many names it has."""

    def __init__(self, root: object, constants: object, code: Code, tensors: Tensors, emitter: Emitter) -> None:
        if not isinstance(root, Stub):
            raise UnsupportedModel("data.pkl holds no module; save a scripted or traced module with torch.jit.save")
        if not isinstance(constants, tuple):
            raise MalformedModel("constants.pkl does not hold a tuple")
        self._code, self._tensors, self._emitter = code, tensors, emitter
        self._constants = constants
        self._cells: dict[TensorSpec, Cell] = {}
        self._memories: dict[tuple[str, str], Memory] = {}
        self._modules: dict[int, Module] = {}
        self._containers: dict[int, Kept | KeptMapping | tuple[object, ...]] = {}
        self.names: dict[TensorSpec, str] = {}
        for path, stub in self._walk(root):
            self._modules.setdefault(id(stub), Module(stub, self._class_of(stub), path))
            for name, value in stub.attributes.items():
                if isinstance(value, TensorSpec):
                    self.names.setdefault(value, f"{path}.{name}" if path else name)
        self.root = self._modules[id(root)]

    def constant(self, name: str, where: str) -> object:
        """The value of CONSTANTS.cN.

        Raises: MalformedModel.
        """
        number = int(name[1:]) if name[:1] == "c" and name[1:].isdecimal() and len(name) < 9 else -1
        if not 0 <= number < len(self._constants):
            raise MalformedModel(f"{where}: there is no constant {name!r}")
        return self.value(self._constants[number], where)

    def value(self, saved: object, where: str, depth: int = 0) -> object:
        """What code sees of a saved object.

        Raises: UnsupportedNode, MalformedModel, ResourceLimitExceeded.
        """
        if depth > MOST_NESTED:
            raise ResourceLimitExceeded("nesting", limit=MOST_NESTED, actual=depth, where=where)
        if isinstance(saved, TensorSpec):
            return self._cell(saved)
        if isinstance(saved, Stub):
            return self._modules[id(saved)] if id(saved) in self._modules else self._object(saved)
        if not isinstance(saved, (list, tuple, dict)):
            if saved is None or isinstance(saved, (bool, int, float, str)):
                return saved
            raise UnsupportedNode(where, "attribute", "its value is neither data nor a module")
        if id(saved) not in self._containers:
            # Kept under the container's identity: a list that holds one other list twice must not double at each level.
            self._containers[id(saved)] = self._container(saved, where, depth)
        return self._containers[id(saved)]

    def attribute(self, module: Module, name: str, where: str) -> tuple[bool, object]:
        """Whether the module has the attribute, and its value."""
        if name in module.stub.attributes:
            return True, self.value(module.stub.attributes[name], where)
        return False, None

    def estimates(self, limits: Limits) -> Iterator[tuple[str, Array]]:
        """The singular-vector estimates that spectral normalisation left among the buffers, by qualified name.

        Raises: ResourceLimitExceeded, MalformedModel.
        """
        known, elements = set(self.names.values()), 0
        for spec, name in self.names.items():
            partner = name[:-1] + ("v" if name.endswith("u") else "u")
            if name.endswith(_ESTIMATES) and len(spec.shape) == 1 and partner in known:
                elements += spec.shape[0]
                limits.demand("elements", elements, f"buffer {name!r}")
                yield name, self._tensors.array(spec)

    def floating_dtype(self) -> str | None:
        """The element type of the first floating-point parameter, buffer or constant."""
        specs = [*self.names, *(each for each in self._constants if isinstance(each, TensorSpec))]
        return next((kind for kind in map(dtype_of, specs) if kind in FLOATING), None)

    def _cell(self, spec: TensorSpec) -> Cell:
        if spec not in self._cells:
            key = (spec.folder, spec.storage.key)
            name = self.names.get(spec, f"{spec.folder}.{spec.storage.key}")
            memory = self._memories.setdefault(key, Memory(f"the saved tensor {name!r}"))
            self._cells[spec] = Cell(self._emitter.constant(self._tensors.array(spec), name), [memory])
        return self._cells[spec]

    def _container(self, saved: object, where: str, depth: int) -> Kept | KeptMapping | tuple[object, ...]:
        if isinstance(saved, Mapping):
            return KeptMapping({key: self.value(item, where, depth + 1) for key, item in saved.items()})
        items = [self.value(item, where, depth + 1) for item in saved]  # pyright: ignore[reportGeneralTypeIssues]
        return Kept(items) if isinstance(saved, list) else tuple(items)

    def _object(self, stub: Stub) -> object:
        definition = self._class_of(stub)
        raise UnsupportedNode(definition.where, stub.qualified, "an object of a custom class is not supported")

    def _class_of(self, stub: Stub) -> Definition:
        definition = self._code.find(stub.qualified)
        if definition is None or not isinstance(definition.node, ast.ClassDef):
            raise MalformedModel(f"the archive's code does not define the class {stub.qualified}")
        for name in ("__setstate__", "__getstate__"):
            method = definition.method(name)
            if method is not None:
                raise UnsupportedNode(
                    f"{definition.file}:{method.lineno}",
                    name,
                    "the class runs code of its own when it is loaded, and no upload's code is ever run",
                )
        return definition

    def _walk(self, root: Stub) -> Iterator[tuple[str, Stub]]:
        """The root and every module below it, each once, with its path; other objects have no path."""
        pending, seen = [("", root)], set[int]()
        while pending:
            path, stub = pending.pop(0)
            if id(stub) in seen:
                continue
            seen.add(id(stub))
            if len(path) > 4096:
                raise ResourceLimitExceeded("nesting", limit=4096, actual=len(path), where="module paths")
            if self._class_of(stub).base != "Module":
                self._object(stub)
            yield path, stub
            for name, value in stub.attributes.items():
                if isinstance(value, Stub):
                    pending.append((f"{path}.{name}" if path else name, value))
