"""Jobs: watched while they run, their search called off, abandoned; over HTTP and with real child processes.

Searches are asked for ten minutes, so that only their being called off ends them.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import httpx
import pytest

from certifier.limits import Limits
from certifier.progress import Progress
from certifier.verification import verify
from service import jobs, schemas
from service.errors import Unavailable, UnknownJob
from service.jobs import Job, Jobs, Outcome
from service.settings import Settings
from service.store import Upload
from service.wire import CALL_OFF, REPORT_BYTES, ChildEnd, Wire
from tests.service.helpers import (
    PRODUCT,
    ServerProcess,
    dense_network,
    descendants,
    files_below,
    in_background,
    is_running,
    running,
    upload_form,
    wait_for,
)

LONG = json.dumps({"method": "multipliers", "seconds": 600})
MODEL = dense_network(6, 24, 24, 24, 16)
ASYNC = {"Prefer": "respond-async"}
Start = Callable[..., ServerProcess]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for the tests that name their models differently."""
    server = ServerProcess(tmp_path_factory.mktemp("jobs") / "data", workers=1)
    yield server
    server.kill()


def _begin(server: ServerProcess, data: bytes = MODEL, **fields: str) -> dict[str, Any]:
    """The job of a new certification, which was answered at once."""
    answer = server.client.post("/certify", headers=ASYNC, **upload_form(data, **{"options": LONG, **fields}))
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert answer.headers["location"] == f"/jobs/{job['id']}"
    assert answer.headers["preference-applied"] == "respond-async"
    return job


def _ask(server: ServerProcess, name: str) -> tuple[threading.Thread, list[httpx.Response], dict[str, Any]]:
    """A certification that a client waits for, its answer in time, and its job, which searches."""
    answers: list[httpx.Response] = []
    form = upload_form(MODEL, options=LONG, name=name)
    asking = in_background(lambda: answers.append(httpx.post(f"{server.url}/certify", timeout=120, **form)))

    def known() -> list[dict[str, Any]]:
        return [job for job in server.client.get("/jobs").json()["jobs"] if job["model"] == name]

    wait_for(known, "the job")
    (job,) = known()
    return asking, answers, _wait(server, job, _searches)


