"""A certificate as one file: a safetensors archive whose metadata holds the claims as JSON.

    metadata["lipcert"] = {"sha256": <of all that follows and of every tensor>, "certificate": {...}}
    tensors             = constants/upper, constants/outputs, constants/pairs, drifts/<numbers of the drifts>,
                          <method>/<array of its witness>

Whatever is read here is untrusted: the digest finds damage, the signature (`certifier.portable.envelope`) says who
wrote it, and neither makes a bound true.  That is left to `certifier.portable.evidence`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from pydantic import FailFast, Field, ValidationError

from certifier.certificates import Constants
from certifier.documents import (
    Arithmetic,
    CertifyOptions,
    Document,
    FixedInput,
    ModelFormat,
    RungName,
    Task,
    TensorDescription,
)
from certifier.errors import CertificateRefused
from certifier.portable.structure import TermDescription
from certifier.portable.untrusted import demand_few_parts, parsed
from certifier.witness import Witness

Floats = NDArray[np.float64]
MEDIA_TYPE = "application/vnd.lipcert.certificate+safetensors"
METADATA = "lipcert"
CONSTANTS_ALONE = "lipcert certificate, version 1"
"""Documents of a time before there were drifts: they speak of exact arithmetic, whatever their options."""
WITH_DRIFTS = "lipcert certificate, version 2"
DRIFTS = "drifts/"
LARGEST_HEADER = 64 * 2**20
"""Bytes of JSON that are read."""
MOST_PARTS = 2**20
"""Commas and opening brackets in it: 20 000 terms have 300 000, a box with ends for each of 150 000 pixels as many."""


class CertifiedModelDescription(Document):
    """Which model a portable certificate speaks of: by digest, since names differ from place to place."""

    sha256: str = Field(description="Digest of the model's bytes.")
    format: ModelFormat
    inputs: Annotated[list[TensorDescription], FailFast()]
    fixed_inputs: Annotated[list[FixedInput], FailFast()]


class WitnessDescription(Document):
    """One method's evidence; its arrays are the tensors named `<method>/…`."""

    method: RungName
    header: dict[str, Any]


