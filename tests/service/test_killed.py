"""SIGKILL at any moment: every finished certificate is there after a restart, and nothing half-made."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from service.artifacts import BESIDE_THE_CERTIFICATE as ARTIFACTS
from tests.service.helpers import (
    PRODUCT,
    ROOT,
    ServerProcess,
    dense_network,
    descendants,
    files_below,
    in_background,
    is_running,
    upload_form,
    wait_for,
)

SMALL = dense_network(4, 8, 3)
LARGE = dense_network(4, 1500, 1500, 1500, 3)
Start = Callable[..., ServerProcess]


def demand_intact(server: ServerProcess, finished: dict[str, bytes]) -> None:
    """Every finished certificate is served byte for byte, works, and there is not one blob more."""
    assert server.client.get("/models").json()["models"] == sorted(finished)
    for name, certificate in finished.items():
        assert server.client.get(f"/models/{name}/versions/1").content == certificate
        answer = server.client.post("/predict", json={"model": name, "inputs": [[0.0, 1.0, 2.0, 3.0]]})
        assert answer.status_code == 200, answer.text
    assert files_below(server.data_dir / "incoming") == []
    assert len(files_below(server.data_dir / "blobs")) == len(finished) * (1 + len(ARTIFACTS))
    folders = list((server.data_dir / "blobs" / "versions").iterdir()) if finished else []
    assert len(folders) == len(finished)


def certify_small(server: ServerProcess, *names: str) -> dict[str, bytes]:
    certificates = {}
    for name in names:
        answer = server.client.post("/certify", **upload_form(SMALL, name=name))
        assert answer.status_code == 201, answer.text
        certificates[name] = answer.content
    return certificates


def test_killed_during_certification(start_server: Start) -> None:
    server = start_server()
    finished = certify_small(server, "a", "b")
    request = in_background(lambda: server.client.post("/certify", **upload_form(LARGE, name="large", options=PRODUCT)))
    incoming = server.data_dir / "incoming"
    # The upload is complete when the child has been started on it: its file no longer grows.
    wait_for(lambda: any(path.stat().st_size >= len(LARGE) for path in incoming.rglob("upload")), "the upload")
    children = descendants(server.process.pid)
    server.kill()
    request.join(60)
    wait_for(lambda: not any(is_running(pid) for pid in children), "the end of the orphaned children")
    again = start_server()
    demand_intact(again, finished)
    assert (
        again.client.post("/certify", **upload_form(LARGE, name="large", options=PRODUCT)).json()["model"]["version"]
        == 1
    )


ORPHAN = """
import asyncio, time
from service.child import ChildLimits
from service.children import Children
children = Children(workers=1, queue=0, limits=ChildLimits(memory_bytes=2**32, cpu_seconds=600))
asyncio.run(children.run(time.sleep, 600, seconds=600))
"""


def test_a_job_dies_with_its_server() -> None:
    server = subprocess.Popen([sys.executable, "-c", ORPHAN], cwd=ROOT)
    # The resource tracker, the fork server, and the job that sleeps for ten minutes.
    wait_for(lambda: len(descendants(server.pid)) == 3, "the job")
    family = descendants(server.pid)
    server.kill()
    server.wait()
    wait_for(lambda: not any(is_running(pid) for pid in family), "the end of the orphaned job")


def test_killed_during_upload(start_server: Start) -> None:
    server = start_server()
    finished = certify_small(server, "a")
    halted = threading.Event()

    def half() -> Iterator[bytes]:
        yield LARGE[: 3 * 2**20]
        halted.wait(60)

    def upload() -> None:
        httpx.post(f"{server.url}/certify?name=large", content=half(), timeout=60)

    request = in_background(upload)
    incoming = server.data_dir / "incoming"
    wait_for(lambda: any(path.stat().st_size >= 2**20 for path in incoming.rglob("upload")), "the first bytes")
    server.kill()
    halted.set()
    request.join(60)
    assert files_below(incoming), "the killed server left its half upload"
    demand_intact(start_server(), finished)


@pytest.mark.parametrize("delay", [0.0, 0.005])
def test_killed_during_delete(start_server: Start, delay: float) -> None:
    server = start_server()
    finished = certify_small(server, "a", "b", "c")
    in_background(lambda: server.client.delete("/models/b")).join(0.001)
    time.sleep(delay)
    server.kill()
    again = start_server()
    survivors = again.client.get("/models").json()["models"]
    assert survivors in (["a", "c"], ["a", "b", "c"]), "the deletion happened as a whole or not at all"
    demand_intact(again, {name: finished[name] for name in survivors})


@pytest.mark.parametrize("delay", [0.05, 0.2])
def test_killed_while_small_models_are_published(start_server: Start, delay: float) -> None:
    server = start_server(workers=2)
    finished: dict[str, bytes] = {}

    def flood() -> None:
        for index in range(1000):
            name = f"m{index:03}"
            answer = server.client.post("/certify", **upload_form(SMALL, name=name))
            if answer.status_code == 201:
                finished[name] = answer.content

    request = in_background(flood)
    wait_for(lambda: finished, "the first certificate")
    time.sleep(delay)
    server.kill()
    request.join(60)
    again = start_server()
    stored = again.client.get("/models", params={"limit": 1000}).json()["models"]
    assert set(finished) <= set(stored)
    # The last one may have been published before its answer could be sent.
    assert len(stored) <= len(finished) + 1
    extra = {name: again.client.get(f"/models/{name}/versions/1").content for name in set(stored) - set(finished)}
    demand_intact(again, finished | extra)
