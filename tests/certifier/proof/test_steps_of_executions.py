"""What single steps and runs of affine maps allow an execution: never less than an honest one takes."""

from __future__ import annotations

import numpy as np
import pytest

from certifier.flow import Network
from certifier.limits import Limits
from certifier.network import build_network
from certifier.proof.execution import Gain, enclose, steps
from certifier.reading.onnx import read_onnx
from certifier.terms import PRECISIONS
from tests.building import Model

LARGE = 2.0**20
ROW = np.full(2, np.float64(np.float32(1 / 3)))


def network_of(model: Model) -> Network:
    return build_network(read_onnx(model.data(), limits=Limits()), limits=Limits(), cut_head=False)


def cancelling() -> Network:
    """x -> 2^10 (2^20 x_1 + (1 - 2^20) x_2): what rounding does to the first map, the second makes large."""
    model = Model(2)
    model.linear(np.array([[LARGE, 1.0 - LARGE]]))
    model.linear(np.array([[1024.0]]))
    return network_of(model)


def executed() -> np.ndarray:
    """One product after the other, in single precision.  Shapes: [1]."""
    first, second = (np.float32(weight) * np.float32(ROW[0]) for weight in (LARGE, 1.0 - LARGE))
    return np.array([np.float32(1024.0) * (first + second)])


def gains(network: Network, norms: tuple[float, ...], chains: tuple[float | None, ...]) -> dict[str, Gain]:
    every = zip(network.terms, norms, chains, strict=True)
    return {term.output: Gain(sources=(norm,), chain=chain) for term, norm, chain in every}


def test_a_run_carries_the_roundings_of_all_of_its_maps() -> None:
    network = cancelling()
    known = gains(network, (1.5 * LARGE, 1024.0), (None, 1.5 * LARGE * 1024.0))
    found = enclose(network, ROW[None], input_radius=np.zeros((1, 2)), precisions=PRECISIONS, gains=known)
    difference = np.abs(executed() - found.centre[0])
    assert 1.0 < difference.item() <= found.radius.item() < 1000.0


def test_no_run_leads_through_a_term_whose_norm_is_unknown() -> None:
    """There and back: the run has norm 1, its second map 2^10, and an error of the input comes out as it was."""
    model = Model(1)
    model.linear(np.array([[2.0**-10]]))
    model.linear(np.array([[2.0**10]]))
    network = network_of(model)
    second = network.terms[1].output
    known = {second: Gain(sources=(1024.0,), chain=1.0)}
    found = enclose(network, np.zeros((1, 1)), input_radius=np.ones((1, 1)), precisions=PRECISIONS, gains=known)
    assert found.radius.item() >= 1.0


def test_what_is_not_executed_is_enclosed() -> None:
    """The last value alone is known: the rounding of the one before it is allowed for."""
    network = cancelling()
    (step,) = steps(network, ROW, {network.output: executed()}, precisions=PRECISIONS)
    assert 1.0 < step.difference.item() <= step.allowed.item()


@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_infinitely_far_from_one(strange: float) -> None:
    network = cancelling()
    (step,) = steps(network, ROW, {network.output: np.array([strange])}, precisions=PRECISIONS)
    assert np.isinf(step.difference.item()) and np.isfinite(step.allowed.item())
