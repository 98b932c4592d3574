"""The pickles of a TorchScript archive, read by a machine that can build data and nothing else.

It knows the opcodes that PyTorch's own writer emits, resolves no name, imports nothing and calls nothing: a global is
a pair of strings, an object is a name with attributes, a tensor is a description of where its numbers lie.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from certifier.errors import MalformedModel, ResourceLimitExceeded, UnsupportedModel
from certifier.reading import quantised

LARGEST_PICKLE = 64 * 2**20
MOST_OPCODES = 4_000_000


@dataclass(frozen=True)
class Global:
    """A name that the pickle mentions; it is never looked up."""

    module: str
    name: str

    @property
    def qualified(self) -> str:
        """Module and name in one."""
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class Storage:
    """The member `key` holding `count` elements of the storage class `kind`."""

    kind: str
    key: str
    count: int


@dataclass(frozen=True)
class TensorSpec:
    """A strided view of a storage, unchecked; `folder` is where its members lie."""

    folder: str
    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(eq=False)
class Stub:
    """An object of the class `qualified` of the archive's code, with the attributes that were saved."""

    qualified: str
    attributes: dict[str, object]


class _Mark:
    """The one object that separates stack segments."""


_MARK = _Mark()
_LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist", "build_complexlist")


def read_pickle(data: bytes, *, folder: str) -> object:
    """The object that `data` describes; tensors in it lie in members of `folder`.

    Raises: MalformedModel, UnsupportedModel for what is not inert data, ResourceLimitExceeded.
    """
    if len(data) > LARGEST_PICKLE:
        raise ResourceLimitExceeded("pickle bytes", limit=LARGEST_PICKLE, actual=len(data), where=folder)
    try:
        return _Machine(data, folder).run()
    except (IndexError, struct.error, UnicodeDecodeError, ValueError, TypeError, KeyError, AttributeError) as error:
        # A pickle that is cut short or whose stack does not hold what an opcode needs.
        raise MalformedModel(f"the pickle of {folder!r} is damaged: {error}") from error


