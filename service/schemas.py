"""The documents that only the service speaks; the rest are the library's own."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from certifier.documents import LipschitzBound, OperatorSupport, Preprocessing
from certifier.progress import Progress

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
NAME_TEXT = "1 to 128 letters, digits, dots, underscores or hyphens, beginning with a letter or digit."

Name = Annotated[str, Field(pattern=NAME_PATTERN, description=NAME_TEXT, examples=["digits"])]
# The upper end is what the database's integers hold.
Version = Annotated[int, Field(ge=1, le=2**31 - 1, description="Version of the model.", examples=[1])]


def _rows(description: str) -> dict[str, Any]:
    """The schema of nested lists of numbers, which is checked by the array itself and not element by element."""
    numbers = {"oneOf": [{"type": "number"}, {"type": "array", "items": {}}]}
    rows = {"type": "array", "items": numbers, "minItems": 1}
    by_name = {"type": "object", "additionalProperties": rows, "minProperties": 1}
    return {"anyOf": [rows, by_name], "description": description}


class Body(BaseModel):
    """A request document that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


ROWS = (
    "Nested lists of numbers of shape [batch, …input shape], in the units of the certificate; no NaN, no infinity. "
    "Several perturbed inputs come as an object from each input's name to such lists."
)


class PredictRequest(Body):
    """Rows of inputs to classify, with the distance to certify for."""

    model: Name
    version: Version | None = Field(default=None, description="The newest without one.")
    inputs: Any = Field(json_schema_extra=_rows(ROWS), examples=[[[0.0, 0.5, 1.0]]])
    epsilon: float | None = Field(
        default=None, ge=0, description="L2 distance in the units of the inputs.", examples=[0.3]
    )
    refine: bool | None = Field(
        default=None,
        description="Whether to look for larger radii around each input; null as the model's `options.refine`.",
    )
    refine_seconds: float | None = Field(
        default=None, ge=0, le=60, description="Time for that, which all rows share; null as the model's options."
    )
    preprocessing: Preprocessing | None = Field(
        default=None, description="Applied to the inputs before the certified network; radii stay in units of x."
    )


class CompareRequest(Body):
    """Pairs of inputs, row by row."""

    model: Name
    version: Version | None = Field(default=None, description="The newest without one.")
    x: Any = Field(json_schema_extra=_rows(ROWS), examples=[[[0.0, 0.5, 1.0]]])
    y: Any = Field(json_schema_extra=_rows("As `x`, of the same shape."), examples=[[[0.0, 0.6, 1.0]]])


class Problem(BaseModel):
    """Why a request was refused (RFC 9457)."""

    type: str = Field(description="Kind of the problem.", examples=["urn:lipcert:problem:unknown-model"])
    title: str = Field(description="The kind in words.", examples=["No such model"])
    status: int = Field(description="The HTTP status.", examples=[404])
    detail: str = Field(description="What happened here.", examples=["no model 'digits'"])
    instance: str = Field(description="The path that was asked for.", examples=["/models/digits"])
    code: str = Field(description="Kind of the problem for machines; stable.", examples=["unknown_model"])
    details: dict[str, Any] = Field(description="The facts of the refusal, by kind.")


class Job(BaseModel):
    """A certification that waits, runs or has ended."""

    id: str = Field(examples=["0f3c5a7e9b1d4c6f8a2b4d6f8e0a1c3e"])
    state: Literal["waiting", "running", "certified", "refused"]
    model: str = Field(description="The name that it certifies a version of.")
    version: int | None = Field(description="The version that it certified; null before.")
    sha256: str = Field(description="Digest of the uploaded bytes.")
    created: str = Field(description="When it was asked for: UTC, ISO 8601.")
    seconds: float = Field(description="How long it has been running, or ran.")
    search_cancelled: bool = Field(description="Whether its search was called off.")
    progress: Progress | None = Field(
        description="Where it stands, with the best bound that is proved by now; null before it has said anything."
    )
    certificate: str | None = Field(description="Path of the certificate; null before there is one.")
    problem: Problem | None = Field(description="Why it was refused; null unless it was.")


class JobList(BaseModel):
    """Jobs that run, wait or ended lately, newest first."""

    jobs: list[Job]


class VersionSummary(BaseModel):
    """One version of a model, in short."""

    version: int
    sha256: str = Field(description="Digest of the uploaded bytes.")
    bytes: int = Field(description="Size of the upload, in bytes.")
    created: str = Field(description="When it was certified: UTC, ISO 8601.")
    format: str
    task: str
    classes: int
    lipschitz: LipschitzBound
    arithmetic: str = Field(description="Whose arithmetic the certificate speaks of.")
    link: str = Field(description="Path of the full certificate.")


class ModelSummary(BaseModel):
    """A model and its versions, newest first."""

    name: str
    versions: list[VersionSummary]


class ModelList(BaseModel):
    """Names of models, in order."""

    models: list[str]
    next: str | None = Field(description="Path of the following page; null on the last.")


class Deleted(BaseModel):
    """What was deleted; these version numbers are not given again."""

    name: str
    versions: list[int]


class Pairs(BaseModel):
    """The proved constants of all differences of two outputs."""

    name: str
    version: int
    pairs: list[list[float]] = Field(
        description="pairs[t][j] bounds the Lipschitz constant of f_t - f_j, per unit of input; zero on the diagonal."
    )


class PublicKey(BaseModel):
    """An Ed25519 public key as a JSON Web Key."""

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    use: Literal["sig"]
    alg: Literal["EdDSA"]
    kid: str = Field(description="The key's RFC 7638 thumbprint, which signatures name.")
    x: str = Field(description="The key, base64url without padding.")


class KeySet(BaseModel):
    """Public keys."""

    keys: list[PublicKey]


class Operators(BaseModel):
    """The operators that are read, and those refused by name."""

    operators: list[OperatorSupport]


class Live(BaseModel):
    """The process answers."""

    live: Literal[True]


class Ready(BaseModel):
    """Storage and child processes answer, and the server is not stopping."""

    ready: Literal[True]
