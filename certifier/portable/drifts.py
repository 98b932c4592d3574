"""Drifts in a certificate file: written a little above what was proved, and compared with what a verifier derives.

Nothing of a file is put together to drifts before all of its numbers were found to be at least the derived ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certifier.packing import DRIFT_LAYOUT, DriftTables, drift_tables, drifts_of
from certifier.portable.evidence import ROOM, TOO_MUCH_ROOM
from certifier.proof.drifts import Drifts
from certifier.proof.rounding import add_upper, mul_upper

Floats = NDArray[np.float64]
LAYOUT = "layout"
NEGLIGIBLE = 2.0**-1000
"""Numbers of this size underflow, so that their room is more than a small part of themselves."""


def written(drifts: Drifts) -> tuple[dict[str, Any], dict[str, Floats]]:
    """The layout and names, and the numbers, as they are written into a document."""
    tables = drift_tables(drifts)
    numbers = {name: np.asarray(mul_upper(array, ROOM)) for name, array in tables.numbers.items()}
    return {LAYOUT: DRIFT_LAYOUT, **tables.names}, numbers


def is_of_another_layout(header: Mapping[str, Any]) -> bool:
    """Whether the numbers mean something else than those of this build."""
    return header.get(LAYOUT) != DRIFT_LAYOUT


def read(header: Mapping[str, Any], numbers: Mapping[str, Floats], derived: Drifts) -> Drifts | str:
    """The stated drifts, every number of which is at least the derived one; or why they are none of this network.

    Shapes: as in `DriftTables`.
    """
    if is_of_another_layout(header):
        return (
            f"they are of another layout than {DRIFT_LAYOUT}, that of this version, so their numbers mean something "
            "else; verify with the version that wrote them, or certify the model again"
        )
    known = drift_tables(derived)
    for name, names in known.names.items():
        if header.get(name) != names:
            return f"{name}: {_first_other(header.get(name), names)}"
    if header.keys() != {LAYOUT, *known.names}:
        return "they name more than drifts speak of"
    if numbers.keys() != known.numbers.keys():
        return f"the tensor {min(numbers.keys() ^ known.numbers.keys())!r} is missing or too many"
    for name, proved in known.numbers.items():
        stated = numbers[name]
        if stated.shape != proved.shape:
            return f"{name}: of shape {list(stated.shape)}, not {list(proved.shape)}"
        # Written so that a NaN fails.
        if (place := _first(~(stated >= proved))) is not None:
            return f"{name}: smaller than what is derived, at {list(place)}"
        if (place := _first(~(stated <= add_upper(mul_upper(proved, TOO_MUCH_ROOM), NEGLIGIBLE)))) is not None:
            return f"{name}: not what is derived but more, at {list(place)}"
    return drifts_of(DriftTables(names=known.names, numbers=numbers))


def _first(wrong: NDArray[np.bool_]) -> tuple[int, ...] | None:
    return tuple(map(int, np.argwhere(wrong)[0])) if wrong.any() else None


def _first_other(stated: object, names: Sequence[str]) -> str:
    """Where what a stranger wrote parts from these names; nothing of it is repeated, since it may be long."""
    if not isinstance(stated, list):
        return "there are no names"
    for place, name in enumerate(names[: len(stated)]):
        if stated[place] != name:
            return f"at {place} they speak of another than {name!r}"
    return f"they speak of {len(stated)}, not of {len(names)}"
