"""Real networks, written by nobody here: each gets a finite bound or a refusal that names its reason."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from certifier.errors import CertifierError
from certifier.limits import Limits
from certifier.packing import unpack_constants
from certifier.verification import verify
from tests.building import certify_bytes, predictor_of
from tests.conftest import shared_folder

REFUSED = ("mlp_L3_W16.onnx", "cnn_C3_CH8.onnx", "oneInput_twoBranches.onnx")
"""Two keep their weights in a second file, one has two outputs."""

SMALL = (
    "cartpole.onnx", "gcas.onnx", "ACASXU_run2a_1_1_batch_2000.onnx", "mnist5x20_leaky_relu.onnx",
    "cnn_max_mninst2.onnx", "Convnet_maxpool.onnx", "oneInput_twoBranches.onnx", "mlp_L3_W16.onnx", "motion.pt",
    "multiInput_add.onnx", "14_ieee_ml4acopf.onnx", "glipsdp_digits_fnn2_seed0.onnx",
)  # fmt: skip


BOUNDED_AFTER_ALL = {"14_ieee_ml4acopf.onnx"}
"""Its squares and products are of scaled sigmoids, sines and cosines: all bounded, so a global constant exists."""


def manifest() -> list[tuple[str, str]]:
    """(path, expectation) of every file, or none without the shared folder."""
    manifest = shared_folder() / "models" / "MANIFEST.csv"
    if not manifest.is_file():
        return []
    with manifest.open(newline="") as lines:
        return [(row["path"], row["expect"]) for row in csv.DictReader(lines)]


def _cases() -> list[Any]:
    cases = []
    for path, expectation in manifest():
        name = Path(path).name
        marks = [] if name in SMALL else [pytest.mark.slow, pytest.mark.timeout(900)]
        cases.append(pytest.param(path, expectation, id=name, marks=marks))
    return cases or [pytest.param("", "", id="no manifest")]


@pytest.mark.needs_shared
@pytest.mark.parametrize(("path", "expectation"), _cases())
def test_every_shared_model_is_bounded_or_refused(shared, path, expectation):
    """Where a bound is expected of a single ONNX file, it is finite, above what was observed, and proved again."""
    data = (shared / "models" / path).read_bytes()
    bounded = expectation == "accept" and path.endswith(".onnx") and Path(path).name not in REFUSED
    try:
        certified = certify_bytes(data)
    except CertifierError as refusal:
        assert not bounded, f"{path} was refused: {refusal}"
        assert len(str(refusal)) > 10
        return
    assert expectation != "refuse" or Path(path).name in BOUNDED_AFTER_ALL
    bound = certified.certificate.lipschitz
    assert 0 < bound.lower <= bound.upper < np.inf
    assert certified.certificate.self_test.passed
    assert bound.upper < verify(certified.portable, data, keys=[], limits=Limits()).lipschitz_upper


@pytest.mark.needs_shared
def test_the_certifiably_trained_network_reproduces_its_published_constants(shared):
    """Per-pair constants, by the product of norms, of a formally verified certifier; and its certified share."""
    folder = shared / "models" / "tobycmurray" / "python-certifier"
    published = np.load(folder / "gloro_mnist_8x128_reference.npz")
    certified = certify_bytes((folder / "gloro_mnist_8x128.onnx").read_bytes())
    pairs = unpack_constants(certified.constants)[0].pairs
    assert pairs is not None
    # Upper bounds of the same quantities: no smaller than the exact product but for the publication's own digits.
    assert np.allclose(pairs, published["margin_lipschitz"], rtol=1e-6)
    images = np.load(shared / "data" / "mnist_test10000_x_u8.npz")
    rows = (next(iter(images.values()))[:500].astype(np.float32) / np.float32(255)).astype(np.float64)
    predictor = predictor_of(certified)
    answers = predictor.predict(rows.reshape(-1, *predictor.row_shape), epsilon=0.3, preprocessing=None)
    certain = np.array([answer.certified for answer in answers])
    assert np.mean(certain == published["certified"].reshape(-1)[:500]) >= 0.998
