"""One attack: how its bytes are made, and the code of the refusal that they must get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """`code` is that of the CertifierError; "certified" for bytes that only look dangerous and lead nowhere."""

    code: str
    build: Callable[[], bytes]
