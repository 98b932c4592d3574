"""The public keys of the service, where everybody looks for them."""

from __future__ import annotations

from fastapi import APIRouter

from certifier.portable.envelope import key_set
from service.problems import responses
from service.schemas import KeySet
from service.wiring import Wired

router = APIRouter(tags=["models"])


@router.get("/.well-known/jwks.json", responses=responses())
async def read_keys(parts: Wired) -> KeySet:
    """The public key under which certificates are signed, as a JSON Web Key Set (RFC 7517, RFC 8037)."""
    return KeySet.model_validate(key_set([parts.signing_key.public_key()]))
