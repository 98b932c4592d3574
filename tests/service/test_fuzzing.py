"""Mutated uploads through a real server: answers and refusals, never a fault of its own."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.fuzzing.campaign import Campaign
from tests.service.helpers import ServerProcess, upload_form

SEED = 3
"""Not the one of `make fuzz`, nor of the library's tests, so that all see other mutants."""


@pytest.fixture(scope="module")
def campaign() -> Campaign:
    return Campaign(seed=SEED)


def _through_a_server(campaign: Campaign, folder: Path, count: int) -> Counter[int]:
    server = ServerProcess(folder / "data", child_cpu_seconds=10, certify_seconds=60)
    statuses = Counter[int]()
    try:
        for number in range(count):
            upload = campaign.mutant(number)
            if not upload.data:
                continue
            options: dict[str, object] = {"method": upload.method}
            if upload.input_shape is not None:
                options["input_shape"] = upload.input_shape
            form = upload_form(upload.data, name=f"m{number}", options=json.dumps(options))
            answer = server.client.post("/certify", **form)
            statuses[answer.status_code] += 1
            assert answer.status_code < 500, f"mutant {number}: {answer.text}"
            assert answer.status_code in (200, 201) or answer.headers["content-type"] == "application/problem+json"
        assert server.process.poll() is None and server.client.get("/health/ready").status_code == 200
    finally:
        server.kill()
    return statuses


def test_a_server_answers_mutants_without_a_fault_of_its_own(campaign: Campaign, tmp_path: Path):
    statuses = _through_a_server(campaign, tmp_path, 40)
    assert statuses[201] and statuses[400]


@pytest.mark.slow
def test_a_server_answers_thousands_of_mutants(campaign: Campaign, tmp_path: Path, record_property):
    statuses = _through_a_server(campaign, tmp_path, 4000)
    record_property("statuses", dict(statuses))
    assert sum(statuses.values()) > 3900
