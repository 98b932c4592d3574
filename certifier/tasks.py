"""What a network's outputs mean, in words too, and the pair constants that a classifier needs."""

from __future__ import annotations

import math

import numpy as np

from certifier.box import Box
from certifier.certificates import Constants
from certifier.documents import CertifyOptions, Task
from certifier.errors import InvalidInput, UnsupportedModel
from certifier.flow import Network
from certifier.proof.readout import MAXIMAL_PAIR_OUTPUTS

ONE_ROW = "rows are certified and served one at a time, each as a batch of its own"
INSIDE_THE_BOX = (
    "every constant and radius holds inside of the declared input box only: for inputs of the box, and against "
    "perturbations that stay in it"
)


def task_of(network: Network, options: CertifyOptions) -> tuple[Task, list[str]]:
    """What the outputs mean, from the options or, for `auto`, from their shape; joined outputs are no classes.

    With notes about it.  Raises: InvalidInput for a task or threshold that the outputs do not fit.
    """
    size = network.output_size
    is_vector = sum(extent > 1 for extent in network.output_shape) == 1
    if options.task == "classification" and size < 2:
        raise InvalidInput("options.task", "a classifier needs at least two outputs; use `binary` for one")
    if options.task == "binary" and size != 1:
        raise InvalidInput("options.task", f"a binary classifier has one output, but the model has {size}")
    if options.task == "auto" and options.threshold is not None and size != 1:
        raise InvalidInput("options.threshold", f"applies to a single output, but the model has {size}")
    if options.task == "auto" and size > MAXIMAL_PAIR_OUTPUTS:
        return "regression", [f"{size} outputs are more than a pair table holds, so they are taken as a regressor's"]
    if options.task == "classification" or (options.task == "auto" and is_vector and not network.joined):
        return "classification", []
    if options.task == "auto" and options.threshold is not None and network.head != "sigmoid":
        raise InvalidInput(
            "options.threshold",
            "is a probability, but the model does not end in a sigmoid; set task to `binary` if its output is a logit",
        )
    if options.task == "binary" or (options.task == "auto" and network.head == "sigmoid"):
        threshold = options.threshold or 0.5
        note = f"binary: class 1 where the probability, the sigmoid of the output, is over {threshold}"
        return "binary", [note if network.head == "sigmoid" else note + " (the output is taken as the logit)"]
    return "regression", []


def notes_of(network: Network, task_notes: list[str], box: Box) -> list[str]:
    """All notes of a certificate: what was cut off, assumed or declared."""
    boxed = [] if box.is_everything else [INSIDE_THE_BOX]
    return [*network.notes, *task_notes, *boxed, *([ONE_ROW] if network.input.batch_axis else [])]


def with_loose_pairs(constants: Constants, count: int) -> Constants:
    """Pair constants where no readout exists: f_t - f_j is sqrt(2) L-Lipschitz.

    Raises: UnsupportedModel for more classes than a table holds.
    """
    if count > MAXIMAL_PAIR_OUTPUTS:
        raise UnsupportedModel(f"{count} classes are more than a pair table holds; certify the model as a regressor")
    pairs = np.full((count, count), np.nextafter(constants.upper * math.sqrt(2.0), np.inf) * (1 + 2.0**-50))
    np.fill_diagonal(pairs, 0.0)
    return Constants(upper=constants.upper, outputs=constants.outputs, pairs=pairs)
