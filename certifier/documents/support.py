"""Which operators and models are supported, and why the others are refused."""

from __future__ import annotations

from pydantic import Field

from certifier.documents.certificate import FixedInput, TensorDescription
from certifier.documents.words import (
    Document,
    ModelFormat,
)


class OperatorSupport(Document):
    """One operator of the support table, from the registry of rules."""

    operator: str
    domain: str
    versions: str = Field(description="The operator-set versions the rule was written for.")
    supported: bool
    summary: str


class OperatorUse(Document):
    """One operator of a model that is checked."""

    operator: str
    domain: str = Field(description="`ai.onnx`, another ONNX domain, or `aten` in a program that was not read.")
    count: int = Field(ge=1, description="Nodes of it that the outputs depend on.")
    supported: bool = Field(description="Whether every one of them is bounded, evaluated ahead of time or cut off.")
    refused: int = Field(ge=0, description="How many of them `refusals` names.")


class Refusal(Document):
    """One reason for which a model would be refused."""

    code: str = Field(description="Kind of the refusal, as in the errors of `POST /certify`.")
    message: str
    node: str | None = Field(default=None, description="Where: the node's name, or file and line of a program.")
    operator: str | None = None
    reason: str | None = Field(default=None, description="Why the node has no bound.")
    field: str | None = Field(default=None, description="The option that does not fit.")
    remedy: str | None = Field(default=None, description="What helps, where something does.")


class ModelCheck(Document):
    """What certifying a model would refuse, all at once; nothing is certified."""

    sha256: str = Field(description="Digest of the checked bytes.")
    format: ModelFormat | None = Field(description="null where the bytes could not be read.")
    inputs: list[TensorDescription] = Field(description="The inputs that would be perturbed.")
    fixed_inputs: list[FixedInput]
    outputs: list[str] = Field(description="The outputs that would be certified.")
    refusals: list[Refusal] = Field(
        description="In the order in which certifying comes to them; the first is the one that it raises. Empty: "
        "nothing is refused beforehand, and only the self-test or a limit can still fail."
    )
    operators: list[OperatorUse]
    notes: list[str] = Field(description="What would be cut off or assumed, in words.")
