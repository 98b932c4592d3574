"""Envelopes: what a key signed is told from what it did not sign, whatever else is well-formed."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from certifier.errors import CertificateRefused, InvalidInput
from certifier.limits import Limits
from certifier.portable.document import MEDIA_TYPE
from certifier.portable.envelope import is_envelope, key_id, key_set, open_envelope, read_keys, sign
from certifier.verification import verify
from tests.certifier.portable.certified import Case, certified, dense

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))


@pytest.fixture(scope="module")
def case() -> Case:
    return certified(dense(), method="product")


def test_a_signed_certificate_says_whose_it_is(case: Case) -> None:
    envelope = sign(case.certificate, KEY)
    found = verify(envelope, case.model, keys=[OTHER.public_key(), KEY.public_key()], limits=Limits())
    assert found.signed_by == key_id(KEY.public_key())


def test_without_a_key_no_signature_is_claimed(case: Case) -> None:
    assert verify(sign(case.certificate, KEY), case.model, keys=[], limits=Limits()).signed_by is None
    assert verify(case.certificate, case.model, keys=[], limits=Limits()).signed_by is None


def test_another_key_is_refused(case: Case) -> None:
    for data in (sign(case.certificate, OTHER), case.certificate):
        with pytest.raises(CertificateRefused) as refused:
            verify(data, case.model, keys=[KEY.public_key()], limits=Limits())
        assert refused.value.step == "signature"


@pytest.mark.parametrize("field", ["payload", "payloadType", "signatures"])
def test_a_changed_envelope_is_refused(case: Case, field: str) -> None:
    envelope = json.loads(sign(case.certificate, KEY))
    changes = {
        "payload": base64.b64encode(case.certificate[:-1] + b"\0").decode(),
        "payloadType": "application/json",
        "signatures": [],
    }
    envelope[field] = changes[field]
    with pytest.raises(CertificateRefused):
        verify(json.dumps(envelope).encode(), case.model, keys=[KEY.public_key()], limits=Limits())


@given(st.integers(0, 511), st.binary(max_size=64))
def test_one_other_bit_of_a_signature_is_no_signature(bit: int, document: bytes) -> None:
    envelope = json.loads(sign(document, KEY))
    signature = bytearray(base64.b64decode(envelope["signatures"][0]["sig"]))
    assert open_envelope(json.dumps(envelope).encode(), [KEY.public_key()]) == (document, key_id(KEY.public_key()))
    signature[bit // 8] ^= 1 << bit % 8
    envelope["signatures"][0]["sig"] = base64.b64encode(bytes(signature)).decode()
    with pytest.raises(CertificateRefused):
        open_envelope(json.dumps(envelope).encode(), [KEY.public_key()])


def test_the_signature_covers_the_kind_of_document() -> None:
    """DSSE's encoding, spelled out: the lengths keep kind and document apart."""
    signature = base64.b64decode(json.loads(sign(b"hello", KEY))["signatures"][0]["sig"])
    KEY.public_key().verify(signature, f"DSSEv1 {len(MEDIA_TYPE)} {MEDIA_TYPE} 5 hello".encode())


def test_keys_are_read_from_pem_and_from_key_sets() -> None:
    public = KEY.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for data in (pem, json.dumps(key_set([public])).encode()):
        assert [key_id(key) for key in read_keys(data)] == [key_id(public)]


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b'{"keys": []}', b'{"keys": [{"kty": "OKP", "crv": "Ed25519"}]}', b"-----"]
)
def test_what_is_no_key_is_named(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        read_keys(data)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"{}", b'{"payload": 1}', b'{"payload": "!", "payloadType": "x", "signatures": []}']
)
def test_what_is_no_envelope_is_named(data: bytes) -> None:
    with pytest.raises(CertificateRefused):
        open_envelope(data, [])


def test_a_certificate_is_not_taken_for_an_envelope(case: Case) -> None:
    assert not is_envelope(case.certificate)
    assert is_envelope(sign(case.certificate, KEY))
    # The first byte of a bare certificate, the length of its header, may well be that of a brace.
    assert not is_envelope(b"{" + bytes(7) + b'{"__metadata__":{}}')
