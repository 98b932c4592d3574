"""Liveness and readiness: also while a model is being certified, and when something is broken."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from service.app import create_app
from service.settings import Settings
from tests.service.helpers import dense_network, files_below, running, upload_form


def test_not_ready_when_the_storage_is_gone(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as client:
            assert (await client.get("/health/ready")).status_code == 200
            blobs = settings.data_dir / "blobs"
            blobs.rename(settings.data_dir / "elsewhere")
            answer = await client.get("/health/ready")
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
            assert (await client.get("/health/live")).status_code == 200
            (settings.data_dir / "elsewhere").rename(blobs)
            assert (await client.get("/health/ready")).status_code == 200

    asyncio.run(scenario())


def test_a_stopping_server_is_not_ready_and_certifies_nothing_new(settings: Settings) -> None:
    async def scenario() -> None:
        app = create_app(settings)
        async with app.router.lifespan_context(app):
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://lipcert") as client:
                app.state.parts.certifying.draining = True
                assert (await client.get("/health/ready")).status_code == 503
                answer = await client.post("/certify", **upload_form(dense_network(4, 8, 3)))
                assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert files_below(settings.data_dir / "incoming") == []

    asyncio.run(scenario())


# Pebble may find its future cancelled in the moment that the child finishes; nobody waits for it then.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_stopping_in_the_middle_of_a_certification_leaves_nothing(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings.model_copy(update={"max_upload_bytes": 2**26})) as client:
            large = dense_network(4, 1200, 1200, 1200, 3)
            upload = asyncio.create_task(client.post("/certify", **upload_form(large, name="large")))
            while not files_below(settings.data_dir / "incoming"):
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
        await asyncio.gather(upload, return_exceptions=True)
        assert files_below(settings.data_dir / "incoming") == []
        async with running(settings) as client:
            assert (await client.get("/models")).json()["models"] in ([], ["large"])

    asyncio.run(scenario())
