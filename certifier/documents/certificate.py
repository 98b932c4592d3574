"""What was proved about a model, and of which model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from certifier.documents.options import CertifyOptions
from certifier.documents.words import (
    ArithmeticName,
    Document,
    ModelFormat,
    RungName,
    Task,
)

REAL_ARITHMETIC = (
    "real: every constant and radius holds for the network evaluated in exact real arithmetic on the exact weights. "
    "Rounding errors of the engine that serves the model are not covered by these numbers."
)


class TensorDescription(Document):
    """A named tensor of the model; `null` in the shape is the batch axis."""

    name: str
    dtype: str
    shape: list[int | None]


class FixedInput(Document):
    """An input that is a constant of the certified network."""

    name: str
    dtype: str
    shape: list[int]
    sha256: str = Field(description="Digest of its entries in that type: little-endian, the last axis fastest.")


class ModelDescription(Document):
    """Which model a certificate speaks of."""

    name: str
    version: int = Field(ge=1)
    sha256: str = Field(description="Digest of the uploaded bytes.")
    format: ModelFormat
    inputs: list[TensorDescription] = Field(description="The perturbed inputs, in the order of a joint row.")
    fixed_inputs: list[FixedInput] = Field(default_factory=list)
    outputs: list[TensorDescription]


class LipschitzBound(Document):
    """`lower <= Lip(f) <= upper` for the network up to its logits."""

    upper: float = Field(description="Proved: ||f(x)-f(y)|| <= upper * ||x-y|| for all x, y.")
    lower: float = Field(description="Attained: some pair of inputs is stretched at least this much.")
    method: RungName = Field(description="The method that gave the upper bound.")
    norm: Literal["L2"] = "L2"


class MethodReport(Document):
    """What one method proved and what it cost."""

    method: RungName
    upper: float | None = Field(description="Its bound of the whole network; null if it proved none.")
    mean_pair: float | None = Field(description="The mean of its constants over all pairs of outputs.")
    pairs: int | None = Field(description="For how many pairs its constant is the smallest and was taken.")
    seconds: float = Field(description="Wall-clock time that it took.")
    reason: str | None = Field(description="Why it proved nothing.")


class LayerReport(Document):
    """How one linear map between two nonlinearities was searched and proved."""

    name: str
    kind: str = Field(description="What was bounded, e.g. `dense 10x128` or `convolution 16x3x3x3`.")
    proof: str = Field(description="`closed form`, `cholesky`, `torus`, `product` or `schur test`.")
    estimate: float | None = Field(description="The search's estimate of the norm, from below; not a bound.")
    upper: float = Field(description="The proved upper bound of the norm.")
    iterations: int = Field(ge=0, description="Power iterations spent.")
    search: Literal["none", "cold", "warm", "reused"] = Field(
        description="none: closed form; cold: random start; warm: kept vectors; reused: proved before, same digest."
    )


class Arithmetic(Document):
    """Whose arithmetic the numbers hold for, in words."""

    name: ArithmeticName
    statement: str
    because: str | None = Field(
        default=None, description="Why no radius can be certified in this arithmetic; null where radii can."
    )


class EngineDescription(Document):
    """What computes the answers, with everything that may choose other kernels or another order of sums."""

    name: str
    options: dict[str, str] = Field(description="Session options that are set, the same for every model.")
    cpu: list[str] = Field(description="Instruction sets of the machine that ran the self-test.")


class SelfTestCheck(Document):
    """One self-test and what it saw."""

    name: Literal["engine agrees", "lower below upper", "attack flips nothing", "sums are classical"]
    passed: bool
    detail: str


class SelfTest(Document):
    """The four self-tests of an upload; a certificate exists only if all passed."""

    passed: bool
    checks: list[SelfTestCheck]


class Certificate(Document):
    """The full answer to an upload: the model, its proved constants and their evidence."""

    model: ModelDescription
    task: Task
    classes: int = Field(ge=1, description="Number of outputs per row.")
    lipschitz: LipschitzBound
    outputs: list[float] | None = Field(description="Proved constant of every single output; null above 4096 outputs.")
    pairs: list[list[float]] | None = Field(
        description="pairs[t][j] bounds the Lipschitz constant of f_t - f_j; null above 64 classes or for a regressor."
    )
    pairs_link: str | None = Field(
        default=None, description="Where the pair constants are served when `pairs` is null."
    )
    methods: list[MethodReport] = Field(default_factory=list, description="Every method that was tried, in order.")
    pair_methods: list[list[RungName]] | None = Field(
        default=None, description="pair_methods[t][j] gave the constant of f_t - f_j; null where `pairs` is."
    )
    layers: list[LayerReport]
    arithmetic: Arithmetic
    self_test: SelfTest
    options: CertifyOptions
    notes: list[str] = Field(description="What was cut off or assumed, in words.")
    engine: str = Field(description="The engine and version that serves the model.")
    execution: EngineDescription | None = Field(
        default=None,
        description="The engine with its options and the machine's instruction sets. Where another one serves the "
        "model, the self-test runs again when it is loaded, and `arithmetic` of every answer says so.",
    )
    seconds: float = Field(description="Wall-clock time that certifying took.")
