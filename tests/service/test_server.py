"""The real server: limits while the body streams in, and the way it stops."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.service.helpers import (
    PRODUCT,
    ROOT,
    ServerProcess,
    dense_network,
    descendants,
    files_below,
    in_background,
    upload_form,
    wait_for,
)

Start = Callable[..., ServerProcess]


@pytest.fixture(scope="module")
def small_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for the tests that leave nothing behind, which they check."""
    server = ServerProcess(tmp_path_factory.mktemp("small") / "data", max_upload_bytes=2**20, max_request_bytes=2**16)
    yield server
    server.kill()


def test_an_endless_chunked_upload_is_refused_at_the_limit(small_server: ServerProcess) -> None:
    server = small_server
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 2**30:
            sent += 2**16
            yield bytes(2**16)

    try:
        answer = server.client.post("/certify", content=endless())
    except httpx.TransportError:  # refused while still sending: the connection is closed under the client
        pass
    else:
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert sent < 2**28, "the upload was cut off long before its end"
    assert files_below(server.data_dir / "incoming") == []
    assert server.client.get("/health/live").status_code == 200


def test_an_announced_length_over_the_limit_is_refused_at_once(small_server: ServerProcess) -> None:
    server = small_server
    for path, length in (("/certify", 2**40), ("/predict", 2**20), ("/models/m", 2**40)):
        method = "GET" if path.startswith("/models") else "POST"
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
            connection.sendall(head.encode())
            answer = connection.recv(2**16)
        assert answer.startswith(b"HTTP/1.1 413 "), f"{path}: {answer!r}"
    assert files_below(server.data_dir / "incoming") == []


def test_a_client_that_hangs_up_leaves_nothing(small_server: ServerProcess) -> None:
    server = small_server

    def cut() -> Iterator[bytes]:
        yield bytes(2**19)
        raise KeyboardInterrupt

    try:
        httpx.post(f"{server.url}/certify", content=cut())
    except KeyboardInterrupt:
        pass
    deadline = time.monotonic() + 30
    while files_below(server.data_dir / "incoming"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert server.client.get("/health/ready").status_code == 200


def test_health_answers_while_a_model_is_certified(start_server: Start) -> None:
    server = start_server()
    family = descendants(server.process.pid)
    large = dense_network(4, 1200, 1200, 1200, 3)
    answers: list[httpx.Response] = []
    thread = in_background(
        lambda: answers.append(httpx.post(f"{server.url}/certify", **upload_form(large, options=PRODUCT), timeout=120))
    )
    wait_for(lambda: set(descendants(server.process.pid)) - set(family), "the child process")
    (child,) = set(descendants(server.process.pid)) - set(family)
    # Halted, the certification cannot end by itself, however fast it is.
    os.kill(child, signal.SIGSTOP)
    for path in ("/health/live", "/health/ready", "/models", "/health/live"):
        assert server.client.get(path, timeout=20).status_code == 200
    assert thread.is_alive() and not answers
    os.kill(child, signal.SIGCONT)
    thread.join(120)
    assert [answer.status_code for answer in answers] == [201]


def test_draining_says_not_ready_and_still_predicts(start_server: Start) -> None:
    server = start_server(drain_seconds=3)
    assert server.client.post("/certify", **upload_form(dense_network(4, 8, 3), name="m")).status_code == 201
    server.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 2
    while server.client.get("/health/ready").status_code == 200:
        assert time.monotonic() < deadline
    answer = server.client.post("/predict", json={"model": "m", "inputs": [[0.0, 1.0, 2.0, 3.0]]})
    assert answer.status_code == 200
    assert server.client.get("/health/live").status_code == 200
    assert server.process.wait(60) in (0, -signal.SIGTERM)


def test_a_request_in_flight_is_answered_before_the_end(start_server: Start) -> None:
    server = start_server(drain_seconds=0)
    answers: list[httpx.Response] = []
    large = dense_network(4, 1000, 1000, 3)
    thread = threading.Thread(
        target=lambda: answers.append(server.client.post("/certify", **upload_form(large, name="m", options=PRODUCT)))
    )
    thread.start()
    incoming = server.data_dir / "incoming"
    while not any(path.stat().st_size >= len(large) for path in incoming.rglob("upload")):
        time.sleep(0.005)
    time.sleep(0.1)
    server.process.send_signal(signal.SIGTERM)
    thread.join(60)
    assert [answer.status_code for answer in answers] == [201]
    assert server.process.wait(60) in (0, -signal.SIGTERM)


def test_a_second_server_on_the_same_data_does_not_start(start_server: Start) -> None:
    server = start_server()
    environment = os.environ | {"LIPCERT_DATA_DIR": str(server.data_dir), "LIPCERT_PORT": "0"}
    second = subprocess.run(
        [sys.executable, "-m", "service"], env=environment, cwd=ROOT, capture_output=True, timeout=60
    )
    assert second.returncode != 0
    assert b"another server uses" in second.stdout + second.stderr
    assert server.client.get("/health/ready").status_code == 200


def test_arguments_that_nobody_reads_are_refused(tmp_path: Path) -> None:
    environment = os.environ | {"LIPCERT_DATA_DIR": str(tmp_path / "data"), "LIPCERT_PORT": "0"}
    started = subprocess.run(
        [sys.executable, "-m", "service", "serve"], env=environment, cwd=ROOT, capture_output=True, timeout=60
    )
    assert started.returncode != 0 and b"lipcert serve --help" in started.stderr
    assert not (tmp_path / "data").exists()


def test_logs_are_json_without_the_content_of_requests(start_server: Start) -> None:
    server = start_server(drain_seconds=0)
    server.client.post("/certify", **upload_form(dense_network(4, 8, 3), name="m"))
    server.client.post("/predict", json={"model": "m", "inputs": [[0.123456789, 1.0, 2.0, 3.0]]})
    server.client.post("/predict", json={"model": "m", "inputs": [["0.123456789"]]})
    assert server.stop() in (0, -signal.SIGTERM)
    lines = server.log().splitlines()
    events = [json.loads(line)["event"] for line in lines]
    assert "opened" in events and "certified" in events
    assert "0.123456789" not in server.log()