class PortableCertificate(Document):
    """Everything that a verifier needs beside the model, but for the arrays."""

    document: Literal["lipcert certificate, version 1", "lipcert certificate, version 2"] = WITH_DRIFTS
    model: CertifiedModelDescription
    options: CertifyOptions
    task: Task
    classes: int = Field(ge=1)
    arithmetic: Arithmetic
    network: Annotated[list[TermDescription], FailFast()] = Field(
        description="The terms of the certified network, in order."
    )
    norms: dict[str, float] = Field(description="Claimed spectral norms, by the digest of what they bound.")
    witnesses: Annotated[list[WitnessDescription], FailFast()] = Field(
        description="Evidence of the methods beyond the product of norms."
    )
    assumptions: Annotated[list[str], FailFast()] = Field(description="What the proofs take for granted, by number.")
    notes: Annotated[list[str], FailFast()]
    versions: dict[str, str] = Field(description="Of the software that searched and proved.")
    drifts: dict[str, Any] | None = Field(
        default=None,
        description="What the execution's rounding can do: the layout of the numbers in the tensors `drifts/…` and the "
        "names that they speak of; null for exact arithmetic, and where `arithmetic.because` says why there are none.",
    )

    @property
    def text(self) -> str:
        """The JSON text of it, of which there is one."""
        return self.model_dump_json(exclude={"drifts"} if self.document == CONSTANTS_ALONE else None)


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What is in a file: `witnesses` by methods and `drifts` by the names of tables, as it describes them."""

    certificate: PortableCertificate
    constants: Constants
    witnesses: Mapping[str, Witness]
    drifts: Mapping[str, Floats]


def to_bytes(contents: Contents) -> bytes:
    """The file."""
    constants = contents.constants
    tensors: dict[str, Floats] = {"constants/upper": np.array([constants.upper])}
    if constants.outputs is not None:
        tensors["constants/outputs"] = constants.outputs
    if constants.pairs is not None:
        tensors["constants/pairs"] = constants.pairs
    tensors |= {f"{DRIFTS}{name}": array for name, array in contents.drifts.items()}
    for witness in contents.witnesses.values():
        tensors |= {f"{witness.method}/{name}": array for name, array in witness.arrays.items()}
    return _packed(contents.certificate.text, {name: np.ascontiguousarray(each) for name, each in tensors.items()})


def from_bytes(data: bytes) -> Contents:
    """What `to_bytes` wrote, and nothing else.

    Raises: CertificateRefused for every other file, a damaged one among them.
    """
    text, tensors = _unpacked(data)
    try:
        demand_few_parts(text, MOST_PARTS)
        certificate = PortableCertificate.model_validate_json(text)
    except ValidationError as error:
        finding = error.errors()[0]
        place = ".".join(map(str, finding["loc"]))
        raise CertificateRefused("document", f"{place}: {finding['msg']}") from None
    except ValueError as error:
        raise CertificateRefused("document", str(error)) from None
    if certificate.text != text:
        # A key that is given twice, say, of which another reader may take the other value.
        raise CertificateRefused("document", "its claims are not written as Lipcert writes them")
    upper = tensors.pop("constants/upper", np.zeros(0))
    if upper.shape != (1,):
        raise CertificateRefused("document", "it has no constant of the whole network")
    constants = Constants(
        upper=float(upper[0]),
        outputs=tensors.pop("constants/outputs", None),
        pairs=tensors.pop("constants/pairs", None),
    )
    drifts = {} if certificate.drifts is None else _taken(tensors, DRIFTS)
    witnesses = {}
    for described in certificate.witnesses:
        arrays = _taken(tensors, f"{described.method}/")
        if described.method in witnesses:
            raise CertificateRefused("document", f"the method {described.method} has two witnesses")
        witnesses[described.method] = Witness(method=described.method, header=described.header, arrays=arrays)
    if tensors:
        raise CertificateRefused("document", f"the tensor {min(tensors)!r} belongs to nothing")
    return Contents(certificate=certificate, constants=constants, witnesses=witnesses, drifts=drifts)


def _taken(tensors: dict[str, Floats], prefix: str) -> dict[str, Floats]:
    """The tensors with that prefix, without it; they are taken out of all tensors."""
    names = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors.pop(name) for name in names}


def _packed(text: str, tensors: Mapping[str, Floats]) -> bytes:
    metadata = json.dumps({"sha256": _digest(text, tensors), "certificate": text})
    return safetensors.numpy.save(dict(tensors), metadata={METADATA: metadata})


def _unpacked(data: bytes) -> tuple[str, dict[str, Floats]]:
    try:
        size = int.from_bytes(data[:8], "little")
        if len(data) < 8 or not 2 <= size <= min(len(data) - 8, LARGEST_HEADER):
            raise ValueError("the header is longer than the file")
        header = parsed(data[8 : 8 + size], most=MOST_PARTS)
        envelope = parsed(header["__metadata__"][METADATA], most=MOST_PARTS)
        text, digest = envelope["certificate"], envelope["sha256"]
        if not isinstance(text, str) or not isinstance(digest, str):
            raise ValueError("its metadata are of another kind")
        # What is no text in UTF-8, half a surrogate pair say, has no digest.
        text.encode()
        tensors = safetensors.numpy.load(data)
    except Exception as error:  # noqa: BLE001  # any damage at all: lengths, JSON, offsets, types
        raise CertificateRefused("document", f"this is no certificate of Lipcert: {error}") from None
    if any(array.dtype != np.float64 for array in tensors.values()):
        raise CertificateRefused("document", "a tensor is not of 64-bit numbers")
    if digest != _digest(text, tensors) or data != _packed(text, tensors):
        raise CertificateRefused("document", "it was changed after it had been written: the digest does not fit")
    return text, dict(tensors)


def _digest(text: str, tensors: Mapping[str, Floats]) -> str:
    state = hashlib.sha256(f"{len(text)}:{text}".encode())
    for name in sorted(tensors):
        array = tensors[name]
        state.update(json.dumps([name, list(array.shape)]).encode() + np.ascontiguousarray(array).tobytes())
    return state.hexdigest()
