"""What the tests of bounds build on: a model's network, ready to be bounded."""

from __future__ import annotations

import numpy as np

from certifier.bounds.product import ProductBound
from certifier.box import Box
from certifier.flow import Network
from certifier.limits import Limits
from certifier.network import build_network
from certifier.norms import Norms
from certifier.ranges import with_ranges
from certifier.reading.formats import read_model
from certifier.reading.selecting import with_outputs
from certifier.search.hints import CarriedVectors
from certifier.search.state import SearchState
from tests.building import SEAL, Model


def norms() -> Norms:
    """Norms without a past."""
    return Norms(state=SearchState(), seal=SEAL, carried=CarriedVectors({}), progress=lambda layer: None)


def network_of(data: bytes) -> Network:
    """The network of ONNX bytes as `certify` bounds it."""
    _, graph = read_model(data, limits=Limits(), input_shape=None)
    network = build_network(with_outputs(graph, None), limits=Limits(), cut_head=True)
    return with_ranges(network, Box.everything(network.input_size), norms().norm_upper)


def bounded(model: Model) -> tuple[Network, ProductBound]:
    """The network of a model under construction and its product bound."""
    network = network_of(model.data())
    return network, ProductBound(network, norms())


def differences(network: Network, generator: np.random.Generator, count: int) -> tuple[dict[str, np.ndarray], ...]:
    """Every value of `count` random pairs of runs, by name.  Shapes: [count, n] each."""
    far = generator.standard_normal((count, network.input_size))
    near = far + 0.3 * generator.standard_normal(far.shape) * generator.random((count, 1))
    runs = []
    for x in (far, near):
        values = {network.input.name: x}
        values.update({term.output: value for term, _, value in network.walk(x)})
        runs.append(values)
    return tuple(runs)
