"""POST /certify: both forms of upload, numbering, stored answers, and every way to be refused."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from certifier.documents import Certificate
from service.settings import Settings
from tests.service.helpers import dense_network, files_below, running, upload_form

MODEL = dense_network(4, 8, 3)
OTHER = dense_network(4, 8, 3, seed=1)


async def certify(client: httpx.AsyncClient, data: bytes = MODEL, **fields: str) -> httpx.Response:
    return await client.post("/certify", **upload_form(data, **fields))


def test_a_model_is_certified(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as client:
            answer = await certify(client, name="dense", options='{"method": "product"}')
            assert answer.status_code == 201, answer.text
            certificate = Certificate.model_validate_json(answer.content)
            assert certificate.model.name == "dense"
            assert certificate.model.version == 1
            assert certificate.model.sha256 == hashlib.sha256(MODEL).hexdigest()
            assert 0 < certificate.lipschitz.lower <= certificate.lipschitz.upper < float("inf")
            assert certificate.options.method == "product"
            assert certificate.arithmetic.name == "float32"
            assert certificate.self_test.passed
            stored = await client.get("/models/dense/versions/1")
            assert stored.content == answer.content
        assert files_below(settings.data_dir / "incoming") == []

    asyncio.run(scenario())


def test_the_same_bytes_get_the_stored_answer_in_either_form(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as client:
            first = await certify(client, name="a")
            again = await certify(client, name="a")
            raw = await client.post("/certify", params={"name": "a", "options": "{}"}, content=MODEL)
            pinned = await certify(client, name="a", version="1")
            assert [answer.status_code for answer in (first, again, raw, pinned)] == [201, 200, 200, 200]
            assert first.content == again.content == raw.content == pinned.content
            other_options = await certify(client, name="a", options='{"task": "regression"}')
            assert (other_options.status_code, other_options.json()["model"]["version"]) == (201, 2)
            other_name = await certify(client, name="b")
            assert (other_name.status_code, other_name.json()["model"]["version"]) == (201, 1)

    asyncio.run(scenario())


def test_simultaneous_uploads_of_the_same_bytes_are_certified_once(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as client:
            answers = await asyncio.gather(*(certify(client, name="a") for _ in range(5)))
            assert sorted(answer.status_code for answer in answers) == [200] * 4 + [201]
            assert len({answer.content for answer in answers}) == 1
        assert files_below(settings.data_dir / "incoming") == []

    asyncio.run(scenario())


def test_names_and_versions(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as client:
            assert (await certify(client)).json()["model"]["name"] == "model"
            named = await client.post("/certify", **upload_form(MODEL, "../My digits (2).onnx"))
            assert named.json()["model"]["name"] == "My-digits-2"
            raw = await client.post("/certify", content=MODEL)
            assert raw.json()["model"]["name"] == f"model-{hashlib.sha256(MODEL).hexdigest()[:8]}"
            assert (await certify(client, OTHER)).json()["model"]["version"] == 2
            assert (await certify(client, OTHER, name="n", version="7")).json()["model"]["version"] == 7
            assert (await certify(client, MODEL, name="n")).json()["model"]["version"] == 8
            taken = await certify(client, MODEL, name="n", version="7")
            assert (taken.status_code, taken.json()["code"]) == (409, "name_conflict")
            options = await certify(client, OTHER, name="n", version="7", options='{"task": "regression"}')
            assert (options.status_code, options.json()["code"]) == (409, "name_conflict")
            await client.delete("/models/n")
            gone = await certify(client, OTHER, name="n", version="7")
            assert (gone.status_code, gone.json()["code"]) == (409, "name_conflict")
            assert (await certify(client, OTHER, name="n")).json()["model"]["version"] == 9

    asyncio.run(scenario())


def test_the_next_version_starts_from_the_state_of_the_last(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as client:
            first = (await certify(client, dense_network(4, 8, 3), name="w")).json()
            second = (await certify(client, dense_network(4, 8, 3), name="w", options='{"task": "regression"}')).json()
            assert {layer["search"] for layer in first["layers"]} <= {"cold", "none"}
            searched = [layer["name"] for layer in first["layers"] if layer["search"] == "cold"]
            assert searched
            assert {layer["search"] for layer in second["layers"] if layer["name"] in searched} == {"reused"}

    asyncio.run(scenario())


def truncated_form() -> dict[str, Any]:
    content = b'--B\r\nContent-Disposition: form-data; name="file"; filename="m.onnx"\r\n\r\n' + MODEL
    return {"content": content, "headers": {"content-type": "multipart/form-data; boundary=B"}}


def form(*parts: tuple[str, bytes]) -> dict[str, Any]:
    content = b"".join(
        b'--B\r\nContent-Disposition: form-data; name="' + name.encode() + b'"\r\n\r\n' + value + b"\r\n"
        for name, value in parts
    )
    return {"content": content + b"--B--\r\n", "headers": {"content-type": "multipart/form-data; boundary=B"}}


REFUSED: list[tuple[str, dict[str, Any], int, str]] = [
    ("text that is no model", upload_form(b"hello, this is no model"), 415, "unknown_format"),
    ("discontinuous operator", upload_form(dense_network(4, 8, 3, operator="Sign")), 422, "unsupported_node"),
    ("empty file", upload_form(b""), 422, "invalid_request"),
    ("empty raw body", {"content": b""}, 422, "invalid_request"),
    ("no file", form(("name", b"a")), 422, "invalid_request"),
    ("two files", form(("file", MODEL), ("file", MODEL)), 422, "invalid_request"),
    ("unknown field", form(("file", MODEL), ("nmae", b"a")), 422, "invalid_request"),
    ("part without a name", form(("", MODEL)), 422, "invalid_request"),
    ("form cut short", truncated_form(), 400, "malformed_request"),
    ("form without boundary", {"content": MODEL, "headers": {"content-type": "multipart/form-data"}}, 400,
     "malformed_request"),
    ("form that is none", {"content": MODEL, "headers": {"content-type": "multipart/form-data; boundary=B"}}, 400,
     "malformed_request"),
    ("field that is not UTF-8", form(("file", MODEL), ("name", b"\xff")), 400, "malformed_request"),
    ("huge field", form(("file", MODEL), ("options", b" " * 70_000)), 413, "body_too_large"),
    ("JSON body", {"json": {}}, 415, "unsupported_media_type"),
    ("path as a name", upload_form(MODEL, name="../../etc/passwd"), 422, "invalid_request"),
    ("name of 129 letters", upload_form(MODEL, name="a" * 129), 422, "invalid_request"),
    ("version 0", upload_form(MODEL, version="0"), 422, "invalid_request"),
    ("version beyond the database", upload_form(MODEL, version=str(2**31)), 422, "invalid_request"),
    ("version in words", upload_form(MODEL, version="two"), 422, "invalid_request"),
    ("options that are no JSON", upload_form(MODEL, options="{"), 400, "malformed_request"),
    ("options that are a list", upload_form(MODEL, options="[]"), 422, "invalid_request"),
    ("unknown option", upload_form(MODEL, options='{"metod": "auto"}'), 422, "invalid_request"),
    ("unknown method", upload_form(MODEL, options='{"method": "guess"}'), 422, "invalid_request"),
    ("NaN in the options", upload_form(MODEL, options='{"threshold": NaN}'), 422, "invalid_request"),
    ("file over the limit", upload_form(b"\0" * (2**21 + 1)), 413, "body_too_large"),
    ("raw body over the limit", {"content": b"\0" * (2**21 + 1)}, 413, "body_too_large"),
]  # fmt: skip


@pytest.fixture
def refused_settings(settings: Settings) -> Iterator[Settings]:
    yield settings
    assert files_below(settings.data_dir / "incoming") == []
    assert files_below(settings.data_dir / "blobs") == []


def test_an_unknown_field_is_told_which_ones_there_are(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as client:
            answer = await client.post("/certify", **form(("model", MODEL)))
            assert "file" in answer.json()["detail"] and "options" in answer.json()["detail"]

    asyncio.run(scenario())


def test_refusals(refused_settings: Settings) -> None:
    async def scenario() -> None:
        async with running(refused_settings) as client:
            for title, request, status, code in REFUSED:
                answer = await client.post("/certify", **request)
                assert (answer.status_code, answer.json()["code"]) == (status, code), f"{title}: {answer.text}"
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.json()["status"] == status
                assert "Traceback" not in answer.text
            assert (await client.get("/models")).json() == {"models": [], "next": None}

    asyncio.run(scenario())


def test_a_refusal_names_the_node(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as client:
            problem = (await certify(client, dense_network(4, 8, 3, operator="Sign"))).json()
            assert problem["details"]["node"] == "between0"
            assert problem["details"]["operator"] == "Sign"
            assert problem["type"] == "urn:lipcert:problem:unsupported-node"

    asyncio.run(scenario())


def test_invalid_options_are_named_by_path(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as client:
            options = json.dumps({"preprocessing": {"std": [1.0, -1.0]}})
            problem = (await certify(client, options=options)).json()
            assert [error["field"] for error in problem["details"]["errors"]] == ["options.preprocessing.std.1"]

    asyncio.run(scenario())


def test_a_certification_over_its_time_is_refused(settings: Settings) -> None:
    async def scenario() -> None:
        limits = {"certify_seconds": 0.05, "max_upload_bytes": 2**26}
        async with running(settings.model_copy(update=limits)) as client:
            answer = await certify(client, dense_network(4, 1500, 1500, 1500, 3))
            assert (answer.status_code, answer.json()["code"]) == (422, "resource_limit_exceeded")
            assert answer.json()["details"]["resource"] == "seconds"
            assert (await client.get("/health/ready")).status_code == 200

    asyncio.run(scenario())
