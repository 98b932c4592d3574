"""Certified models for the tests of certificate files, and documents that were forged on purpose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from certifier.documents import CertifyOptions
from certifier.limits import Limits
from certifier.portable.document import Contents, from_bytes, to_bytes
from certifier.verification import Verification, verify
from tests.building import Model, certify_model, single


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A model's bytes and its certificate."""

    model: bytes
    certificate: bytes


def certified(model: Model, **options: Any) -> Case:
    """The case of a model under construction."""
    chosen = CertifyOptions.model_validate({"seconds": 1.0, **options})
    return Case(model=model.data(), certificate=certify_model(model, options=chosen).portable)


def verified(case: Case) -> Verification:
    """The case, verified without a key."""
    return verify(case.certificate, case.model, keys=[], limits=Limits())


def forged(case: Case, change: Callable[[Contents], Contents]) -> Case:
    """The case with a document that somebody changed and gave a fresh digest."""
    return replace(case, certificate=to_bytes(change(from_bytes(case.certificate))))


def dense(seed: int = 0, *, operator: str = "Relu", width: int = 8) -> Model:
    """Three dense layers and a readout of four classes."""
    generator = np.random.default_rng(seed)
    model = Model(6, opset=20)
    previous = 6
    for _ in range(3):
        model.linear(single(generator.standard_normal((width, previous)) / np.sqrt(previous)))
        model.then(operator)
        previous = width
    model.linear(single(generator.standard_normal((4, previous))))
    return model


def convolutional(seed: int = 0) -> Model:
    """Three convolutions, one of them strided, on a map that is too large to be written out, and a dense head."""
    generator = np.random.default_rng(seed)
    model = Model(2, 48, 48)
    for previous, channels, stride in ((2, 4, 1), (4, 4, 2), (4, 4, 1)):
        kernel = single(generator.standard_normal((channels, previous, 3, 3)) / 6)
        model.then("Conv", kernel, pads=[1, 1, 1, 1], strides=[stride, stride])
        model.then("Relu")
    model.then("GlobalAveragePool")
    model.then("Flatten")
    model.linear(single(generator.standard_normal((3, 4))))
    return model


def gated(seed: int = 0) -> Model:
    """A product of two values that has a constant inside of a box only."""
    generator = np.random.default_rng(seed)
    model = Model(4)
    model.linear(single(generator.standard_normal((5, 4))))
    left = model.output
    right = model.add("Gemm", "x", single(generator.standard_normal((4, 5))))
    model.add("Mul", left, right)
    model.linear(single(generator.standard_normal((3, 5))))
    return model
