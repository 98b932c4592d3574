"""Signed certificates: DSSE envelopes with Ed25519 signatures, and public keys as PEM or as a JSON Web Key Set.

A signature says who vouches for the bytes; whether the bounds in them hold is the verifier's question.

Reference: DSSE 1.0 (secure-systems-lab/dsse); RFC 8032; RFC 8037 for the keys.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from certifier.errors import CertificateRefused, InvalidInput
from certifier.portable.document import MEDIA_TYPE
from certifier.portable.untrusted import parsed

ENVELOPE_MEDIA_TYPE = "application/vnd.dsse.envelope+json"
MOST_PARTS = 64
"""Commas and opening brackets of an envelope: room for twenty signatures, each of which hashes the document."""
LARGEST_KEY_FILE = 2**20
MOST_KEY_PARTS = 4096
"""Commas and opening brackets of a set of keys."""


def key_id(key: Ed25519PublicKey) -> str:
    """The key's name: the RFC 7638 thumbprint of its JSON Web Key."""
    required = {"crv": "Ed25519", "kty": "OKP", "x": _public(key)}
    text = json.dumps(required, sort_keys=True, separators=(",", ":"))
    return _unpadded(hashlib.sha256(text.encode()).digest())


def key_set(keys: list[Ed25519PublicKey]) -> dict[str, list[dict[str, str]]]:
    """A JSON Web Key Set."""
    fixed = {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA"}
    return {"keys": [{**fixed, "kid": key_id(key), "x": _public(key)} for key in keys]}


def read_keys(data: bytes) -> list[Ed25519PublicKey]:
    """Public keys from a PEM file or a JSON Web Key Set.

    Raises: InvalidInput.
    """
    try:
        if len(data) > LARGEST_KEY_FILE:
            raise ValueError(f"it has more than {LARGEST_KEY_FILE} bytes")
        if data.lstrip().startswith(b"{"):
            document = parsed(data, most=MOST_KEY_PARTS)
            found = [
                Ed25519PublicKey.from_public_bytes(_bytes(each["x"]))
                for each in document["keys"]
                if each.get("kty") == "OKP" and each.get("crv") == "Ed25519"
            ]
        else:
            key = load_pem_public_key(data)
            found = [key] if isinstance(key, Ed25519PublicKey) else []
    except (ValueError, KeyError, TypeError, AttributeError, UnsupportedAlgorithm) as error:
        raise InvalidInput("public_key", f"is neither a PEM file nor a JSON Web Key Set: {error}") from None
    if not found:
        raise InvalidInput("public_key", "holds no Ed25519 key")
    return found


def sign(document: bytes, key: Ed25519PrivateKey) -> bytes:
    """The document in a DSSE envelope, as JSON."""
    signature = key.sign(_authenticated(document))
    envelope = {
        "payloadType": MEDIA_TYPE,
        "payload": base64.b64encode(document).decode(),
        "signatures": [{"keyid": key_id(key.public_key()), "sig": base64.b64encode(signature).decode()}],
    }
    return json.dumps(envelope).encode()


def is_envelope(data: bytes) -> bool:
    """Whether the bytes are JSON, as an envelope is and a bare certificate is not."""
    # A certificate starts with the length of its header, whose high bytes are zero.
    return data.lstrip()[:1] == b"{" and b"\0" not in data[:64]


def open_envelope(data: bytes, keys: list[Ed25519PublicKey]) -> tuple[bytes, str | None]:
    """The document, and the id of the key that signed it; None where no keys are given.

    Raises: CertificateRefused for anything but an envelope, and where keys are given but none of them signed it.
    """
    try:
        envelope = parsed(data, most=MOST_PARTS)
        payload = base64.b64decode(envelope["payload"], validate=True)
        kind = envelope["payloadType"]
        signatures = [base64.b64decode(each["sig"], validate=True) for each in envelope["signatures"]]
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise CertificateRefused("signature", f"this is no DSSE envelope: {error!r}") from None
    if kind != MEDIA_TYPE:
        raise CertificateRefused("signature", f"the envelope holds a {kind!r}, not a {MEDIA_TYPE!r}")
    if not signatures:
        raise CertificateRefused("signature", "the envelope has no signature")
    for key in keys:
        if any(_is_signed(payload, signature, key) for signature in signatures):
            return payload, key_id(key)
    if keys:
        raise CertificateRefused("signature", "no signature is of the given key")
    return payload, None


def _is_signed(document: bytes, signature: bytes, key: Ed25519PublicKey) -> bool:
    try:
        key.verify(signature, _authenticated(document))
    except InvalidSignature:
        return False
    return True


def _authenticated(document: bytes) -> bytes:
    """DSSE's pre-authentication encoding."""
    kind = MEDIA_TYPE.encode()
    return b" ".join([b"DSSEv1", str(len(kind)).encode(), kind, str(len(document)).encode(), document])


def _public(key: Ed25519PublicKey) -> str:
    return _unpadded(key.public_bytes(Encoding.Raw, PublicFormat.Raw))


def _unpadded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
