"""Answers for people: tables on standard output.

The file has more lines than most because every kind of answer has its table here, each in a few lines.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

from rich.console import Console, RenderableType
from rich.table import Table

from certifier.documents import (
    Arithmetic,
    Certificate,
    CertifyOptions,
    Comparisons,
    ModelCheck,
    OperatorSupport,
    Predictions,
    Preprocessing,
    RowPrediction,
    Task,
)
from certifier.evaluation import Evaluation
from certifier.verification import Verification
from service.commandline.output import single_line

SHOWN_ROWS = 20
"""Rows of a long table; `--json` prints all."""
SHOWN_LAYERS = 60
SHOWN_OUTPUTS = 4
SHOWN_LETTERS = 200
"""Of an option; `--json` prints all."""
LARGEST_SHOWN = 1e308
"""Radii beyond are those of classes that no input can change."""


def show_certificate(console: Console, certificate: Certificate) -> None:
    """The model, its bound, and the evidence layer by layer."""
    model, bound = certificate.model, certificate.lipschitz
    facts = [
        ("model", f"{model.name} ({model.format})"),
        ("sha256", model.sha256),
        *((f"input {one.name}", f"{one.dtype} {_shape(one.shape)}") for one in model.inputs),
        *((f"fixed {one.name}", f"{one.dtype} {_shape(one.shape)} sha256 {one.sha256}") for one in model.fixed_inputs),
        *((f"output {one.name}", f"{one.dtype} {_shape(one.shape)}") for one in model.outputs),
        ("task", _task(certificate)),
        (f"{bound.norm} Lipschitz constant", f"at most {_at_most(bound.upper, 9)} ({bound.method}), proved"),
        ("", f"at least {_at_least(bound.lower, 9)}, attained"),
        ("self-test", "passed" if certificate.self_test.passed else "failed"),
        *(("", f"{check.name}: {check.detail}") for check in certificate.self_test.checks),
        ("arithmetic", certificate.arithmetic.statement),
        *(("note", note) for note in certificate.notes),
        ("seconds", f"{certificate.seconds:.2f}"),
    ]
    _show_facts(console, facts)
    _show_methods(console, certificate)
    table = _table("layer", "what", "proof", "estimate from below*", "proved upper bound*", "iterations*", "search")
    for layer in certificate.layers[:SHOWN_LAYERS]:
        estimate = "" if layer.estimate is None else _at_least(layer.estimate, 9)
        _row(
            table,
            layer.name,
            layer.kind,
            layer.proof,
            estimate,
            _at_most(layer.upper, 9),
            layer.iterations,
            layer.search,
        )
    console.print(table)
    _say_more(console, len(certificate.layers), SHOWN_LAYERS, "layers")


def _show_methods(console: Console, certificate: Certificate) -> None:
    """One line per method, where more than one was tried."""
    if len(certificate.methods) < 2:
        return
    table = _table("method", "proved constant*", "mean over pairs*", "smallest for pairs*", "seconds*", "because")
    for report in certificate.methods:
        upper, mean = (_blank(value and _at_most(value, 6)) for value in (report.upper, report.mean_pair))
        _row(table, report.method, upper, mean, _blank(report.pairs), f"{report.seconds:.2f}", report.reason or "")
    console.print(table)


def show_verification(console: Console, found: Verification) -> None:
    """What was proved again, and what that rests on."""
    facts = [
        ("verdict", "the certificate holds for this model"),
        ("sha256", found.model_sha256),
        ("task", _task(found)),
        *((f"input {one.name}", f"{one.dtype} {_shape(one.shape)}") for one in found.inputs),
        *((f"fixed {one.name}", f"{one.dtype} {_shape(one.shape)} sha256 {one.sha256}") for one in found.fixed_inputs),
        *_declared(found.options),
        ("L2 Lipschitz constant", f"at most {_at_most(found.lipschitz_upper, 9)}, proved again"),
        ("methods", ", ".join(found.methods)),
        ("proved", f"{found.norms} norms, {found.multipliers} multipliers, {found.terms} terms of the network"),
        ("rounding", f"{found.drifts} numbers derived again" if found.drifts else "not in the file"),
        ("signature", "not looked at" if found.signed_by is None else f"of the key {found.signed_by}"),
        ("arithmetic", found.arithmetic.statement),
        *(("assumes", each) for each in found.assumptions),
        *(("note", note) for note in found.notes),
        *(("does not say", each) for each in found.unchecked),
        ("certified with", _versions(found.certified_with)),
        ("verified with", _versions(found.verified_with)),
    ]
    _show_facts(console, facts)
    if found.rows is not None:
        _show_rows(console, found.rows, task=found.task, epsilon=None)


def _declared(options: CertifyOptions) -> list[tuple[str, str]]:
    """The options that change what the constants are constants of, where they are given."""
    facts = options.model_dump_json(
        include={"outputs", "input_box", "preprocessing", "threshold", "input_shape"}, exclude_none=True
    )
    return [(name.replace("_", " "), _shortened(json.dumps(value))) for name, value in json.loads(facts).items()]


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_LETTERS else f"{text[:SHOWN_LETTERS]} … (--json prints all)"


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def show_check(console: Console, report: ModelCheck) -> None:
    """What would be refused, and the operators that the model is made of."""
    verdict = "nothing is refused beforehand; the self-test and the limits have the last word"
    if report.refusals:
        verdict = f"would be refused, for {len(report.refusals)} reason{'s' if len(report.refusals) > 1 else ''}"
    facts = [
        ("format", report.format or "unknown"),
        *((f"input {one.name}", f"{one.dtype} {_shape(one.shape)}") for one in report.inputs),
        *((f"fixed {one.name}", f"{one.dtype} {_shape(one.shape)}") for one in report.fixed_inputs),
        *((f"output {name}", "") for name in report.outputs),
        *(("note", note) for note in report.notes),
        ("verdict", verdict),
    ]
    for each in report.refusals:
        facts.append(("refused", each.message))
        if each.remedy:
            facts.append(("what helps", each.remedy))
    _show_facts(console, facts)
    if not report.operators:
        return
    table = _table("operator", "nodes*", "refused*", "supported")
    for one in report.operators:
        name = one.operator if one.domain == "ai.onnx" else f"{one.domain}.{one.operator}"
        _row(table, name, one.count, one.refused or "", "yes" if one.supported else "no")
    console.print(table)


def show_predictions(console: Console, predictions: Predictions) -> None:
    """One line per input row."""
    _show_rows(console, predictions.rows, task=predictions.task, epsilon=predictions.epsilon)
    _say_arithmetic(console, predictions.arithmetic)


def _show_rows(console: Console, rows: Sequence[RowPrediction], *, task: Task, epsilon: float | None) -> None:
    if task == "regression":
        return _show_outputs(console, rows, epsilon)
    certified = () if epsilon is None else (f"certified at {epsilon:g}",)
    table = _table("row*", "label*", "runner-up*", "margin*", "radius*", *certified, "because")
    for position, row in enumerate(rows[:SHOWN_ROWS]):
        verdict = () if epsilon is None else ("yes" if row.certified else "no",)
        margin, radius = _figure(row.margin), _at_least(row.radius)
        _row(
            table, position, row.label, _blank(row.runner_up), margin, radius, *verdict, row.because or _refinement(row)
        )
    console.print(table)
    _say_more(console, len(rows), SHOWN_ROWS, "rows")


def _show_outputs(console: Console, rows: Sequence[RowPrediction], epsilon: float | None) -> None:
    """A regressor's outputs, and where they stay within epsilon."""
    within = () if epsilon is None else (f"stays in, within {epsilon:g}",)
    table = _table("row*", "output*", "value*", *within)
    for position, row in enumerate(rows[:SHOWN_ROWS]):
        for output, value in enumerate(row.logits[:SHOWN_OUTPUTS]):
            interval = () if row.output_bounds is None else (row.output_bounds.intervals[output],)
            bounds = (f"[{_at_least(one.lower)}, {_at_most(one.upper)}]" for one in interval)
            _row(table, position if output == 0 else "", output, _figure(value), *bounds)
    console.print(table)
    _say_more(console, len(rows), SHOWN_ROWS, "rows")
    if rows:
        _say_more(console, len(rows[0].logits), SHOWN_OUTPUTS, "outputs of each row")


