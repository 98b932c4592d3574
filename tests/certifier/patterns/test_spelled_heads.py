"""A trailing softmax in single steps is cut off like one in a single node; what only looks like one is not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from certifier.documents import CertifyOptions, InputBox
from tests.building import Model, certify_bytes, certify_model
from tests.certifier.patterns.exporting import FORMATS
from tests.certifier.reading.exporting import Applied

WEIGHTS = np.array([[3.0, 0.0], [0.0, 4.0], [1.0, 1.0]], dtype=np.float32)


def logits(m: Model) -> str:
    return m.add("MatMul", "x", WEIGHTS.T)


def shifted(m: Model, z: str, keepdims: int = 1) -> str:
    return m.add("Sub", z, m.add("ReduceMax", z, np.array([1]), keepdims=keepdims))


def softmax(m: Model, z: str) -> str:
    power = m.add("Exp", shifted(m, z))
    return m.add("Div", power, m.add("ReduceSum", power, np.array([1]), keepdims=1))


def without_shift(m: Model, z: str) -> str:
    power = m.add("Exp", z)
    return m.add("Div", power, m.add("ReduceSum", power, np.array([1]), keepdims=1))


def by_reciprocal(m: Model, z: str) -> str:
    power = m.add("Exp", shifted(m, z))
    return m.add("Mul", m.add("Reciprocal", m.add("ReduceSum", power, np.array([1]), keepdims=1)), power)


def log_softmax(m: Model, z: str) -> str:
    difference = shifted(m, z)
    total = m.add("ReduceSum", m.add("Exp", difference), np.array([1]), keepdims=1)
    return m.add("Sub", difference, m.add("Log", total))


def by_log_sum_exp(m: Model, z: str) -> str:
    return m.add("Sub", z, m.add("ReduceLogSumExp", z, np.array([1]), keepdims=1))


def by_log_sum_exp_in_steps(m: Model, z: str) -> str:
    largest = m.add("ReduceMax", z, np.array([1]), keepdims=1)
    total = m.add("ReduceSum", m.add("Exp", m.add("Sub", z, largest)), np.array([1]), keepdims=1)
    return m.add("Sub", z, m.add("Add", m.add("Log", total), largest))


SPELLINGS = (softmax, without_shift, by_reciprocal, log_softmax, by_log_sum_exp, by_log_sum_exp_in_steps)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_logits_are_certified(spelling: Callable[[Model, str], str]) -> None:
    plain, model = Model(2), Model(2)
    logits(plain)
    spelling(model, logits(model))
    wanted, found = (certify_model(each).certificate for each in (plain, model))
    assert (found.lipschitz.upper, found.pairs) == (wanted.lipschitz.upper, wanted.pairs)
    assert any("softmax" in note and "does not reorder" in note for note in found.notes)


def other_exponent(m: Model, z: str) -> str:
    """The sum is of other exponentials; the order is kept, but it is no softmax."""
    total = m.add("ReduceSum", m.add("Exp", m.add("Mul", z, np.array([2.0]))), np.array([1]), keepdims=1)
    return m.add("Div", m.add("Exp", m.add("Tanh", z)), total)


def part_of_row(m: Model, z: str) -> str:
    """Two softmaxes side by side, over halves of a row, do reorder it."""
    halves = m.add("Reshape", m.add("Concat", z, z, axis=1), np.array([1, 2, 3]))
    power = m.add("Exp", m.add("Sub", halves, m.add("ReduceMax", halves, np.array([2]), keepdims=1)))
    return m.add("Div", power, m.add("ReduceSum", power, np.array([2]), keepdims=1))


def rising(m: Model, z: str) -> str:
    """Each entry less half of itself and the logarithm: no number for the whole row is taken away."""
    shift = m.add("Mul", z, np.array([0.5]))
    return m.add("Sub", shift, m.add("ReduceLogSumExp", z, np.array([1]), keepdims=1))


@pytest.mark.parametrize("spelling", [part_of_row, rising])
def test_what_is_no_softmax_of_the_row_stays(spelling: Callable[[Model, str], str]) -> None:
    model = Model(2)
    spelling(model, logits(model))
    assert not any("cut off" in note for note in certify_model(model).certificate.notes)


def test_other_exponents_in_the_sum_are_no_softmax() -> None:
    model = Model(2)
    other_exponent(model, logits(model))
    notes = certify_model(model, options=CertifyOptions(input_box=InputBox(lower=-1.0, upper=1.0))).certificate.notes
    assert not any("cut off" in note for note in notes)


def test_a_regressor_keeps_its_softmax() -> None:
    model = Model(2)
    softmax(model, logits(model))
    certificate = certify_model(model, options=CertifyOptions(task="regression", method="product")).certificate
    assert certificate.lipschitz.upper < 4 and not any("cut off" in note for note in certificate.notes)


@pytest.mark.parametrize("form", ["traced", "exported", "legacy onnx"])
def test_what_pytorch_writes_is_cut_off_in_every_format(form: str) -> None:
    weight = torch.from_numpy(WEIGHTS)

    def classify(x: Tensor) -> Tensor:
        z = x @ weight.T
        power = torch.exp(z - z.max(1, keepdim=True)[0])
        return power / power.sum(1, keepdim=True)

    certificate = certify_bytes(FORMATS[form](Applied(classify), (1, 2))).certificate
    assert certificate.lipschitz.upper == pytest.approx(np.linalg.norm(WEIGHTS, 2), rel=1e-9)
    assert any("softmax" in note for note in certificate.notes)
