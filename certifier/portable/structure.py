"""network -> what of it a certificate writes down: every term with a digest of all numbers that its bound rests on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from certifier.documents import Document
from certifier.flow import Network
from certifier.products import Bilinear
from certifier.terms import Activation, Affine, Contraction, Term


class TermDescription(Document):
    """One term of the certified network."""

    output: str
    node: str
    operator: str
    kind: str
    sources: list[str]
    shape: list[int]
    sha256: str


def described(network: Network) -> list[TermDescription]:
    """The terms in order, with digests of their weights, slopes and constants.

    They tell people and verifiers where two models part ways; what is proved is proved of the model's own terms.
    """
    return [
        TermDescription(
            output=term.output,
            node=term.name,
            operator=term.operator,
            kind=type(term).__name__.lower(),
            sources=list(term.sources),
            shape=list(term.shape),
            sha256=_digest(term),
        )
        for term in network.terms
    ]


def _digest(term: Term) -> str:
    """SHA-256 of the term's numbers: weights, offsets, slopes, constants."""
    state = hashlib.sha256(json.dumps([type(term).__name__, term.dtype]).encode())
    if isinstance(term, Affine):
        state.update(json.dumps([term.arrangement, [operator.digest for operator in term.operators]]).encode())
        _update(state, [term.offset, term.offset_magnitude])
    elif isinstance(term, Activation):
        state.update(json.dumps(term.function.name).encode())
        _update(state, [np.asarray(term.function.slope_lower), np.asarray(term.function.slope_upper)])
    elif isinstance(term, Contraction):
        state.update(json.dumps([term.function.name, term.function.constant_upper.hex()]).encode())
    elif isinstance(term, Bilinear):
        state.update(json.dumps(type(term.form).__name__).encode())
    return state.hexdigest()


def _update(state: hashlib._Hash, arrays: Sequence[NDArray | None]) -> None:
    for array in arrays:
        if array is None:
            state.update(b"none")
            continue
        values = np.ascontiguousarray(array, dtype=np.float64)
        state.update(json.dumps(values.shape).encode() + values.tobytes())
