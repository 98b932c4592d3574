"""Kept search state is a start, never evidence: stale, corrupted or hostile, it costs time and no soundness."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certifier.certification import CertifiedModel
from certifier.documents import CertifyOptions, LayerReport
from certifier.errors import StateCorrupted
from certifier.search.state import LayerState, Seal, SearchState
from tests.building import SEAL, Model, certify_model, single

OTHER = Seal(key=b"the key of somebody else")


def _dense_weights(seed: int) -> np.ndarray:
    return single(np.random.default_rng(seed).standard_normal((40, 30)))


def _dense_model(weights: np.ndarray) -> Model:
    model = Model(30)
    model.linear(weights)
    return model


def _torus_kernel(seed: int) -> np.ndarray:
    return single(np.random.default_rng(seed).standard_normal((5, 4, 3)))


def _torus_model(kernel: np.ndarray) -> Model:
    model = Model(4, 260)
    model.then("Conv", kernel, pads=[1, 1])
    return model


BUILDERS: Mapping[str, tuple[Callable[[int], np.ndarray], Callable[[np.ndarray], Model]]] = {
    "matrix": (_dense_weights, _dense_model),
    "torus": (_torus_kernel, _torus_model),
}


def _certify(kind: str, weights: np.ndarray, state: SearchState, seal: Seal = SEAL) -> CertifiedModel:
    model = BUILDERS[kind][1](weights)
    return certify_model(model, options=CertifyOptions(task="regression"), state=state, seal=seal)


def _searched(certified: CertifiedModel) -> LayerReport:
    (layer,) = [layer for layer in certified.certificate.layers if layer.search != "none"]
    return layer


def _with(state: SearchState, **changes: object) -> SearchState:
    return SearchState(layers={name: replace(layer, **changes) for name, layer in state.layers.items()})  # pyright: ignore


def _forged(state: SearchState, upper: float, seal: Seal) -> SearchState:
    """Every bound replaced by `upper`, sealed again."""
    layers = {}
    for name, layer in state.layers.items():
        signature = seal.sign(digest=layer.digest, upper=upper, estimate=layer.estimate, proof=layer.proof)
        layers[name] = replace(layer, upper=upper, seal=signature)
    return SearchState(layers=layers)


def _truth(kind: str, weights: np.ndarray) -> float:
    """A lower bound of the layer's norm that shares no code with the search."""
    if kind == "matrix":
        return float(np.linalg.norm(weights, 2))
    # Constant images inside a large map are stretched almost by the norm of the summed taps; use probes instead.
    reference = _torus_model(weights).reference(batched=True)
    probe = np.random.default_rng(0).standard_normal((1, 4 * 260))
    return float(np.linalg.norm(reference(probe)) / np.linalg.norm(probe))


@pytest.mark.parametrize("kind", BUILDERS)
def test_a_first_search_starts_cold_and_the_same_model_reuses_its_bound(kind):
    weights = BUILDERS[kind][0](0)
    first = _certify(kind, weights, SearchState())
    again = _certify(kind, weights, SearchState.from_bytes(first.state.to_bytes()))
    assert _searched(first).search == "cold" and _searched(first).iterations > 0
    assert _searched(again).search == "reused" and _searched(again).iterations == 0
    assert again.certificate.lipschitz.upper == first.certificate.lipschitz.upper
    assert again.state.layers.keys() == first.state.layers.keys()


@pytest.mark.parametrize("kind", BUILDERS)
def test_a_retrained_layer_starts_warm_and_is_proved_again(kind):
    """Found by its name and shape; the old bound, though validly sealed, is not taken."""
    old, moved = BUILDERS[kind][0](0), BUILDERS[kind][0](0)
    moved = single(1.01 * moved)
    first = _certify(kind, old, SearchState())
    second = _certify(kind, moved, first.state)
    cold = _certify(kind, moved, SearchState())
    assert _searched(second).search == "warm"
    assert _searched(second).iterations < _searched(cold).iterations
    assert second.certificate.lipschitz.upper > first.certificate.lipschitz.upper
    assert second.certificate.lipschitz.upper == pytest.approx(cold.certificate.lipschitz.upper, rel=1e-7)


@pytest.mark.parametrize("kind", BUILDERS)
def test_state_of_another_shape_is_not_used(kind):
    weights = BUILDERS[kind][0](0)
    other = "torus" if kind == "matrix" else "matrix"
    foreign = _certify(other, BUILDERS[other][0](0), SearchState()).state
    (name,) = _certify(kind, weights, SearchState()).state.layers
    (layer,) = foreign.layers.values()
    assert _searched(_certify(kind, weights, SearchState(layers={name: layer}))).search == "cold"


