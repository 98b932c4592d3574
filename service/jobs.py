"""Jobs: the certifications that run, wait or have ended, as long as this process lives.

A job is known by its id to whoever began it: it can be watched, its search called off, and the whole of it abandoned.
Its outcome does not depend on any of that being remembered: certificates are in the store.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from service import schemas
from service.errors import Unavailable, UnknownJob
from service.problems import problem_of
from service.store import StoredVersion, Upload
from service.wire import Wire

State = Literal["waiting", "running", "certified", "refused"]
KEPT = 256
"""Jobs that have ended and are still known."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a job came to: a stored version and its certificate as JSON."""

    version: StoredVersion
    document: bytes


class Job:
    """One certification, from its upload to its outcome."""

    def __init__(self, upload: Upload) -> None:
        self.id = uuid.uuid4().hex
        self.upload = upload
        self.created = datetime.now(UTC).isoformat()
        self.wire = Wire()
        self.is_abandoned = False
        self.is_publishing = False
        """Whether it is too late to be abandoned."""
        self._task: asyncio.Task[Outcome] | None = None
        self._ended: float | None = None
        self._problem: schemas.Problem | None = None

    def run(self, work: Coroutine[None, None, Outcome]) -> None:
        """Begin."""
        self._task = asyncio.create_task(work)
        self._task.add_done_callback(self._note_end)

    @property
    def path(self) -> str:
        """Where it can be asked for."""
        return f"/jobs/{self.id}"

    @property
    def task(self) -> asyncio.Task[Outcome]:
        """The work, once it has begun."""
        assert self._task is not None
        return self._task

    @property
    def state(self) -> State:
        """How far it is."""
        if not self.task.done():
            return "waiting" if self.wire.began is None else "running"
        return "certified" if self.outcome else "refused"

    @property
    def outcome(self) -> Outcome | None:
        """What it came to, if it did."""
        return self.task.result() if self.task.done() and self.failure is None else None

    @property
    def failure(self) -> Exception | None:
        """Why it came to nothing, if it did.

        Read from the task itself: a request may look between its end and any callback.
        """
        if not self.task.done():
            return None
        if self.task.cancelled():
            return Unavailable("the server is stopping")
        error = self.task.exception()
        return error if error is None or isinstance(error, Exception) else Exception(repr(error))

    @property
    def seconds(self) -> float:
        """How long its child has been at work, or was."""
        if self.wire.began is None:
            return 0.0
        return (self._ended or time.monotonic()) - self.wire.began

    def call_off(self) -> None:
        """End its search, unless all of it has ended."""
        if not self.task.done():
            self.wire.call_off()

    async def abandon(self) -> None:
        """End it without an outcome, if it has none yet, and wait until it has ended."""
        self.is_abandoned = True
        if not self.is_publishing:
            self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def described(self) -> schemas.Job:
        """What a caller is told of it."""
        upload, outcome = self.upload, self.outcome
        version = None if outcome is None else outcome.version.version
        return schemas.Job(
            id=self.id,
            state=self.state,
            model=upload.name,
            version=version,
            sha256=upload.sha256,
            created=self.created,
            seconds=self.seconds,
            search_cancelled=self.wire.is_called_off,
            progress=self.wire.progress,
            certificate=None if version is None else f"/models/{upload.name}/versions/{version}",
            problem=self._told(),
        )

    def _note_end(self, task: asyncio.Task[Outcome]) -> None:
        self._ended = time.monotonic()
        self._told()

    def _told(self) -> schemas.Problem | None:
        """What a caller is told of the failure; made once, since a defect is logged when it is."""
        failure = self.failure
        if failure is not None and self._problem is None:
            self._problem = problem_of(failure, self.path)
        return self._problem


class Jobs:
    """The jobs that this process knows of, newest last."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs.values())

    def add(self, job: Job) -> None:
        """Know a job that has begun; the oldest of those that have ended are forgotten."""
        self._jobs[job.id] = job
        ended = [each.id for each in self if each.task.done()]
        for identifier in ended[: max(len(ended) - KEPT, 0)]:
            del self._jobs[identifier]

    def get(self, identifier: str) -> Job:
        """The job of that id.

        Raises: UnknownJob.
        """
        if identifier not in self._jobs:
            raise UnknownJob(identifier)
        return self._jobs[identifier]

    def running(self, upload: Upload) -> Job | None:
        """The job that certifies this very upload now, if there is one."""
        return next((job for job in self if job.upload == upload and not job.task.done()), None)

    def forget(self, job: Job) -> None:
        """Know it no more."""
        self._jobs.pop(job.id, None)
