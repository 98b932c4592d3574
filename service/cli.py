"""`lipcert`: certify, predict, evaluate and compare from a shell, with the library alone; `serve` starts the server.

Exit codes: 0 done, 1 refused, 2 misuse, 3 not finished, 130 interrupted.
"""

from __future__ import annotations

import signal
import sys
import warnings

from service.commandline.interruption import leave


def main() -> None:
    """The console script."""
    # Until a command can handle it: Python's own answer to an interrupted import is a traceback.
    signal.signal(signal.SIGINT, leave)
    from service.commandline.commands import app
    from service.commandline.output import accept_any_terminal

    accept_any_terminal()
    if not sys.warnoptions:
        # Those of the libraries below, which would stand between the lines that are meant for people.
        warnings.simplefilter("ignore")
    app()


if __name__ == "__main__":
    main()
