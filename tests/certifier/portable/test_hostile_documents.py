"""Files that a stranger made to be read slowly, to end in a crash, or to say more than what is proved."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from certifier.documents import CertifyOptions
from certifier.errors import CertificateRefused, CertifierError, InvalidInput, NotFinished, ResourceLimitExceeded
from certifier.limits import Limits
from certifier.portable.document import METADATA, MOST_PARTS, Contents, PortableCertificate, _packed, from_bytes
from certifier.portable.envelope import LARGEST_KEY_FILE, open_envelope, read_keys, sign
from certifier.verification import verify
from certifier.witness import Witness
from tests.building import certify_model
from tests.certifier.portable.certified import Case, certified, convolutional, dense, forged, verified

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
DEEP = "[" * 100_000


@pytest.fixture(scope="module")
def case() -> Case:
    """A dense network whose certificate rests on multipliers."""
    return certified(dense())


def _file(header: str) -> bytes:
    return struct.pack("<Q", len(header)) + header.encode()


def _with_metadata(text: str) -> bytes:
    return _file(json.dumps({"__metadata__": {METADATA: text}}))


def _options(text: str) -> bytes:
    return _packed('{"document":"lipcert certificate, version 1","options":' + text + "}", {})


@pytest.mark.parametrize(
    "data",
    [
        _file(DEEP),
        _with_metadata(DEEP),
        _packed(DEEP, {}),
        _with_metadata('{"sha256": "", "certificate": "\\ud800"}'),
        _with_metadata('{"sha256": "\\ud800", "certificate": "{}"}'),
        _with_metadata("9" * 10_000),
        _options('{"fixed_inputs": {"y": ' + "9" * 400 + "}}"),
        _options('{"input_box": {"lower": 1e999, "upper": NaN}}'),
        _packed('{"document":"lipcert certificate, version 2","drifts":{"layout":' + DEEP, {}),
        _packed("[" + "," * MOST_PARTS, {}),
        _with_metadata("[" + "," * MOST_PARTS),
        _file("[" + "," * MOST_PARTS),
    ],
    ids=[
        "deep header", "deep metadata", "deep claims", "half a surrogate pair", "no digest", "long number",
        "number beyond floats", "infinities", "deep drifts", "many claims", "much metadata", "much header",
    ],
)  # fmt: skip
def test_a_hostile_file_is_refused_like_any_other(data: bytes) -> None:
    with pytest.raises(CertificateRefused) as refused:
        verify(data, b"", keys=[], limits=Limits())
    assert refused.value.step == "document"


@pytest.mark.parametrize(
    "data",
    [
        b'{"payload":' + DEEP.encode(),
        b'{"payload":[' + b"[]," * 1000 + b"[]]}",
        '{"payload":1}'.encode("utf-16"),
        b'{"payload":"\xff"}',
    ],
    ids=["deep", "many parts", "another encoding", "no text"],
)
def test_a_hostile_envelope_is_refused_like_any_other(data: bytes) -> None:
    with pytest.raises(CertificateRefused) as refused:
        open_envelope(data, [KEY.public_key()])
    assert refused.value.step == "signature"


def test_an_envelope_has_few_signatures() -> None:
    """Each of them takes a hash of the whole document to check."""
    envelope = json.loads(sign(b"document", KEY))
    envelope["signatures"] *= 10
    assert open_envelope(json.dumps(envelope).encode(), [KEY.public_key()])[0] == b"document"
    other = {"sig": base64.b64encode(bytes(64)).decode()}
    envelope["signatures"] += [other] * 90
    with pytest.raises(CertificateRefused, match="parts"):
        open_envelope(json.dumps(envelope).encode(), [KEY.public_key()])


@pytest.mark.parametrize("data", [b'{"keys":' + b"[" * 3000, b'{"keys":' + DEEP.encode(), b" " * LARGEST_KEY_FILE])
def test_a_hostile_file_of_keys_is_named(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        read_keys(data)


def test_what_is_wrong_many_times_is_found_once() -> None:
    """A validator that lists a thousand bytes for every two of a hostile file fills the memory."""
    wrong = ",".join(["{}"] * 1000)
    rows = "[" + ",".join(['"a"'] * 1000) + "]"
    text = (
        f'{{"network":[{wrong}],"witnesses":[{wrong}],"notes":[{wrong}],"assumptions":[{wrong}],'
        f'"model":{{"inputs":[{wrong}],"fixed_inputs":[{wrong}]}},'
        f'"options":{{"input_box":{{"lower":{rows},"upper":[[[{rows}]]]}}}}}}'
    )
    with pytest.raises(ValidationError) as found:
        PortableCertificate.model_validate_json(text)
    assert found.value.error_count() < 60


def test_a_file_is_no_larger_than_a_model_may_be(case: Case) -> None:
    with pytest.raises(ResourceLimitExceeded):
        verify(case.certificate, case.model, keys=[], limits=Limits(model_bytes=len(case.certificate) - 1))


def test_no_step_of_a_proof_is_begun_when_the_time_is_over(case: Case) -> None:
    with pytest.raises(NotFinished, match="nothing is proved or refused") as ended:
        verify(case.certificate, case.model, keys=[], limits=Limits(seconds=-1.0))
    assert ended.value.where.startswith("layer ")


def test_a_key_that_is_given_twice_is_refused(case: Case) -> None:
    """Another reader may take the first of two values where this one takes the last."""
    contents = from_bytes(case.certificate)
    constants = contents.constants
    arrays = {f"drifts/{name}": array for name, array in contents.drifts.items()}
    arrays |= {f"{name}/{key}": array for name, one in contents.witnesses.items() for key, array in one.arrays.items()}
    assert constants.outputs is not None and constants.pairs is not None
    arrays |= {
        "constants/upper": np.array([constants.upper]),
        "constants/outputs": constants.outputs,
        "constants/pairs": constants.pairs,
    }
    text = contents.certificate.text
    assert verified(replace(case, certificate=_packed(text, arrays))).verdict == "holds"
    twice = text.replace('"task":"classification"', '"task":"regression","task":"classification"')
    assert twice != text
    for changed in (twice, text.replace(":", ": ", 1)):
        with pytest.raises(CertificateRefused, match="as Lipcert writes"):
            verified(replace(case, certificate=_packed(changed, arrays)))


def _arrays(
    method: str, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
) -> Callable[[Contents], Contents]:
    def changed(parts: Contents) -> Contents:
        witness = parts.witnesses[method]
        fresh = Witness(method=method, header=witness.header, arrays=change(dict(witness.arrays)))
        return replace(parts, witnesses={**parts.witnesses, method: fresh})

    return changed


def _many_families(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    first = min(arrays).split("/")[0]
    own = {name.split("/")[1]: array for name, array in arrays.items() if name.startswith(f"{first}/")}
    return {f"{family}/{step}": array for family in range(513) for step, array in own.items()}


@pytest.mark.parametrize(
    ("change", "because"),
    [(_many_families, "513 families"), (lambda arrays: {**arrays, "whole/9": np.ones(1)}, "no other")],
)
def test_a_witness_has_what_a_proof_takes_and_no_more(
    case: Case, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]], because: str
) -> None:
    with pytest.raises(CertificateRefused, match=because) as refused:
        verified(forged(case, _arrays("multipliers", change)))
    assert refused.value.step == "proof"


def test_the_loop_transformation_takes_no_numbers() -> None:
    case = certified(dense(1), method="loop_transform")
    with pytest.raises(CertificateRefused, match="norms alone"):
        verified(forged(case, _arrays("loop_transform", lambda arrays: {"x": np.ones(1)})))


def _certificate(**changes: object) -> Callable[[Contents], Contents]:
    return lambda parts: replace(parts, certificate=parts.certificate.model_copy(update=changes))


@pytest.mark.parametrize(
    "change",
    [
        _certificate(assumptions=[]),
        _certificate(notes=["it holds for every arithmetic"]),
        lambda parts: _certificate(
            arithmetic=parts.certificate.arithmetic.model_copy(update={"statement": "float32: rounding is covered"})
        )(parts),
    ],
    ids=["assumptions", "notes", "arithmetic"],
)
def test_words_that_nobody_proves_are_refused(case: Case, change: Callable[[Contents], Contents]) -> None:
    with pytest.raises(CertificateRefused, match="not those of what is proved"):
        verified(forged(case, change))


def test_an_answer_says_what_its_constants_are_constants_of() -> None:
    """A small constant of a narrow box, or of one output of many, is no constant of the model."""
    options = CertifyOptions.model_validate(
        {"method": "product", "input_box": {"lower": 0, "upper": 0.5}, "preprocessing": {"scale": 0.25}}
    )
    known = certify_model(dense(), options=options)
    found = verified(Case(model=dense().data(), certificate=known.portable))
    assert (found.options, found.task, found.classes) == (options, "classification", 4)
    assert found.inputs == known.certificate.model.inputs and found.fixed_inputs == []
    assert any("box" in note for note in found.notes)


def test_a_witness_on_frequencies_says_which_terms_go_by_their_norms() -> None:
    case = certified(convolutional())

    def without_cuts(parts: Contents) -> Contents:
        described = [
            each.model_copy(
                update={"header": {"parts": [{**part, "cuts": ["nothing"]} for part in each.header["parts"]]}}
            )
            for each in parts.certificate.witnesses
        ]
        return _certificate(witnesses=described)(parts)

    with pytest.raises(CertifierError, match="cuts"):
        verified(forged(case, without_cuts))