class _Machine:
    def __init__(self, data: bytes, folder: str) -> None:
        self.data, self.folder, self.at = data, folder, 0
        self.stack: list[object] = []
        self.memo: dict[int, object] = {}

    def run(self) -> object:
        for count in range(len(self.data)):
            if count >= MOST_OPCODES:
                raise ResourceLimitExceeded("pickle opcodes", limit=MOST_OPCODES, actual=count + 1, where=self.folder)
            opcode = self.take(1)
            if opcode == b".":
                return self.stack.pop()
            step = _STEPS.get(opcode)
            if step is None:
                raise UnsupportedModel(
                    f"the pickle of {self.folder!r} uses opcode {opcode!r} at byte {self.at - 1}, which TorchScript "
                    "never writes"
                )
            step(self)
        raise MalformedModel(f"the pickle of {self.folder!r} has no end")

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise MalformedModel(f"the pickle of {self.folder!r} is cut short")
        piece = self.data[self.at : self.at + count]
        self.at += count
        return piece

    def number(self, layout: str) -> int:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def line(self) -> str:
        end = self.data.index(b"\n", self.at, self.at + 4096)
        text = self.data[self.at : end].decode("utf-8")
        self.at = end + 1
        return text

    def push(self, value: object) -> None:
        self.stack.append(value)

    def marked(self) -> list[object]:
        items = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def remember(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    def load_global(self) -> None:
        module = self.line()
        self.push(Global(module, self.line()))

    def set_items(self, pairs: list[object]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(pairs) % 2:
            raise MalformedModel(f"the pickle of {self.folder!r} sets items of something that is no dictionary")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, (str, int, float)):
                raise UnsupportedModel(f"the pickle of {self.folder!r} holds a dictionary with exotic keys")
            target[key] = value

    def append(self, items: list[object]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise MalformedModel(f"the pickle of {self.folder!r} appends to something that is no list")
        target.extend(items)

    def tuple_of(self, count: int) -> None:
        if count > len(self.stack) or _MARK in self.stack[-count:]:
            raise MalformedModel(f"the pickle of {self.folder!r} is damaged: its stack is too short")
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.push(items)

    def make_object(self) -> None:
        arguments, kind = self.stack.pop(), self.stack.pop()
        if not isinstance(kind, Global) or arguments != () or not _of_archive(kind):
            raise UnsupportedModel(f"the pickle of {self.folder!r} makes an object of {_called(kind)}")
        self.push(Stub(kind.qualified, {}))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, Stub) or not isinstance(state, dict):
            what = target.qualified if isinstance(target, Stub) else type(target).__name__
            raise UnsupportedModel(f"the pickle of {self.folder!r} restores {what} from a state of its own making")
        if target.attributes:
            raise MalformedModel(f"the pickle of {self.folder!r} restores an object twice")
        target.attributes.update({str(name): value for name, value in state.items()})

    def persistent(self) -> None:
        match self.stack.pop():
            case ("storage", Global(module="torch", name=kind), str() as key, str(), int() as count):
                self.push(Storage(kind, key, count))
            case _:
                raise UnsupportedModel(f"the pickle of {self.folder!r} refers to something that is no storage")

    def reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise MalformedModel(f"the pickle of {self.folder!r} calls something that is no name")
        self.push(self._inert(function, arguments))

    def _inert(self, function: Global, arguments: tuple[object, ...]) -> object:
        """What the few functions that PyTorch's writer uses would give."""
        if function.qualified == "collections.OrderedDict" and arguments == ():
            return {}
        if function.qualified == "torch._utils._rebuild_tensor_v2":
            return self._tensor(arguments)
        if function.module == "torch.jit._pickle" and function.name in _LISTS and len(arguments) == 1:
            if isinstance(arguments[0], list):
                return arguments[0]
        if function.qualified == "torch.jit._pickle.restore_type_tag" and len(arguments) == 2:
            return arguments[0]
        raise UnsupportedModel(
            f"the pickle of {self.folder!r} calls {function.qualified}, which makes no tensor, list "
            "or module (quantised, sparse and custom objects are not supported)",
            remedy=quantised.REMEDY if quantised.is_quantised(function.qualified) else None,
        )

    def _tensor(self, arguments: tuple[object, ...]) -> TensorSpec:
        if len(arguments) < 4:
            raise MalformedModel(f"the pickle of {self.folder!r} describes a tensor in {len(arguments)} words")
        if len(arguments) > 6 and arguments[6]:
            # Metadata such as {"neg": True} changes what the stored numbers mean.
            raise UnsupportedModel(
                f"the pickle of {self.folder!r} describes a negated or conjugated view of a tensor; save a plain copy"
            )
        storage, offset, shape, strides = arguments[:4]
        if not isinstance(storage, Storage) or not _is_size(offset) or not _are_sizes(shape) or not _are_sizes(strides):
            raise MalformedModel(f"the pickle of {self.folder!r} describes a tensor whose sizes are not sizes")
        return TensorSpec(self.folder, storage, offset, shape, strides)  # pyright: ignore[reportArgumentType]


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _are_sizes(value: object) -> bool:
    return isinstance(value, tuple) and all(_is_size(item) for item in value)


def _of_archive(kind: Global) -> bool:
    return kind.module == "__torch__" or kind.module.startswith("__torch__.")


def _called(kind: object) -> str:
    return kind.qualified if isinstance(kind, Global) else type(kind).__name__


_STEPS: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": lambda m: _protocol(m),
    b"c": _Machine.load_global,
    b"q": lambda m: m.remember(m.number("<B")),
    b"r": lambda m: m.remember(m.number("<I")),
    b"h": lambda m: m.push(m.memo[m.number("<B")]),
    b"j": lambda m: m.push(m.memo[m.number("<I")]),
    b"}": lambda m: m.push({}),
    b"]": lambda m: m.push([]),
    b")": lambda m: m.push(()),
    b"(": lambda m: m.push(_MARK),
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"K": lambda m: m.push(m.number("<B")),
    b"M": lambda m: m.push(m.number("<H")),
    b"J": lambda m: m.push(m.number("<i")),
    b"\x8a": lambda m: _long(m),
    b"G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    b"X": lambda m: m.push(m.take(m.number("<I")).decode("utf-8")),
    b"t": lambda m: m.push(tuple(m.marked())),
    b"\x85": lambda m: m.tuple_of(1),
    b"\x86": lambda m: m.tuple_of(2),
    b"\x87": lambda m: m.tuple_of(3),
    b"a": lambda m: m.append([m.stack.pop()]),
    b"e": lambda m: m.append(m.marked()),
    b"s": lambda m: m.set_items([m.stack.pop(), m.stack.pop()][::-1]),
    b"u": lambda m: m.set_items(m.marked()),
    b"R": _Machine.reduce,
    b"\x81": _Machine.make_object,
    b"b": _Machine.build,
    b"Q": _Machine.persistent,
}
"""The opcodes of PyTorch's writer, by their byte."""


def _protocol(machine: _Machine) -> None:
    version = machine.number("<B")
    if version != 2:
        raise UnsupportedModel(f"the pickle of {machine.folder!r} is of protocol {version}, not 2")


def _long(machine: _Machine) -> None:
    size = machine.number("<B")
    if size > 8:
        raise MalformedModel(f"the pickle of {machine.folder!r} holds an integer of {size} bytes")
    machine.push(int.from_bytes(machine.take(size), "little", signed=True))
