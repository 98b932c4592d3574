"""The table of rules: which operator, in which versions, becomes which terms.

A rule is a named function decorated with `@rule("LeakyRelu", since=(6, 16), attributes=("alpha",))`.  Anything the
decorator does not name (another version, another attribute) is refused before the function runs, so that nothing a
rule was not written for can pass through it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from certifier.documents import OperatorSupport
from certifier.errors import UnsupportedNode
from certifier.graph import Array, Node
from certifier.limits import Limits
from certifier.reading import quantised
from certifier.reading.folding import FOLDABLE
from certifier.terms import Term


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where a rule is applied: the node, the shapes of its live inputs and the values of its constant ones.

    Shapes are full tensor shapes of one input row.  `dtype` is the floating type the engine computes in;
    `limits` is what one model may take.
    """

    node: Node
    shapes: Mapping[str, tuple[int, ...]]
    constants: Mapping[str, Array]
    dtype: str
    limits: Limits

    def refuse(self, reason: str, *, remedy: str | None = None) -> UnsupportedNode:
        """The error to raise when the node cannot be bounded; `reason` and `remedy` are for people.

        Without a remedy it is that of the operator, where there is one.
        """
        node = self.node
        return UnsupportedNode(node.name, node.operator, reason, remedy=remedy or REMEDIES.get(node.operator))

    def has(self, index: int) -> bool:
        """Whether input number `index` is given at all."""
        return index < len(self.node.inputs) and self.node.inputs[index] != ""

    def is_constant(self, index: int) -> bool:
        """Whether input number `index` is a known array."""
        return self.has(index) and self.node.inputs[index] in self.constants

    def constant(self, index: int, role: str) -> Array:
        """The array at input number `index`, called `role` in errors.

        Raises: UnsupportedNode if it is missing or depends on the model's input.
        """
        if not self.has(index):
            raise self.refuse(f"needs {role} (input {index})")
        name = self.node.inputs[index]
        if name not in self.constants:
            raise self.refuse(f"{role} (input {index}, {name!r}) must be constant, but depends on the model's input")
        return self.constants[name]

    def weights(self, index: int, role: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """`constant` as finite float64 (exact for every floating type).

        Raises: UnsupportedNode if any entry is NaN or infinite.
        """
        values = np.asarray(self.constant(index, role), dtype=np.float64)
        if not np.isfinite(values).all():
            raise self.refuse(f"{role} (input {index}) holds NaN or infinite entries")
        return values

    def live(self, index: int) -> str:
        """The name of live input number `index`.

        Raises: UnsupportedNode if it is missing or constant.
        """
        if not self.has(index) or self.node.inputs[index] not in self.shapes:
            raise self.refuse(f"input {index} must depend on the model's input")
        return self.node.inputs[index]

    def shape(self, index: int) -> tuple[int, ...]:
        """The tensor shape of input number `index`, live or constant."""
        name = self.node.inputs[index]
        return self.shapes[name] if name in self.shapes else tuple(self.constants[name].shape)

    def number(self, name: str, default: float) -> float:
        """A float attribute; `default` is the one that the operator's standard prescribes."""
        value = float(self.node.attributes.get(name, default))  # pyright: ignore[reportArgumentType]
        if not np.isfinite(value):
            raise self.refuse(f"attribute {name} is {value}")
        return value

    def integer(self, name: str, default: int) -> int:
        """An integer attribute; `default` is the one that the operator's standard prescribes."""
        return int(self.node.attributes.get(name, default))  # pyright: ignore[reportArgumentType]

    def integers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """An attribute that is a list of integers."""
        values = self.node.attributes.get(name, default)
        return tuple(int(value) for value in values)  # pyright: ignore[reportGeneralTypeIssues]

    def text(self, name: str, default: str) -> str:
        """A string attribute; `default` is the one that the operator's standard prescribes."""
        return str(self.node.attributes.get(name, default))


Rule = Callable[[Site], tuple[Term, ...]]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One rule with the operator versions and attributes it was written for."""

    operator: str
    domain: str
    since: tuple[int, ...]
    attributes: frozenset[str]
    apply: Rule

    @property
    def summary(self) -> str:
        """The first line of the rule's docstring."""
        return (self.apply.__doc__ or "").strip().splitlines()[0]


_ENTRIES: dict[tuple[str, str, int], Entry] = {}

_DISCONTINUOUS = """ArgMax ArgMin And Binarizer BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil
    Equal Floor Greater GreaterOrEqual Hardmax IsInf IsNaN Less LessOrEqual Mod NonMaxSuppression
    NonZero Not OneHot Or Round Shrink Sign ThresholdedRelu TopK Unique Xor"""
_UNBOUNDED = "Acos Acosh Asin Atanh Cosh ReduceLogSum ReduceProd ReduceSumSquare Sinh Tan"
_STATEFUL = "If Loop Scan"
_UNIMPLEMENTED_NORMS = {
    "LRN": "its constant depends on the input's size, and no rule bounds it",
    "LpNormalization": "it divides by a norm without a floor, so its slope is unbounded near zero",
    "MeanVarianceNormalization": "no rule bounds it; export it as LayerNormalization or InstanceNormalization",
}
_INSIDE = "export the model up to the value before it, or choose options.outputs that do not depend on it"
_CONTINUOUS = (
    "write a choice between values that meet with Max, Min, Relu or Clip "
    f"(a Householder activation as z - 2 v relu(v'z)), or {_INSIDE}"
)
_UNROLLED = "export the model without it, for example unrolled over a fixed number of steps"
REMEDIES = {
    **dict.fromkeys(_DISCONTINUOUS.split(), _INSIDE),
    **dict.fromkeys(_UNBOUNDED.split(), _INSIDE),
    **dict.fromkeys(_STATEFUL.split(), _UNROLLED),
    **dict.fromkeys("Equal Greater GreaterOrEqual Less LessOrEqual Sign".split(), _CONTINUOUS),
    "Cast": _INSIDE,
    "TopK": f"read only its values, with its attribute sorted set, or {_INSIDE}",
    **dict.fromkeys(quantised.STANDARD, quantised.REMEDY),
}
"""What helps a user whose model holds an operator that is refused, where something does."""

REFUSED = {
    **{name: f"{name} is discontinuous, so it has no Lipschitz constant" for name in _DISCONTINUOUS.split()},
    **{name: f"{name} has an unbounded slope, so it has no global Lipschitz constant" for name in _UNBOUNDED.split()},
    **{name: f"{name} is a loop or a branch, which no rule bounds" for name in _STATEFUL.split()},
    **_UNIMPLEMENTED_NORMS,
    **dict.fromkeys(quantised.STANDARD, quantised.REASON),
    "TopK": "TopK is continuous only in its sorted values: the places of entries, and values in no order, jump",
}
"""Operators that are refused on purpose, with the reason that a user reads."""


def rule(
    operator: str, *, since: tuple[int, ...], attributes: tuple[str, ...] = (), domain: str = ""
) -> Callable[[Rule], Rule]:
    """Register a rule for `operator` as introduced in each of the versions `since`."""

    def register(function: Rule) -> Rule:
        entry = Entry(operator=operator, domain=domain, since=since, attributes=frozenset(attributes), apply=function)
        for version in since:
            key = (domain, operator, version)
            if key in _ENTRIES:
                raise ValueError(f"two rules for {operator} version {version}")
            _ENTRIES[key] = entry
        return function

    return register


def find(node: Node) -> Entry:
    """The rule for `node`.

    Raises: UnsupportedNode if there is none for its operator, version or attributes.
    """
    entry = _ENTRIES.get((node.domain, node.operator, node.since))
    if entry is None:
        raise UnsupportedNode(node.name, node.operator, _why_missing(node), remedy=_remedy(node))
    unknown = set(node.attributes) - entry.attributes
    if unknown:
        raise UnsupportedNode(node.name, node.operator, f"attribute {sorted(unknown)[0]!r} is not understood")
    return entry


def _remedy(node: Node) -> str:
    if node.domain == "" and node.operator not in REFUSED and any(key[:2] == ("", node.operator) for key in _ENTRIES):
        return "convert the model to an operator set that holds a known version of the operator"
    return REMEDIES.get(node.operator, _INSIDE)


def _why_missing(node: Node) -> str:
    if node.domain == "" and node.operator in REFUSED:
        return REFUSED[node.operator]
    versions = sorted(key[2] for key in _ENTRIES if key[:2] == (node.domain, node.operator))
    if versions:
        return f"no rule for the operator as of version {node.since} (known: {', '.join(map(str, versions))})"
    domain = f" of domain {node.domain!r}" if node.domain else ""
    return f"no rule for this operator{domain}; see the list of supported operators"


def support() -> list[OperatorSupport]:
    """The support table: every operator with a rule or folded, then those refused on purpose."""
    entries = {id(entry): entry for entry in _ENTRIES.values()}.values()
    known = [
        OperatorSupport(
            operator=entry.operator,
            domain=entry.domain or "ai.onnx",
            versions=", ".join(map(str, sorted(entry.since))),
            supported=True,
            summary=entry.summary,
        )
        for entry in sorted(entries, key=lambda entry: (entry.operator, entry.since))
    ]
    refused = [
        OperatorSupport(operator=name, domain="ai.onnx", versions="all", supported=False, summary=reason)
        for name, reason in sorted(REFUSED.items())
    ]
    named = {entry.operator for entry in known + refused}
    folded = [
        OperatorSupport(
            operator=name,
            domain="ai.onnx",
            versions="all",
            supported=True,
            summary="Folded where it depends on constants only; refused on values that depend on the input.",
        )
        for name in sorted(FOLDABLE - named)
    ]
    return sorted(known + folded, key=lambda entry: entry.operator) + refused
