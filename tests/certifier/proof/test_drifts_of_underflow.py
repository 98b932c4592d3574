"""What is flushed to zero, or rounded to a subnormal number, before the engine multiplies it by something large."""

from __future__ import annotations

import numpy as np
import pytest

from certifier.elementwise import selu
from certifier.terms import PRECISIONS
from tests.building import Model, single
from tests.certifier.proof.test_drifts import Case, hold

WIDTH = 3


def _hold(model: Model, size: float, seed: int) -> None:
    """Around inputs of this size, in balls that small."""
    generator = np.random.default_rng(seed)
    rows = single(generator.standard_normal((2, WIDTH)) * size)
    hold(Case(model, "float32"), rows, generator, (0.0, size / 10, size))


@pytest.mark.parametrize("alpha", [60, 100, 126])
def test_products_underflow_before_alpha_multiplies_their_sum(alpha):
    """Products near 2^-135 keep a dozen of their bits, which alpha shows."""
    for seed in range(5):
        weights = single(np.random.default_rng(seed).standard_normal((WIDTH, 4)) * 2.0**-40)
        model = Model(WIDTH)
        model.then("Gemm", weights, alpha=2.0**alpha)
        _hold(model, 2.0**-95, seed)


@pytest.mark.parametrize("scale", [2.0**-128, 2.0**-140, 2.0**-149])
def test_scales_of_batch_normalisations_underflow(scale):
    """The engine divides the scale by the deviation first: a dozen bits are left of it, whatever it multiplies."""
    for seed in range(5):
        generator = np.random.default_rng(seed)
        model = Model(WIDTH)
        statistics = single(generator.standard_normal(WIDTH) * 2.0**100), single(generator.uniform(1, 9, WIDTH))
        scales = single(generator.choice((-1.0, 1.0), WIDTH) * scale)
        model.then("BatchNormalization", scales, np.zeros(WIDTH), *statistics, epsilon=1e-5)
        _hold(model, 2.0**100, seed)


def test_a_flushed_scale_takes_the_mean_with_it():
    """An engine that flushes the scale, as it may (A2), answers 0 for what is -2^-40."""
    model = Model(1)
    model.then("BatchNormalization", [2.0**-140], [0.0], [2.0**100], [1.0], epsilon=0.0)
    assert (Case(model, "float32").at(np.zeros((1, 1))).outputs()[0] >= 2.0**-40).all()


def test_a_batch_normalisation_may_divide_by_the_deviation_before_it_multiplies_by_the_scale():
    """What is flushed between them comes to 2^40 times as much."""
    model = Model(1)
    model.then("BatchNormalization", [2.0**40], [0.0], [0.0], [2.0**80], epsilon=0.0)
    assert (Case(model, "float32").at(np.zeros((1, 1))).outputs()[0] >= 2.0**40 * 2.0**-126).all()


@pytest.mark.parametrize("at", PRECISIONS.values())
def test_a_selu_multiplies_by_gamma_what_alpha_flushed(at):
    function = selu(2.0**-120, 2.0**60)
    assert at.unit * function.absolute_ulps >= 2.0**60 * at.tiny
