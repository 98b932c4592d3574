"""A witness gives a checker positive numbers of the shape it asks for, or is refused."""

import numpy as np
import pytest

from certifier.errors import NotProved
from certifier.witness import Witness


def _witness(array) -> Witness:
    return Witness(method="frequency", header={"origin": "x"}, arrays={"t": array})


def test_what_fits_is_given() -> None:
    assert _witness(np.array([1.0, 2.0])).positive("t", (2,)).tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    "array",
    [
        np.array([1.0]),
        np.array([[1.0, 2.0]]),
        np.array([1.0, 2.0], dtype=np.float32),
        np.array([1, 2]),
        np.array([1.0, 0.0]),
        np.array([1.0, -2.0]),
        np.array([1.0, np.nan]),
        np.array([1.0, np.inf]),
        np.array([1.0, 5e-324]),
        [1.0, 2.0],
    ],
)
def test_anything_else_is_refused(array) -> None:
    with pytest.raises(NotProved):
        _witness(array).positive("t", (2,))


def test_a_missing_array_is_refused() -> None:
    with pytest.raises(NotProved, match="'g'"):
        _witness(np.array([1.0, 2.0])).positive("g", (2,))
