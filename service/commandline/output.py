"""Where a command writes: answers on standard output, everything else on standard error."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

if TYPE_CHECKING:
    from certifier.progress import Progress

PLAIN_WIDTH = 120
"""Columns of a table that goes to a file or a pipe."""


def single_line(text: str) -> str:
    """`text` without line breaks and control characters, which names inside a foreign model may hold."""
    joined = " ".join(text.split())
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in joined)


def complain(message: str) -> None:
    """One line on standard error."""
    _standard_error().print(f"lipcert: {single_line(message)}", soft_wrap=True)


def warn(message: str) -> None:
    """One line on standard error for what does not stop the command."""
    complain(f"warning: {message}")


class OutputLost(Exception):
    """Standard output takes no more."""


def accept_any_terminal() -> None:
    """Letters that the terminal's encoding lacks are shown as question marks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def print_json(document: str) -> None:
    """One JSON document and nothing else on standard output, in UTF-8 whatever the terminal speaks.

    Raises: OutputLost; BrokenPipeError if the reader went away.
    """
    if sys.stdout is None:
        raise OutputLost("standard output is closed")
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(document.encode() + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputLost(f"standard output cannot be written: {error.strerror}") from error


def standard_output() -> Console:
    """The console of answers for people."""
    console = Console(markup=False, highlight=False, emoji=False)
    return console if console.is_terminal else Console(markup=False, highlight=False, emoji=False, width=PLAIN_WIDTH)


@contextmanager
def stages(title: str) -> Iterator[Callable[[Progress], None]]:
    """A progress bar for a certification: its stage, the share that is done, and the best bound that is proved."""
    shown = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with _bars(*shown, TextColumn("{task.fields[bound]}")) as bar:
        task = bar.add_task(title, total=1.0, bound="")

        def update(news: Progress) -> None:
            bound = "" if news.lipschitz_upper is None else f"L ≤ {news.lipschitz_upper:.5g}"
            bar.update(task, description=single_line(news.stage), completed=news.share, bound=bound)

        yield update


@contextmanager
def counting(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar for rows, of which `total` are to be done."""
    with _bars(TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()) as bar:
        task = bar.add_task(title, total=total)

        def update(done: int) -> None:
            bar.update(task, completed=done)

        yield update


def _bars(*columns: ProgressColumn) -> Bars:
    watched = sys.stderr is not None and sys.stderr.isatty()
    return Bars(*columns, console=_standard_error(), transient=True, disable=not watched)


def _standard_error() -> Console:
    return Console(stderr=True, markup=False, highlight=False, emoji=False)
