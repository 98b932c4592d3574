"""Forms are evaluated above what they come to in exact arithmetic, and so is what grows with the ball."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from certifier.proof.drifts import Carried, Drifts, Own, Room, Summed
from certifier.proof.execution import Measures

COUNT = 3
SIZES = (2.0**-1000, 2.0**-30, 1.0, 2.0**40)


def _case(seed: int, size: float) -> tuple[Drifts, Measures]:
    """Drifts with every part there is, around one input."""
    rng = np.random.default_rng(seed)
    forms, gains = rng.random((8, 6)) * size, 1.0 + rng.random((4, COUNT))
    drifts = Drifts(
        values=("x",),
        sums=("y", "z"),
        carried=tuple(
            Carried(form=form, outputs=outputs, pairs=rng.random((COUNT, COUNT)))
            for form, outputs in zip(forms[:2], gains[:2], strict=True)
        ),
        own=tuple(Own(form=form, gains=shares) for form, shares in zip(forms[2:4], gains[2:], strict=True)),
        summed=(Summed(term="y", unit=float(rng.random())), Summed(term="z", unit=float(rng.random()))),
        constants=rng.random(COUNT) * size,
        rooms=(Room(term="n", form=forms[4] / 16), Room(term="m", form=forms[5] / 4)),
        peak=forms[6] / 8,
        whole=forms[7],
    )
    # So large in every other case that what all else is enlarged by makes up for nothing.
    entries = rng.random((2, 1, COUNT)) * size * (1.0, 2.0**30)[seed % 2]
    stray, x, y, z, n, m = rng.random((6, 1, 1))
    return drifts, Measures(
        stray=stray,
        values={"x": x},
        sums={"y": y, "z": z},
        entries={"y": entries[0], "z": entries[1]},
        rooms={"n": n, "m": m},
    )


def _exact(form: np.ndarray, measures: Measures) -> Fraction:
    """A form's fixed part."""
    lengths = [measures.stray, *measures.values.values(), *measures.sums.values()]
    columns = [Fraction(1), *(Fraction(float(length[0, 0])) for length in lengths)]
    return sum((Fraction(c) * v for c, v in zip(form[:-1].tolist(), columns, strict=True)), Fraction(0))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(50))
def test_what_forms_come_to_is_above_the_exact_sums(seed: int, size: float):
    drifts, measures = _case(seed, size)
    around = drifts.at(measures)
    own, growth = [Fraction(c) for c in drifts.constants.tolist()], [Fraction(0)] * COUNT
    for place in range(COUNT):
        for part in drifts.own:
            own[place] += Fraction(float(part.gains[place])) * _exact(part.form, measures)
            growth[place] += Fraction(float(part.gains[place])) * Fraction(float(part.form[-1]))
        for part in drifts.summed:
            own[place] += Fraction(part.unit) * Fraction(float(measures.entries[part.term][0, place]))
    # What follows may round: sums of several of these, and products with a distance.
    room = 1 + Fraction(1, 2**22)
    outputs, steepness = list(own), list(growth)
    for place in range(COUNT):
        for part in drifts.carried:
            outputs[place] += Fraction(float(part.outputs[place])) * _exact(part.form, measures)
            steepness[place] += Fraction(float(part.outputs[place])) * Fraction(float(part.form[-1]))
        assert Fraction(float(around.outputs()[0][0, place])) >= outputs[place] * room
        assert Fraction(float(around.outputs()[1][0, place])) >= steepness[place] * room
    assert Fraction(float(around.whole()[0][0])) >= _exact(drifts.whole, measures) * room
    assert Fraction(float(around.whole()[1])) >= Fraction(float(drifts.whole[-1])) * room
    fixed, growths = around.pairs(np.array([0]))
    for other in range(1, COUNT):
        shares = [Fraction(float(part.pairs[0, other])) for part in drifts.carried if part.pairs is not None]
        exact = own[0] + own[other]
        exact += sum(share * _exact(part.form, measures) for share, part in zip(shares, drifts.carried, strict=True))
        slope = growth[0] + growth[other]
        slope += sum(share * Fraction(float(part.form[-1])) for share, part in zip(shares, drifts.carried, strict=True))
        assert exact <= Fraction(float(fixed[0, other])) <= exact * (1 + Fraction(1, 2**18)) + Fraction(2.0**-990)
        assert slope <= Fraction(float(growths[0, other]))


@pytest.mark.parametrize("size", SIZES[:3])
@pytest.mark.parametrize("seed", range(50))
def test_drifts_within_a_distance_are_above_the_exact_ones_and_end_where_room_does(seed: int, size: float):
    drifts, measures = _case(seed, size)
    around = drifts.at(measures)
    limits = [(Fraction(1), drifts.peak)]
    limits += [(Fraction(float(measures.rooms[part.term][0, 0])), part.form) for part in drifts.rooms]
    exact = min((limit - _exact(form, measures)) / Fraction(float(form[-1])) for limit, form in limits)
    room = Fraction(float(around.room[0]))
    assert room <= max(exact, Fraction(0))
    if room == 0:
        return
    distance = float(around.room[0]) * 0.75
    whole = _exact(drifts.whole, measures) + Fraction(float(drifts.whole[-1])) * Fraction(distance)
    assert Fraction(float(around.within(distance)[0, 0])) >= whole
    assert np.isinf(around.within(float(around.room[0]))).all()
