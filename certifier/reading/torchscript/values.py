"""The values that TorchScript code computes with, and which tensors share memory.

An operator that writes into a tensor gives it a new value, which every name of that tensor sees.  A view sees the
change too: what it shows is taken from its source again (`certifier.reading.aten.views`).  What only may be a view
becomes unreadable instead, so that no stale value is ever used.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from certifier.errors import UnsupportedNode
from certifier.reading.aten.views import View
from certifier.reading.emitting import Ref
from certifier.reading.torchscript.code import Definition
from certifier.reading.torchscript.pickle import Stub


class Memory:
    """Some memory that tensors may share; `writes` counts how often it was written into.

    `state` is what the memory belongs to if it outlives a call: a parameter, a buffer or a constant.
    """

    __slots__ = ("state", "writes")

    def __init__(self, state: str) -> None:
        self.state, self.writes = state, 0


class Cell:
    """A tensor as names refer to it: its present value, and the memories it may lie in as of its last change.

    `ref` is None for the model's input as long as its shape is not known; `origin` is what it is a view of, and how.
    """

    __slots__ = ("_seen", "origin", "ref")

    def __init__(self, ref: Ref | None, memories: Iterable[Memory], origin: tuple[Cell, View] | None = None) -> None:
        self.ref, self.origin = ref, origin
        self._seen = {memory: memory.writes for memory in memories}

    @property
    def memories(self) -> tuple[Memory, ...]:
        """The memories that this tensor may lie in."""
        return tuple(self._seen)

    @property
    def is_stale(self) -> bool:
        """Whether the memory was written through another tensor since this one was last looked at."""
        return any(memory.writes != count for memory, count in self._seen.items())

    def renew(self, ref: Ref) -> None:
        """The value after what was written through another tensor."""
        self.ref = ref
        self._seen = {memory: memory.writes for memory in self._seen}

    def read(self, where: str, operator: str) -> Ref:
        """The present value.

        Raises: UnsupportedNode if the memory was written through another view of it.
        """
        if self.is_stale:
            raise UnsupportedNode(
                where, operator, "reads a tensor that was changed through a view of it; avoid in-place assignment"
            )
        if self.ref is None:
            raise UnsupportedNode(where, operator, "needs the input's shape")
        return self.ref

    def write(self, ref: Ref, where: str, operator: str) -> None:
        """Give the tensor the value `ref`, unseen by its views.

        Raises: UnsupportedNode if it is a parameter, buffer or constant, or would change its shape or element type.
        """
        old = self.read(where, operator)
        for memory in self._seen:
            if memory.state:
                raise UnsupportedNode(
                    where,
                    operator,
                    f"changes {memory.state}: a module that keeps state from call to call is no function",
                )
        if (ref.shape, ref.dtype) != (old.shape, old.dtype):
            raise UnsupportedNode(where, operator, "changes the shape or element type of a tensor in place")
        for memory in self._seen:
            memory.writes += 1
            self._seen[memory] = memory.writes
        self.ref = ref


class Kept(list[object]):
    """A list that belongs to a module or a constant: it may be read, never changed."""


class KeptMapping(dict[object, object]):
    """A dictionary that belongs to a module or a constant: it may be read, never changed."""


@dataclass(frozen=True, eq=False)
class Module:
    """A module of the archive: its object, its class, and its path from the root ("" for the root)."""

    stub: Stub
    definition: Definition
    path: str


@dataclass(frozen=True, eq=False)
class Method:
    """A function of the archive's code, bound to a module if `owner` is one."""

    definition: Definition
    owner: Module | None
    name: str


@dataclass(frozen=True)
class Path:
    """A dotted name that is not yet a value: torch.relu, ops.prim.NumToTensor, __torch__.torch.nn.functional.relu."""

    name: str


@dataclass(frozen=True, eq=False)
class Record:
    """A named tuple."""

    fields: tuple[str, ...]
    values: tuple[object, ...]


class Device:
    """Where a tensor lives: one place, since every model is served on the processor."""


class Uninitialised:
    """What TorchScript assigns on paths that end in an exception."""


FRESH = frozenset(
    """abs acos adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d add
    addbmm addcdiv addcmul addmm addmv arange asin atan avg_pool1d avg_pool2d avg_pool3d baddbmm batch_norm bmm cat
    celu clamp clamp_max clamp_min clone constant_pad_nd conv1d conv2d conv3d conv_transpose1d conv_transpose2d
    conv_transpose3d _convolution convolution cos cumsum div dot elu embedding erf exp full gather gelu glu
    group_norm gru gru_cell hardshrink hardsigmoid hardswish hardtanh index index_put index_select instance_norm
    layer_norm leaky_relu linear log log1p log_sigmoid log_softmax lstm lstm_cell matmul max_pool1d max_pool2d
    max_pool3d maximum mean minimum mish mm mul mv native_layer_norm neg norm ones pow prelu reciprocal relu relu6
    repeat rms_norm rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell rsqrt rsub scaled_dot_product_attention selu
    sigmoid silu sin softmax softplus softshrink softsign sqrt square stack sub sum tan tanh threshold true_divide
    upsample_bicubic2d upsample_bilinear2d upsample_nearest1d upsample_nearest2d upsample_nearest3d var vdot where
    zeros""".split()
)
"""Operators whose results never share memory with what they read.  Of any other it is assumed that they may."""
