"""What is answered about rows of inputs: predictions with radii, and differences of two rows."""

from __future__ import annotations

from pydantic import Field

from certifier.documents.certificate import Arithmetic
from certifier.documents.words import (
    Document,
    RadiusMethod,
    Task,
)


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
