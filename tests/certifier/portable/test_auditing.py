"""Radii of a certificate file: at most those of the service, less by its room alone, and without any engine."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from certifier import auditing
from certifier.auditing import Audit
from certifier.box import OUTSIDE
from certifier.certificates import NO_CLASS, NO_ROOM
from certifier.documents import CertifyOptions, RowPrediction
from certifier.errors import CertificateRefused, InvalidInput, NotFinished
from certifier.limits import Limits
from tests.building import Model, certify_bytes, certify_model, predictor_of, single, sum_of_two_inputs
from tests.certifier.portable.certified import Case, certified, convolutional, dense, forged, gated
from tests.certifier.portable.test_drifts_in_files import BOX, of_the_first_version, rich, steep, without_drifts
from tests.random_networks import image_networks, vector_networks

PROJECT = Path(__file__).resolve().parents[3]
A_MILLIONTH = 2.0**-18
"""Constants, drifts and their sum each have a room of 2^-20; margins lose what the drifts have more."""


def _audited(case: Case, rows: np.ndarray) -> list[RowPrediction]:
    audit = Audit(case.certificate, case.model, keys=[], limits=Limits())
    found = audit.of(rows, progress=lambda done: None).rows
    assert found is not None
    return found


def _pair(model: Model, rows: np.ndarray, **options: Any) -> tuple[list[RowPrediction], list[RowPrediction]]:
    """What the service and what an auditor say of the rows."""
    chosen = CertifyOptions.model_validate({"method": "product", **options})
    known = certify_model(model, options=chosen)
    served = predictor_of(known).predict(rows, epsilon=None, preprocessing=None)
    return served, _audited(Case(model=model.data(), certificate=known.portable), rows)


def _binary() -> Model:
    model = dense(2)
    model.linear(np.ones((1, 4)))
    return model


def _deep() -> Model:
    """Enough layers that errors entry by entry would leave nothing of a margin."""
    generator = np.random.default_rng(5)
    model = Model(16)
    for _ in range(24):
        model.linear(single(np.linalg.qr(generator.standard_normal((16, 16)))[0]))
        model.then("LeakyRelu", alpha=0.9)
    model.linear(single(generator.standard_normal((4, 16))))
    return model


@pytest.mark.parametrize("arithmetic", ["float32", "float64", "real"])
@pytest.mark.parametrize(
    ("model", "options"),
    [
        (dense(), {}),
        (rich(), {}),
        (convolutional(), {}),
        (gated(), {"input_box": BOX}),
        (steep(), {"input_box": BOX}),
        (_binary(), {"task": "binary", "threshold": 0.25}),
        (_deep(), {}),
        (dense(4), {"preprocessing": {"scale": 0.5, "mean": [0.1]}}),
    ],
    ids=["dense", "rich", "convolutional", "gated", "steep", "binary", "deep", "preprocessing"],
)
def test_a_radius_is_at_most_the_service_s_and_nearly_that(
    model: Model, options: dict[str, Any], arithmetic: str
) -> None:
    rows = np.random.default_rng(0).uniform(-1, 1, (12, *model.row_shape))
    served, audited = _pair(model, rows, arithmetic=arithmetic, **options)
    positive = 0
    for theirs, ours in zip(served, audited, strict=True):
        assert (ours.label, ours.runner_up) == (theirs.label, theirs.runner_up)
        assert ours.radius is not None and theirs.radius is not None
        assert theirs.radius * (1 - A_MILLIONTH) <= ours.radius <= theirs.radius
        assert (ours.radius < theirs.radius) == (theirs.radius > 0)
        assert ours.margin == pytest.approx(theirs.margin, rel=1e-3, abs=1e-5)
        positive += ours.radius > 0
    assert positive > 3


@settings(max_examples=10)
@given(vector_networks(layers=4) | image_networks(layers=3))
def test_radii_of_random_networks_are_at_most_the_service_s(drawn: tuple[Model, int]) -> None:
    model, _ = drawn
    rows = np.random.default_rng(1).standard_normal((4, *model.row_shape))
    for theirs, ours in zip(*_pair(model, rows, task="auto"), strict=True):
        if ours.radius is None or theirs.radius is None:
            assert ours.radius is theirs.radius and ours.because == theirs.because
        else:
            assert ours.radius <= theirs.radius <= ours.radius * (1 + 1e-3) + 1e-9


def test_what_has_no_radius_says_why() -> None:
    (row,) = _audited(certified(dense(), method="product", task="regression"), np.ones((1, 6)))
    assert (row.label, row.radius, row.because) == (None, None, NO_CLASS) and len(row.logits) == 4
    boxed = certified(gated(), method="product", input_box=BOX)
    inside, outside = _audited(boxed, np.array([np.full(4, 0.5), np.full(4, 1.5)]))
    assert inside.radius and (outside.radius, outside.because) == (0.0, OUTSIDE)
    refused = certified(without_drifts(), method="product")
    (row,) = _audited(refused, np.array([[1.0, 0.0, 0.0, 0.0]]))
    assert row.radius == 0.0 and row.because is not None and "LayerNorm" in row.because
    (far,) = _audited(certified(dense(), method="product"), np.full((1, 6), 1e38))
    assert (far.radius, far.because) == (0.0, NO_ROOM)


def test_several_inputs_are_joint_rows() -> None:
    model = sum_of_two_inputs()
    known = certify_bytes(model)
    audit = Audit(known.portable, model, keys=[], limits=Limits())
    assert [one.name for one in audit.inputs] == ["x", "y"]
    rows = np.arange(6.0)[None]
    (theirs,) = predictor_of(known).predict(rows, epsilon=None, preprocessing=None)
    (ours,) = _audited(Case(model=model, certificate=known.portable), rows)
    assert theirs.radius is not None and ours.radius == pytest.approx(theirs.radius, rel=1e-5)


@pytest.mark.parametrize(
    ("rows", "because"),
    [
        (np.ones((0, 6)), "no rows"),
        (np.ones((2, 5)), "shape"),
        (np.array([[1.0] * 6, [np.nan] * 6]), "row 1 holds"),
        (np.full((1, 6), 1e308), "overflow"),
        (np.array([["a"] * 6]), "numbers"),
    ],
)
def test_rows_that_cannot_be_used_are_named(rows: np.ndarray, because: str) -> None:
    with pytest.raises(InvalidInput, match=because):
        _audited(certified(dense(), method="product"), rows)


def test_rows_are_counted_from_the_first_of_all() -> None:
    case, rows = certified(dense(), method="product"), np.ones((9, 6))
    rows[7] = np.inf
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auditing, "CHUNK_ELEMENTS", 1)
        with pytest.raises(InvalidInput, match="row 7 holds"):
            _audited(case, rows)
        alone = _audited(case, rows[:7])
    together = _audited(case, rows[:7])
    assert [row.label for row in alone] == [row.label for row in together]
    assert [row.radius for row in alone] == pytest.approx([row.radius for row in together], rel=1e-12)


def test_nothing_is_said_of_rows_before_the_file_is_proved() -> None:
    case = certified(dense(), method="product")
    halved = forged(case, lambda parts: replace(parts, constants=replace(parts.constants, pairs=np.zeros((4, 4)))))
    with pytest.raises(CertificateRefused):
        _audited(halved, np.ones((1, 6)))
    with pytest.raises(NotFinished):
        Audit(case.certificate, case.model, keys=[], limits=Limits(seconds=-1.0))


def test_a_document_of_the_first_version_has_radii_of_exact_arithmetic() -> None:
    """It claims no norms of single terms, so that errors are bounded entry by entry alone."""
    rows = np.random.default_rng(3).standard_normal((5, 6))
    case = certified(rich(), method="product")
    old = forged(case, of_the_first_version)
    for ours, theirs in zip(_audited(old, rows), _audited(case, rows), strict=True):
        assert ours.radius is not None and theirs.radius is not None and ours.radius >= theirs.radius


def test_an_audit_loads_neither_engine_nor_torch(tmp_path: Path) -> None:
    case = certified(dense(), method="product")
    (tmp_path / "certificate").write_bytes(case.certificate)
    (tmp_path / "model").write_bytes(case.model)
    program = (
        "import sys, pathlib, numpy\n"
        "from certifier.auditing import Audit\n"
        "from certifier.limits import Limits\n"
        "at = pathlib.Path(sys.argv[1])\n"
        "files = ((at / name).read_bytes() for name in ('certificate', 'model'))\n"
        "found = Audit(*files, keys=[], limits=Limits()).of(numpy.ones((1, 6)), progress=lambda done: None)\n"
        "assert found.rows\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('torch', 'onnxruntime') or 'search' in name])\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "torch" not in done.stdout and "onnxruntime" not in done.stdout and "certifier.search" not in done.stdout
