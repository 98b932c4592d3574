"""Uploads fed to the library in child processes that may write nothing, start nothing, and take only so much.

A child is forked from a server that has the library loaded and no PyTorch.  The kernel limits its address space to
`memory_bytes` above what the interpreter and the library took, its processor time to `cpu_seconds` for each upload, and
the size of any file that it writes to nothing; an audit hook refuses files opened for writing, other processes,
connections, and pickled names.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from certifier.certification import certify
from certifier.documents import CertifyOptions, Method
from certifier.errors import CertifierError
from certifier.limits import Limits
from certifier.progress import Progress
from certifier.search.state import Seal, SearchState

CERTIFIED = "certified"
UNTYPED = "untyped"
"""Something other than a CertifierError escaped."""
KILLED = "killed"
"""The process died: a crash, or the kernel's limit of processor time."""
FORBIDDEN = "forbidden"
"""The library tried what reading a model never needs."""

_BATCH_SECONDS = 600.0
_SEARCH_SECONDS = 1.0
_PRELOADED = ["tests.hostile.guard", "onnx.reference.ops._op_list", "encodings.cp437"]
"""The library, and what it would import late."""
_REFUSED_EVENTS = frozenset(
    """os.system os.exec os.posix_spawn os.fork os.forkpty os.remove os.rename os.mkdir os.symlink os.link os.truncate
    subprocess.Popen socket.connect socket.bind socket.getaddrinfo pickle.find_class shutil.copyfile
    shutil.move tempfile.mkstemp tempfile.mkdtemp""".split()
)


@dataclass(frozen=True, kw_only=True)
class Upload:
    """Bytes as they come, and the options that are declared with them."""

    data: bytes
    input_shape: tuple[int, ...] | None
    method: Method


def stored_upload(folder: str, shapes: Sequence[tuple[int, ...] | None], number: int) -> Upload:
    """Upload `number`, from the file that it was written to."""
    return Upload(data=(Path(folder) / str(number)).read_bytes(), input_shape=shapes[number], method="product")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one upload ended: an error's code, or one of the words above.  Units: seconds of processor time, bytes."""

    ending: str
    message: str
    cpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True, kw_only=True)
class Guard:
    """What each upload may take.  Units: bytes of address space, seconds of processor time."""

    memory_bytes: int
    cpu_seconds: int
    limits: Limits

    def outcomes(self, produce: Callable[[int], Upload], start: int, stop: int) -> Iterator[Outcome]:
        """What became of uploads `start` to `stop`, in order, as one child reads them; a dead child is replaced."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        while start < stop:
            receiving, sending = context.Pipe(duplex=False)
            child = context.Process(target=_feed, args=(sending, self, produce, start, stop), daemon=True)
            child.start()
            sending.close()
            while start < stop:
                message = _received(receiving)
                if message is None:
                    break
                yield Outcome(**json.loads(message))
                start += 1
            child.kill()
            child.join()
            if start < stop:
                yield Outcome(ending=KILLED, message=f"exit code {child.exitcode}", cpu_seconds=0.0, peak_bytes=0)
                start += 1


def _received(receiving: Connection) -> bytes | None:
    try:
        return receiving.recv_bytes() if receiving.poll(_BATCH_SECONDS) else None
    except EOFError:
        return None


def _feed(sending: Connection, guard: Guard, produce: Callable[[int], Upload], start: int, stop: int) -> None:
    violations: list[str] = []
    _settle(guard, violations)
    for number in range(start, stop):
        upload = produce(number)
        outcome = _outcome(upload, guard, violations)
        sending.send_bytes(json.dumps(outcome).encode())


def _settle(guard: Guard, violations: list[str]) -> None:
    """Bound this process for good."""
    if "torch" in sys.modules:
        raise RuntimeError("PyTorch is loaded where nothing may need it")
    sys.dont_write_bytecode = True
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    size = address_space() + guard.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (size, size))

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        written = event == "open" and _writes(*arguments)
        if written or event in _REFUSED_EVENTS:
            violations.append(f"{event}{arguments!r}"[:500])
            raise PermissionError(f"a model under reading asked for {event}")

    sys.addaudithook(refuse)


def _writes(path: object, mode: object, flags: object) -> bool:
    if path == os.devnull:
        return False
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def _outcome(upload: Upload, guard: Guard, violations: list[str]) -> dict[str, object]:
    started = time.process_time()
    resource.setrlimit(resource.RLIMIT_CPU, (int(started) + guard.cpu_seconds + 1, resource.RLIM_INFINITY))
    violations.clear()
    try:
        ending, message = _read(upload, guard.limits)
    except BaseException as error:  # noqa: BLE001  # any class at all is what is being looked for
        ending, message = UNTYPED, _described(error)
    if violations:
        ending, message = FORBIDDEN, "; ".join(violations)
    return {
        "ending": ending,
        "message": message,
        "cpu_seconds": time.process_time() - started,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _read(upload: Upload, limits: Limits) -> tuple[str, str]:
    try:
        shape = None if upload.input_shape is None else list(upload.input_shape)
        options = CertifyOptions(input_shape=shape, method=upload.method, seconds=_SEARCH_SECONDS)
        certify(
            upload.data,
            name="upload",
            version=1,
            options=options,
            limits=limits,
            state=SearchState(),
            seal=Seal(bytes(32)),
            progress=_unreported,
        )
    except CertifierError as error:
        # What a refusal says must be fit to be sent.
        json.dumps(error.details(), allow_nan=False)
        str(error).encode()
        return error.code, str(error)
    return CERTIFIED, ""


def _described(error: BaseException) -> str:
    """The class, the text, and the innermost places that the error came through."""
    places, trace = [], error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{Path(code.co_filename).name}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return f"{type(error).__name__}: {str(error)[:300]} at {' < '.join(places[::-1][:8])}"


def _unreported(news: Progress) -> None:
    """Nobody watches."""


def address_space() -> int:
    """The bytes of address space that this process has mapped."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()
