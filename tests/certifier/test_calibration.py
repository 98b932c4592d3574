"""Calibration inputs: read without trust, weighing the pairs they come near, deciding nothing but where time goes."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
import pytest

from certifier.calibration import Calibration, calibration_digest, pair_weights
from certifier.certification import CertifiedModel, certify
from certifier.checking import check
from certifier.documents import CertifyOptions
from certifier.errors import CertifierError, InvalidInput, ResourceLimitExceeded
from certifier.limits import Budget, Limits
from certifier.parts import InputParts
from certifier.search.state import SearchState
from certifier.verification import verify
from tests.building import SEAL, Model, single

PARTS = InputParts(names=("x",), shapes=((2, 3),))


def npy(array: Any, *, version: tuple[int, int] | None = None) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array), version=version, allow_pickle=True)
    return buffer.getvalue()


def read(data: bytes, limits: Limits | None = None) -> np.ndarray:
    return Calibration.read(data, task="classification", parts=PARTS, limits=limits or Limits()).rows


def header(text: str, data: bytes = b"") -> bytes:
    padded = text.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + data


@pytest.mark.parametrize("shape", [(4, 2, 3), (4, 6), (4, 1, 2, 3)])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "u1", "<i8", "?", "<f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_are_those_of_the_array(shape: tuple[int, ...], dtype: str, order: Any) -> None:
    array = np.asarray(np.arange(24).reshape(shape) % 7, dtype=dtype, order=order)
    np.testing.assert_array_equal(read(npy(array)), array.reshape(4, 6).astype(float))
    np.testing.assert_array_equal(read(npy(array, version=(2, 0))), read(npy(array)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no .npy file"),
        (b"PK\x03\x04", "no .npy file"),
        (b"\x80\x04N.", "no .npy file"),
        (b"\x93NUMPY", "cannot be read"),
        (b"\x93NUMPY\x03\x00" + npy(np.zeros((1, 6)))[8:], "cannot be read"),
        (npy(np.array([[{}] * 6], dtype=object)), "pickled"),
        (npy(np.array([["a"] * 6])), "must hold numbers"),
        (npy(np.zeros((1, 6), dtype=complex)), "must hold numbers"),
        (npy(np.zeros((1, 6), dtype="M8[s]")), "must hold numbers"),
        (npy(np.zeros(1, dtype=[("a", "<f4")])), "must hold numbers"),
        (npy(np.zeros((0, 6))), "no rows"),
        (npy(np.zeros((5, 7))), "has shape"),
        (npy(np.zeros(())), "has shape"),
        (npy(np.zeros((5, 3, 2))), "order"),
        (npy(np.array([[0.0] * 6, [np.nan] * 6])), "row 1 holds NaN"),
        (npy(np.array([[np.inf] * 6])), "row 0 holds NaN"),
        (npy(np.zeros((4, 6)))[:-1], "not the size of the file"),
        (npy(np.zeros((4, 6))) + b"more", "not the size of the file"),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 6), }"), "not the size of the file"),
        (
            header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -6), }", bytes(48)),
            "not the size of the file",
        ),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (1, 6)", bytes(48)), "cannot be read"),
        (header("{'descr': __import__('os'), 'fortran_order': False, 'shape': (1, 6), }", bytes(48)), "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as refused:
        read(data)
    assert refused.value.field == "calibration"


def test_a_file_over_the_limit_is_refused() -> None:
    data = npy(np.zeros((4, 6)))
    read(data, Limits(calibration_bytes=len(data)))
    with pytest.raises(ResourceLimitExceeded):
        read(data, Limits(calibration_bytes=len(data) - 1))


def test_the_options_name_the_file_by_its_digest() -> None:
    digest = hashlib.sha256(b"inputs").hexdigest()
    assert calibration_digest(b"inputs", None) == calibration_digest(b"inputs", digest) == digest
    assert calibration_digest(None, None) is None
    with pytest.raises(InvalidInput, match="none was given"):
        calibration_digest(None, digest)
    with pytest.raises(InvalidInput, match="is not the digest"):
        calibration_digest(b"others", digest)


def test_pairs_that_decide_radii_weigh_most() -> None:
    # Class 0 against 1 decides twice, 2 against 0 once; 1 and 2 never come near each other.
    logits = np.array([[5.0, 4.0, -50.0], [1.0, 3.0, -50.0], [2.0, -90.0, 3.0]])
    weights = pair_weights(logits, None)
    assert (weights == weights.T).all() and (np.diagonal(weights) == 0).all()
    assert weights.sum() / 6 == pytest.approx(1.0)
    assert weights[0, 1] == pytest.approx(2 * weights[0, 2], rel=1e-3)
    assert 0 < weights[1, 2] < 0.01 * weights[0, 2]
    # A large constant makes a large margin a small radius.
    steep = pair_weights(logits[:1], np.array([[0, 1, 1e4], [1, 0, 1], [1e4, 1, 0]]))
    assert steep[0, 2] > steep[0, 1]


@pytest.mark.parametrize(
    "logits",
    [
        np.full((2, 3), np.nan),
        np.array([[np.inf, 0.0, 0.0]]),
        np.zeros((2, 3)),
        np.array([[1e308, -1e308, 0.0]]),
        np.array([[5e-324, 0.0, 0.0]]),
    ],
)
@pytest.mark.parametrize("constants", [None, np.zeros((3, 3)), np.full((3, 3), np.inf), np.full((3, 3), 5e-324)])
def test_weights_are_usable_whatever_the_logits(logits: np.ndarray, constants: np.ndarray | None) -> None:
    weights = pair_weights(logits, constants)
    assert np.isfinite(weights).all() and (weights[~np.eye(3, dtype=bool)] > 0).all()


def _model() -> Model:
    generator = np.random.default_rng(3)
    model = Model(6)
    for rows, columns in ((12, 6), (12, 12)):
        model.linear(single(generator.standard_normal((rows, columns)) / np.sqrt(columns)))
        model.then("Relu")
    model.linear(single(generator.standard_normal((6, 12))))
    return model


def _certified(data: bytes, calibration: bytes | None, options: CertifyOptions) -> CertifiedModel:
    return certify(
        data,
        name="model",
        version=1,
        options=options,
        limits=Limits(),
        state=SearchState(),
        seal=SEAL,
        progress=lambda news: None,
        calibration=calibration,
    )


def test_the_certificate_names_the_inputs_and_stays_sound() -> None:
    model, inputs = _model(), npy(np.random.default_rng(0).standard_normal((50, 6)))
    options = CertifyOptions(seconds=1, method="multipliers")
    certificate = _certified(model.data(), inputs, options).certificate
    assert certificate.options.calibration == hashlib.sha256(inputs).hexdigest()
    assert any("calibration inputs" in note for note in certificate.notes)
    product = _certified(model.data(), inputs, CertifyOptions(method="product")).certificate
    assert product.options.calibration == certificate.options.calibration
    assert not any("calibration inputs" in note for note in product.notes)
    assert certificate.pairs is not None and product.pairs is not None
    pairs = np.array(certificate.pairs)
    assert (pairs <= np.array(product.pairs)).all() and pairs.sum() < 0.9 * np.array(product.pairs).sum()
    # No secant of a difference of two outputs is steeper than its constant.
    x, y = np.random.default_rng(1).standard_normal((2, 200, 6))
    run = model.reference()
    moved = run(x) - run(y)
    apart = np.linalg.norm(x - y, axis=1)
    assert (np.abs(moved[:, :, None] - moved[:, None, :]) <= pairs * apart[:, None, None] * (1 - 1e-9)).all()


def test_a_pair_that_matters_gets_the_smaller_constant() -> None:
    model = _model()
    logits = np.zeros((1, 6))
    logits[0, 2:4] = 9.0, 8.9

    def constants(weights: np.ndarray) -> np.ndarray:
        from certifier.bounds.joint import joint_form
        from certifier.bounds.multipliers import check_family
        from certifier.tightening.multipliers import Searching
        from tests.certifier.bounds.building import bounded

        network, product = bounded(model)
        form = joint_form(network, product.lipschitz_upper)
        searching = Searching(form, weights=weights, classes=True, kept={}, progress=lambda step: None)
        family = next(searching.families(Budget.of(2.0), cost=lambda: 0.0, is_worthwhile=lambda: False))
        proved = check_family(form, searching.witness(), family).pairs
        assert family == "pairs" and proved is not None
        return proved

    alike, chosen = constants(np.ones((6, 6))), constants(pair_weights(logits, None))
    assert chosen[2, 3] < alike[2, 3] * (1 - 1e-4)


@pytest.mark.parametrize("task", ["regression", "binary"])
def test_what_has_no_pairs_takes_no_calibration(task: Any) -> None:
    with pytest.raises(InvalidInput, match="pairs of classes"):
        Calibration.read(npy(np.zeros((1, 6))), task=task, parts=PARTS, limits=Limits())


def test_a_check_tells_what_certifying_would_refuse() -> None:
    data, options = _model().data(), CertifyOptions()
    assert check(data, options=options, limits=Limits(), calibration=npy(np.zeros((1, 6)))).refusals == []
    for inputs in (npy(np.zeros((1, 7))), b"no array"):
        (refusal,) = check(data, options=options, limits=Limits(), calibration=inputs).refusals
        with pytest.raises(CertifierError) as refused:
            _certified(data, inputs, options)
        assert (refusal.code, refusal.message) == (refused.value.code, str(refused.value))
    named = CertifyOptions(calibration="0" * 64)
    (refusal,) = check(data, options=named, limits=Limits()).refusals
    assert refusal.field == "options.calibration"


def test_a_calibrated_certificate_file_is_proved_again() -> None:
    """The note about the search is in the answer and not in the file, which holds what a verifier comes to itself."""
    data = _model().data()
    inputs = io.BytesIO()
    np.save(inputs, np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32))
    certified = _certified(data, inputs.getvalue(), CertifyOptions(seconds=1))
    assert verify(certified.portable, data, keys=[], limits=Limits()).options.calibration is not None
