"""What runs inside the child process of a certification or a check: limits first, then the library.

The upload, its state and the results travel as files of the job's folder; only a short outcome crosses the pipe, and
progress the wire, so that the parent never unpickles what an upload could have shaped.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certifier.certification import certify
from certifier.checking import check
from certifier.documents import CertifyOptions
from certifier.errors import CertifierError, StateCorrupted
from certifier.limits import Limits
from certifier.search.state import Seal, SearchState
from service.artifacts import CALIBRATION, CERTIFICATE, CHECK, CONSTANTS, PORTABLE, SERVED, STATE, UPLOAD
from service.errors import ChildLimitReached, Defect
from service.wire import ChildEnd


@dataclass(frozen=True, kw_only=True)
class ChildLimits:
    """What one child process may take.  Units: bytes of address space, processor seconds."""

    memory_bytes: int
    cpu_seconds: int


@dataclass(frozen=True, kw_only=True)
class CertifyJob:
    """One certification: where its files are and what was asked."""

    folder: Path
    name: str
    version: int
    options: CertifyOptions
    limits: Limits
    seal: Seal


def run_limited(limits: ChildLimits, function: Callable[..., Any], *arguments: Any) -> Any:
    """Run `function(*arguments)` under `limits`; what it refuses or breaks is returned, never raised.

    An exception of a foreign class might not survive the pipe, so only the project's own cross it.
    """
    try:
        apply_limits(limits)
        return function(*arguments)
    except CertifierError as error:
        return error
    except MemoryError:
        return ChildLimitReached("memory_bytes", limit=limits.memory_bytes)
    except BaseException:  # noqa: BLE001  # the traceback goes to the parent's log, the class may be anything
        return Defect(traceback.format_exc())


def apply_limits(limits: ChildLimits) -> None:
    """Bound this process for good, and let it die with the server."""
    threading.Thread(target=_die_with_server, name="die-with-server", daemon=True).start()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds + 5))


def certify_folder(job: CertifyJob, end: ChildEnd) -> None:
    """Certify the upload in the job's folder and leave the results beside it; whoever asked is at the wire's `end`."""
    certified = certify(
        (job.folder / UPLOAD).read_bytes(),
        name=job.name,
        version=job.version,
        options=job.options,
        limits=job.limits,
        state=_kept_state(job.folder / STATE),
        seal=job.seal,
        progress=end.tell,
        calibration=_calibration(job.folder),
        is_cancelled=end.listen(),
    )
    (job.folder / SERVED).write_bytes(certified.served_model)
    (job.folder / CONSTANTS).write_bytes(certified.constants)
    (job.folder / PORTABLE).write_bytes(certified.portable)
    (job.folder / STATE).write_bytes(certified.state.to_bytes())
    (job.folder / CERTIFICATE).write_text(certified.certificate.model_dump_json(), encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class CheckJob:
    """One check: where its files are and what was asked."""

    folder: Path
    options: CertifyOptions
    limits: Limits


def check_folder(job: CheckJob) -> None:
    """Check the upload in the job's folder and leave the report beside it."""
    data = (job.folder / UPLOAD).read_bytes()
    report = check(data, options=job.options, limits=job.limits, calibration=_calibration(job.folder))
    (job.folder / CHECK).write_text(report.model_dump_json(), encoding="utf-8")


def alive() -> bool:
    """True: a child process can be started and has the library."""
    return True


def _die_with_server() -> None:
    """Kill this process once the server is gone: nobody waits for its result, and its folder is swept.

    The server is not this process's parent (that is the fork server), so the kernel's own signal does not do it.
    """
    server = multiprocessing.parent_process()
    if server is not None:
        server.join()
        os.kill(os.getpid(), signal.SIGKILL)


def _kept_state(path: Path) -> SearchState:
    try:
        return SearchState.from_bytes(path.read_bytes()) if path.exists() else SearchState()
    except StateCorrupted:
        return SearchState()


def _calibration(folder: Path) -> bytes | None:
    path = folder / CALIBRATION
    return path.read_bytes() if path.exists() else None


def _unreported(stage: str, share: float) -> None:
    """Progress has no reader yet."""
