"""Proved constants as an npz archive without pickles, and back: what a certified model keeps for serving."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from certifier.certificates import Constants
from certifier.proof.drifts import Carried, Drifts, Own, Room, Summed
from certifier.proof.execution import Gain, Gains

Arrays = Mapping[str, NDArray]

DRIFT_LAYOUT = 4
"""Raised whenever the numbers of `Drifts` come to mean something else: those of another layout say nothing here."""


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
        return Drifts(
            values=tuple(_names(arrays["drift_values"])),
            sums=tuple(_names(arrays["drift_sums"])),
            carried=tuple(_carried(arrays, place) for place in range(len(arrays["drift_carried"]))),
            own=tuple(
                Own(form=form, gains=gains)
                for form, gains in zip(arrays["drift_own"], arrays["drift_own_gains"], strict=True)
            ),
            summed=tuple(
                Summed(term=term, unit=float(unit))
                for term, unit in zip(_names(arrays["drift_summed"]), arrays["drift_summed_units"], strict=True)
            ),
            constants=arrays["drift_constants"],
            rooms=tuple(
                Room(term=term, form=form)
                for term, form in zip(_names(arrays["drift_rooms"]), arrays["drift_room_forms"], strict=True)
            ),
            peak=arrays["drift_peak"],
            whole=arrays["drift_whole"],
        )


def _packed_drifts(drifts: Drifts) -> dict[str, NDArray]:
    width, count = drifts.whole.size, drifts.constants.size
    arrays = {
        "drift_layout": np.array(DRIFT_LAYOUT),
        "drift_values": _packed_names(drifts.values),
        "drift_sums": _packed_names(drifts.sums),
        "drift_summed": _packed_names([part.term for part in drifts.summed]),
        "drift_summed_units": np.array([part.unit for part in drifts.summed]),
        "drift_constants": drifts.constants,
        "drift_rooms": _packed_names([part.term for part in drifts.rooms]),
        "drift_room_forms": np.reshape([part.form for part in drifts.rooms], (-1, width)),
        "drift_peak": drifts.peak,
        "drift_whole": drifts.whole,
        "drift_own": np.reshape([part.form for part in drifts.own], (-1, width)),
        "drift_own_gains": np.reshape([part.gains for part in drifts.own], (-1, count)),
        "drift_carried": np.reshape([part.form for part in drifts.carried], (-1, width)),
        "drift_carried_outputs": np.reshape([part.outputs for part in drifts.carried], (-1, count)),
    }
    for place, part in enumerate(drifts.carried):
        if part.pairs is not None:
            arrays[f"drift_carried_pairs_{place}"] = part.pairs
    return arrays


def _carried(arrays: Arrays, place: int) -> Carried:
    pairs = f"drift_carried_pairs_{place}"
    return Carried(
        form=arrays["drift_carried"][place],
        outputs=arrays["drift_carried_outputs"][place],
        pairs=arrays[pairs] if pairs in arrays else None,
    )


def _gain(values: NDArray) -> Gain:
    chain, *sources = (float(value) for value in values)
    return Gain(sources=tuple(sources), chain=None if math.isnan(chain) else chain)


def _packed_names(names: Sequence[str]) -> NDArray[np.uint8]:
    """Names of tensors are the model's own and may be anything, so they are kept as data, never as keys."""
    return np.frombuffer(json.dumps(list(names)).encode(), dtype=np.uint8)


def _names(packed: NDArray) -> list[str]:
    return json.loads(bytes(packed))
