"""Recurrences of ATen: LSTM, GRU and RNN as the standard's own nodes, which are written out step by step; their cells.

PyTorch and the standard order the gates otherwise: i f g o against i o f c, and r z n against z r h.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from certifier.errors import UnsupportedNode
from certifier.graph import Array
from certifier.reading.aten.products import linear
from certifier.reading.aten.registry import Call, aten
from certifier.reading.aten.selections import parts
from certifier.reading.aten.values import refuse_random
from certifier.reading.emitting import Ref


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """A recurrence of the standard: where PyTorch has each of its gates, its activation if it is chosen, its states."""

    operator: str
    gates: tuple[int, ...]
    activation: str | None
    states: int


_LSTM = _Kind(operator="LSTM", gates=(0, 3, 1, 2), activation=None, states=2)
_GRU = _Kind(operator="GRU", gates=(1, 0, 2), activation=None, states=1)


@aten("lstm")
def lstm(call: Call, input: object, hx: object, *rest: object) -> tuple[Ref, Ref, Ref]:
    """Every H, and the last H and C of every layer; the initial states zero."""
    if not isinstance(hx, (list, tuple)) or len(hx) != 2:
        raise _packed(call)
    everything, last = _layers(call, _LSTM, call.tensor(input, "input"), hx, rest)
    return everything, last[0], last[1]


@aten("gru")
def gru(call: Call, input: object, hx: object, *rest: object) -> tuple[Ref, Ref]:
    """Every H, and the last one of every layer; the initial state zero."""
    everything, last = _layers(call, _GRU, call.tensor(input, "input"), [hx], rest)
    return everything, last[0]


@aten("rnn_tanh", "rnn_relu")
def rnn(call: Call, input: object, hx: object, *rest: object) -> tuple[Ref, Ref]:
    """Every H, and the last one of every layer; the initial state zero."""
    kind = _Kind(operator="RNN", gates=(0,), activation="Tanh" if call.operator == "rnn_tanh" else "Relu", states=1)
    everything, last = _layers(call, kind, call.tensor(input, "input"), [hx], rest)
    return everything, last[0]


def _layers(call: Call, kind: _Kind, x: Ref, states: Sequence[object], rest: Sequence[object]) -> tuple[Ref, list[Ref]]:
    """All layers, each of one or two directions, from `params` and the switches that ATen gives after them."""
    if len(rest) != 7 or not isinstance(rest[0], (list, tuple)):
        raise _packed(call)
    params, *switches = rest
    has_biases, train, bidirectional, first_batch = (call.flag(switches[i], "a switch") for i in (0, 3, 4, 5))
    layers, ways = call.integer(switches[1], "num_layers"), 1 + bidirectional
    if train:
        refuse_random(call, switches[2])
    weights = [call.known(item, "a weight") for item in params]  # pyright: ignore[reportGeneralTypeIssues]
    each = 4 if has_biases else 2
    if layers < 1 or len(weights) != layers * ways * each:
        raise call.refuse(f"needs {each} weights per layer and direction: projected states are not supported")
    if any(call.known(state, "an initial state").any() for state in states):
        raise call.refuse("an initial state must be zero: another one is not supported")
    if x.rank != 3:
        raise call.refuse(f"needs a batch of sequences, not {x.rank} axes")
    x = call.transpose(x, (1, 0, 2)) if first_batch else x
    last: list[list[Ref]] = [[] for _ in states]
    for layer in range(layers):
        own = [weights[(layer * ways + way) * each :][:each] for way in range(ways)]
        x, ends = _layer(call, kind, x, own)
        for collected, end in zip(last, ends, strict=True):
            collected.append(end)
    joined = [ends[0] if layers == 1 else call.emit("Concat", ends, {"axis": 0}) for ends in last]
    return call.transpose(x, (1, 0, 2)) if first_batch else x, joined


def _layer(call: Call, kind: _Kind, x: Ref, weights: Sequence[Sequence[Array]]) -> tuple[Ref, list[Ref]]:
    """Y [length, batch, directions * hidden] and the last states [directions, batch, hidden] of one layer."""
    hidden, ways = weights[0][1].shape[-1], len(weights)
    names = ("W", "R", "B")[: 3 if len(weights[0]) == 4 else 2]
    stacked = [np.stack([_reordered(call, kind, way[i], hidden) for way in weights]) for i in range(len(weights[0]))]
    values = [*stacked[:2], *([np.concatenate(stacked[2:], axis=1)] if len(stacked) == 4 else [])]
    given = [call.emitter.constant(value, f"{call.where}/{name}") for name, value in zip(names, values, strict=True)]
    attributes: dict[str, object] = {"hidden_size": hidden, "direction": "bidirectional" if ways == 2 else "forward"}
    if kind.operator == "GRU":
        attributes["linear_before_reset"] = 1
    if kind.activation is not None:
        attributes["activations"] = (kind.activation,) * ways
    outputs = 1 + kind.states
    every, *ends = call.emitter.node(kind.operator, [x, *given], attributes, outputs=outputs, name=call.where)
    length, _, batch, _ = every.shape
    return call.reshape(call.transpose(every, (0, 2, 1, 3)), (length, batch, ways * hidden)), ends


def _reordered(call: Call, kind: _Kind, value: Array, hidden: int) -> Array:
    """The gates of a weight or bias in the standard's order."""
    if value.shape[0] != len(kind.gates) * hidden:
        raise call.refuse(f"a weight of shape {value.shape} does not fit {hidden} hidden units")
    return np.concatenate([value[gate * hidden : (gate + 1) * hidden] for gate in kind.gates])


