"""The wire between a job and its child process: progress comes one way, the wish to end the search goes the other.

Nothing is pickled on it: a child has read what was uploaded, so that what it says is parsed like an upload.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection

from pydantic import ValidationError

from certifier.progress import Progress

CALL_OFF = b"call off"
STAGE_LETTERS = 200
"""Of a stage's words, which may hold names from the model."""
REPORT_BYTES = 2**13
"""More than any report of that many letters takes."""


class Wire:
    """The server's end.  It outlives its child, and begins before it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self.is_called_off = False
        self.progress: Progress | None = None
        """What the child said last."""
        self.began: float | None = None
        """When the child was started, on the monotonic clock; None before."""

    def attach(self, connection: Connection) -> None:
        """Speak with the child at the other end until it is gone."""
        with self._lock:
            self._connection, self.began = connection, time.monotonic()
            if self.is_called_off:
                self._send(connection)
        threading.Thread(target=self._listen, args=(connection,), name="lipcert-wire", daemon=True).start()

    def call_off(self) -> None:
        """End the search: at its next step, or as soon as there is one."""
        with self._lock:
            if not self.is_called_off and self._connection is not None:
                self._send(self._connection)
            self.is_called_off = True

    def _send(self, connection: Connection) -> None:
        with suppress(OSError):  # the child is gone
            connection.send_bytes(CALL_OFF)

    def _listen(self, connection: Connection) -> None:
        # The child's death, and words that it would never say, end it alike.
        with suppress(EOFError, OSError, ValidationError):
            while True:
                self.progress = Progress.model_validate_json(connection.recv_bytes(REPORT_BYTES))
        with self._lock:
            self._connection = None
            connection.close()


class ChildEnd:
    """The child's end, which is handed over when its process is started."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def tell(self, news: Progress) -> None:
        """Pass on what the certification reports."""
        stage = news.stage[:STAGE_LETTERS].encode("utf-8", "replace").decode()
        report = news.model_copy(update={"stage": stage}).model_dump_json().encode()
        with suppress(OSError):  # nobody listens any more
            self._connection.send_bytes(report)

    def listen(self) -> Callable[[], bool]:
        """From now on, whether the search was called off."""
        called_off = threading.Event()

        def wait() -> None:
            with suppress(EOFError, OSError):
                if self._connection.recv_bytes(len(CALL_OFF)) == CALL_OFF:
                    called_off.set()

        threading.Thread(target=wait, name="lipcert-wire", daemon=True).start()
        return called_off.is_set

    def close(self) -> None:
        """Leave this end to the other process."""
        self._connection.close()
