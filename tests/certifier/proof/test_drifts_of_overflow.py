"""What overflows on the way although the result is small: radii and intervals end before it."""

from __future__ import annotations

import numpy as np
import pytest

from tests.building import Model, certify_model, predictor_of
from tests.certifier.proof.test_drifts import Case

LAST = np.array([1])


def _softmax(model: Model) -> None:
    power = model.add("Exp", "x")
    model.add("Div", power, model.add("ReduceSum", power, LAST, keepdims=1))


def _log_softmax(model: Model) -> None:
    total = model.add("ReduceSum", model.add("Exp", "x"), LAST, keepdims=1)
    model.add("Sub", "x", model.add("Log", total))


@pytest.mark.parametrize("spelling", [_softmax, _log_softmax])
def test_exponentials_without_the_maximum_subtracted_have_no_room_to_overflow(spelling):
    model = Model(2)
    spelling(model)
    case = Case(model, "float32")
    row = np.array([[40.0, 0.0]])
    room = case.at(row).room
    assert 20 < room[0] < 48
    assert np.isfinite(case.engine.run(np.array([[40.0 + room[0], 0.0]]))).all()
    assert not np.isfinite(case.engine.run(np.array([[90.0, 0.0]]))).all()


def test_a_radius_ends_before_exponentials_overflow():
    """What is added beside a softmax makes the margin large, but no number comes of an infinity by another."""
    model = Model(2)
    _softmax(model)
    model.then("Add", "x")
    model.linear(np.eye(2))
    predictor = predictor_of(certify_model(model))
    told = predictor.predict(np.array([[60.0, 0.0], [80.0, 0.0]]), epsilon=None, preprocessing=None)
    radii = [row.radius for row in told]
    assert radii[0] is not None and 0 < radii[0] < 4 and radii[1] == 0
