"""Which operators an upload is made of, where it could not be read to its end, and which of them no reader knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from certifier.errors import CertifierError, UnsupportedNode
from certifier.graph import Node
from certifier.limits import Limits
from certifier.reading.exported.reader import calls_of
from certifier.reading.formats import read_model
from certifier.reading.onnx import nodes_and_unknown

Found = tuple[tuple[Node, ...], Sequence[UnsupportedNode]]


def census(data: bytes, *, limits: Limits, input_shape: tuple[int, ...] | None) -> Found:
    """The nodes of a model that something about it or its options keeps from being read, and all that are unknown.

    Both are empty where not even that can be told: of bytes that are no model, and of TorchScript programs, which are
    followed call by call.  Operators of exported programs are given the domain `aten`.
    """
    for look in (_read, _onnx, _exported):
        try:
            return look(data, limits, input_shape)
        except CertifierError:
            continue
    return (), ()


def _read(data: bytes, limits: Limits, input_shape: tuple[int, ...] | None) -> Found:
    """Only the options do not fit."""
    return read_model(data, limits=limits, input_shape=input_shape)[1].nodes, ()


def _onnx(data: bytes, limits: Limits, input_shape: tuple[int, ...] | None) -> Found:
    return nodes_and_unknown(data, limits=limits)


def _exported(data: bytes, limits: Limits, input_shape: tuple[int, ...] | None) -> Found:
    calls, unknown = calls_of(data, limits=limits)
    blank = Node(name="", operator="", domain="aten", since=1, inputs=(), outputs=(), attributes={})
    return tuple(replace(blank, name=where, operator=operator) for where, operator in calls), unknown
