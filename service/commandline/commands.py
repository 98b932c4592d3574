"""The commands: each parses, certifies the model, asks it, and prints JSON or a table.

The library is imported inside the commands, so that help and misuse answer at once.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from certifier.limits import Limits
from service.commandline import options as typed
from service.commandline import values
from service.commandline.failures import REFUSED, ending_well, misuse
from service.commandline.groups import with_groups
from service.commandline.output import complain, counting, print_json, standard_output

app = typer.Typer(
    name="lipcert",
    help="Proved Lipschitz bounds and certified predictions for ONNX networks. "
    "Exit codes: 0 done, 1 refused, 2 misuse, 3 not finished.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"lipcert {version('lipcert')}")
        raise typer.Exit


@app.callback()
def lipcert(
    shows_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """What comes before every command."""


@app.command()
@with_groups
def certify(
    *,
    model: typed.Model,
    asked: typed.Certifying,
    certificate_file: typed.CertificateFile = None,
    json: typed.Json = False,
) -> None:
    """Prove a bound of the model's Lipschitz constant and print the certificate."""
    with ending_well(as_json=json):
        from service.commandline.files import write_file
        from service.commandline.modelling import certify_file
        from service.commandline.tables import show_certificate

        certified = certify_file(model, asked)
        if certificate_file is not None:
            write_file("--certificate", certificate_file, certified.portable)
        if json:
            print_json(certified.certificate.model_dump_json())
        else:
            show_certificate(standard_output(), certified.certificate)


@app.command()
def verify(
    certificate: typed.Certificate,
    model: typed.Model,
    public_key: typed.PublicKey = None,
    seconds: typed.ProofSeconds = Limits.seconds,
    inputs: typed.AuditedInputs = None,
    inputs_key: typed.InputsKey = None,
    json: typed.Json = False,
) -> None:
    """Prove a certificate file again for the model, without any search, and print what it rests on.

    With inputs, print label, margin and certified radius of every row too, from what the file states and no engine.
    """
    with ending_well(as_json=json):
        from service.commandline.arrays import read_inputs
        from service.commandline.auditing import audit_file, verify_file
        from service.commandline.tables import show_verification

        if inputs is None:
            if inputs_key is not None:
                raise misuse("--inputs-key", "names an array of --inputs, which is not given")
            found = verify_file(certificate, model, public_key=public_key, seconds=seconds)
        else:
            given = read_inputs(inputs, key=inputs_key, field="inputs")
            found = audit_file(certificate, model, given, public_key=public_key, seconds=seconds)
        if json:
            print_json(found.model_dump_json())
        else:
            show_verification(standard_output(), found)


@app.command()
@with_groups
def check(
    *,
    model: typed.Model,
    asked: typed.Typed,
    json: typed.Json = False,
) -> None:
    """Print what certifying the model would refuse, where, why and what helps, without certifying it."""
    with ending_well(as_json=json):
        from service.commandline.modelling import check_file
        from service.commandline.tables import show_check

        report = check_file(model, asked)
        if json:
            print_json(report.model_dump_json())
        else:
            show_check(standard_output(), report)
        if report.refusals:
            count = len(report.refusals)
            complain(f"the model would be refused, for {count} reason{'s' if count > 1 else ''}")
            raise typer.Exit(REFUSED)


@app.command()
@with_groups
def predict(
    *,
    model: typed.Model,
    inputs: typed.Inputs,
    inputs_key: typed.InputsKey = None,
    epsilon: typed.Epsilon = None,
    refining: typed.Refining,
    asked: typed.Certifying,
    json: typed.Json = False,
) -> None:
    """Print label, margin and certified radius of every input row."""
    with ending_well(as_json=json):
        from certifier.documents import Predictions
        from certifier.evaluation import predictions
        from service.commandline.arrays import read_inputs
        from service.commandline.modelling import certify_file, predictor_of
        from service.commandline.tables import show_predictions

        distance = None if epsilon is None else values.distance(epsilon)
        given = read_inputs(inputs, key=inputs_key, field="inputs")
        predictor = predictor_of(certify_file(model, asked))
        rows = given.rows(predictor.certificate.model.inputs)
        with counting("predicting", len(rows)) as progress:
            predicted = list(
                predictions(
                    predictor,
                    rows,
                    epsilon=distance,
                    progress=progress,
                    refine=refining.refine,
                    refine_seconds=refining.refine_seconds,
                )
            )
        certificate = predictor.certificate
        answer = Predictions(
            model=certificate.model.name,
            version=certificate.model.version,
            task=certificate.task,
            arithmetic=certificate.arithmetic,
            epsilon=distance,
            rows=predicted,
        )
        if json:
            print_json(answer.model_dump_json())
        else:
            show_predictions(standard_output(), answer)


