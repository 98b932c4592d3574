"""What is said of how far outputs move counts the constants, the enclosure and the drift at either end."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from certifier.certificates import Constants
from certifier.changes import comparison, output_bounds
from certifier.proof.drifts import Carried, Drifts
from certifier.proof.execution import Enclosure, Measures

CONSTANTS = Constants(upper=3.0, outputs=np.array([1.0, 2.0]), pairs=None)
DISTANCE = 0.1
MEASURES = Measures(stray=np.zeros((1, 1)), values={"x": np.ones((1, 1))}, sums={}, entries={}, rooms={})
ENCLOSURE = Enclosure(centre=np.array([[5.0, -7.0]]), radius=np.full((1, 2), 0.3), measures=MEASURES)
DRIFTS = Drifts(
    values=("x",),
    sums=(),
    carried=(Carried(form=np.array([0.0, 0.0, 0.25, 0.5]), outputs=np.ones(2), pairs=None),),
    own=(),
    summed=(),
    constants=np.zeros(2),
    rooms=(),
    peak=np.array([0.0, 0.0, 0.0, 1.0]),
    whole=np.array([0.0, 0.0, 0.25, 0.5]),
)


def test_bounds_of_outputs_count_the_constants_the_enclosure_and_the_drift():
    (bounds,) = output_bounds(CONSTANTS, ENCLOSURE, DRIFTS.at(MEASURES), epsilon=DISTANCE, stretch=2.0)
    assert bounds is not None
    moved = 2 * Fraction(DISTANCE)
    drift = Fraction(1, 4) + Fraction(1, 2) * moved
    assert 3 * moved + 2 * drift <= Fraction(bounds.l2) <= (3 * moved + 2 * drift) * (1 + Fraction(1, 2**18))
    for interval, centre, constant in zip(bounds.intervals, (5, -7), (1, 2), strict=True):
        reach = constant * moved + Fraction(0.3) + drift
        assert Fraction(interval.lower) <= centre - reach and centre + reach <= Fraction(interval.upper)
        assert Fraction(interval.upper) - Fraction(interval.lower) <= 2 * reach * (1 + Fraction(1, 2**18))


def test_bounds_of_exact_outputs_have_no_drift_and_those_that_overflow_are_not_given():
    (bounds,) = output_bounds(CONSTANTS, ENCLOSURE, None, epsilon=DISTANCE, stretch=1.0)
    assert bounds is not None and Fraction(0.3) <= Fraction(bounds.l2) <= Fraction(0.3001)
    assert output_bounds(CONSTANTS, ENCLOSURE, None, epsilon=1e308, stretch=1.0) == [None]
    assert output_bounds(CONSTANTS, ENCLOSURE, DRIFTS.at(MEASURES), epsilon=2.0, stretch=1.0) == [None]


def test_a_comparison_counts_the_rounding_of_both_answers():
    rounding = np.array([0.5, 0.0])
    outputs = np.array([1.0, 2.0]), np.array([0.0, 2.0])
    found = comparison(CONSTANTS, np.array([3.0, 0.0]), np.array([0.0, 4.0]), outputs, rounding)
    assert 5.0 <= found.input_difference <= 5.0 * (1 + 1e-12) and found.output_difference == 1.0
    assert found.output_difference_bound >= 15.5
    assert [output.bound >= bound for output, bound in zip(found.outputs, (5.5, 10.0), strict=True)] == [True, True]
