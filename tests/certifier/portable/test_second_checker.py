"""Two verifiers that share no code agree on small networks, on what holds and on what does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from flint import arb

from certifier.errors import CertificateRefused
from certifier.portable.document import Contents, from_bytes
from tests.certifier.portable.certified import Case, certified, dense, forged, verified
from tests.certifier.portable.second_checker import holds, implied


def _scaled_pairs(factor: float):
    def change(parts: Contents) -> Contents:
        assert parts.constants.pairs is not None
        return replace(parts, constants=replace(parts.constants, pairs=parts.constants.pairs * factor))

    return change


def _first_holds(case: Case) -> bool:
    try:
        verified(case)
    except CertificateRefused:
        return False
    return True


@pytest.mark.parametrize("operator", ["Relu", "Tanh", "Sigmoid", "Softplus"])
@pytest.mark.parametrize("seed", [0, 1])
def test_both_accept_what_was_certified(operator: str, seed: int) -> None:
    case = certified(dense(seed, operator=operator, width=6), seconds=0.5)
    assert _first_holds(case)
    assert holds(case.model, case.certificate)


@pytest.mark.parametrize("seed", range(4))
def test_both_refuse_pairs_that_are_too_small(seed: int) -> None:
    case = certified(dense(seed, width=6), seconds=0.5)
    too_small = forged(case, _scaled_pairs(1 - 1e-5))
    assert not _first_holds(too_small)
    assert not holds(too_small.model, too_small.certificate)


@pytest.mark.parametrize("seed", range(3))
def test_the_constants_are_those_that_the_multipliers_imply(seed: int) -> None:
    """From above, and no further above than the first verifier's room for factoring what is nearly singular.

    The search has time to end by itself, on any machine: cut short, it may leave pairs to the product of norms.
    """
    case = certified(dense(seed, width=6), seconds=30.0)
    contents = from_bytes(case.certificate)
    constants, witnesses = contents.constants, contents.witnesses
    families = sorted({name.split("/")[0] for name in witnesses["multipliers"].arrays})
    forms = [form for family in families if (form := implied(case.model, case.certificate, family)) is not None]
    assert forms and constants.pairs is not None
    for t, j in zip(*np.triu_indices(4, 1), strict=True):
        squares = [form[int(t), int(t)] + form[int(j), int(j)] - 2 * form[int(t), int(j)] for form in forms]
        stated = arb(float(constants.pairs[t, j])) ** 2
        assert any(stated >= square for square in squares)
        assert all(stated <= square * (1 + 2e-2) for square in squares)
