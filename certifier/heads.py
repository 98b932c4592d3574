"""Heads: what stands between the values that are certified and the outputs of a graph.

    Softmax, LogSoftmax over the row   do not reorder the logits before them, in one node or in single steps
    Sigmoid of a single value          does not change the side of the threshold
    ArgMax, TopK, Hardmax, ArgMin      have no Lipschitz constant, but while the largest entry of the values that they
      and whatever follows them        read stays the largest, their first place stays the same, and with it all that
                                       is computed from that place
    ZipMap                             names the entries
    NonMaxSuppression                  has no Lipschitz constant; the values that it reads may have one

A head is cut off only at an output: nothing that is certified reads it.  A selection must range over the whole row,
because a certificate speaks of the largest entry of a row; and everything between it and the output must read nothing
else that depends on the input, so that it is decided by the place selected.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from certifier.errors import UnsupportedNode
from certifier.flow import Head
from certifier.graph import Node
from certifier.patterns.heads import before_softmax
from certifier.walk import Walk, key_of

_RESHAPING = ("Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")
"""What may stand between a head and the output without changing numbers or their order."""
_SELECTING = ("ArgMax", "ArgMin", "Hardmax", "TopK")
_RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
_AFTER_TOP_K = (*_RESHAPING, "Cast", "ZipMap")


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What is certified in place of one output: `values`, negated where the smallest entry is the one selected.

    `head` is the smooth function that was cut off, `selects` tells whether a selection was, `takes_maximum` whether
    the output was the largest entry itself; `cut` are the nodes between the values and the output.
    """

    values: tuple[str, ...]
    negated: bool
    head: Head
    selects: bool
    takes_maximum: bool
    cut: tuple[Node, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Blocked:
    """Why nothing is certified in place of an output: the refusals that it depends on, by the keys of their nodes."""

    refusals: Mapping[str, UnsupportedNode]


def ending(walk: Walk, output: str, *, smooth: bool, maximum: bool) -> Ending | Blocked:
    """What is certified in place of `output`, a value that the walk has come to.

    `smooth` cuts off functions that only keep the order of entries, `maximum` also a ReduceMax over the row.
    """
    start = Ending(values=(output,), negated=False, head=None, selects=False, takes_maximum=False, cut=(), notes=())
    found = _before_selection(walk, start) if output in walk.unknown else start
    if isinstance(found, Blocked) or not smooth or found.negated or len(found.values) != 1:
        return found
    return _before_smooth(walk, found, maximum=maximum and not found.selects)


def _before_selection(walk: Walk, found: Ending) -> Ending | Blocked:
    """Step back over everything unknown."""
    output = found.values[0]
    tail = _unknown_nodes(walk, output)
    own = [node for node in tail if key_of(node) in walk.refusals and _live_inputs(walk, node)]
    if own and all(_is_container(node) for node in own):
        read = {name for node in tail for name in _live_inputs(walk, node)}
        if len(read) == 1 and all(node.operator in (*_RESHAPING, "ZipMap") for node in tail):
            note = f"at the output {output!r}, ZipMap is cut off: it only names the entries"
            return replace(found, values=(read.pop(),), cut=tuple(tail), notes=(note,))
    if own and all(node.operator == "NonMaxSuppression" and node.domain == "" for node in own):
        read = tuple(dict.fromkeys(name for node in tail for name in _live_inputs(walk, node)))
        return replace(found, values=read, cut=tuple(tail), notes=(_suppression_note(output, tail, read),))
    reasons = dict(reason for node in tail if (reason := _why_not_selected(walk, node, tail, output)) is not None)
    sources = {node.inputs[0] for node in own}
    directions = {_picks_smallest(node) for node in own}
    if own and not reasons and len(sources) == 1 and len(directions) == 1:
        value, negated = sources.pop(), directions.pop()
        note = _selection_note(output, tail, value, math.prod(walk.shapes[value]), negated)
        return replace(found, values=(value,), negated=negated, selects=True, cut=tuple(tail), notes=(note,))
    keys = [key_of(node) for node in tail if key_of(node) in walk.refusals]
    assert keys, "values are unknown only where a node was refused"
    return Blocked(refusals={key: _explained(walk.refusals[key], reasons.get(key, "")) for key in keys})


def _unknown_nodes(walk: Walk, output: str) -> list[Node]:
    """The nodes with unknown values that `output` depends on, in order."""
    wanted, found = {output}, []
    for node in reversed(walk.kept):
        if not wanted.isdisjoint(node.outputs) and any(name in walk.unknown for name in node.outputs if name):
            found.append(node)
            wanted.update(name for name in node.inputs if name in walk.unknown)
    return found[::-1]


def _live_inputs(walk: Walk, node: Node) -> list[str]:
    """The bounded values that a node reads."""
    return [name for name in node.inputs if name in walk.shapes]


def _is_container(node: Node) -> bool:
    return node.operator == "ZipMap" and node.domain == "ai.onnx.ml"


def _why_not_selected(walk: Walk, node: Node, tail: list[Node], output: str) -> tuple[str, str] | None:
    """The key and the reason if a node stands in the way of cutting a selection off; None if it does not."""
    key = key_of(node)
    if node.operator in _RANDOM:
        return (key, "")
    if not _live_inputs(walk, node):
        # It reads the place that was selected and constants only.
        return None
    if node.domain != "" or node.operator not in _SELECTING:
        return (key, "")
    value = node.inputs[0]
    if _live_inputs(walk, node) != [value]:
        return (key, "")
    if not spans_row(node, walk.shapes[value]):
        shape = list(walk.shapes[value])
        return (key, f"it selects along a part of {shape} only, so it is no head of one classifier")
    if node.operator == "TopK" and not _is_first_place(walk, node, tail, output):
        if any(each is not node and each.operator not in _AFTER_TOP_K for each in tail):
            return (key, "what follows computes with other entries than the largest")
    return None


def _is_first_place(walk: Walk, node: Node, tail: list[Node], output: str) -> bool:
    """Whether only the place of the single most extreme entry is read of a TopK."""
    count = walk.constants.get(node.inputs[1]) if len(node.inputs) > 1 else node.attributes.get("k")
    values = node.outputs[0]
    read = values and (values == output or any(values in each.inputs for each in tail))
    return not read and count is not None and np.asarray(count).size == 1 and int(np.asarray(count).reshape(-1)[0]) == 1


def _picks_smallest(node: Node) -> bool:
    return node.operator == "ArgMin" or (node.operator == "TopK" and node.attributes.get("largest", 1) == 0)


def _explained(refusal: UnsupportedNode, reason: str) -> UnsupportedNode:
    if not reason:
        return refusal
    return UnsupportedNode(refusal.node, refusal.operator, f"{refusal.reason}; {reason}", remedy=refusal.remedy)


def spans_row(node: Node, shape: tuple[int, ...]) -> bool:
    """Whether a node works along one axis that holds all entries of `shape`."""
    if node.operator in ("Softmax", "LogSoftmax", "Hardmax"):
        default = -1 if node.since >= 13 else 1
    else:
        default = 0 if node.operator in ("ArgMax", "ArgMin") else -1
    axis = int(node.attributes.get("axis", default))  # pyright: ignore[reportArgumentType]
    if not -len(shape) <= axis < len(shape):
        return False
    axis %= len(shape)
    flattens = node.operator in ("Softmax", "LogSoftmax", "Hardmax") and node.since < 13
    spans = math.prod(shape[axis:]) if flattens else shape[axis]
    # Over all outputs at once: only then is the argmax over the row unchanged.
    return spans == math.prod(shape)


def _before_smooth(walk: Walk, found: Ending, *, maximum: bool) -> Ending:
    """Step back over reshapings and one function that keeps the order of entries."""
    value, cut = found.values[0], list[Node]()
    while value in walk.made_by:
        node = walk.made_by[value]
        if node.domain != "" or node.inputs[0] not in walk.shapes:
            break
        spelled = before_softmax(node, walk.around)
        if spelled is not None:
            value, inner = spelled
            steps = [each for name, each in walk.producers.items() if name in inner]
            note = (
                f"the trailing softmax, which {node.operator} ends, is cut off: labels, margins and bounds speak of "
                "the logits before it, which it does not reorder"
            )
            whole = (*steps, node, *cut, *found.cut)
            return replace(found, values=(value,), head="softmax", cut=whole, notes=(note, *found.notes))
        cut.insert(0, node)
        value = node.inputs[0]
        if node.operator in _RESHAPING:
            continue
        head = _smooth_head(node, walk.shapes[value])
        if head is not None:
            note = (
                f"the trailing {node.operator} is cut off: labels, margins and bounds speak of the logits before it, "
                "which it does not reorder"
            )
            return replace(found, values=(value,), head=head, cut=(*cut, *found.cut), notes=(note, *found.notes))
        if maximum and _is_row_maximum(walk, node, value):
            largest = replace(found, values=(value,), takes_maximum=True, cut=(*cut, *found.cut))
            return _before_smooth(walk, largest, maximum=False)
        break
    return found


def _smooth_head(node: Node, shape: tuple[int, ...]) -> Head:
    if node.operator in ("Softmax", "LogSoftmax"):
        return "softmax" if spans_row(node, shape) else None
    if node.operator == "Sigmoid" and math.prod(shape) == 1:
        return "sigmoid"
    return None


def _is_row_maximum(walk: Walk, node: Node, value: str) -> bool:
    return node.operator == "ReduceMax" and math.prod(walk.shapes[node.outputs[0]]) == 1 < math.prod(walk.shapes[value])


def _selection_note(output: str, tail: list[Node], value: str, size: int, negated: bool) -> str:
    names = " and ".join(dict.fromkeys(node.operator for node in tail if node.operator in _SELECTING))
    which = "negated values" if negated else "values"
    picks = "whose largest entry is the smallest, which it selects" if negated else "whose largest entry it selects"
    rest = "; of what it selects, the first place alone is certified" if "TopK" in names else ""
    return (
        f"at the output {output!r}, {names} and what follows is cut off: labels, margins and bounds speak of the "
        f"{size} {which} {value!r} before it, {picks}{rest}"
    )


def _suppression_note(output: str, tail: list[Node], read: tuple[str, ...]) -> str:
    names = " and ".join(dict.fromkeys(node.operator for node in tail))
    return f"at the output {output!r}, {names} is cut off: bounds speak of the values {', '.join(read)} that it reads"
