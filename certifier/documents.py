"""The answers of the library as validated documents: what `POST /certify` returns and `certify --json` prints.

It has over 300 lines because every document stands here, and most of each is its description.

One definition serves the library, the command line and the HTTP schema, so that they cannot drift apart.
All distances are L2 norms in the units of the caller's inputs; every `…_upper` is rounded up, every `…_lower` and
every radius down.  The file has more lines than most because the descriptions of the fields are the API's reference.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

Method = Literal["auto", "product", "loop_transform", "multipliers"]
RungName = Literal["product", "loop_transform", "multipliers", "frequency"]
RadiusMethod = Literal["global", "local"]
ArithmeticName = Literal["real", "float32", "float64", "float16", "bfloat16"]
AskedArithmetic = Literal["float32", "float64", "real"]
Task = Literal["classification", "binary", "regression"]
Layout = Literal["NCHW", "NHWC"]
ModelFormat = Literal["onnx", "onnx bundle", "torchscript", "torch.export"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


REAL_ARITHMETIC = (
    "real: every constant and radius holds for the network evaluated in exact real arithmetic on the exact weights. "
    "Rounding errors of the engine that serves the model are not covered by these numbers."
)


class Document(BaseModel):
    """A frozen document that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Preprocessing(Document):
    """The map `(scale * x - mean) / std` per channel in front of the network, so that radii are in units of x."""

    scale: Positive = Field(default=1.0, description="Factor applied first, e.g. 1/255 for 8-bit images.")
    mean: list[Finite] = Field(default_factory=list, description="Per channel, or one value for all; empty is 0.")
    std: list[Positive] = Field(default_factory=list, description="Per channel, or one value for all; empty is 1.")
    layout: Layout | None = Field(
        default=None,
        description="Axis order of the caller's images when it differs from the model's; null keeps the model's own.",
    )


_Numbers = Annotated[list[float], Field(fail_fast=True)]
_Rows = Annotated[list[_Numbers], Field(fail_fast=True)]
_Planes = Annotated[list[_Rows], Field(fail_fast=True)]
_Spaces = Annotated[list[_Planes], Field(fail_fast=True)]
NestedNumbers = float | _Numbers | _Rows | _Planes | _Spaces
"""A number, or numbers in lists nested like the axes of a tensor; a list is read up to the first that is none."""


_ENDS = "One number, or an array that broadcasts to one input row; by input name where several are perturbed."


class InputBox(Document):
    """The inputs for which a certificate is to hold: lower <= x <= upper, entry by entry."""

    lower: NestedNumbers | dict[str, NestedNumbers] = Field(description=_ENDS)
    upper: NestedNumbers | dict[str, NestedNumbers] = Field(description=_ENDS)


def _plain_numbers(value: Any) -> Any:
    """Arrays as nested lists, and nothing in them but booleans and finite numbers."""
    plain = value.tolist() if hasattr(value, "tolist") else value
    pending = [plain]
    while pending:
        item = pending.pop()
        if isinstance(item, list):
            pending.extend(item)
        elif not isinstance(item, (bool, int, float)) or not abs(item) <= sys.float_info.max:
            raise ValueError("must be a finite number or nested lists of them")
    return plain


FixedValue = Annotated[
    Any,
    BeforeValidator(_plain_numbers),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "boolean"}, {"type": "array", "items": {}}]}),
]
"""A number or boolean, or nested lists of them."""