def _packed(call: Call) -> UnsupportedNode:
    return call.refuse("is supported for whole sequences, not for packed ones")


@aten("lstm_cell")
def lstm_cell(
    call: Call, input: object, hx: object, w_ih: object, w_hh: object, b_ih: object = None, b_hh: object = None
) -> tuple[Ref, Ref]:
    """C' = f C + i g, H' = o tanh(C'), with gates i, f, g, o of x and H."""
    before, memory = call.tensors(hx, "hx")
    total = call.emit("Add", [linear(call, input, w_ih, b_ih), linear(call, before, w_hh, b_hh)])
    enter, forget, new, leave = parts(call, total, 1, [total.shape[1] // 4] * 4)
    gates = [call.emit("Sigmoid", [gate]) for gate in (enter, forget, leave)]
    entered = call.emit("Mul", [gates[0], call.emit("Tanh", [new])])
    now = call.emit("Add", [call.emit("Mul", [gates[1], memory]), entered])
    return call.emit("Mul", [gates[2], call.emit("Tanh", [now])]), now


@aten("gru_cell")
def gru_cell(
    call: Call, input: object, hx: object, w_ih: object, w_hh: object, b_ih: object = None, b_hh: object = None
) -> Ref:
    """H' = n + z (H - n), n = tanh(W x + b + r (R H + b')), with gates r and z of x and H."""
    before = call.tensor(hx, "hx")
    sizes = [before.shape[1]] * 3
    own = parts(call, linear(call, input, w_ih, b_ih), 1, sizes)
    kept = parts(call, linear(call, before, w_hh, b_hh), 1, sizes)
    reset, update = (call.emit("Sigmoid", [call.emit("Add", [own[i], kept[i]])]) for i in (0, 1))
    new = call.emit("Tanh", [call.emit("Add", [own[2], call.emit("Mul", [reset, kept[2]])])])
    return call.emit("Add", [new, call.emit("Mul", [update, call.emit("Sub", [before, new])])])


@aten("rnn_tanh_cell", "rnn_relu_cell")
def rnn_cell(
    call: Call, input: object, hx: object, w_ih: object, w_hh: object, b_ih: object = None, b_hh: object = None
) -> Ref:
    """H' = f(W x + R H + b)."""
    total = call.emit("Add", [linear(call, input, w_ih, b_ih), linear(call, hx, w_hh, b_hh)])
    return call.emit("Tanh" if "tanh" in call.operator else "Relu", [total])
