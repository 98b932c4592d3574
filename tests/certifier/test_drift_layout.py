"""The number of the layout stands for what the numbers of drifts mean: whoever changes that has to raise it."""

from __future__ import annotations

import numpy as np

from certifier.documents import AskedArithmetic
from certifier.packing import DRIFT_LAYOUT, drift_tables
from tests.building import Model
from tests.certifier.proof.test_drifts import Case

LAYOUT = 5
NAMES = {
    "values": ["x", "v0", "v1", "v2", "v4", "v5", "v6"],
    "sums": ["v0", "v4", "v6", "v7", "v8"],
    "summed": ["v8"],
    "rooms": ["v5"],
}
NUMBERS = {
    "carried": 7.7523778e11,
    "carried_outputs": 14.4790706,
    "carried_pairs_0": 13.5275868,
    "carried_pairs_1": 13.5275868,
    "constants": 1.83563779e-06,
    "own": 6.27329392e12,
    "own_gains": 1.79284816e-05,
    "peak": 2.06363647e10,
    "room_forms": 9.52269979e10,
    "summed_units": 536871107,
    "whole": 1.49695436e12,
    "pairs at x": 0.00350680317,
    "pairs per radius": 0.00478352686,
    "outputs at x": 0.00280642513,
    "outputs per radius": 0.00335952149,
    "room at x": 0.0479088503,
}
MEANING = (
    "the drifts of one network have come to other numbers. If these mean something else than before (what a form "
    "multiplies, what is measured, what is added where), or if they were too small before, raise DRIFT_LAYOUT in "
    "certifier/packing.py, so that nobody takes stored ones for today's; if they only became tighter, or looser than "
    "they had to be, keep it. Then write down here"
)


def _case(arithmetic: AskedArithmetic) -> Case:
    """A gate, a steep function, a room, a sum of two branches and a last run of two layers, with exact weights."""
    model = Model(3, opset=20)
    model.linear(_weights(4, 3), _weights(1, 4)[0])
    first = model.then("Tanh")
    model.then("Exp")
    model.then("Mul", first)
    model.linear(_weights(4, 4))
    model.then("LayerNormalization", np.ones(4), np.zeros(4), axis=-1, epsilon=2.0**-6)
    model.then("Add", first)
    model.linear(_weights(3, 4), _weights(1, 3)[0])
    model.linear(_weights(2, 3))
    return Case(model, arithmetic)


def _weights(rows: int, columns: int) -> np.ndarray:
    """Eighths between -1 and 1, none of them alike their neighbours."""
    return (np.arange(rows * columns) * 5 % 17 - 8.0).reshape(rows, columns) / 8


def _weighed(numbers: np.ndarray) -> float:
    """One number for a table: its entries, no two of which weigh the same."""
    flat = numbers.reshape(-1)
    return float(flat @ (1.0 + np.arange(flat.size)))


def test_numbers_of_this_layout_mean_what_they_meant() -> None:
    case = _case("float32")
    tables = drift_tables(case.drifts)
    around = case.at(np.array([[0.5, -0.25, 0.75]]))
    found = {name: _weighed(numbers) for name, numbers in sorted(tables.numbers.items())}
    label = np.zeros(1, dtype=np.intp)
    for name, (fixed, growth) in {"pairs": around.pairs(label), "outputs": around.outputs()}.items():
        found |= {f"{name} at x": _weighed(fixed), f"{name} per radius": _weighed(growth)}
    found["room at x"] = float(around.room[0])
    written = f"LAYOUT = {DRIFT_LAYOUT}\nNAMES = {tables.names!r}\nNUMBERS = {found!r}"
    # Rounded, since another machine adds up in another order.
    alike = found.keys() == NUMBERS.keys() and all(abs(found[name] / NUMBERS[name] - 1) < 1e-5 for name in found)
    assert alike and tables.names == NAMES and DRIFT_LAYOUT == LAYOUT, f"{MEANING}\n\n{written}"
