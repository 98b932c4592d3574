"""Proved constants as an npz archive without pickles, and back: what a certified model keeps for serving.

Drifts are taken apart into names and tables of numbers, which certificate files write down in their own way.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from certifier.certificates import Constants
from certifier.proof.drifts import Carried, Drifts, Own, Room, Summed
from certifier.proof.execution import Gain, Gains

Floats = NDArray[np.float64]

DRIFT_LAYOUT = 5
"""Raised whenever the numbers of `Drifts` come to mean something else, or were found to be too small: those of another
layout say nothing here."""


class OtherLayout(ValueError):
    """The drifts were written by another build, for which their numbers mean something else."""


def pack_constants(constants: Constants, gains: Gains, drifts: Drifts | None) -> bytes:
    """The constants as npz bytes without pickles."""
    arrays: dict[str, NDArray] = {"upper": np.array(constants.upper)}
    if constants.outputs is not None:
        arrays["outputs"] = constants.outputs
    if constants.pairs is not None:
        arrays["pairs"] = constants.pairs
    arrays["gain_outputs"] = _packed_names(list(gains))
    for position, gain in enumerate(gains.values()):
        # NaN stands for no chain; the first entry is the chain, the rest the sources.
        arrays[f"gain_{position}"] = np.array([np.nan if gain.chain is None else gain.chain, *gain.sources])
    if drifts is not None:
        arrays |= _packed_drifts(drifts)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)  # pyright: ignore[reportArgumentType]
    return buffer.getvalue()


def unpack_constants(data: bytes) -> tuple[Constants, Gains]:
    """The constants and gains that `pack_constants` wrote."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        constants = Constants(
            upper=float(arrays["upper"]),
            outputs=arrays["outputs"] if "outputs" in arrays else None,
            pairs=arrays["pairs"] if "pairs" in arrays else None,
        )
        outputs = _names(arrays["gain_outputs"])
        gains = {output: _gain(arrays[f"gain_{position}"]) for position, output in enumerate(outputs)}
    return constants, gains


def unpack_drifts(data: bytes) -> Drifts | None:
    """The drifts that `pack_constants` wrote, if there were any.

    Raises: OtherLayout.
    """
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        if "drift_whole" not in arrays:
            return None
        if "drift_layout" not in arrays or arrays["drift_layout"].tolist() != DRIFT_LAYOUT:
            raise OtherLayout("the drifts are those of another build")
        return drifts_of(
            DriftTables(
                names={name: _names(arrays[f"drift_{name}"]) for name in DRIFT_NAMES},
                numbers={
                    name.removeprefix("drift_"): arrays[name]
                    for name in arrays.files
                    if name.startswith("drift_") and arrays[name].dtype == np.float64
                },
            )
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class DriftTables:
    """Drifts taken apart: the names of what they speak of, and their numbers.

    Shapes: numbers constants [c]; peak and whole [m]; summed_units [summed]; carried, own and room_forms, one form a
    row; own_gains and carried_outputs [., c]; carried_pairs_i [c, c] for every carried drift that has them.
    """

    names: Mapping[str, Sequence[str]]
    numbers: Mapping[str, Floats]


DRIFT_NAMES = ("values", "sums", "summed", "rooms")


def drift_tables(drifts: Drifts) -> DriftTables:
    """What `drifts_of` puts together again."""
    width, count = drifts.whole.size, drifts.constants.size
    numbers = {
        "summed_units": np.array([part.unit for part in drifts.summed], dtype=np.float64),
        "constants": drifts.constants,
        "room_forms": np.reshape([part.form for part in drifts.rooms], (-1, width)),
        "peak": drifts.peak,
        "whole": drifts.whole,
        "own": np.reshape([part.form for part in drifts.own], (-1, width)),
        "own_gains": np.reshape([part.gains for part in drifts.own], (-1, count)),
        "carried": np.reshape([part.form for part in drifts.carried], (-1, width)),
        "carried_outputs": np.reshape([part.outputs for part in drifts.carried], (-1, count)),
    }
    for place, part in enumerate(drifts.carried):
        if part.pairs is not None:
            numbers[f"carried_pairs_{place}"] = part.pairs
    names = {
        "values": drifts.values,
        "sums": drifts.sums,
        "summed": [part.term for part in drifts.summed],
        "rooms": [part.term for part in drifts.rooms],
    }
    return DriftTables(names={name: list(names[name]) for name in DRIFT_NAMES}, numbers=numbers)


def drifts_of(tables: DriftTables) -> Drifts:
    """The drifts that `drift_tables` took apart."""
    names, numbers = tables.names, tables.numbers
    carried = zip(numbers["carried"], numbers["carried_outputs"], strict=True)
    return Drifts(
        values=tuple(names["values"]),
        sums=tuple(names["sums"]),
        carried=tuple(
            Carried(form=form, outputs=outputs, pairs=numbers.get(f"carried_pairs_{place}"))
            for place, (form, outputs) in enumerate(carried)
        ),
        own=tuple(
            Own(form=form, gains=gains) for form, gains in zip(numbers["own"], numbers["own_gains"], strict=True)
        ),
        summed=tuple(
            Summed(term=term, unit=float(unit))
            for term, unit in zip(names["summed"], numbers["summed_units"], strict=True)
        ),
        constants=numbers["constants"],
        rooms=tuple(
            Room(term=term, form=form) for term, form in zip(names["rooms"], numbers["room_forms"], strict=True)
        ),
        peak=numbers["peak"],
        whole=numbers["whole"],
    )


def _packed_drifts(drifts: Drifts) -> dict[str, NDArray]:
    tables = drift_tables(drifts)
    return {
        "drift_layout": np.array(DRIFT_LAYOUT),
        **{f"drift_{name}": _packed_names(names) for name, names in tables.names.items()},
        **{f"drift_{name}": numbers for name, numbers in tables.numbers.items()},
    }


def _gain(values: NDArray) -> Gain:
    chain, *sources = (float(value) for value in values)
    return Gain(sources=tuple(sources), chain=None if math.isnan(chain) else chain)


def _packed_names(names: Sequence[str]) -> NDArray[np.uint8]:
    """Names of tensors are the model's own and may be anything, so they are kept as data, never as keys."""
    return np.frombuffer(json.dumps(list(names)).encode(), dtype=np.uint8)


def _names(packed: NDArray) -> list[str]:
    return json.loads(bytes(packed))
