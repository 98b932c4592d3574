"""Damaged at random, a model is certified or refused: any other exception is a fault."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certifier.errors import CertifierError
from certifier.limits import Limits
from tests.building import Model, certify_bytes


def _rich_model() -> bytes:
    model = Model(2, 4, 4)
    model.then("Conv", np.ones((2, 2, 3, 3)), np.ones(2), pads=[1, 1, 1, 1])
    model.then("BatchNormalization", np.ones(2), np.ones(2), np.ones(2), np.ones(2))
    model.then("Relu")
    model.then("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    model.then("Reshape", np.array([0, -1]))
    model.linear(np.ones((3, 8)), np.ones(3))
    model.then("Softmax", axis=1)
    return model.data()


RICH = _rich_model()


def _certified_or_refused(data: bytes) -> None:
    """Anything but a certificate or a CertifierError is a fault."""
    try:
        certificate = certify_bytes(data, limits=Limits(value_elements=2**20, elements=2**20)).certificate
    except CertifierError:
        return
    assert 0 <= certificate.lipschitz.lower <= certificate.lipschitz.upper < np.inf


MUTATIONS = st.lists(
    st.tuples(st.integers(0, len(RICH) - 1), st.integers(0, 255), st.sampled_from(["set", "cut", "insert"])),
    min_size=1,
    max_size=6,
)


def _mutated(changes: list[tuple[int, int, str]]) -> bytes:
    data = bytearray(RICH)
    for place, byte, kind in changes:
        at = place % max(1, len(data))
        if kind == "set":
            data[at : at + 1] = bytes([byte])
        elif kind == "cut":
            del data[at : at + 1 + byte % 16]
        else:
            data[at:at] = bytes([byte])
    return bytes(data)


@settings(max_examples=400)
@given(MUTATIONS)
def test_a_damaged_model_is_certified_or_refused(changes):
    _certified_or_refused(_mutated(changes))


@pytest.mark.slow
@settings(max_examples=8000)
@given(MUTATIONS)
def test_many_damaged_models_are_certified_or_refused(changes):
    _certified_or_refused(_mutated(changes))


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data):
    _certified_or_refused(data)
    _certified_or_refused(b"\x08\x0a" + data)