@pytest.mark.parametrize("kind", BUILDERS)
@pytest.mark.parametrize("upper", [0.0, 1e-9, float("nan")])
def test_a_bound_sealed_under_another_key_is_ignored(kind, upper):
    weights = BUILDERS[kind][0](0)
    honest = _certify(kind, weights, SearchState())
    attacked = _certify(kind, weights, _forged(honest.state, upper, OTHER))
    assert _searched(attacked).search == "warm"
    assert attacked.certificate.lipschitz.upper == pytest.approx(honest.certificate.lipschitz.upper, rel=1e-7)


@pytest.mark.parametrize("change", ["upper", "digest", "estimate", "proof", "seal", "odd seal", "empty seal"])
@pytest.mark.parametrize("kind", BUILDERS)
def test_one_changed_field_breaks_the_seal(kind, change):
    weights = BUILDERS[kind][0](0)
    honest = _certify(kind, weights, SearchState())
    (layer,) = honest.state.layers.values()
    changes: dict[str, object] = {
        "upper": {"upper": float(np.nextafter(layer.upper, 0))},
        "digest": {"digest": "0" + layer.digest[1:] if layer.digest[0] != "0" else "1" + layer.digest[1:]},
        "estimate": {"estimate": layer.estimate * 0.5},
        "proof": {"proof": layer.proof + " "},
        "seal": {"seal": layer.seal[::-1]},
        "odd seal": {"seal": "é" + layer.seal[1:]},
        "empty seal": {"seal": ""},
    }
    state = _with(honest.state, **changes[change])  # pyright: ignore[reportCallIssue]
    attacked = _certify(kind, weights, SearchState.from_bytes(state.to_bytes()))
    assert _searched(attacked).search in ("warm", "cold")
    assert attacked.certificate.lipschitz.upper == pytest.approx(honest.certificate.lipschitz.upper, rel=1e-7)


def test_a_valid_seal_is_bound_to_its_own_layer():
    """A small sealed bound cannot be moved to the record of a larger layer."""
    small, large = _dense_weights(0), single(100 * _dense_weights(0))
    honest = _certify("matrix", small, SearchState())
    ((name, record),) = honest.state.layers.items()
    ((_, target),) = _certify("matrix", large, SearchState()).state.layers.items()
    transplanted = SearchState(layers={name: replace(record, digest=target.digest)})
    attacked = _certify("matrix", large, transplanted)
    assert attacked.certificate.lipschitz.upper >= float(np.linalg.norm(large, 2)) * (1 - 1e-14)


def _orthogonal_to_the_top(weights: np.ndarray) -> np.ndarray:
    """A vector in which the largest singular direction does not occur at all: power iteration never finds it."""
    left, _, right = np.linalg.svd(weights)
    return right[1] if weights.shape[1] <= weights.shape[0] else left[:, 1]


HOSTILE: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "nan": lambda vector: np.full_like(vector, np.nan),
    "infinite": lambda vector: np.full_like(vector, np.inf),
    "zero": np.zeros_like,
    "huge": lambda vector: np.full_like(vector, 1e308),
    "tiny": lambda vector: np.full_like(vector, 5e-324),
    "short": lambda vector: vector[:-1],
    "long": lambda vector: np.append(vector, 1.0),
    "empty": lambda vector: np.zeros(0),
    "negative": lambda vector: -vector,
    "first axis": lambda vector: np.eye(1, vector.size)[0],
    "random": lambda vector: np.random.default_rng(5).standard_normal(vector.size),
    "huge frequency": lambda vector: np.where(np.arange(vector.size) == 1, 1e15, vector),
    "fraction": lambda vector: np.where(np.arange(vector.size) == 0, 0.5, vector),
    "minus one": lambda vector: np.where(np.arange(vector.size) == 1, -1.0, vector),
}


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("kind", BUILDERS)
def test_hostile_vectors_cost_time_and_never_soundness(kind, hostile):
    weights = BUILDERS[kind][0](0)
    honest = _certify(kind, weights, SearchState())
    (layer,) = honest.state.layers.values()
    state = _with(honest.state, vector=HOSTILE[hostile](layer.vector), digest="", seal="")
    attacked = _certify(kind, weights, SearchState.from_bytes(state.to_bytes()))
    upper = attacked.certificate.lipschitz.upper
    assert upper >= _truth(kind, weights) * (1 - 1e-14)
    # Proved, if perhaps less closely.
    assert upper <= honest.certificate.lipschitz.upper * 1.05


