"""The benchmarks run on tiny sizes and report sane figures; how fast anything was is not asserted."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from benchmarks import (
    convolutional,
    corpus,
    exports,
    memory,
    networks,
    norms,
    references,
    refinement,
    tables,
    timing,
    warm,
)
from certifier.documents import CertifyOptions
from certifier.operators import Convolution
from certifier.search.state import SearchState
from tests.architectures.catalogue import NARROW
from tests.building import Model, single
from tests.certifier.local_balls import network_of


def test_interleaved_calls_every_competitor_once_per_round():
    calls = []
    timed = timing.interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3)
    assert calls == ["a", "b"] * 3
    assert all(each.seconds >= 0 for each in timed.values())


def test_markdown_tables_escape_what_would_break_a_row():
    assert tables.markdown(["x"], [["a|b\nc"], [None], [1234.5678]]).splitlines()[2:] == [
        "| a\\|b c |",
        "| – |",
        "| 1235 |",
    ]


def test_convolutional_networks_are_measured_against_their_product_of_norms(tmp_path):
    path = tmp_path / "small.onnx"
    path.write_bytes(networks.convolutional_network(channels=(1, 2, 2), size=6, classes=3, seed=0))
    found = convolutional.measured(path, 0.5)
    assert found["convolutions"] == 2
    assert isinstance(found["proved"], float) and isinstance(found["product"], float)
    assert 0 < found["proved"] < found["product"]
    path.write_bytes(networks.dense_network(4, 3, 2, seed=0))
    assert convolutional.measured(path, 0.5) == {"convolutions": 0}


@pytest.mark.parametrize("matrix", [norms.gaussian_matrix(40, 24, 1), norms.trained_matrix(48, 2)])
def test_dense_rows_prove_the_largest_singular_value_closely(matrix):
    row = norms.dense_row("tiny", matrix, rounds=1)
    assert -1e-12 <= row.excess <= 1e-8
    assert row.ratio > 0 and row.iterations > 0


TINY_LAYERS = [
    norms.Layer(name="plain", inputs=2, outputs=3, taps=3, stride=1, size=6),
    norms.Layer(name="strided", inputs=3, outputs=2, taps=3, stride=2, size=6),
    norms.Layer(name="wide", inputs=2, outputs=4, taps=7, stride=2, size=8),
]


@pytest.mark.parametrize("layer", TINY_LAYERS, ids=lambda layer: layer.name)
def test_convolution_rows_agree_with_the_fourier_transform_on_the_same_torus(layer):
    row = norms.convolution_row(layer, rounds=1)
    assert -1e-12 <= row.excess <= 1e-7
    assert 0 < row.peer_half_seconds <= row.peer_seconds


@pytest.mark.parametrize("layer", TINY_LAYERS, ids=lambda layer: layer.name)
def test_the_competitor_bounds_the_written_out_convolution(layer):
    kernel = norms.he_kernel(layer, 5)
    operator = Convolution(
        kernel,
        input_shape=(layer.size, layer.size),
        strides=(layer.stride, layer.stride),
        pads_before=(layer.pad, layer.pad),
        pads_after=(layer.pad, layer.pad),
        dilations=(1, 1),
        groups=1,
        weight_error=0.0,
    )
    exact = np.linalg.norm(operator.forward(np.eye(operator.columns)), 2)
    largest, _, _ = norms.fourier_norm(kernel, layer)
    assert exact * (1 - 1e-12) <= largest <= 1.6 * exact


def test_the_same_seed_builds_the_same_network():
    first, second = (networks.dense_network(4, 6, 3, seed=seed) for seed in (1, 1))
    assert first == second != networks.dense_network(4, 6, 3, seed=2)


@pytest.mark.parametrize("rank", [None, 2])
def test_a_move_has_the_share_of_the_norm_that_it_names(rank):
    weight = np.random.default_rng(0).standard_normal((12, 8))
    step = networks.random_move(share=0.01, rank=rank, seed=1)(weight) - weight
    assert np.linalg.norm(step) == pytest.approx(0.01 * np.linalg.norm(weight), rel=1e-9)
    assert rank is None or np.linalg.matrix_rank(step, tol=1e-9) == rank


def test_a_moved_version_starts_warm_and_an_unchanged_one_reuses_every_bound():
    model = networks.dense_network(12, 16, 16, 4, seed=1)
    cold = warm.certify_once(model, SearchState())
    again = warm.certify_once(model, cold.state)
    changed = networks.moved(model, networks.random_move(share=0.01, rank=None, seed=2))
    after = warm.certify_once(changed, cold.state)
    assert set(cold.searches) == {"cold"} and cold.iterations > 0
    assert set(again.searches) == {"reused"} and again.iterations == 0 and again.upper == cold.upper
    assert set(after.searches) == {"warm"} and after.upper == pytest.approx(cold.upper, rel=0.1)


@pytest.mark.parametrize("normalised", [False, True])
def test_a_narrow_resnet_is_certified_and_its_cost_reported(tmp_path, normalised):
    path = tmp_path / "model.onnx"
    path.write_bytes(networks.resnet50(size=32, width_divisor=16, classes=5, normalised=normalised, seed=0))
    cost = memory.certify_file(path)
    assert cost.peak_bytes > 2**20 and np.isfinite(cost.upper) and cost.upper >= cost.lower >= 0
    assert sum(cost.stages.values()) <= cost.seconds


def test_an_export_is_certified_and_its_cost_reported(tmp_path):
    path, architecture = tmp_path / "model", NARROW["BERT"]
    exports.export_file(architecture, "ONNX, dynamo=False", path)
    cost = exports.certify_file(path, architecture)
    assert cost.peak_bytes > 2**20 and 0 < cost.processor and 0 < cost.seconds
    assert np.isfinite(cost.upper) and cost.upper > 0


def test_the_corpus_page_tells_the_certified_from_the_refused_and_names_no_folder(tmp_path):
    (tmp_path / "good.onnx").write_bytes(networks.dense_network(3, 5, 4, seed=0))
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    (tmp_path / "late.pt").write_bytes(b"PK\x03\x04")
    lines = [("good.onnx", "accept"), ("bad.onnx", "refuse"), ("late.pt", "accept")]
    with (tmp_path / "MANIFEST.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "expect", "why"])
        writer.writerows((name, expected, "a test") for name, expected in lines)
    entries = corpus.read_manifest(tmp_path)
    outcomes = [corpus.examine(tmp_path / entry.path, CertifyOptions()) for entry in entries]
    assert [outcome.accepted for outcome in outcomes] == [True, False, False]
    assert outcomes[0].pairs is not None and outcomes[0].mean_pair == corpus.mean_of_pairs(np.array(outcomes[0].pairs))
    boxed = corpus.Entry(path="owner/pgd_2_3_16.onnx", expected="refuse", why="a test")
    known = corpus.Entry(path="owner/14_ieee_ml4acopf.onnx", expected="refuse", why="a test")
    page = corpus.page([*entries, known], [*outcomes, outcomes[0]], [(boxed, outcomes[0])], [])
    assert "Of 2 models that are expected to have a bound, 1 were certified." in page
    assert "Refused against expectation: late.pt / late.pt." in page
    assert "Certified against expectation: owner / 14_ieee_ml4acopf.onnx (its products" in page
    assert '| owner / pgd_2_3_16.onnx | `{"input_box": {"lower": -3.0, "upper": 3.0}}` |' in page
    assert str(tmp_path) not in page


def test_a_reference_below_or_far_from_ours_fails_its_check():
    reference = np.array([[0.0, 2.0], [2.0, 0.0]])
    assert references.compare_pairs(reference, reference)[1]
    assert not references.compare_pairs(reference * (1 - 1e-7), reference)[1]
    assert not references.compare_pairs(reference * (1 + 1e-5), reference)[1]
    published = {"Lip_MP": 7.0, "Lip_lb": 4.0}
    assert references.compare_output("x", 6.0, published)[1]
    assert not references.compare_output("x", 7.1, published)[1]
    assert not references.compare_output("x", 3.9, published)[1]


def test_a_product_below_the_singular_values_fails_its_check():
    weights = [np.diag([3.0, 1.0]), np.array([[1.0, 0.0], [0.0, 1.0]])]
    exact = 3.0 * np.sqrt(2.0) * (1 - np.eye(2))
    assert references.compare_product(exact * (1 + 1e-9), weights)[1]
    assert not references.compare_product(exact * (1 - 1e-9), weights)[1]


def test_crown_and_attacks_find_the_boundary_of_a_linear_classifier():
    weights = single(np.random.default_rng(0).standard_normal((2, 5)))
    model = Model(5)
    model.linear(weights)
    network = network_of(model)
    x = np.random.default_rng(1).standard_normal((4, 5))
    labels = network.evaluate(x).argmax(axis=1)
    truth = np.abs(x @ (weights[1] - weights[0])) / np.linalg.norm(weights[1] - weights[0])
    crown = refinement.crown_radii(network, x, labels)
    assert crown is not None and (crown <= truth).all() and (crown >= 0.99 * truth).all()
    attacked = refinement.attacked_distances(network, x, labels)
    assert (attacked >= truth * (1 - 1e-9)).all() and (attacked <= 1.1 * truth).all()
