"""Hostile uploads through a real server: typed refusals, nothing left behind, and an answer to the next request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.artifacts import BESIDE_THE_CERTIFICATE
from tests.hostile.guard import CERTIFIED
from tests.hostile.registry import REGISTRY, SHAPES
from tests.hostile.setstate import writing_module
from tests.service.helpers import ROOT, ServerProcess, files_below, upload_form

EVERY = 10
"""The normal suite sends every tenth case to a server; the slow one sends all."""
HOSTILE_NAMES = (
    "../../evil",
    "/etc/passwd",
    "a/b",
    "a\\b",
    ".hidden",
    "a\x00b",
    "a\r\nX-Evil: 1",
    "x" * 10_000,
    "é",
    "%2e%2e%2f",
)
FILE_NAMES = (
    "../../../etc/cron.d/evil.onnx",
    "C:\\evil.onnx",
    "a\x00.onnx",
    "$(touch evil).onnx",
    "x" * 10_000,
    "..",
    "",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all cases, whose children get ten seconds of processor time."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("server")
        (folder / "tmp").mkdir()
        patch.setenv("TMPDIR", str(folder / "tmp"))
        patch.setenv("HOME", str(folder / "tmp"))
        patch.setenv("PYTHONDONTWRITEBYTECODE", "1")
        started = ServerProcess(folder / "data", child_cpu_seconds=10, child_memory_bytes=2**32)
        yield started
        started.kill()


def everything_outside(server: ServerProcess) -> list[str]:
    """Files that a server may reach and must not touch: its own folder but for the store and log, and the program's."""
    around = [path for path in files_below(server.data_dir.parent) if not path.startswith(("data/", "server-"))]
    program = [
        path
        for part in ("certifier", "service", "tests", "examples", "docs")
        for path in files_below(ROOT / part)
        if "__pycache__" not in path
    ]
    return around + program + sorted(path.name for path in ROOT.iterdir())


def send(server: ServerProcess, names: list[str]) -> None:
    """Upload the cases called `names`; each gets its refusal, and nothing is left of it."""
    outside, certified = everything_outside(server), 0
    before = len(files_below(server.data_dir / "blobs"))
    for number, name in enumerate(names):
        form, case = REGISTRY[name]
        shape = SHAPES.get(form)
        fields = {"name": f"hostile-{number}"} | (
            {} if shape is None else {"options": f'{{"input_shape": {list(shape)}}}'}
        )
        data = case.build()
        answer = server.client.post("/certify", **upload_form(data, **fields))
        if case.code == CERTIFIED:
            certified += 1
            assert answer.status_code == 201, name
            continue
        assert 400 <= answer.status_code < 500, f"{name}: {answer.text}"
        assert answer.headers["content-type"] == "application/problem+json"
        # An empty file is refused by the form, before it is any model.
        problem, code = answer.json(), case.code if data else "invalid_request"
        assert problem["code"] == code, f"{name}: {problem}"
        assert problem["details"].get("resource") not in ("cpu_seconds", "memory_bytes", "seconds"), name
    assert server.client.get("/health/ready").status_code == 200
    assert server.process.poll() is None
    assert files_below(server.data_dir / "incoming") == []
    assert len(files_below(server.data_dir / "blobs")) == before + certified * (1 + len(BESIDE_THE_CERTIFICATE))
    assert everything_outside(server) == outside


def test_a_server_refuses_hostile_uploads_and_answers_afterwards(server: ServerProcess):
    send(server, list(REGISTRY)[::EVERY])


@pytest.mark.slow
def test_a_server_refuses_every_hostile_upload_and_answers_afterwards(server: ServerProcess):
    send(server, list(REGISTRY))


def test_checks_of_hostile_uploads_are_answered_and_leave_nothing(server: ServerProcess):
    outside, kept = everything_outside(server), files_below(server.data_dir / "blobs")
    for name in list(REGISTRY)[1 :: 2 * EVERY]:
        form, case = REGISTRY[name]
        data = case.build()
        options = {} if form not in SHAPES else {"options": json.dumps({"input_shape": SHAPES[form]})}
        answer = server.client.post("/check", **upload_form(data, **options))
        if not data:
            assert answer.status_code == 422, name
            continue
        assert answer.status_code == 200, f"{name}: {answer.text}"
        codes = [refusal["code"] for refusal in answer.json()["refusals"]] or [CERTIFIED]
        assert codes[0] == case.code, name
    assert server.client.get("/health/ready").status_code == 200
    assert files_below(server.data_dir / "incoming") == [] and files_below(server.data_dir / "blobs") == kept
    assert everything_outside(server) == outside


def test_names_lead_nowhere(server: ServerProcess):
    outside = everything_outside(server)
    data = REGISTRY["onnx: denormal weights"][1].build()
    for name in HOSTILE_NAMES:
        answer = server.client.post("/certify", **upload_form(data, name=name))
        assert answer.status_code == 422 and answer.json()["code"] == "invalid_request", name
    for name in FILE_NAMES:
        answer = server.client.post("/certify", **upload_form(data, filename=name))
        assert answer.status_code in (200, 201, 400, 422), name
        if answer.status_code < 300:
            assert set(answer.json()["model"]["name"]).isdisjoint("/\\\x00"), name
    assert everything_outside(server) == outside
    assert server.client.get("/health/ready").status_code == 200


@pytest.mark.parametrize("inside", [False, True], ids=["the module", "a submodule"])
def test_a_module_that_writes_while_it_is_loaded_changes_nothing(inside: bool, server: ServerProcess, tmp_path: Path):
    target = tmp_path / "written"
    data = writing_module(str(target), inside=inside)
    answer = server.client.post("/certify", **upload_form(data, name="writing", options='{"input_shape": [1, 4]}'))
    assert answer.status_code == 422 and "a state of its own making" in answer.json()["detail"]
    assert not target.exists()
