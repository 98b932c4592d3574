"""What every recognised function is tested for: its bound, held against samples, and what the engine may stray by."""

from __future__ import annotations

import numpy as np

from certifier.box import Box
from certifier.documents import CertifyOptions
from certifier.engine import Engine
from certifier.flow import Network
from certifier.limits import Limits
from certifier.network import build_network, served_model
from certifier.proof.execution import enclose
from certifier.proof.structure import schur_upper
from certifier.ranges import with_ranges
from certifier.reading.onnx import read_onnx
from certifier.terms import PRECISIONS, Activation, Affine, Contraction
from tests.building import Model, certify_model


def number(value: float) -> np.ndarray:
    """A constant without axes."""
    return np.array(value, dtype=np.float64)


def network_of(model: Model) -> Network:
    """The network of a model under construction, nothing cut off."""
    return build_network(read_onnx(model.data(), limits=Limits()), limits=Limits(), cut_head=False)


def bounded(network: Network) -> Network:
    """The network over all inputs; it refuses what has a constant on bounded ranges only."""
    return with_ranges(network, Box.everything(network.input_size), lambda operator, name: schur_upper(operator))


def functions(network: Network) -> list[str]:
    """The names of the nonlinear functions in order; products have their operator's name."""
    return [
        term.function.name if isinstance(term, (Activation, Contraction)) else term.operator
        for term in network.terms
        if not isinstance(term, Affine)
    ]


def assert_bound(model: Model, expected: float, *, steps: float = 1.0) -> None:
    """The certified constant is `expected` to 1e-6, no sampled difference exceeds it, the engine stays in bounds."""
    # As a regressor, so that nothing is cut off.
    options = CertifyOptions(task="regression", method="product")
    upper = certify_model(model, options=options).certificate.lipschitz.upper
    assert expected * (1 - 1e-12) <= upper <= expected * (1 + 1e-6), (upper, expected)
    network = network_of(model)
    generator, reference = np.random.default_rng(3), model.reference()
    size = int(np.prod(model.row_shape))
    for scale in (1e-2, 1.0, 10.0):
        x = scale * generator.standard_normal((24, size))
        y = x + steps * 10.0 ** generator.uniform(-4, 1, (24, 1)) * generator.standard_normal((24, size))
        rise = np.linalg.norm(reference(y) - reference(x), axis=1)
        # Steps are at least 1e-4, so that the reference's own rounding is below 1e-9 of the rise allowed.
        assert (rise <= upper * np.linalg.norm(y - x, axis=1) * (1 + 1e-9)).all()
    assert_engine_within(network, size)


def assert_engine_within(network: Network, size: int) -> None:
    """The engine strays from the terms by less than they allow, which is finite for moderate inputs."""
    engine = Engine(served_model(network), network.input)
    generator = np.random.default_rng(5)
    scales = np.concatenate([np.full(60, 1.0), np.full(60, 6.0), 10.0 ** generator.uniform(-30, 30, 60)])
    rows = engine.cast(scales[:, None] * generator.standard_normal((len(scales), size)))
    enclosure = enclose(network, rows, input_radius=np.zeros_like(rows), precisions=PRECISIONS, gains={})
    finite = np.isfinite(enclosure.radius)
    assert finite[:120].all()
    difference = np.abs(engine.run(rows) - enclosure.centre)
    assert (difference[finite] <= enclosure.radius[finite]).all()
