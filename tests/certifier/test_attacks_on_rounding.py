"""The engine itself, attacked inside of the radii that are certified for it: rounding flips nothing there.

Reference: Murray 2026, arXiv 2603.13334, whose network with hostile biases flips inside of real-arithmetic radii.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.certifier.attack_campaign import (
    HOSTILE,
    answers,
    attacked_biases,
    attacked_networks,
    hardest_images,
    images,
    with_biases,
)
from tests.certifier.rounding_attacks import SHARES, Target, steps_along_the_gradient


@pytest.mark.needs_shared
def test_hostile_biases_flip_answers_inside_of_real_radii_and_none_inside_of_float32_radii(shared: Path):
    """More than 8 000 steps of 5 to 95 % of each radius; biases of a million leave no float32 radius at all."""
    data = (shared / HOSTILE).read_bytes()
    target, rows = Target.of(data), images(shared, 8 * 1024 // len(SHARES) + 20)
    labels, real = answers(data, rows, "real")
    tries, flipped = steps_along_the_gradient(target, rows, labels, real)
    assert tries >= 8000 and flipped > 0
    labels, executed = answers(data, rows, "float32")
    assert steps_along_the_gradient(target, rows, labels, executed)[1] == 0
    assert (executed <= real).all()


@pytest.mark.needs_shared
@pytest.mark.parametrize(("size", "count", "positive"), [(1e4, 700, 0.7), (3e4, 200, 0.15)])
def test_the_same_attacks_flip_answers_inside_of_real_radii_only(
    shared: Path, size: float, count: int, positive: float
):
    """Biases at which many images keep a float32 radius, and the hardest ones flip inside of their real one."""
    data = with_biases((shared / HOSTILE).read_bytes(), size)
    rows = np.concatenate([images(shared, count), hardest_images(shared, data, 60)])
    found = attacked_biases(data, rows, hardest=30)
    assert found.positive > positive
    assert found.tries > count * positive * len(SHARES) and found.flipped == 0
    assert found.real_flipped > 0


@pytest.mark.needs_shared
def test_small_biases_leave_radii_that_no_attack_breaks(shared: Path):
    """Where single precision bears the biases, radii are hardly smaller than real ones."""
    found = attacked_biases(with_biases((shared / HOSTILE).read_bytes(), 1e3), images(shared, 60), hardest=20)
    assert found.positive > 0.9 and found.tries > 1000 and found.flipped == 0


def test_no_hostile_network_breaks_a_float32_certificate():
    found = attacked_networks(tries=300, first=0, real_every=1)
    assert found.tries >= 300 and found.flipped == 0
    # The same attacks break certificates over the reals, so they bite.
    assert found.real_flipped > 0


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_hundred_thousand_tries_break_no_float32_certificate():
    found = attacked_networks(tries=100_000, first=10_000)
    assert found.flipped == 0 and found.real_flipped > 0


@pytest.mark.slow
@pytest.mark.needs_shared
@pytest.mark.parametrize("size", [1e4, 3e4])
def test_all_test_images_withstand_hostile_biases(shared: Path, size: float):
    found = attacked_biases(with_biases((shared / HOSTILE).read_bytes(), size), images(shared, 10_000), hardest=500)
    assert found.tries >= 8000 and found.flipped == 0 and found.real_flipped > 0