class CertifyOptions(Document):
    """How a model is to be certified."""

    method: Method = Field(
        default="auto",
        description="`product`: norms of the layers multiplied; `loop_transform`: each activation split into its mean "
        "slope and a remainder; `multipliers`: quadratic constraints with optimised multipliers, for convolutional "
        "networks one frequency at a time; `auto`: all that fit the network and the time, the smallest proved constant "
        "winning for each pair. `product` is always computed.",
    )
    seconds: float = Field(
        default=10.0,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="Time for searching and proving tighter constants than the product of norms.",
    )
    arithmetic: AskedArithmetic = Field(
        default="float32",
        description="Whose arithmetic the certificate speaks of. `float32`: that of the engine that serves the model, "
        "in the model's own types, rounding errors included; `float64`: the model is served in double precision; "
        "`real`: exact arithmetic, which no engine computes in.",
    )
    task: Literal["auto", "classification", "binary", "regression"] = Field(
        default="auto",
        description="`auto`: two or more outputs in one vector are classes; a single output is a regressor unless the "
        "model ends in a sigmoid or `threshold` is given; anything else is a regressor.",
    )
    threshold: float | None = Field(
        default=None, gt=0, lt=1, description="Probability at which a single sigmoid output changes class."
    )
    refine: bool = Field(
        default=False,
        description="Whether predictions of this model look for larger radii around each input, unless they say "
        "otherwise.",
    )
    refine_seconds: float = Field(
        default=1.0,
        ge=0,
        le=60,
        allow_inf_nan=False,
        description="Time for that, which the rows of one request share, unless it says otherwise.",
    )
    preprocessing: Preprocessing | None = Field(default=None, description="Made part of the network.")
    input_box: InputBox | None = Field(
        default=None,
        description="Inputs for which the certificate is to hold, in the caller's units; null is all inputs. Products "
        "of values that depend on the input, exponentials and powers often have a bound only inside of a box.",
    )
    inputs: list[str] | None = Field(
        default=None,
        description="Names of the inputs that are perturbed, together; null is all that `fixed_inputs` does not name.",
    )
    fixed_inputs: dict[str, FixedValue] = Field(
        default_factory=dict,
        description="The other inputs' values, by name: one number for all entries, or an array of the declared shape. "
        "The certificate holds for these values only.",
    )
    outputs: list[str] | None = Field(
        default=None,
        description="Names of the outputs to certify; null is all of them. Several are joined into one vector.",
    )
    input_shape: list[Annotated[int, Field(ge=1)]] | None = Field(
        default=None,
        description="Shape of the input with batch axis 1, e.g. [1, 3, 32, 32]: needed by TorchScript archives that "
        "do not record it; it must agree with models that do.",
    )
    calibration: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{64}$",
        description="SHA-256 of a `.npy` file of inputs that is given beside the model, set from the file where it is "
        "null: the search favours pairs of classes that these inputs come near. Constants are proved as without it.",
    )

    @model_validator(mode="after")
    def _threshold_needs_binary(self) -> CertifyOptions:
        if self.threshold is not None and self.task not in ("auto", "binary"):
            raise ValueError("threshold applies to a binary classifier only")
        return self


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

    name: Literal["engine agrees", "lower below upper", "attack flips nothing"]
    passed: bool
    detail: str


class SelfTest(Document):
    """The three self-tests of an upload; a certificate exists only if all passed."""

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


class OutputInterval(Document):
    """Where one output stays while the input moves by at most epsilon."""

    lower: float
    upper: float


class OutputBounds(Document):
    """What the outputs can do while the input moves by at most `epsilon`."""

    epsilon: float
    l2: float = Field(description="Upper bound of the L2 norm of the output's change.")
    intervals: list[OutputInterval] = Field(description="Per output.")


class RowPrediction(Document):
    """One row's prediction and what is certified about it."""

    label: int | None = Field(description="Predicted class; null for a regressor.")
    runner_up: int | None
    logits: list[float] = Field(description="The engine's outputs before a trailing softmax or sigmoid.")
    margin: float | None = Field(description="Label's logit minus the runner-up's.")
    radius: float | None = Field(
        description="No input within this L2 distance gets another label; null for a regressor."
    )
    radius_method: RadiusMethod | None = Field(
        default=None,
        description="`global`: the model's constants gave the radius; `local`: bounds in a ball around this input did.",
    )
    unrefined: str | None = Field(
        default=None, description="Why refinement gave no larger radius; null where it did, or was not asked for."
    )
    certified: bool | None = Field(description="radius > epsilon; null without an epsilon or for a regressor.")
    output_bounds: OutputBounds | None = Field(description="For the given epsilon; null without one.")
    because: str | None = Field(description="Why the radius is 0 or absent.")


class Predictions(Document):
    """The answer of `predict`."""

    model: str
    version: int
    task: Task
    arithmetic: Arithmetic
    epsilon: float | None
    rows: list[RowPrediction]


class OutputComparison(Document):
    """One output's actual difference and its proved bound."""

    difference: float
    bound: float


class RowComparison(Document):
    """Two inputs, how far apart they are, how far their outputs are, and how far those could be."""

    input_difference: float = Field(description="||x - y||, rounded up.")
    output_difference: float = Field(description="||f(x) - f(y)|| as the engine computed it.")
    output_difference_bound: float = Field(description="Upper bound of ||f(x) - f(y)|| in the certified arithmetic.")
    outputs: list[OutputComparison] = Field(description="Per output.")


class Comparisons(Document):
    """The answer of `compare`."""

    model: str
    version: int
    arithmetic: Arithmetic
    rows: list[RowComparison]


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
