"""What can be typed behind a command, and what it means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from service.commandline.failures import misuse
from service.commandline.values import fixed_values, number, numbers

if TYPE_CHECKING:
    from certifier.documents import CertifyOptions, Preprocessing

_PREPROCESSING, _CERTIFYING = "Preprocessing, made part of the network", "Certifying"

Model = Annotated[str, typer.Argument(metavar="MODEL", help="The model; `-` reads standard input.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Method = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="How the bound is computed: auto, product, loop_transform, multipliers.",
        rich_help_panel=_CERTIFYING,
    ),
]
ArithmeticName = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Whose arithmetic is certified: float32 (the engine's own), float64, real.",
        rich_help_panel=_CERTIFYING,
    ),
]
Task = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="What the outputs mean: auto, classification, binary, regression.",
        rich_help_panel=_CERTIFYING,
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(metavar="P", help="Probability at which a single output changes class.", rich_help_panel=_CERTIFYING),
]
State = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Folder that keeps search vectors and proved bounds for later runs.",
        rich_help_panel=_CERTIFYING, file_okay=False,
    ),
]  # fmt: skip
CertificateFile = Annotated[
    Path | None,
    typer.Option(
        "--certificate", metavar="FILE", help="Write the certificate as a file that `lipcert verify` proves again.",
        dir_okay=False,
    ),
]  # fmt: skip
Certificate = Annotated[str, typer.Argument(metavar="CERTIFICATE", help="The certificate file, signed or not.")]
PublicKey = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Demand a signature of this Ed25519 key: PEM, or a JSON Web Key Set."),
]
ProofSeconds = Annotated[float, typer.Option(metavar="S", min=0.0, help="After these no further step is proved.")]
Calibration = Annotated[
    Path | None,
    typer.Option(
        exists=True, dir_okay=False, metavar="FILE", rich_help_panel=_CERTIFYING,
        help="Inputs, as .npy: the search favours pairs of classes that they come near.",
    ),
]  # fmt: skip
Seconds = Annotated[
    float | None,
    typer.Option(metavar="S", help="Time for tighter bounds than the product of norms.", rich_help_panel=_CERTIFYING),
]
Scale = Annotated[
    str | None,
    typer.Option(
        metavar="S", help="Factor on the inputs, applied first; 1/255 is understood.", rich_help_panel=_PREPROCESSING
    ),
]
Mean = Annotated[
    list[str] | None,
    typer.Option(
        metavar="M,…", help="Subtracted after scaling; one value, or one per channel.", rich_help_panel=_PREPROCESSING
    ),
]
Std = Annotated[
    list[str] | None,
    typer.Option(metavar="D,…", help="Divides last; one value, or one per channel.", rich_help_panel=_PREPROCESSING),
]
Layout = Annotated[
    str | None,
    typer.Option(
        metavar="NCHW|NHWC", help="Axis order of your images, if not the model's.", rich_help_panel=_PREPROCESSING
    ),
]
Outputs = Annotated[
    list[str] | None, typer.Option("--output", metavar="NAME", help="Certify this output only; repeatable.")
]
Perturbed = Annotated[
    list[str] | None,
    typer.Option("--perturb", metavar="NAME", help="Perturb this input, and those named besides; repeatable."),
]
Fixed = Annotated[
    list[str] | None,
    typer.Option(
        "--fix",
        metavar="NAME=VALUE",
        help="An input that is not perturbed: a number, true, false, JSON lists, or a .npy file; repeatable.",
    ),
]
InputBox = Annotated[
    str | None,
    typer.Option(metavar="LOWER,UPPER", help="Certify for inputs with entries in this range only."),
]
InputShape = Annotated[
    str | None,
    typer.Option(metavar="1,D,…", help="The input's shape with batch axis 1, where the model does not record it."),
]
Inputs = Annotated[
    Path,
    typer.Option(
        exists=True, dir_okay=False, metavar="FILE", help="Rows, as .npy or .npz; several inputs as .npz by name."
    ),
]
AuditedInputs = Annotated[
    Path | None,
    typer.Option(
        "--inputs", exists=True, dir_okay=False, metavar="FILE",
        help="Rows to print label, margin and radius of, as .npy or .npz; several inputs as .npz by name.",
    ),
]  # fmt: skip
Labels = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, metavar="FILE", help="One class number per row.")
]
First = Annotated[Path, typer.Option("--x", exists=True, dir_okay=False, metavar="FILE", help="First inputs, by row.")]
Second = Annotated[
    Path, typer.Option("--y", exists=True, dir_okay=False, metavar="FILE", help="Second inputs, by row.")
]
InputsKey = Annotated[str | None, typer.Option(metavar="KEY", help="Which array of a .npz; the first without it.")]
LabelsKey = Annotated[str | None, typer.Option(metavar="KEY", help="Which array of a .npz; the first without it.")]
Refine = Annotated[bool, typer.Option("--refine", help="Look for larger radii around each row.")]
RefineSeconds = Annotated[float, typer.Option(metavar="S", min=0.0, help="Time for that, for each row on average.")]
Epsilon = Annotated[str | None, typer.Option(metavar="E", help="L2 distance to certify for, in the inputs' units.")]
Epsilons = Annotated[list[str], typer.Option("--epsilon", metavar="E", help="L2 distance to certify for; repeatable.")]


@dataclass(frozen=True, kw_only=True)
class Typed:
    """What is to be certified and how, as it was typed."""

    method: Method = "auto"
    seconds: Seconds = None
    arithmetic: ArithmeticName = "float32"
    task: Task = "auto"
    threshold: Threshold = None
    scale: Scale = None
    mean: Mean = None
    std: Std = None
    layout: Layout = None
    input_box: InputBox = None
    input_shape: InputShape = None
    outputs: Outputs = None
    perturbed: Perturbed = None
    fixed: Fixed = None

    def options(self) -> CertifyOptions:
        """The same as the library takes them.

        Raises: typer.BadParameter.
        """
        from pydantic import ValidationError

        from certifier.documents import CertifyOptions

        chosen: dict[str, Any] = {"threshold": self.threshold, "preprocessing": self._preprocessing()}
        for name, value in (("method", self.method), ("arithmetic", self.arithmetic), ("task", self.task)):
            known = get_args(CertifyOptions.model_fields[name].annotation)
            if value not in known:
                raise misuse(f"--{name}", f"{value!r} is not available; there is: {', '.join(known)}")
            chosen[name] = value
        if self.seconds is not None:
            chosen["seconds"] = self.seconds
        if self.outputs:
            chosen["outputs"] = self.outputs
        if self.perturbed:
            chosen["inputs"] = self.perturbed
        if self.fixed:
            chosen["fixed_inputs"] = fixed_values(self.fixed)
        if self.input_box is not None:
            ends = numbers([self.input_box], "--input-box")
            if len(ends) != 2:
                raise misuse("--input-box", f"{self.input_box!r} is not LOWER,UPPER")
            chosen["input_box"] = {"lower": ends[0], "upper": ends[1]}
        if self.input_shape is not None:
            chosen["input_shape"] = [int(number(text, "--input-shape")) for text in self.input_shape.split(",")]
        try:
            return CertifyOptions.model_validate(chosen)
        except ValidationError as error:
            raise _misused(error, "--threshold") from None

    def _preprocessing(self) -> Preprocessing | None:
        """None where nothing was declared."""
        from pydantic import ValidationError

        from certifier.documents import Preprocessing

        declared: dict[str, Any] = {}
        if self.scale is not None:
            declared["scale"] = number(self.scale, "--scale")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values:
                declared[name] = numbers(values, f"--{name}")
        if self.layout is not None:
            declared["layout"] = self.layout.upper()
        try:
            return Preprocessing.model_validate(declared) if declared else None
        except ValidationError as error:
            raise _misused(error, "--scale") from None


@dataclass(frozen=True, kw_only=True)
class Certifying(Typed):
    """The same, and what a search starts from."""

    calibration: Calibration = None
    state: State = None


@dataclass(frozen=True, kw_only=True)
class Refining:
    """Whether to look around each row, and for how long."""

    refine: Refine = False
    refine_seconds: RefineSeconds = 1.0


def _misused(error: Exception, fallback: str) -> typer.BadParameter:
    from pydantic import ValidationError

    assert isinstance(error, ValidationError)
    finding = error.errors()[0]
    field = str(finding["loc"][0]) if finding["loc"] else ""
    named = {"fixed_inputs": "--fix", "inputs": "--perturb", "": fallback}
    option = named.get(field, f"--{field.replace('_', '-')}")
    return misuse(option, str(finding["msg"]).removeprefix("Value error, "))
