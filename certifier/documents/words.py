"""Words and numbers that documents share, and the base of them all."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

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


class Document(BaseModel):
    """A frozen document that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")
