"""How a model is to be certified: what `POST /certify` and `certify` are asked."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from certifier.documents.words import (
    AskedArithmetic,
    Document,
    Finite,
    Layout,
    Method,
    Positive,
)


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
