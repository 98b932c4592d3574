"""One step of an RNN, a GRU and an LSTM, as terms over a step's input and the previous state.

A state that is None is zero, and what it would be multiplied by is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from certifier.operators import Composed, Diagonal, Identity, Kronecker, Operator
from certifier.products import Bilinear, EntrywiseForm
from certifier.rules.building import Floats, size_of
from certifier.rules.registry import Site
from certifier.terms import Activation, Affine, Elementwise, Term

_ROUNDINGS = 8
"""Two sums of products, two biases and a peephole are added up in some order."""


@dataclass(kw_only=True)
class Cell:
    """One direction's weights, and the terms written so far; values are named after the node's first output.

    `inputs` W [gates, hidden, in], `states` R [gates, hidden, hidden], `biases` their two b [2, gates, hidden].
    """

    site: Site
    prefix: str
    inputs: Floats
    states: Floats
    biases: Floats
    peepholes: Floats | None
    functions: tuple[Elementwise, ...]
    batch: int
    reset_after: bool
    terms: list[Term] = field(default_factory=list)
    place: str = ""

    @property
    def shape(self) -> tuple[int, int]:
        """Of a state."""
        return self.batch, self.states.shape[1]

    def sum(self, name: str, parts: list[tuple[Operator, str]], biases: list[Floats]) -> str:
        """Σ A_i v_i + Σ b_j, each b over the hidden units."""
        offset = np.tile(sum(biases, np.zeros(self.shape[1])), self.batch)
        magnitude = np.tile(sum(map(np.abs, biases), np.zeros(self.shape[1])), self.batch)
        return self._add(
            Affine(
                name=self.site.node.name,
                operator=self.site.node.operator,
                sources=tuple(value for _, value in parts),
                output=self._named(name),
                shape=self.shape,
                dtype=self.site.dtype,
                operators=tuple(operator for operator, _ in parts),
                offset=offset,
                offset_magnitude=magnitude,
                arrangement="sum",
                roundings=_ROUNDINGS,
                swelling=1.0,
                amplification=1.0,
            )
        )

    def apply(self, name: str, function: Elementwise, value: str) -> str:
        """f(v) entrywise."""
        return self._add(
            Activation(
                name=self.site.node.name,
                operator=self.site.node.operator,
                sources=(value,),
                output=self._named(name),
                shape=self.shape,
                dtype=self.site.dtype,
                function=function,
            )
        )

    def product(self, name: str, first: str, second: str) -> str:
        """u v entrywise."""
        return self._add(
            Bilinear(
                name=self.site.node.name,
                operator=self.site.node.operator,
                sources=(first, second),
                output=self._named(name),
                shape=self.shape,
                dtype=self.site.dtype,
                form=EntrywiseForm(first=self.shape, second=self.shape, shape=self.shape),
                factors=None,
            )
        )

    def gate(self, number: int, name: str, step: Operator, state: str | None, extra: list[tuple[Operator, str]]) -> str:
        """X_t W_g^T + H R_g^T + b, and what else is added."""
        parts: list[tuple[Operator, str]] = [(Composed([step, self.by(self.inputs[number])]), self.site.live(0))]
        if state is not None:
            parts.append((self.by(self.states[number]), state))
        return self.sum(name, [*parts, *extra], [self.biases[0, number], self.biases[1, number]])

    def by(self, matrix: Floats) -> Kronecker:
        """v -> v M^T for every member of the batch."""
        return Kronecker(matrix, before=self.batch, after=1, weight_error=0.0)

    @property
    def same(self) -> Operator:
        """The identity of a state."""
        return Identity(size_of(self.shape))

    @property
    def negated(self) -> Operator:
        """-1 times a state."""
        return Diagonal(np.full(size_of(self.shape), -1.0), weight_error=0.0)

    def peephole(self, number: int, state: str | None) -> list[tuple[Operator, str]]:
        """P_g C entrywise, where there are peepholes and a state."""
        if self.peepholes is None or state is None:
            return []
        return [(Diagonal(np.tile(self.peepholes[number], self.batch), weight_error=0.0), state)]

    def _named(self, name: str) -> str:
        return f"{self.prefix}/{self.place}/{name}"

    def _add(self, term: Term) -> str:
        self.terms.append(term)
        return term.output


State = tuple[str | None, str | None]
"""The names of H and C; None while they are zero."""
Step = Callable[[Cell, Operator, State], tuple[str, str | None]]


def plain_step(cell: Cell, step: Operator, state: State) -> tuple[str, None]:
    """H = f(X_t W^T + H_(t-1) R^T + b)."""
    return cell.apply("h", cell.functions[0], cell.gate(0, "sum", step, state[0], [])), None


def gru_step(cell: Cell, step: Operator, state: State) -> tuple[str, None]:
    """H = (1 - z) h + z H_(t-1)."""
    (gate, squash), before = cell.functions, state[0]
    update = cell.apply("z", gate, cell.gate(0, "z/sum", step, before, []))
    new = cell.apply("h/new", squash, _candidate(cell, step, before))
    rest = cell.sum("z/rest", [(cell.negated, update)], [np.ones(cell.shape[1])])
    kept = cell.product("h/kept", rest, new)
    if before is None:
        return kept, None
    total = cell.sum("h/total", [(cell.same, kept), (cell.same, cell.product("h/passed", update, before))], [])
    return cell.apply("h", _between_zero_and(squash, gate), total), None


def _candidate(cell: Cell, step: Operator, before: str | None) -> str:
    """X_t W_h^T + (r H_(t-1)) R_h^T + b, or with the reset gate r behind the recurrent matrix."""
    entered: list[tuple[Operator, str]] = [(Composed([step, cell.by(cell.inputs[2])]), cell.site.live(0))]
    both = [cell.biases[0, 2], cell.biases[1, 2]]
    if not cell.reset_after and before is None:
        return cell.sum("h/sum", entered, both)
    reset = cell.apply("r", cell.functions[0], cell.gate(1, "r/sum", step, before, []))
    if not cell.reset_after:
        assert before is not None
        return cell.sum("h/sum", [*entered, (cell.by(cell.states[2]), cell.product("h/reset", reset, before))], both)
    if before is None:
        # The reset gate multiplies what a state of zeros gives: the recurrent bias.
        bias = Diagonal(np.tile(cell.biases[1, 2], cell.batch), weight_error=0.0)
        return cell.sum("h/sum", [*entered, (bias, reset)], both[:1])
    recurrent = cell.sum("h/recurrent", [(cell.by(cell.states[2]), before)], both[1:])
    return cell.sum("h/sum", [*entered, (cell.same, cell.product("h/reset", reset, recurrent))], both[:1])


def _between_zero_and(squash: Elementwise, gate: Elementwise) -> Elementwise:
    """The identity of a GRU's states, which lie between 0 and the values of `squash` if the gate lies in [0, 1].

    The first state is 0, and every further one a convex combination of the one before and a value of `squash`.
    """
    convex = gate.image[0] >= 0 and gate.image[1] <= 1
    image = (min(squash.image[0], 0.0), max(squash.image[1], 0.0)) if convex else (-np.inf, np.inf)
    return Elementwise(
        name="a convex combination",
        evaluate=lambda x: x,
        derivative=np.ones_like,
        slope_lower=1.0,
        slope_upper=1.0,
        ulps=0.0,
        absolute_ulps=0.0,
        image=image,
    )


def lstm_step(cell: Cell, step: Operator, state: State) -> tuple[str, str]:
    """C = f C_(t-1) + i c, H = o read(C)."""
    gate, squash, read = cell.functions
    before, memory = state
    names = {"i": 0, "o": 1, "f": 2, "c": 3}
    enter = cell.apply("i", gate, cell.gate(names["i"], "i/sum", step, before, cell.peephole(0, memory)))
    new = cell.apply("c/new", squash, cell.gate(names["c"], "c/sum", step, before, []))
    entered = cell.product("c/entered", enter, new)
    now = entered
    if memory is not None:
        forget = cell.apply("f", gate, cell.gate(names["f"], "f/sum", step, before, cell.peephole(2, memory)))
        now = cell.sum("c", [(cell.same, entered), (cell.same, cell.product("c/kept", forget, memory))], [])
    leave = cell.apply("o", gate, cell.gate(names["o"], "o/sum", step, before, cell.peephole(1, now)))
    return cell.product("h", leave, cell.apply("h/read", read, now)), now
