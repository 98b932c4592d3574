"""Child processes: one per job, limited, killable, and never a reason to hang.

Each job gets a process of its own, forked from a server process that has the library loaded and nothing of any other
upload.  A dead or overdue child becomes a typed error.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

from pebble import ProcessExpired, ProcessFuture, concurrent

from certifier.errors import CertifierError, ResourceLimitExceeded
from service.child import ChildLimits, alive, run_limited
from service.errors import CertificationCrashed, ChildLimitReached, Defect, Unavailable
from service.wire import ChildEnd, Wire

PRELOADED = ["service.child", "service.cli"]
"""What the fork server imports once for all children: the library, and what the command's start-up script imports,
because Python runs the main script's imports again in every child."""
PROBE_SECONDS = 60.0
PROBE_KEPT_SECONDS = 10.0
"""How long a successful probe counts as news."""


class Children:
    """Runs jobs in child processes, `workers` at a time, with at most `queue` waiting."""

    def __init__(self, *, workers: int, queue: int, limits: ChildLimits) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)
        self._slots = asyncio.Semaphore(workers)
        self._limits = limits
        self._capacity = workers + queue
        self._taken = 0
        self._probed = float("-inf")

    @property
    def taken(self) -> int:
        """Jobs running or waiting."""
        return self._taken

    async def run(self, function: Callable[..., Any], *arguments: Any, seconds: float, wire: Wire | None = None) -> Any:
        """The value of `function(*arguments)` in a limited child within `seconds` of wall-clock time.

        With a `wire`, the function gets the other end of it as its last argument.

        Raises: CertifierError as the child raised it, ResourceLimitExceeded, CertificationCrashed, Unavailable,
        Defect.
        """
        if self._taken >= self._capacity:
            raise Unavailable(f"{self._taken} certifications are running or waiting")
        self._taken += 1
        try:
            async with self._slots:
                return await self._run(function, *arguments, seconds=seconds, wire=wire)
        finally:
            self._taken -= 1

    async def check(self) -> None:
        """A child can be started and answers; any exception says that it cannot."""
        if time.monotonic() - self._probed > PROBE_KEPT_SECONDS:
            await self._run(alive, seconds=PROBE_SECONDS)
            self._probed = time.monotonic()

    async def _run(
        self, function: Callable[..., Any], *arguments: Any, seconds: float, wire: Wire | None = None
    ) -> Any:
        started = time.monotonic()
        # Starting a process waits for the fork server, so it happens in a thread, to its end: nobody would know of a
        # child whose start was broken off.
        starting = asyncio.create_task(asyncio.to_thread(self._start, function, arguments, seconds, wire))
        try:
            future = await asyncio.shield(starting)
        except asyncio.CancelledError:
            (await starting).cancel()
            raise
        try:
            outcome = await asyncio.wrap_future(future)
        except FutureTimeout:
            elapsed = round(time.monotonic() - started, 3)
            raise ResourceLimitExceeded("seconds", limit=seconds, actual=max(elapsed, seconds)) from None
        except ProcessExpired as error:
            if error.exitcode == -signal.SIGXCPU:
                raise ChildLimitReached("cpu_seconds", limit=self._limits.cpu_seconds) from None
            raise CertificationCrashed(error.exitcode) from None
        if isinstance(outcome, CertifierError | Defect):
            raise outcome
        return outcome

    def _start(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], seconds: float, wire: Wire | None
    ) -> ProcessFuture[Any]:
        # Pebble reads `context`, but declares it under another name.
        launch = concurrent.process(name="lipcert-certify", timeout=seconds, context=self._context)  # pyright: ignore[reportCallIssue, reportArgumentType]
        if wire is None:
            return launch(run_limited)(self._limits, function, *arguments)
        ours, theirs = self._context.Pipe()
        end = ChildEnd(theirs)
        try:
            future = launch(run_limited)(self._limits, function, *arguments, end)
        except BaseException:
            ours.close()
            raise
        finally:
            end.close()
        wire.attach(ours)
        return future
