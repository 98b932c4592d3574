"""`is_proved_below`: b I - (G + E) is proved semidefinite for every small E, or nothing is claimed."""

from __future__ import annotations

import numpy as np
import pytest

from certifier.proof.semidefinite import is_proved_below

ORDERS = (1, 2, 5, 16, 17, 64, 200)


def hermitian_stack(order: int, is_complex: bool) -> tuple[np.ndarray, np.ndarray]:
    """Exactly Hermitian Gram matrices with their largest eigenvalues."""
    generator = np.random.default_rng(order)
    factors = generator.standard_normal((6, order, order + 3))
    if is_complex:
        factors = factors + 1j * generator.standard_normal(factors.shape)
    stack = factors @ np.conj(np.swapaxes(factors, 1, 2))
    stack = (stack + np.conj(np.swapaxes(stack, 1, 2))) / 2
    return stack, np.array([np.linalg.eigvalsh(matrix)[-1] for matrix in stack])


@pytest.mark.parametrize("scale", [1.0, 2.0**-200, 2.0**300])
@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_proved_just_above_and_never_below(order: int, is_complex: bool, scale: float) -> None:
    stack, largest = hermitian_stack(order, is_complex)
    none = np.zeros(len(stack))
    assert is_proved_below(stack * scale, none, largest * scale * (1 + 1e-10)).all()
    assert not is_proved_below(stack * scale, none, largest * scale * (1 - 1e-12)).any()
    assert not is_proved_below(stack * scale, largest * scale * 2e-10, largest * scale * (1 + 1e-10)).any()


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_never_proved(order: int, is_complex: bool, bad: float) -> None:
    stack, largest = hermitian_stack(order, is_complex)
    stack[0, -1, 0] = stack[0, 0, -1] = bad
    stack[1, 0, 0] = bad
    proved = is_proved_below(stack, np.zeros(6), 2 * largest)
    assert not proved[:2].any() and proved[2:].all()
    for errors, bounds in ((np.full(6, bad), largest * 2), (np.zeros(6), np.full(6, bad))):
        assert not is_proved_below(stack, errors, bounds).any()


def test_bounds_out_of_range_and_negative_errors_are_not_proved() -> None:
    stack, largest = hermitian_stack(5, False)
    for bound in (0.0, -1.0, 2.0**-901, 2.0**901):
        assert not is_proved_below(stack * 1e-290, np.zeros(6), np.full(6, bound)).any()
    assert not is_proved_below(stack, np.full(6, -1e-3), 2 * largest).any()