def _refinement(row: RowPrediction) -> str:
    """What came of looking around the input, if that was asked for."""
    return "proved around this input" if row.radius_method == "local" else row.unrefined or ""


def show_evaluation(console: Console, evaluation: Evaluation, preprocessing: Preprocessing | None) -> None:
    """Accuracies, shares by epsilon, and the radii."""
    facts = [("rows", str(evaluation.rows))]
    if evaluation.clean_accuracy is not None:
        facts.append(("clean accuracy", _percent(evaluation.clean_accuracy)))
    bound = evaluation.lipschitz
    facts.append((f"{bound.norm} Lipschitz constant", f"{_at_least(bound.lower)} to {_at_most(bound.upper)}"))
    _show_facts(console, facts)
    if evaluation.certified:
        labelled = evaluation.clean_accuracy is not None
        table = _table("ε*", "certified*", *(("certified and correct*",) if labelled else ()))
        for key, share in evaluation.certified.items():
            correct = evaluation.certified_correct[key]
            _row(table, key, _percent(share), *(() if correct is None else (_percent(correct),)))
        console.print(table)
    radius = evaluation.radius
    names = {"0": "smallest", "0.5": "median", "1": "largest"}
    quantiles = [(names.get(key, f"{float(key) * 100:g} %"), value) for key, value in radius.quantiles.items()]
    table = _table("radius:", "mean*", *(f"{name}*" for name, _ in quantiles))
    _row(table, "", _at_least(radius.mean), *(_at_least(value) for _, value in quantiles))
    console.print(table)
    if preprocessing is not None and (preprocessing.scale != 1.0 or preprocessing.std):
        console.print("ε and radii are distances between inputs as given, before --scale and --std.", soft_wrap=True)
    _say_arithmetic(console, evaluation.arithmetic)


