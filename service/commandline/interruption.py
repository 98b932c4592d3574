"""Ctrl-C ends a command quietly, whenever it comes; while a search runs, the first one ends the search alone."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

INTERRUPTED = 130
CALLED_OFF = b"\nlipcert: the search is called off; what it has proved is certified (interrupt again to give up)\n"


def leave(number: int, frame: FrameType | None) -> None:
    """A signal handler that ends the process at once; for moments when there is nothing to tidy up."""
    os._exit(INTERRUPTED)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt in here, so that files and the terminal are tidied up."""
    outside = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, outside)


@contextmanager
def first_ends_the_search(is_searching: Callable[[], bool]) -> Iterator[Callable[[], bool]]:
    """The first SIGINT that finds a search makes the yielded function true; any other is a KeyboardInterrupt."""
    is_called_off = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal is_called_off
        if is_called_off or not is_searching():
            raise KeyboardInterrupt
        is_called_off = True
        with suppress(OSError):
            # Past the stream, which this may have interrupted in the middle of a line.
            os.write(2, CALLED_OFF)

    outside = signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: is_called_off
    finally:
        signal.signal(signal.SIGINT, outside)
