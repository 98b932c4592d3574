"""Search vectors kept per layer, and proved bounds under a seal.

State is a starting point, never evidence: a vector that is stale, corrupted or hostile costs time only.  A bound is
reused without a new proof only when its seal (a keyed BLAKE2b over the layer's digest, the bound and the checker's
revision) verifies under the key of the caller who proved it; a record without a valid seal is ignored.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from certifier.errors import StateCorrupted

CHECKER_REVISION = 3
"""Raised whenever the trusted checker changes, so that bounds sealed by an older one are proved again."""
MAXIMAL_STATE_BYTES = 512 * 2**20


@dataclass(frozen=True, kw_only=True)
class LayerState:
    """What is remembered of one layer: its shape, the search vector, and a sealed bound."""

    shape: tuple[int, int]
    vector: NDArray[np.float64]
    digest: str
    estimate: float
    upper: float
    proof: str
    seal: str


@dataclass(frozen=True, kw_only=True)
class SearchState:
    """The state of every layer of one model version, by layer name, and of its multipliers, by family and step."""

    layers: Mapping[str, LayerState] = field(default_factory=dict)
    multipliers: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The state as an npz archive without pickles."""
        arrays: dict[str, NDArray[np.float64]] = {}
        index: list[dict[str, object]] = []
        for position, (name, layer) in enumerate(self.layers.items()):
            arrays[f"vector_{position}"] = layer.vector
            index.append(
                {
                    "name": name,
                    "shape": list(layer.shape),
                    "digest": layer.digest,
                    "estimate": layer.estimate,
                    "upper": layer.upper,
                    "proof": layer.proof,
                    "seal": layer.seal,
                }
            )
        buffer = io.BytesIO()
        for position, values in enumerate(self.multipliers.values()):
            arrays[f"multipliers_{position}"] = values
        header = np.frombuffer(json.dumps([index, list(self.multipliers)]).encode(), dtype=np.uint8)
        np.savez(buffer, allow_pickle=False, index=header, **arrays)  # pyright: ignore[reportArgumentType]
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> SearchState:
        """Read what `to_bytes` wrote.

        Raises: StateCorrupted.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                if sum(member.file_size for member in archive.infolist()) > MAXIMAL_STATE_BYTES:
                    raise StateCorrupted("the state is larger than any that is written")
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                index, families = json.loads(bytes(arrays["index"]))
                layers = {
                    str(entry["name"]): LayerState(
                        shape=(int(entry["shape"][0]), int(entry["shape"][1])),
                        vector=np.asarray(arrays[f"vector_{position}"], dtype=np.float64).ravel(),
                        digest=str(entry["digest"]),
                        estimate=float(entry["estimate"]),
                        upper=float(entry["upper"]),
                        proof=str(entry["proof"]),
                        seal=str(entry["seal"]),
                    )
                    for position, entry in enumerate(index)
                }
                multipliers = {
                    str(name): np.asarray(arrays[f"multipliers_{position}"], dtype=np.float64).ravel()
                    for position, name in enumerate(families)
                }
        except StateCorrupted:
            raise
        except Exception as error:  # any damage at all: zip, header, JSON, dtype
            raise StateCorrupted(f"kept search state cannot be read: {error}") from error
        return cls(layers=layers, multipliers=multipliers)


@dataclass(frozen=True)
class Seal:
    """Signs and verifies proved bounds under a secret key of at least 16 bytes."""

    key: bytes

    def __post_init__(self) -> None:
        if len(self.key) < 16:
            raise ValueError("a seal needs a key of at least 16 bytes")

    def sign(self, *, digest: str, upper: float, estimate: float, proof: str) -> str:
        """The seal of `upper` as the proved norm of the operator with `digest`."""
        text = json.dumps([CHECKER_REVISION, digest, float(upper).hex(), float(estimate).hex(), proof])
        return hashlib.blake2b(text.encode(), key=self.key[:64], digest_size=32).hexdigest()

    def verifies(self, layer: LayerState) -> bool:
        """True only if this key sealed exactly this record's digest, bound, estimate and proof."""
        try:
            expected = self.sign(digest=layer.digest, upper=layer.upper, estimate=layer.estimate, proof=layer.proof)
        except ValueError:
            return False
        return hmac.compare_digest(expected.encode(), layer.seal.encode(errors="replace"))