def test_a_vector_orthogonal_to_the_largest_direction_does_not_lower_the_bound():
    """The estimate it leads to is too small, so its proof fails and the search widens."""
    weights = single(np.diag(np.linspace(1.0, 2.0, 20)))
    model = Model(20)
    model.linear(weights)
    honest = certify_model(model)
    state = _with(honest.state, vector=_orthogonal_to_the_top(weights), digest="", seal="")
    attacked = certify_model(model, state=state)
    assert 2.0 <= attacked.certificate.lipschitz.upper <= 2.0 * (1 + 1e-6)


def test_a_remembered_frequency_that_is_the_smallest_does_not_lower_the_bound():
    """A torus search that is told to look at one poor frequency only."""
    kernel = _torus_kernel(0)
    honest = _certify("torus", kernel, SearchState())
    (layer,) = honest.state.layers.values()
    width = layer.vector.size // 8
    table = layer.vector.reshape(8, width)[:1].copy()
    for frequency in (0, 1, 57):
        table[0, 1] = frequency
        state = _with(honest.state, vector=table.reshape(-1), digest="", seal="")
        attacked = _certify("torus", kernel, state)
        assert attacked.certificate.lipschitz.upper == pytest.approx(honest.certificate.lipschitz.upper, rel=1e-4)
        assert attacked.certificate.lipschitz.upper >= honest.certificate.lipschitz.upper * (1 - 1e-6)


def test_vectors_that_a_model_carries_warm_its_first_search():
    """`weight_u` and `weight_v` of spectral normalisation, kept among the model's constants."""
    weights = _dense_weights(2)
    left, _, right = np.linalg.svd(weights)
    model = Model(30)
    model.linear(weights)
    model.constant(single(left[:, 0]), name="layer.weight_u")
    model.constant(single(right[0]), name="layer.weight_v")
    certified = certify_model(model)
    assert _searched(certified).search == "warm"
    plain = _certify("matrix", weights, SearchState())
    assert _searched(certified).iterations < _searched(plain).iterations
    assert certified.certificate.lipschitz.upper == pytest.approx(plain.certificate.lipschitz.upper, rel=1e-7)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 3e38])
def test_hostile_vectors_that_a_model_carries_are_harmless(value):
    weights = _dense_weights(2)
    model = Model(30)
    model.linear(weights)
    model.constant(np.full(40, value), name="layer.weight_u")
    model.constant(np.full(30, value), name="layer.weight_v")
    truth = float(np.linalg.norm(weights, 2))
    assert truth * (1 - 1e-14) <= certify_model(model).certificate.lipschitz.upper <= truth * (1 + 1e-6)


def test_a_key_must_have_sixteen_bytes():
    with pytest.raises(ValueError, match="16 bytes"):
        Seal(key=b"short")


def _kept_bytes() -> bytes:
    return _certify("matrix", _dense_weights(0), SearchState()).state.to_bytes()


KEPT = _kept_bytes()


@settings(max_examples=100)
@given(st.integers(0, len(KEPT) - 1), st.integers(0, 7))
def test_any_flipped_bit_is_detected_or_harmless(place, bit):
    """Of the archive, its index, the vector, the digest, the bound or the seal."""
    damaged = bytearray(KEPT)
    damaged[place] ^= 1 << bit
    try:
        state = SearchState.from_bytes(bytes(damaged))
    except StateCorrupted:
        return
    weights = _dense_weights(0)
    truth = float(np.linalg.norm(weights, 2))
    upper = _certify("matrix", weights, state).certificate.lipschitz.upper
    assert truth * (1 - 1e-14) <= upper <= truth * (1 + 1e-6)


@pytest.mark.parametrize("data", [b"", b"PK", b"\x00" * 50, KEPT[:-30], KEPT[: len(KEPT) // 2]])
def test_state_that_cannot_be_read_is_said_to_be_corrupted(data):
    with pytest.raises(StateCorrupted):
        SearchState.from_bytes(data)


def test_a_state_archive_that_unpacks_to_gigabytes_is_refused():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("index.npy", "w") as member:
        for _ in range(600):
            member.write(bytes(2**20))
    with pytest.raises(StateCorrupted, match="larger"):
        SearchState.from_bytes(buffer.getvalue())


def test_pickled_state_is_refused():
    """An object array would run code when it is read."""
    buffer = io.BytesIO()
    np.savez(buffer, index=np.array([{"name": 1}], dtype=object))
    with pytest.raises(StateCorrupted):
        SearchState.from_bytes(buffer.getvalue())


def test_state_survives_its_bytes():
    state = _certify("torus", _torus_kernel(0), SearchState()).state
    back = SearchState.from_bytes(state.to_bytes())
    for name, layer in state.layers.items():
        kept: LayerState = back.layers[name]
        assert np.array_equal(kept.vector, layer.vector)
        assert replace(kept, vector=layer.vector) == layer
        assert SEAL.verifies(kept) and not OTHER.verifies(kept)
