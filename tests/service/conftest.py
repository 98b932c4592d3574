"""Fixtures: settings with a data folder of each test's own, and real server processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.settings import Settings
from tests.service.helpers import ServerProcess


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Small limits, so that tests reach them."""
    return Settings(
        data_dir=tmp_path / "data",
        max_upload_bytes=2**21,
        max_request_bytes=2**16,
        certify_seconds=60,
        drain_seconds=0,
    )


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Starts servers on the test's own data folder; those left running are killed."""
    started: list[ServerProcess] = []

    def start(**settings: object) -> ServerProcess:
        server = ServerProcess(tmp_path / "data", **settings)
        started.append(server)
        return server

    yield start
    for server in started:
        if server.process.poll() is None:
            server.kill()
