"""LSTM, GRU and RNN, written out step by step over their fixed length, from a state of zeros.

Each gate is an affine map of the step's input and the previous state, followed by its activation; the cells' products
are products of live values, which ranges bound (`certifier.ranges`): sigmoids lie in [0, 1], tanh in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from certifier import elementwise
from certifier.operators import Operator, Placed, Rearrange
from certifier.rules.building import size_of
from certifier.rules.recurrent_cells import Cell, State, Step, gru_step, lstm_step, plain_step
from certifier.rules.registry import Site, rule
from certifier.terms import Affine, Elementwise, Term

_ATTRIBUTES = ("activations", "direction", "hidden_size", "layout")
_ACTIVATIONS: dict[str, Callable[[], Elementwise]] = {
    "relu": elementwise.relu,
    "sigmoid": elementwise.sigmoid,
    "softplus": elementwise.softplus,
    "softsign": elementwise.softsign,
    "tanh": elementwise.tanh,
}


@rule("RNN", since=(7, 14, 22), attributes=_ATTRIBUTES)
def rnn(site: Site) -> tuple[Term, ...]:
    """H_t = f(X_t W^T + H_(t-1) R^T + b), step by step; weights constant, the initial state zero."""
    return _unrolled(site, gates=1, functions=("Tanh",), step=plain_step)


@rule("GRU", since=(7, 14, 22), attributes=(*_ATTRIBUTES, "linear_before_reset"))
def gru(site: Site) -> tuple[Term, ...]:
    """H_t = (1 - z) h + z H_(t-1) with gates z, r of X_t and H_(t-1), step by step; the initial state zero."""
    return _unrolled(site, gates=3, functions=("Sigmoid", "Tanh"), step=gru_step)


@rule("LSTM", since=(7, 14, 22), attributes=_ATTRIBUTES)
def lstm(site: Site) -> tuple[Term, ...]:
    """C_t = f C_(t-1) + i c, H_t = o h(C_t) with gates of X_t and H_(t-1), step by step; the initial states zero."""
    return _unrolled(site, gates=4, functions=("Sigmoid", "Tanh", "Tanh"), step=lstm_step)


def _unrolled(site: Site, *, gates: int, functions: tuple[str, ...], step: Step) -> tuple[Term, ...]:
    x = site.shape(0)
    if len(x) != 3:
        raise site.refuse(f"needs a sequence of rank 3, not {len(x)}")
    first_batch = site.integer("layout", 0) == 1
    batch, length = (x[0], x[1]) if first_batch else (x[1], x[0])
    direction = site.text("direction", "forward")
    if direction not in ("forward", "reverse", "bidirectional"):
        raise site.refuse(f"direction {direction!r} is not understood")
    directions = 2 if direction == "bidirectional" else 1
    _demand_plain(site)
    weights, states = site.weights(1, "the weights W"), site.weights(2, "the recurrent weights R")
    hidden = site.integer("hidden_size", states.shape[-1])
    biases = site.weights(3, "the biases B") if site.has(3) else np.zeros((directions, 2 * gates * hidden))
    peepholes = site.weights(7, "the peepholes P") if site.has(7) else None
    rows = gates * hidden
    _demand_shape(site, "W", weights, (directions, rows, x[2]))
    _demand_shape(site, "R", states, (directions, rows, hidden))
    _demand_shape(site, "B", biases, (directions, 2 * rows))
    if peepholes is not None:
        _demand_shape(site, "P", peepholes, (directions, 3 * hidden))
    chosen = _functions(site, functions, directions)
    terms: list[Term] = []
    histories: list[list[tuple[str, str | None]]] = []
    for way in range(directions):
        cell = Cell(
            site=site,
            prefix=f"{next(name for name in site.node.outputs if name)}/{way}",
            inputs=weights[way].reshape(gates, hidden, x[2]),
            states=states[way].reshape(gates, hidden, hidden),
            biases=biases[way].reshape(2, gates, hidden),
            peepholes=None if peepholes is None else peepholes[way].reshape(3, hidden),
            functions=chosen[way],
            batch=batch,
            reset_after=site.integer("linear_before_reset", 0) != 0,
        )
        backwards = direction == "reverse" or way == 1
        histories.append(_run(cell, step, x, length, first_batch=first_batch, backwards=backwards))
        terms += cell.terms
    terms += _outputs(site, histories, (batch, hidden), first_batch=first_batch)
    return tuple(terms)


def _run(
    cell: Cell, step: Step, x: tuple[int, ...], length: int, *, first_batch: bool, backwards: bool
) -> list[tuple[str, str | None]]:
    """(H, C) after every position, in the order of positions."""
    places = np.arange(size_of(x)).reshape(x)
    history: dict[int, tuple[str, str | None]] = {}
    state: State = (None, None)
    for position in range(length - 1, -1, -1) if backwards else range(length):
        cell.site.limits.demand("nodes", len(cell.terms), f"node {cell.site.node.name!r}, written out step by step")
        picked = places[:, position] if first_batch else places[position]
        cell.place = str(position)
        state = step(cell, Rearrange(picked.reshape(-1), columns=size_of(x)), state)
        assert state[0] is not None
        history[position] = (state[0], state[1])
    return [history[position] for position in range(length)]


def _outputs(
    site: Site, histories: list[list[tuple[str, str | None]]], state: tuple[int, int], *, first_batch: bool
) -> Iterator[Term]:
    """Y with every H, Y_h and Y_c with the last ones, in the node's layout."""
    outputs = dict(enumerate(site.node.outputs))
    batch, hidden = state
    ways, length = len(histories), len(histories[0])
    last = [0 if way == 1 or site.text("direction", "forward") == "reverse" else length - 1 for way in range(ways)]
    if outputs.get(0):
        everything = [(history[t][0], t, way) for way, history in enumerate(histories) for t in range(length)]
        shape = (batch, length, ways, hidden) if first_batch else (length, ways, batch, hidden)
        cells = np.arange(size_of(shape)).reshape(shape)
        targets = [(name, cells[:, t, way] if first_batch else cells[t, way]) for name, t, way in everything]
        yield _stacked(site, targets, outputs[0], shape)
    for number, which in ((1, 0), (2, 1)):
        if outputs.get(number):
            shape = (batch, ways, hidden) if first_batch else (ways, batch, hidden)
            cells = np.arange(size_of(shape)).reshape(shape)
            targets = []
            for way, history in enumerate(histories):
                name = history[last[way]][which]
                assert name is not None
                targets.append((name, cells[:, way] if first_batch else cells[way]))
            yield _stacked(site, targets, outputs[number], shape)