def show_comparisons(console: Console, comparisons: Comparisons) -> None:
    """One line per pair of inputs."""
    table = _table("row*", "inputs apart*", "outputs apart*", "bound*", "largest output difference*", "its bound*")
    for position, row in enumerate(comparisons.rows[:SHOWN_ROWS]):
        largest = max(row.outputs, key=lambda output: output.difference)
        apart, reach = _at_most(row.input_difference), _at_most(row.output_difference_bound)
        differences = _figure(row.output_difference), _figure(largest.difference)
        _row(table, position, apart, differences[0], reach, differences[1], _at_most(largest.bound))
    console.print(table)
    _say_more(console, len(comparisons.rows), SHOWN_ROWS, "rows")
    _say_arithmetic(console, comparisons.arithmetic)


def show_operators(console: Console, operators: Sequence[OperatorSupport]) -> None:
    """The support table."""
    table = _table("operator", "versions", "rule", "summary")
    for one in operators:
        name = one.operator if one.domain in ("", "ai.onnx") else f"{one.domain}.{one.operator}"
        _row(table, name, one.versions, "yes" if one.supported else "refused", one.summary)
    console.print(table)


def _table(*headings: str) -> Table:
    """An empty table; headings that end in an asterisk are of numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in headings:
        justify = "right" if heading.endswith("*") else "left"
        table.add_column(heading.removesuffix("*"), justify=justify, overflow="fold")
    return table


def _row(table: Table, *cells: object) -> None:
    table.add_row(*(single_line(str(cell)) for cell in cells))


def _show_facts(console: Console, facts: Sequence[tuple[str, str]]) -> None:
    grid: RenderableType = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", overflow="fold", max_width=32)
    grid.add_column(overflow="fold")
    for name, value in facts:
        grid.add_row(single_line(name), single_line(value))
    console.print(grid)
    console.print()


def _say_more(console: Console, count: int, shown: int, what: str) -> None:
    if count > shown:
        console.print(f"… the first {shown} of {count} {what}; --json prints all")


def _say_arithmetic(console: Console, arithmetic: Arithmetic) -> None:
    console.print(f"Arithmetic: {arithmetic.statement}", soft_wrap=not console.is_terminal)


def _task(certificate: Certificate | Verification) -> str:
    if certificate.task == "classification":
        return f"classification, {certificate.classes} classes"
    return f"{certificate.task}, {certificate.classes} output{'s' if certificate.classes > 1 else ''}"


def _shape(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("N" if extent is None else str(extent) for extent in shape) + "]"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _at_most(value: float, digits: int = 6) -> str:
    """A proved upper bound in few digits, rounded up: what is shown is still a bound."""
    return _rounded(value, digits, ROUND_CEILING)


def _at_least(value: float | None, digits: int = 6) -> str:
    """A lower bound or a radius in few digits, rounded down."""
    return "" if value is None else _rounded(value, digits, ROUND_FLOOR)


def _rounded(value: float, digits: int, rounding: str) -> str:
    if value > LARGEST_SHOWN:
        return f">{LARGEST_SHOWN:g}"
    return f"{Context(prec=digits, rounding=rounding).create_decimal(value).normalize():g}"


def _blank(value: object | None) -> str:
    return "" if value is None else str(value)


def _percent(share: float) -> str:
    """Rounded down, so that no share looks larger than it is; the factor is exact in decimals."""
    scaled = Decimal(repr(share)) * 100
    return f"{scaled.quantize(Decimal('0.01'), rounding=ROUND_FLOOR)} %"