@app.command()
@with_groups
def evaluate(
    *,
    model: typed.Model,
    inputs: typed.Inputs,
    inputs_key: typed.InputsKey = None,
    labels: typed.Labels = None,
    labels_key: typed.LabelsKey = None,
    epsilon: typed.Epsilons = [],  # noqa: B006  # typer copies it
    refining: typed.Refining,
    asked: typed.Certifying,
    json: typed.Json = False,
) -> None:
    """Print clean accuracy, certified accuracy for every epsilon, and how the radii are distributed."""
    with ending_well(as_json=json):
        from certifier.evaluation import evaluate as evaluate_rows
        from service.commandline.arrays import as_labels, read_array, read_inputs
        from service.commandline.modelling import certify_file, predictor_of
        from service.commandline.tables import show_evaluation

        distances = values.epsilons(epsilon)
        given = read_inputs(inputs, key=inputs_key, field="inputs")
        truth = None if labels is None else as_labels(read_array(labels, key=labels_key, field="labels"))
        predictor = predictor_of(certify_file(model, asked))
        rows = given.rows(predictor.certificate.model.inputs)
        with counting("evaluating", len(rows)) as progress:
            answer = evaluate_rows(
                predictor,
                rows,
                labels=truth,
                epsilons=distances,
                progress=progress,
                refine=refining.refine,
                refine_seconds=refining.refine_seconds,
            )
        if json:
            print_json(answer.model_dump_json())
        else:
            show_evaluation(standard_output(), answer, predictor.certificate.options.preprocessing)


@app.command()
@with_groups
def compare(
    *,
    model: typed.Model,
    x: typed.First,
    y: typed.Second,
    x_key: typed.InputsKey = None,
    y_key: typed.InputsKey = None,
    asked: typed.Certifying,
    json: typed.Json = False,
) -> None:
    """Print how far paired inputs are apart, how far their outputs are, and how far those could be."""
    with ending_well(as_json=json):
        from certifier.documents import Comparisons
        from service.commandline.arrays import read_inputs
        from service.commandline.modelling import certify_file, predictor_of
        from service.commandline.tables import show_comparisons

        given = read_inputs(x, key=x_key, field="x"), read_inputs(y, key=y_key, field="y")
        predictor = predictor_of(certify_file(model, asked))
        first, second = (each.rows(predictor.certificate.model.inputs) for each in given)
        answer = Comparisons(
            model=predictor.certificate.model.name,
            version=predictor.certificate.model.version,
            arithmetic=predictor.arithmetic,
            rows=predictor.compare(first, second),
        )
        if json:
            print_json(answer.model_dump_json())
        else:
            show_comparisons(standard_output(), answer)


@app.command()
def operators(json: typed.Json = False) -> None:
    """Print the operators that have a rule, and those that are refused by name."""
    with ending_well(as_json=json):
        from certifier.rules.registry import support
        from service.commandline.tables import show_operators
        from service.schemas import Operators

        table = support()
        if json:
            print_json(Operators(operators=table).model_dump_json())
        else:
            show_operators(standard_output(), table)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(metavar="PORT", help="Port to listen on; 0 takes a free one.")] = None,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of everything that is kept.")] = None,
) -> None:
    """Start the HTTP server; what is not given comes from the environment (LIPCERT_…)."""
    with ending_well(as_json=False):
        from pydantic import ValidationError

        from service.server import run
        from service.settings import Settings

        given: dict[str, Any] = {"host": host, "port": port, "data_dir": data}
        try:
            settings = Settings(**{name: value for name, value in given.items() if value is not None})
        except ValidationError as error:
            finding = error.errors()[0]
            setting = str(finding["loc"][0]) if finding["loc"] else "settings"
            option = {"host": "--host", "port": "--port", "data_dir": "--data"}.get(
                setting, f"LIPCERT_{setting.upper()}"
            )
            raise misuse(option, finding["msg"]) from None
        try:
            run(settings)
        except SystemExit as ended:
            if ended.code:
                complain("the server did not start; its log says why")
                raise typer.Exit(REFUSED) from None
