"""Certificate files over HTTP: signed, and proved again from the bytes that came."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from certifier.auditing import Audit
from certifier.limits import Limits
from certifier.packing import DRIFT_LAYOUT
from certifier.portable.document import from_bytes, to_bytes
from certifier.portable.envelope import ENVELOPE_MEDIA_TYPE, key_id, read_keys
from certifier.verification import verify
from service.artifacts import PORTABLE
from service.datadir import DataDirectory
from service.settings import Settings
from tests.service.helpers import dense_network, running, upload_form


def test_a_version_has_a_signed_certificate_that_holds(settings: Settings) -> None:
    model = dense_network(4, 8, 3)

    async def scenario() -> None:
        async with running(settings) as client:
            upper = (await client.post("/certify", **upload_form(model, name="a"))).json()["lipschitz"]["upper"]
            answer = await client.get("/models/a/versions/1/certificate")
            assert answer.status_code == 200 and answer.headers["content-type"] == ENVELOPE_MEDIA_TYPE
            assert 'filename="a-1.certificate.json"' in answer.headers["content-disposition"]
            keys = read_keys((await client.get("/.well-known/jwks.json")).content)
            found = verify(answer.content, model, keys=keys, limits=Limits())
            assert found.arithmetic.name == "float32" and found.drifts > 0
            assert found.signed_by == key_id(keys[0]) == json.loads(answer.content)["signatures"][0]["keyid"]
            assert upper <= found.lipschitz_upper <= upper * (1 + 2.0**-19)

            rows = np.random.default_rng(0).standard_normal((5, 4))
            asked = {"model": "a", "inputs": rows.tolist()}
            served = (await client.post("/predict", json=asked)).json()["rows"]
            audited = Audit(answer.content, model, keys=keys, limits=Limits()).of(rows, progress=lambda done: None).rows
            assert audited is not None and any(row["radius"] > 0 for row in served)
            for theirs, ours in zip(served, audited, strict=True):
                assert ours.radius is not None and ours.label == theirs["label"]
                assert theirs["radius"] * (1 - 2.0**-18) <= ours.radius <= theirs["radius"]

            for path in ("/models/a/versions/2/certificate", "/models/b/versions/1/certificate"):
                missing = await client.get(path)
                assert (missing.status_code, missing.json()["code"]) == (404, "unknown_model")

    asyncio.run(scenario())


def test_a_version_from_before_certificate_files_says_so(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as client:
            await client.post("/certify", **upload_form(dense_network(4, 8, 3), name="a"))
            (kept,) = (settings.data_dir / "blobs").rglob(PORTABLE)
            kept.write_bytes(kept.read_bytes()[:-1])
            damaged = await client.get("/models/a/versions/1/certificate")
            kept.unlink()
            missing = await client.get("/models/a/versions/1/certificate")
            for answer in (damaged, missing):
                assert (answer.status_code, answer.json()["code"]) == (404, "no_portable_certificate")

    asyncio.run(scenario())


def test_a_file_whose_drifts_mean_something_else_is_served_for_its_constants(settings: Settings) -> None:
    """Its radii are 0 here, so nobody vouches for the numbers that they would rest on."""
    model = dense_network(4, 8, 3)

    async def scenario() -> None:
        async with running(settings) as client:
            await client.post("/certify", **upload_form(model, name="a"))
            (kept,) = (settings.data_dir / "blobs").rglob(PORTABLE)
            contents = from_bytes(kept.read_bytes())
            drifts = {**(contents.certificate.drifts or {}), "layout": DRIFT_LAYOUT - 1}
            certificate = contents.certificate.model_copy(update={"drifts": drifts})
            kept.write_bytes(to_bytes(replace(contents, certificate=certificate)))
            answer = await client.get("/models/a/versions/1/certificate")
            keys = read_keys((await client.get("/.well-known/jwks.json")).content)
            found = verify(answer.content, model, keys=keys, limits=Limits())
            assert found.signed_by == key_id(keys[0])
            assert (found.arithmetic.name, found.drifts, found.lipschitz_upper) == ("real", 0, contents.constants.upper)
            assert "not covered" in found.arithmetic.statement

    asyncio.run(scenario())


def test_the_signing_key_is_secret_and_lasts(settings: Settings) -> None:
    ids = set()
    for _ in range(2):
        folder = DataDirectory(settings)
        ids.add(key_id(folder.signing_key(settings).public_key()))
        assert (folder.path / "signing.key").stat().st_mode & 0o777 == 0o600
        folder.close()
    assert len(ids) == 1


def test_the_signing_key_of_the_settings_wins(tmp_path: Path) -> None:
    plain = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    key, path = Ed25519PrivateKey.generate(), tmp_path / "key.pem"
    path.write_bytes(key.private_bytes(*plain))
    settings = Settings.model_validate({"data_dir": tmp_path / "data", "signing_key": path})
    folder = DataDirectory(settings)
    assert key_id(folder.signing_key(settings).public_key()) == key_id(key.public_key())
    assert not (folder.path / "signing.key").exists()
    for wrong in (b"", b"-----BEGIN PRIVATE KEY-----", X25519PrivateKey.generate().private_bytes(*plain)):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=r"key\.pem"):
            folder.signing_key(settings)
    path.unlink()
    with pytest.raises(OSError):
        folder.signing_key(settings)
    folder.close()