def _stacked(site: Site, targets: list[tuple[str, np.ndarray]], output: str, shape: tuple[int, ...]) -> Affine:
    """Every value laid down at its places, which are disjoint."""
    operators: list[Operator] = []
    for _, places in targets:
        flat = places.reshape(-1)
        contiguous = np.array_equal(flat, np.arange(flat[0], flat[0] + flat.size))
        if contiguous:
            operators.append(Placed(before=1, own=flat.size, after=1, total=size_of(shape), start=int(flat[0])))
            continue
        indices = np.full(size_of(shape), -1)
        indices[flat] = np.arange(flat.size)
        operators.append(Rearrange(indices, columns=flat.size))
    return Affine(
        name=site.node.name,
        operator=site.node.operator,
        sources=tuple(name for name, _ in targets),
        output=output,
        shape=shape,
        dtype=site.dtype,
        operators=tuple(operators),
        offset=None,
        offset_magnitude=None,
        arrangement="stack",
        roundings=0,
        swelling=1.0,
        amplification=1.0,
    )


def _demand_shape(site: Site, name: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise site.refuse(f"needs {name} of shape {list(shape)}, not {list(values.shape)}")


def _demand_plain(site: Site) -> None:
    """Full sequences from zero states.  Raises: UnsupportedNode."""
    if site.has(4):
        lengths = np.asarray(site.constant(4, "sequence_lens")).reshape(-1)
        longest = site.shape(0)[1 if site.integer("layout", 0) == 1 else 0]
        if (lengths != longest).any():
            raise site.refuse("sequence_lens shorter than the sequence are not supported")
    for index, role in ((5, "initial_h"), (6, "initial_c")):
        if site.has(index) and site.weights(index, role).any():
            raise site.refuse(f"{role} (input {index}) must be zero: another initial state is not supported")


def _functions(site: Site, defaults: tuple[str, ...], directions: int) -> list[tuple[Elementwise, ...]]:
    given = site.node.attributes.get("activations")
    names = list(defaults) * directions if given is None else [_text(name) for name in given]  # pyright: ignore
    if len(names) != len(defaults) * directions:
        raise site.refuse(f"needs {len(defaults) * directions} activations, not {len(names)}")
    unknown = [name for name in names if name.lower() not in _ACTIVATIONS]
    if unknown:
        raise site.refuse(f"its activation {unknown[0]!r} is not supported inside a recurrence")
    made = [_ACTIVATIONS[name.lower()]() for name in names]
    return [tuple(made[way * len(defaults) : (way + 1) * len(defaults)]) for way in range(directions)]


def _text(name: object) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
