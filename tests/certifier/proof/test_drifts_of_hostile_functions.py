"""Drifts of functions of unbounded slope in the networks that attacks are made on, wherever there is room for them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.building import Model
from tests.certifier.hostile_functions import KINDS
from tests.certifier.proof.test_drifts import Case, hold

NETWORKS = 25


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_engine_keeps_to_drifts_near_the_ends_of_domains(
    kind: Callable[[np.random.Generator], tuple[Model, np.ndarray]],
) -> None:
    held = 0
    for seed in range(NETWORKS):
        generator = np.random.default_rng(seed)
        model, rows = kind(generator)
        case = Case(model, "float32")
        around = case.at(rows)
        for row in rows[around.room > 0]:
            hold(case, np.repeat(row[None], 2, axis=0), generator, (0.0, 1e-6, 1e-3, 1.0))
            held += 1
    assert held >= NETWORKS