def _wait(server: ServerProcess, job: dict[str, Any], condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The job as soon as the condition holds of it."""
    seen: list[dict[str, Any]] = []

    def holds() -> object:
        seen.append(server.client.get(f"/jobs/{job['id']}").json())
        return condition(seen[-1])

    wait_for(holds, "the job's condition")
    return seen[-1]


def _searches(job: dict[str, Any]) -> bool:
    return job["progress"] is not None and job["progress"]["method"] is not None


def _is_cancelled(certificate: dict[str, Any]) -> bool:
    return any(note.startswith("search cancelled") for note in certificate["notes"])


def test_a_search_is_watched_and_called_off_and_what_it_proved_is_certified(shared: ServerProcess) -> None:
    server = shared
    job = _begin(server, name="m")
    assert job["state"] in ("waiting", "running") and job["certificate"] is None
    seen = _wait(server, job, _searches)
    assert (seen["state"], seen["model"], seen["search_cancelled"]) == ("running", "m", False)
    assert 0 < seen["progress"]["share"] < 1 and seen["progress"]["lipschitz_upper"] > 0
    assert server.client.get("/jobs").json()["jobs"][0]["id"] == job["id"]
    cancelled = server.client.post(f"/jobs/{job['id']}/cancel")
    assert (cancelled.status_code, cancelled.json()["search_cancelled"]) == (200, True)
    ended = _wait(server, job, lambda seen: seen["state"] != "running")
    assert (ended["state"], ended["version"], ended["certificate"]) == ("certified", 1, "/models/m/versions/1")
    certificate = server.client.get(ended["certificate"]).json()
    assert _is_cancelled(certificate)
    assert certificate["lipschitz"]["upper"] <= seen["progress"]["lipschitz_upper"]
    signed = server.client.get(f"{ended['certificate']}/certificate").content
    assert verify(signed, MODEL, keys=[], limits=Limits()).verdict == "holds"
    assert server.client.post(f"/jobs/{job['id']}/cancel").json() == ended, "too late, and no harm"
    again = _begin(server, name="m")
    assert again["id"] != job["id"], "who uploads it again wants it searched to the end"
    assert server.client.delete(f"/jobs/{again['id']}").status_code == 200


def test_whoever_waits_for_the_answer_gets_it_when_another_calls_the_search_off(shared: ServerProcess) -> None:
    server = shared
    asking, answers, job = _ask(server, "waited-for")
    assert _begin(server, name="waited-for")["id"] == job["id"], "the same upload joins it"
    server.client.post(f"/jobs/{job['id']}/cancel")
    asking.join(60)
    assert [answer.status_code for answer in answers] == [201] and _is_cancelled(answers[0].json())


def test_a_search_can_be_called_off_before_it_begins(shared: ServerProcess) -> None:
    server = shared
    first = _begin(server, name="first")
    _wait(server, first, _searches)
    second = _begin(server, name="second")
    assert server.client.post(f"/jobs/{second['id']}/cancel").json()["state"] == "waiting"
    server.client.post(f"/jobs/{first['id']}/cancel")
    ended = _wait(server, second, lambda seen: seen["state"] == "certified")
    certificate = server.client.get(ended["certificate"]).json()
    assert _is_cancelled(certificate) and certificate["lipschitz"]["method"] == "product"


def test_an_abandoned_certification_leaves_nothing(shared: ServerProcess) -> None:
    server = shared
    family = set(descendants(server.process.pid))
    asking, answers, job = _ask(server, "abandoned")
    (child,) = set(descendants(server.process.pid)) - family
    gone = server.client.delete(f"/jobs/{job['id']}")
    assert (gone.status_code, gone.json()["state"], gone.json()["problem"]["code"]) == (200, "refused", "job_abandoned")
    asking.join(60)
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(409, "job_abandoned")]
    wait_for(lambda: not is_running(child), "the end of the child")
    assert server.client.get(f"/jobs/{job['id']}").json()["code"] == "unknown_job"
    assert server.client.get("/models/abandoned").status_code == 404
    wait_for(lambda: not files_below(server.data_dir / "incoming"), "the upload's removal")
    assert server.client.post("/certify", **upload_form(MODEL, options=PRODUCT, name="next")).status_code == 201


def test_a_server_that_stops_ends_searches_and_answers(start_server: Start) -> None:
    server = start_server(drain_seconds=0)
    asking, answers, _ = _ask(server, "m")
    server.process.send_signal(signal.SIGTERM)
    asking.join(60)
    assert [answer.status_code for answer in answers] == [201] and _is_cancelled(answers[0].json())
    assert server.process.wait(60) in (0, -signal.SIGTERM)


def test_a_refusal_is_told_by_the_job_too_and_a_stored_answer_at_once(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as client:
            form = upload_form(dense_network(4, 8, 3, operator="Sign"), options=PRODUCT)
            job = (await client.post("/certify", headers=ASYNC, **form)).json()
            refused = await client.post("/certify", **form)
            told = (await client.get(f"/jobs/{job['id']}")).json()
            assert (told["state"], told["problem"]["instance"]) == ("refused", f"/jobs/{job['id']}")
            assert refused.json()["code"] == told["problem"]["code"] == "unsupported_node"
            stored = upload_form(dense_network(4, 8, 3), options=PRODUCT)
            certified = await client.post("/certify", headers={"Prefer": "wait=100"}, **stored)
            again = await client.post("/certify", headers={"Prefer": "handling=strict, Respond-Async"}, **stored)
            assert [answer.status_code for answer in (certified, again)] == [201, 200]
            assert again.content == certified.content
            ended = (await client.get("/jobs")).json()["jobs"][0]
            assert (ended["state"], ended["search_cancelled"]) == ("certified", False)
            assert (await client.post(f"/jobs/{ended['id']}/cancel")).json() == ended

    asyncio.run(scenario())


def test_jobs_that_are_not_known(settings: Settings) -> None:
    async def scenario() -> None:
        async with running(settings) as client:
            assert (await client.get("/jobs")).json() == {"jobs": []}
            for identifier, status, code in (("0" * 32, 404, "unknown_job"), ("first", 422, "invalid_request")):
                for method, path in (("GET", ""), ("POST", "/cancel"), ("DELETE", "")):
                    answer = await client.request(method, f"/jobs/{identifier}{path}")
                    assert (answer.status_code, answer.json()["code"]) == (status, code)

    asyncio.run(scenario())


def test_a_failure_is_known_before_anything_was_called_back() -> None:
    """A request may look at a job in the very turn of the loop in which it ends."""

    async def refuse() -> Outcome:
        raise Unavailable("no place")

    async def look() -> None:
        job = Job(Upload(name="m", version=None, sha256="a" * 64, options_digest="o" * 64, bytes=1))
        job.run(refuse())
        told: list[schemas.Job] = []
        # In front of the job's own callback, as a request that was waiting for the loop is.
        job.task.remove_done_callback(job._note_end)
        job.task.add_done_callback(lambda _: told.append(job.described()))
        await asyncio.gather(job.task, return_exceptions=True)
        (seen,) = told
        assert seen.state == "refused" and seen.problem is not None and seen.problem.detail == "no place"

    asyncio.run(look())


def test_only_so_many_ended_jobs_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "KEPT", 2)

    async def scenario() -> None:
        known, made = Jobs(), list[Job]()
        forever = asyncio.Event()

        async def work(*, ends: bool) -> Any:
            if not ends:
                await forever.wait()

        for ends in (False, True, True, True, True):
            job = Job(Upload(name="m", version=None, sha256="a" * 64, options_digest="o" * 64, bytes=1))
            job.run(work(ends=ends))
            known.add(job)
            made.append(job)
            await asyncio.sleep(0)
        assert list(known) == [made[0], *made[2:]]
        with pytest.raises(UnknownJob):
            known.get(made[1].id)
        assert known.get(made[0].id).state == "waiting"
        await made[0].abandon()

    asyncio.run(scenario())


def _attached() -> tuple[Wire, Connection]:
    ours, theirs = multiprocessing.Pipe()
    wire = Wire()
    wire.attach(ours)
    return wire, theirs


def test_the_wire_carries_progress_one_way_and_the_wish_the_other() -> None:
    wire, theirs = _attached()
    end = ChildEnd(theirs)
    is_called_off = end.listen()
    end.tell(Progress(stage="bounding layer " + "\ud800💥" * 1000, share=0.5))
    wait_for(lambda: wire.progress is not None, "progress")
    assert wire.progress is not None and wire.progress.share == 0.5 and not is_called_off()
    wire.call_off()
    wait_for(is_called_off, "the wish")
    end.close()
    end.tell(Progress(stage="to nobody", share=1.0))


def test_a_wish_from_before_the_child_is_kept_for_it() -> None:
    ours, theirs = multiprocessing.Pipe()
    wire = Wire()
    wire.call_off()
    wire.attach(ours)
    wire.call_off()
    wait_for(ChildEnd(theirs).listen(), "the wish")
    assert not theirs.poll(), "it is said once"


@pytest.mark.parametrize(
    "said",
    [b"", b"no JSON", b'{"stage": "a", "share": 2}', b'{"stage": "a", "share": 0, "x": 1}', bytes(REPORT_BYTES + 1)],
)
def test_what_a_child_would_not_say_ends_the_conversation(said: bytes) -> None:
    wire, theirs = _attached()
    theirs.send_bytes(said)
    with pytest.raises((EOFError, OSError)):
        while True:
            theirs.recv_bytes(len(CALL_OFF))
    assert wire.progress is None
    wire.call_off()
    assert wire.is_called_off
