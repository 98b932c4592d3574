"""What a running application consists of, and how a route reaches it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import Depends, Request

from service.certifying import Certifying
from service.children import Children
from service.datadir import DataDirectory
from service.metrics import Metrics
from service.runtime import Runtime
from service.settings import Settings
from service.store import Store


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of one application; made in its lifespan."""

    settings: Settings
    folder: DataDirectory
    store: Store
    children: Children
    certifying: Certifying
    runtime: Runtime
    metrics: Metrics
    signing_key: Ed25519PrivateKey


def parts_of(request: Request) -> Parts:
    """The parts of the application that got the request."""
    return request.app.state.parts


Wired = Annotated[Parts, Depends(parts_of)]
