"""Child processes: every way to die is a typed error, and none of them hangs or hurts the next job."""

from __future__ import annotations

import asyncio
import os
import pickle
import resource
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from certifier import errors as library
from certifier.errors import CertifierError, ResourceLimitExceeded
from service import errors as service
from service.child import ChildLimits, alive
from service.children import Children
from service.errors import CertificationCrashed, ChildLimitReached, Defect, Unavailable

LIMITS = ChildLimits(memory_bytes=4 * 2**30, cpu_seconds=2)


def run(function: Callable[..., Any], *arguments: Any, seconds: float = 60.0) -> Any:
    async def scenario() -> Any:
        children = Children(workers=1, queue=0, limits=LIMITS)
        try:
            return await children.run(function, *arguments, seconds=seconds)
        finally:
            assert children.taken == 0
            assert await children.run(alive, seconds=60) is True, "the next job runs"

    return asyncio.run(scenario())


def test_a_value_comes_back_from_another_process() -> None:
    assert run(os.getpid) != os.getpid()
    assert run(os.getppid) != os.getpid(), "forked from the fork server, not from a process with threads and sockets"


def test_limits_are_set_in_the_child_only() -> None:
    assert run(resource.getrlimit, resource.RLIMIT_AS) == (LIMITS.memory_bytes,) * 2
    assert run(resource.getrlimit, resource.RLIMIT_CORE) == (0, 0)
    assert run(resource.getrlimit, resource.RLIMIT_CPU)[0] == LIMITS.cpu_seconds
    assert resource.getrlimit(resource.RLIMIT_CPU)[0] != LIMITS.cpu_seconds


def test_overdue_child_is_killed() -> None:
    with pytest.raises(ResourceLimitExceeded) as caught:
        run(time.sleep, 600, seconds=0.5)
    assert (caught.value.resource, caught.value.limit) == ("seconds", 0.5)
    assert caught.value.actual >= 0.5


def test_memory_is_bounded() -> None:
    with pytest.raises(ChildLimitReached) as caught:
        run(bytearray, 2 * LIMITS.memory_bytes)
    assert caught.value.resource == "memory_bytes"


def test_processor_time_is_bounded() -> None:
    with pytest.raises(ChildLimitReached) as caught:
        run(sum, range(10**12))
    assert caught.value.resource == "cpu_seconds"


@pytest.mark.parametrize("death", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_a_dead_child_is_a_typed_error(death: signal.Signals) -> None:
    with pytest.raises(CertificationCrashed) as caught:
        run(signal.raise_signal, death)
    assert caught.value.exit_code == -death


def test_leaving_without_an_answer_is_a_typed_error() -> None:
    with pytest.raises(CertificationCrashed):
        run(os._exit, 0)


def test_a_foreign_exception_is_a_defect_that_keeps_its_traceback() -> None:
    with pytest.raises(Defect, match="ValueError: invalid literal"):
        run(int, "no number")


# Pebble may find its future cancelled in the moment that the child finishes; nobody waits for it then.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_queue_is_refused_and_cancelling_kills_the_child() -> None:
    async def scenario() -> None:
        children = Children(workers=1, queue=1, limits=LIMITS)
        running = asyncio.create_task(children.run(time.sleep, 600, seconds=600))
        waiting = asyncio.create_task(children.run(alive, seconds=60))
        while children.taken < 2:
            await asyncio.sleep(0.01)
        with pytest.raises(Unavailable):
            await children.run(alive, seconds=60)
        running.cancel()
        assert await waiting is True
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(scenario())


EXAMPLES: list[CertifierError] = [
    library.MalformedModel("m"),
    library.UnknownFormat("u"),
    library.ResourceLimitExceeded("nodes", limit=1, actual=2, where="here"),
    library.UnsupportedModel("m", remedy="export it anew"),
    library.UnsupportedNode("n", "Sign", "discontinuous", remedy="leave it out"),
    library.InvalidInput("inputs", "NaN"),
    library.SelfTestFailed("engine agrees", "no"),
    library.NotProved("n"),
    library.StateCorrupted("s"),
    library.CertificateRefused("proof", "no"),
    library.NotFinished("layer 'fc'", seconds=2.0),
    ChildLimitReached("memory_bytes", limit=7),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_errors_of_the_library_survive_the_pipe(error: CertifierError) -> None:
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  # what the pipe does with our own classes
    assert type(copy) is type(error)
    assert (str(copy), copy.details()) == (str(error), error.details())


def test_the_examples_are_all_the_classes_there_are() -> None:
    def below(base: type) -> set[type]:
        return {base} | {item for child in base.__subclasses__() for item in below(child)}

    known = {item for item in below(CertifierError) if item.__module__ in (library.__name__, service.__name__)}
    assert {type(error) for error in EXAMPLES} == known - {CertifierError}
