"""Margins and constants -> radii: strictly below, never on a tie, never from what rounding could hide."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from certifier.certificates import LARGEST, Constants, decide, decide_binary, output_reach, strictly_below
from certifier.packing import pack_constants, unpack_constants
from certifier.proof.execution import Gain
from tests.building import Model, certify_model, predictor_of, single

POSITIVE = st.floats(min_value=5e-324, max_value=1e308, allow_nan=False)


@given(POSITIVE, POSITIVE)
def test_radius_times_constant_is_strictly_below_the_margin(margin, constant):
    """In exact arithmetic, over the whole range of float64."""
    radius = float(strictly_below(np.array([margin]), np.array([constant]))[0])
    assert radius >= 0
    assert Fraction(radius) * Fraction(constant) < Fraction(margin)


@given(st.floats(min_value=1e-290, max_value=1e290), st.floats(min_value=1e-10, max_value=1e10))
def test_the_radius_gives_away_only_a_few_steps(margin, constant):
    radius = float(strictly_below(np.array([margin]), np.array([constant]))[0])
    assert radius >= margin / constant * (1 - 1e-15)


@pytest.mark.parametrize("margin", [0.0, -1.0, np.nan, -np.inf])
def test_no_margin_gives_no_radius(margin):
    assert strictly_below(np.array([margin]), np.array([1.0]))[0] == 0.0


def _pairs(count: int, constant: float) -> np.ndarray:
    return constant * (1 - np.eye(count))


def test_the_nearest_rival_is_not_always_the_runner_up():
    """Every rival counts by its own constant."""
    pairs = np.array([[0.0, 1.0, 10.0], [1.0, 0.0, 10.0], [10.0, 10.0, 0.0]])
    decisions = decide(np.array([[5.0, 4.0, 3.0]]), np.zeros((1, 3)), pairs, None)
    assert decisions.label[0] == 0 and decisions.runner_up[0] == 1
    assert decisions.radius[0] == pytest.approx(0.2) and decisions.radius[0] < 0.2


@pytest.mark.parametrize(
    "logits", [[1.0, 1.0, 0.0], [np.nan, 1.0, 0.0], [np.inf, 1.0, 0.0], [0.0, -np.inf, 1.0], [0.0, 0.0, 0.0]]
)
def test_ties_and_logits_that_are_not_finite_get_radius_zero(logits):
    decisions = decide(np.array([logits]), np.zeros((1, 3)), _pairs(3, 1.0), None)
    assert decisions.radius[0] == 0.0 and decisions.because[0]


def test_margins_that_rounding_could_hide_get_radius_zero():
    for stray in (0.5, 0.6, np.inf):
        decisions = decide(np.array([[1.0, 0.0]]), np.full((1, 2), stray), _pairs(2, 1.0), None)
        assert decisions.radius[0] == 0.0 and decisions.because[0]
    assert decide(np.array([[1.0, 0.0]]), np.full((1, 2), 0.4), _pairs(2, 1.0), None).radius[0] < 0.2


def test_what_rounding_hides_is_taken_off_the_margin_of_every_rival():
    """The rival that is further away but less precisely known decides."""
    decisions = decide(np.array([[4.0, 3.0, 2.0]]), np.array([[0.0, 0.0, 1.5]]), _pairs(3, 1.0), None)
    assert decisions.radius[0] <= 0.5


def test_a_pair_that_never_changes_has_the_largest_radius():
    decisions = decide(np.array([[1.0, 0.0]]), np.zeros((1, 2)), np.zeros((2, 2)), None)
    assert decisions.radius[0] == LARGEST


@pytest.mark.parametrize(("logit", "label"), [(1.0, 1), (-1.0, 0)])
def test_a_binary_decision_takes_the_threshold_and_its_rounding_off(logit, label):
    decisions = decide_binary(np.array([logit]), np.array([0.25]), (0.0, 0.25), 2.0, None)
    assert decisions.label[0] == label and decisions.radius[0] < 0.25
    for bad in (0.0, np.nan, np.inf):
        assert decide_binary(np.array([bad]), np.array([0.0]), (0.0, 0.0), 2.0, None).radius[0] == 0.0


def test_output_reach_falls_back_to_the_whole_vector():
    constants = Constants(upper=2.0, outputs=None, pairs=None)
    assert (output_reach(constants, 0.5, 3) >= 1.0).all()


NAMES = [
    "h",
    "h.npy",
    "h\x00",
    "h\x00.npy",
    "upper",
    "pairs",
    "outputs",
    "gain:h",
    "file",
    "a/../b",
    "é",
    "",
    "0",
    "x.npy.npy",
]


def test_gains_survive_whatever_their_values_are_called():
    """Archives prefer `h` where `h.npy` was meant, and cut names at NUL."""
    gains = {name: Gain(sources=(1.0 + position,), chain=None) for position, name in enumerate(NAMES)}
    gains["several"] = Gain(sources=(1.0, 2.0), chain=0.5)
    constants = Constants(upper=3.0, outputs=np.ones(2), pairs=_pairs(2, 1.0))
    again, unpacked = unpack_constants(pack_constants(constants, gains, None))
    assert unpacked == gains
    assert again.upper == 3.0 and again.pairs is not None and np.array_equal(again.pairs, _pairs(2, 1.0))


def test_a_predictor_uses_the_gains_that_were_proved():
    """With values named like archive members."""
    generator = np.random.default_rng(0)
    model = Model(4)
    model.add("Mul", "x", np.full(4, 2.0**-20), outputs=["h"])
    model.add("Gemm", "h", single(generator.standard_normal((4, 4)) * 2.0**20), outputs=["h.npy"])
    model.linear(single(generator.standard_normal((3, 4))))
    predictor = predictor_of(certify_model(model))
    gain = predictor._gains["h.npy"]
    assert gain.sources[0] > 2.0**18
