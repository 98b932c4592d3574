"""Networks with their norms, as methods of bounding are given them."""

from __future__ import annotations

import numpy as np

from certifier.box import Box
from certifier.certificates import Constants
from certifier.flow import Network
from certifier.limits import Limits
from certifier.network import build_network
from certifier.norms import Norms
from certifier.ranges import with_ranges
from certifier.reading.formats import read_model
from certifier.search.hints import CarriedVectors
from certifier.search.state import SearchState
from tests.building import SEAL


def prepared(data: bytes) -> tuple[Network, Norms]:
    """The network of an ONNX model, with ranges."""
    _, graph = read_model(data, limits=Limits(), input_shape=None)
    network = build_network(graph, limits=Limits(), cut_head=True)
    norms = Norms(state=SearchState(), seal=SEAL, carried=CarriedVectors({}), progress=lambda layer: None)
    return with_ranges(network, Box.everything(network.input_size), norms.norm_upper), norms


def mean_pair(constants: Constants) -> float:
    """Of all pairs of different outputs."""
    assert constants.pairs is not None
    return float(np.mean(constants.pairs[np.triu_indices(len(constants.pairs), 1)]))
