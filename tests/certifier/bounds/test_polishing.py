"""Polishing: an exact gradient, never worse than where it began, near the optimum where descent was cut short."""

from __future__ import annotations

import numpy as np
import pytest

from certifier.bounds.joint import JointForm, joint_form
from certifier.bounds.multipliers import constants_of, proved_matrix
from certifier.limits import Budget
from certifier.search.multipliers.arrays import NumpyArrays
from certifier.search.multipliers.descent import PATIENT, Found, search
from certifier.search.multipliers.objectives import Objective, pairs
from certifier.search.multipliers.polishing import Polishing
from certifier.search.multipliers.recursion import Recursion
from certifier.tightening.multipliers import chain_of
from tests.building import Model, single
from tests.certifier.bounds.building import bounded

ALIKE = pairs(np.ones((4, 4)))


def _form(*operators: str) -> JointForm:
    generator = np.random.default_rng(5)
    model = Model(6, opset=20)
    for operator in operators:
        model.linear(single(generator.standard_normal((8, 8 if model.nodes else 6)) / 2))
        model.then(operator)
    model.linear(single(generator.standard_normal((4, 8))))
    network, product = bounded(model)
    return joint_form(network, product.lipschitz_upper)


def _searched(recursion: Recursion, *, evaluations: int) -> Found:
    """The best of the first points of a descent."""
    left = iter(range(evaluations))

    def objective(matrix: np.ndarray) -> tuple[float, np.ndarray]:
        if next(left, None) is None:
            raise ArithmeticError
        return ALIKE(matrix)

    found = search(recursion, objective, budget=Budget.of(60), rate=0.1, warm=None, haste=PATIENT)
    assert found is not None
    return found


@pytest.mark.parametrize("operators", [("Relu", "Relu", "Relu"), ("Gelu", "Relu"), ("Relu",)])
def test_polishing_gets_from_a_few_steps_to_where_long_descents_end(operators: tuple[str, ...]) -> None:
    form = _form(*operators)
    recursion = Recursion(chain_of(form), NumpyArrays())
    begun = _searched(recursion, evaluations=20)
    far = _searched(Recursion(chain_of(form), NumpyArrays()), evaluations=2000)
    polished = Polishing(recursion).polish(begun, ALIKE, budget=Budget.of(60), evaluations=None)
    assert polished.value <= begun.value
    assert polished.value - far.value <= 0.25 * (begun.value - far.value)
    # What the search thinks it is worth is what is proved, but for the slack of the proof.
    proved = constants_of(proved_matrix(form, polished.multipliers)).pairs
    assert proved is not None
    mean = float(np.log(proved[np.triu_indices(4, 1)]).mean())
    assert polished.value * (1 - 1e-9) <= mean <= polished.value + 1e-4


def test_no_time_changes_nothing() -> None:
    recursion = Recursion(chain_of(_form("Relu", "Relu")), NumpyArrays())
    begun = _searched(recursion, evaluations=3)
    assert Polishing(recursion).polish(begun, ALIKE, budget=Budget.of(0), evaluations=None) is begun


def test_the_gradient_is_that_of_the_objective() -> None:
    recursion = Recursion(chain_of(_form("Gelu", "Softmax", "Relu")), NumpyArrays())
    polishing = Polishing(recursion)
    begun = _searched(recursion, evaluations=20)
    objective: Objective = ALIKE
    point = polishing._start(begun.multipliers)
    _, gradient = polishing._value(point, objective, Budget.of(60))
    assert np.abs(gradient).max() > 1e-3
    for direction in np.random.default_rng(0).standard_normal((4, len(point))):
        ahead, _ = polishing._value(point + 1e-6 * direction, objective, Budget.of(60))
        behind, _ = polishing._value(point - 1e-6 * direction, objective, Budget.of(60))
        assert (ahead - behind) / 2e-6 == pytest.approx(gradient @ direction, rel=1e-4, abs=1e-6)
