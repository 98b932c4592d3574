"""`calibration`, a second file beside the model: whose digest identifies the upload, and every way to be refused."""

from __future__ import annotations

import asyncio
import hashlib
import io
from typing import Any

import httpx
import numpy as np

from service.settings import Settings
from tests.service.helpers import dense_network, files_below, running

MODEL = dense_network(4, 8, 3)


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


INPUTS = npy(np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32))


async def upload(
    client: httpx.AsyncClient, inputs: bytes | None, options: str, path: str = "/certify"
) -> httpx.Response:
    files: dict[str, Any] = {"file": ("m.onnx", MODEL)}
    if inputs is not None:
        files["calibration"] = ("inputs.npy", inputs)
    return await client.post(path, files=files, data={"name": "m", "options": options})


def test_inputs_come_beside_the_model(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as client:
            first = await upload(client, INPUTS, '{"seconds": 0.2}')
            assert first.status_code == 201, first.text
            assert first.json()["options"]["calibration"] == hashlib.sha256(INPUTS).hexdigest()
            again = await upload(client, INPUTS, '{"seconds": 0.2}')
            assert (again.status_code, again.content) == (200, first.content)
            without = await upload(client, None, '{"seconds": 0.2}')
            assert (without.status_code, without.json()["model"]["version"]) == (201, 2)
            assert without.json()["options"]["calibration"] is None
            others = await upload(client, npy(np.ones((3, 4))), '{"seconds": 0.2}')
            assert (others.status_code, others.json()["model"]["version"]) == (201, 3)
            checked = await upload(client, INPUTS, "{}", path="/check")
            assert (checked.status_code, checked.json()["refusals"]) == (200, [])
            refusing = await upload(client, npy(np.ones((3, 5))), "{}", path="/check")
            assert [refusal["field"] for refusal in refusing.json()["refusals"]] == ["calibration"]
        assert files_below(settings.data_dir / "incoming") == []

    asyncio.run(scenario())


def test_inputs_that_cannot_be_used_are_refused(settings: Settings) -> None:
    cases: list[tuple[bytes | None, str, int, str]] = [
        (b"", "{}", 422, "invalid_request"),
        (b"text", "{}", 422, "invalid_input"),
        (npy(np.array([{}])), "{}", 422, "invalid_input"),
        (npy(np.ones((3, 5))), "{}", 422, "invalid_input"),
        (npy(np.full((3, 4), np.nan)), "{}", 422, "invalid_input"),
        (INPUTS, '{"task": "regression"}', 422, "invalid_input"),
        (INPUTS, f'{{"calibration": "{"0" * 64}"}}', 422, "invalid_input"),
        (None, f'{{"calibration": "{"0" * 64}"}}', 422, "invalid_request"),
        (INPUTS, '{"calibration": "inputs.npy"}', 422, "invalid_request"),
        (npy(np.ones((settings.max_request_bytes // 32, 4))), "{}", 413, "body_too_large"),
    ]

    async def scenario() -> None:
        async with running(settings) as client:
            for inputs, options, status, code in cases:
                answer = await upload(client, inputs, options)
                assert (answer.status_code, answer.json()["code"]) == (status, code), (answer.text, options)
            assert (await client.get("/models")).json()["models"] == []
        assert files_below(settings.data_dir / "incoming") == []

    asyncio.run(scenario())
