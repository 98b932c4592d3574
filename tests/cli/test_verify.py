"""`lipcert certify --certificate` and `lipcert verify`: 0 and what was proved, or 1 and the step that failed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certifier.portable.envelope import key_id, sign
from certifier.verification import Verification
from tests.cli.conftest import Commands

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@pytest.fixture
def certificate(lipcert: Commands, tmp_path: Path) -> Path:
    path = tmp_path / "digits.certificate"
    lipcert.json("certify", lipcert.model, "--seconds", 1, "--certificate", path)
    return path


@pytest.fixture
def public_key(tmp_path: Path) -> Path:
    path = tmp_path / "key.pem"
    path.write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def test_a_certificate_is_proved_again(lipcert: Commands, certificate: Path) -> None:
    found = Verification.model_validate(lipcert.json("verify", certificate, lipcert.model))
    assert found.verdict == "holds" and found.signed_by is None and found.methods[0] == "product" and found.norms > 3
    table = lipcert.table("verify", certificate, lipcert.model)
    for text in (
        "holds for this model",
        "classification, 10 classes",
        "input ",
        "not looked at",
        "A1:",
        "does not say",
    ):
        assert text in table


def test_rows_have_the_service_s_radii_but_for_the_room_of_the_file(lipcert: Commands, certificate: Path) -> None:
    command = ("verify", certificate, lipcert.model, "--inputs", lipcert.inputs)
    found = Verification.model_validate(lipcert.json(*command))
    served = lipcert.json("predict", lipcert.model, "--seconds", 1, "--inputs", lipcert.inputs)["rows"]
    assert found.rows is not None and found.verdict == "holds" and len(found.rows) == len(served) == 450
    for ours, theirs in zip(found.rows, served, strict=True):
        assert ours.label == theirs["label"] and ours.radius == pytest.approx(theirs["radius"], rel=1e-3)
    table = lipcert.table(*command)
    for text in ("holds for this model", "numbers derived again", "radius", "the first 20 of 450 rows"):
        assert text in table
    assert Verification.model_validate(lipcert.json("verify", certificate, lipcert.model)).rows is None


def test_rows_that_cannot_be_used_are_refused(lipcert: Commands, certificate: Path, tmp_path: Path) -> None:
    narrow = tmp_path / "narrow.npy"
    np.save(narrow, np.ones((2, 3)))
    document, _ = lipcert.refused("verify", certificate, lipcert.model, "--inputs", narrow)
    assert (document["error"], document["field"]) == ("invalid_input", "inputs")
    none = lipcert("verify", certificate, lipcert.model, "--inputs", tmp_path / "none.npy")
    alone = lipcert("verify", certificate, lipcert.model, "--inputs-key", "x")
    assert (none.exit_code, alone.exit_code) == (2, 2) and "--inputs-key" in alone.stderr
    data = bytearray(certificate.read_bytes())
    data[-1] ^= 1
    certificate.write_bytes(bytes(data))
    document, _ = lipcert.refused("verify", certificate, lipcert.model, "--inputs", lipcert.inputs)
    assert document["step"] == "document"


def test_a_signature_is_demanded_by_naming_a_key(lipcert: Commands, certificate: Path, public_key: Path) -> None:
    document, _ = lipcert.refused("verify", certificate, lipcert.model, "--public-key", public_key)
    assert (document["error"], document["step"]) == ("certificate_refused", "signature")
    certificate.write_bytes(sign(certificate.read_bytes(), KEY))
    found = lipcert.json("verify", certificate, lipcert.model, "--public-key", public_key)
    assert found["signed_by"] == key_id(KEY.public_key())


def test_a_changed_certificate_or_model_is_refused(lipcert: Commands, certificate: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes(Path(lipcert.model).read_bytes() + b"\n")
    document, line = lipcert.refused("verify", certificate, other)
    assert document["step"] == "model" and "digest" in line
    data = bytearray(certificate.read_bytes())
    data[-1] ^= 1
    certificate.write_bytes(bytes(data))
    document, line = lipcert.refused("verify", certificate, lipcert.model)
    assert document["step"] == "document" and "changed" in line


def test_a_proof_that_takes_too_long_is_no_refusal(lipcert: Commands, certificate: Path) -> None:
    result = lipcert("verify", certificate, lipcert.model, "--seconds", "0", "--json")
    document = json.loads(result.stdout)
    assert (result.exit_code, document["error"], document["seconds"]) == (3, "not_finished", 0.0)
    assert "more time" in result.stderr and result.stderr.count("\n") == 1
    assert lipcert("verify", certificate, lipcert.model, "--seconds", "-1").exit_code == 2


def test_files_that_cannot_be_used_are_named(lipcert: Commands, certificate: Path, tmp_path: Path) -> None:
    none = tmp_path / "none"
    for named, arguments in (
        ("'CERTIFICATE'", ("verify", none, lipcert.model)),
        ("'MODEL'", ("verify", certificate, none)),
        ("'--public-key'", ("verify", certificate, lipcert.model, "--public-key", none)),
        ("'--certificate'", ("certify", lipcert.model, "--method", "product", "--certificate", none / "file")),
    ):
        result = lipcert(*arguments)
        assert result.exit_code == 2 and named in result.stderr
    document, _ = lipcert.refused("verify", certificate, lipcert.model, "--public-key", certificate)
    assert document["error"] == "invalid_input"
