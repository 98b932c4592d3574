"""Files of the user's: models and certificates in, certificates out."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from certifier.limits import Limits
from service.commandline.failures import misuse

STDIN = "-"


def write_file(option: str, path: Path, data: bytes) -> None:
    """Write `data` to a file of the user's.

    Raises: typer.BadParameter if it cannot be written.
    """
    try:
        path.write_bytes(data)
    except OSError as error:
        raise misuse(option, f"{path}: {error.strerror}") from None


def read_model_file(model: str, limits: Limits, *, argument: str = "MODEL") -> bytes:
    """The bytes of a file or of standard input, of which no more are read than the limit allows.

    Raises: ResourceLimitExceeded; typer.BadParameter.
    """
    if model == STDIN:
        data = sys.stdin.buffer.read(limits.model_bytes + 1)
        limits.demand("model_bytes", len(data))
        return data
    try:
        with open(model, "rb") as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode):
                limits.demand("model_bytes", status.st_size)
            data = file.read() if stat.S_ISREG(status.st_mode) else file.read(limits.model_bytes + 1)
    except OSError as error:
        raise misuse(argument, f"{model}: {error.strerror}") from None
    limits.demand("model_bytes", len(data))
    return data
