"""The operations of a lowered network, evaluated point by point on their tori, beside the network itself.

Networks here are linear: their activations are written as LeakyReLUs of slope 1, which are the identity inside of the
box and, as lowering must say, a mask outside.
"""

from __future__ import annotations

import numpy as np
import pytest

from certifier.flow import Network
from certifier.frequencies.layout import Layouts
from certifier.frequencies.lowering import lower
from certifier.frequencies.maps import Map
from certifier.frequencies.recording import Cut, Lowered, Slope
from certifier.frequencies.scheduling import scheduled
from certifier.frequencies.views import NotCovered, Signal
from certifier.limits import Limits
from certifier.network import build_network
from certifier.reading.formats import read_model
from tests.building import Model


def network_of(model: Model) -> Network:
    _, graph = read_model(model.data(), limits=Limits(), input_shape=None)
    return build_network(graph, limits=Limits(), cut_head=True)


def no_norm(operator, name: str) -> float:
    raise NotCovered("nothing here is to go by its norm")


def on_tori(lowered: Lowered, value: np.ndarray) -> np.ndarray:
    """The output of the operations from the start's entries, evaluated point by point on the scheduled tori."""
    segments = scheduled(lowered, norm_only=False).segments
    assert len(segments) == 1, "a chain without restarts"
    sizes = segments[0].sizes
    tensors: dict[int, np.ndarray] = {id(lowered.start): _embedded(lowered.start, value, sizes)}
    for operation in lowered.operations:
        assert not isinstance(operation, Cut)
        if isinstance(operation, Map):
            tensors[id(operation.output)] = _mapped(operation, tensors)
        else:
            tensors[id(operation.output)] = _masked(operation, tensors[id(operation.source)])
    signal = lowered.output.signal
    return _box(tensors[id(signal)], signal).reshape(-1)[lowered.output.all_indices]


def _embedded(signal: Signal, value: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    torus = np.zeros((signal.channels, *sizes))
    torus[(slice(None), *map(slice, signal.box))] = value.reshape(signal.channels, *signal.box)
    return torus


def _box(tensor: np.ndarray, signal: Signal) -> np.ndarray:
    return tensor[(slice(None), *map(slice, signal.box))]


def _mapped(operation: Map, tensors: dict[int, np.ndarray]) -> np.ndarray:
    total = None
    for part in operation.parts:
        source = tensors[id(part.source)]
        axes = tuple(range(1, source.ndim))
        if part.kernel is None:
            image = source
        else:
            # out[q] += K_t s[q + offset_t]
            rolled = [np.roll(source, tuple(-offset), axis=axes) for offset in part.offsets]
            image = np.sum([np.tensordot(part.kernel[:, :, t], each, axes=1) for t, each in enumerate(rolled)], axis=0)
        total = image if total is None else total + image
    assert total is not None
    if operation.strides is None:
        return total[(slice(None), *(slice(0, 1) for _ in total.shape[1:]))]
    return total[(slice(None), *(slice(None, None, stride) for stride in operation.strides))]


def _masked(operation: Slope, source: np.ndarray) -> np.ndarray:
    """The identity inside of the box; outside, zero, which must be one of the slopes."""
    assert (operation.upper == 1).all()
    result = source * operation.lower.reshape(-1, *(1 for _ in source.shape[1:]))
    inside = (slice(None), *map(slice, operation.source.box))
    if operation.source.is_point:
        assert (operation.lower == 1).all()
        return source
    assert (operation.lower == 0).all()
    result[inside] = source[inside]
    return result


def agrees(model: Model, seed: int, *, origin: str = "x") -> Lowered:
    network = network_of(model)
    lowered = lower(network, origin, no_norm)
    assert not lowered.cuts
    generator = np.random.default_rng(seed)
    first, second = generator.standard_normal((2, 1, network.input_size))
    values = [{"x": x} for x in (first, second)]
    for known in values:
        for term, _, value in network.walk(known["x"]):
            known[term.output] = value
    difference = values[0][origin] - values[1][origin]
    expected = (values[0][network.output] - values[1][network.output])[0]
    found = on_tori(lowered, _in_signal(lowered, network, difference[0]))
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9 * np.abs(expected).max(initial=1.0))
    return lowered


def _in_signal(lowered: Lowered, network: Network, value: np.ndarray) -> np.ndarray:
    view = Layouts(network).fresh(lowered.origin)
    assert (view.signal.channels, view.signal.box) == (lowered.start.channels, lowered.start.box)
    flat = np.zeros(view.signal.size)
    flat[view.all_indices] = value
    return flat
