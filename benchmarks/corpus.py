"""Certifies or refuses every shared model and writes `docs/corpus.md`: `python -m benchmarks.corpus`.

The models are read in place from the folder that LIPCERT_SHARED names (`../shared` by default); each is certified in
a child process with a time limit, so that none can hold up or take down the others.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import subprocess
import sys
import time
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.references import GLORO, reference_checks
from benchmarks.tables import markdown
from certifier.certification import certify
from certifier.documents import CertifyOptions
from certifier.errors import CertifierError
from certifier.limits import Limits
from certifier.packing import unpack_constants
from certifier.search.state import Seal, SearchState
from certifier.verification import verify

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "corpus.md"
SECONDS = 600.0
SEAL = Seal(b"benchmarks only, never a secret.")
INPUT_SHAPES = {"cifar_resnet20_bnfolded.scripted.pt": [1, 3, 32, 32], "motion.pt": [1, 41]}
"""What a scripted archive does not record and its user has to say."""
WITH_OPTIONS = {
    "pgd_2_3_16.onnx": {"input_box": {"lower": -3.0, "upper": 3.0}},
    "Ultraface_version-RFB-320.onnx": {"outputs": ["scores"]},
}
"""Options under which a model that has no bound by default may have one: the box holds every normalised image."""
EXPLANATIONS = {
    "14_ieee_ml4acopf.onnx": "its products and powers are of scaled sigmoids, sines and cosines, which bound each other"
}
"""Why a model has a bound although the manifest expects a refusal."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the manifest."""

    path: str
    expected: str
    why: str

    @property
    def label(self) -> str:
        """Owner and file name."""
        parts = [part for part in self.path.split("/") if part != "converted"]
        return f"{parts[0]} / {parts[-1]}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one model: its constants, or the refusal.  `outputs` and `pairs` only travel to the checks."""

    seconds: float
    upper: float | None = None
    lower: float | None = None
    mean_pair: float | None = None
    code: str | None = None
    refusal: str | None = None
    outputs: list[float] | None = None
    pairs: list[list[float]] | None = None
    verified: float | None = None
    """Seconds in which its certificate file was proved again."""

    @property
    def accepted(self) -> bool:
        return self.refusal is None


def read_manifest(folder: Path) -> list[Entry]:
    """The manifest's lines, in its order."""
    with (folder / "MANIFEST.csv").open(newline="", encoding="utf-8") as file:
        return [Entry(path=row["path"], expected=row["expect"], why=row["why"]) for row in csv.DictReader(file)]


def uploaded(path: Path) -> bytes:
    """The bytes a user would upload: a model whose weights are in a second file goes as a zip of both."""
    weights = path.with_name(f"{path.name}.data")
    if not weights.exists():
        return path.read_bytes()
    bundle = io.BytesIO()
    with zipfile.ZipFile(bundle, "w") as archive:
        archive.write(path, path.name)
        archive.write(weights, weights.name)
    return bundle.getvalue()


def examine(path: Path, options: CertifyOptions) -> Outcome:
    """Certify one file in this process."""
    started, data = time.perf_counter(), uploaded(path)
    try:
        certified = certify(
            data,
            name="corpus",
            version=1,
            options=options,
            limits=Limits(),
            state=SearchState(),
            seal=SEAL,
            progress=lambda news: None,
        )
    except CertifierError as error:
        return Outcome(seconds=time.perf_counter() - started, code=error.code, refusal=str(error))
    seconds = time.perf_counter() - started
    constants, _ = unpack_constants(certified.constants)
    bound = certified.certificate.lipschitz
    started = time.perf_counter()
    # Raises where the file does not prove what was just certified, which then counts as a crash.
    verify(certified.portable, data, keys=[], limits=Limits())
    return Outcome(
        seconds=seconds,
        verified=time.perf_counter() - started,
        upper=bound.upper,
        lower=bound.lower,
        mean_pair=None if constants.pairs is None or len(constants.pairs) < 2 else mean_of_pairs(constants.pairs),
        outputs=certified.certificate.outputs,
        pairs=certified.certificate.pairs,
    )


def mean_of_pairs(pairs: np.ndarray) -> float:
    """The mean over pairs of different classes."""
    return float(pairs[~np.eye(len(pairs), dtype=bool)].mean())


def default_options(path: Path) -> CertifyOptions:
    """No more than what the file needs to be read."""
    return CertifyOptions(input_shape=INPUT_SHAPES.get(path.name))


def examine_in_child(path: Path, options: CertifyOptions, seconds: float) -> Outcome:
    """The same in a process of its own, killed after `seconds`."""
    chosen = options.model_dump_json(exclude_unset=True)
    command = [sys.executable, "-m", "benchmarks.corpus", "--one", str(path), "--options", chosen]
    try:
        finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return Outcome(seconds=seconds, code="timeout", refusal=f"not finished after {seconds:.0f} s")
    if finished.returncode:
        last = (finished.stderr.strip().splitlines() or ["no message"])[-1]
        return Outcome(seconds=0.0, code="crashed", refusal=f"crashed: {last}")
    return Outcome(**json.loads(finished.stdout.splitlines()[-1]))


def page(
    entries: list[Entry],
    outcomes: list[Outcome],
    chosen: list[tuple[Entry, Outcome]],
    checks: list[tuple[str, bool, str]],
) -> str:
    """The text of `docs/corpus.md`."""
    both = list(zip(entries, outcomes, strict=True))
    accepted = [(entry, outcome) for entry, outcome in both if outcome.accepted]
    refused = [(entry, outcome) for entry, outcome in both if not outcome.accepted]
    bounds = [
        (
            entry.label,
            outcome.upper,
            outcome.lower,
            outcome.upper / outcome.lower if outcome.upper is not None and outcome.lower else None,
            outcome.mean_pair,
            f"{outcome.seconds:.2f}",
            f"{outcome.verified or 0:.2f}",
        )
        for entry, outcome in accepted
    ]
    refusals = [(entry.label, entry.expected, outcome.refusal, outcome.code) for entry, outcome in refused]
    sections = [
        "# The corpus",
        "<!-- Generated by `make corpus` (`python -m benchmarks.corpus`); do not edit. -->",
        "Public networks that nobody here wrote, certified with default options (a model with external data as a "
        "bundle, a scripted one with its input shape) or refused by name. L is the proved Lipschitz constant of the "
        "network up to its logits in the L2 norm; L lower is a stretch that two concrete inputs attain, less the "
        "rounding error of evaluating both, and 0 where that error is larger. The mean pair constant is the mean of "
        "the constants of f_t - f_j over all pairs of different classes, for classifiers. The last column has "
        "the seconds in which `lipcert verify` proved the certificate file again.",
        *summary(both),
        "## Certified",
        markdown(["model", "L upper", "L lower", "ratio", "mean pair", "seconds", "verified in"], bounds),
        "## Refused",
        markdown(["model", "expected", "answer", "code"], refusals),
        "## With options",
        "Models without a bound by default, with options that give them one.",
        markdown(
            ["model", "options", "L upper", "L lower", "seconds"],
            [
                (
                    entry.label,
                    "`" + json.dumps(WITH_OPTIONS[Path(entry.path).name]) + "`",
                    outcome.upper if outcome.accepted else outcome.refusal,
                    outcome.lower,
                    f"{outcome.seconds:.2f}",
                )
                for entry, outcome in chosen
            ],
        ),
        "## Against published bounds",
        markdown(["check", "holds", "figures"], [(name, "yes" if held else "NO", text) for name, held, text in checks]),
    ]
    return "\n\n".join(sections) + "\n"


def summary(both: list[tuple[Entry, Outcome]]) -> list[str]:
    """How the answers compare with what the manifest expects."""
    wanted = [(entry, outcome) for entry, outcome in both if entry.expected == "accept"]
    accepted = sum(outcome.accepted for _, outcome in wanted)
    others = [entry.label for entry, outcome in wanted if not outcome.accepted]
    wrongly = [
        entry.label + (f" ({EXPLANATIONS[name]})" if (name := Path(entry.path).name) in EXPLANATIONS else "")
        for entry, outcome in both
        if entry.expected == "refuse" and outcome.accepted
    ]
    lines = [f"Of {len(wanted)} models that are expected to have a bound, {accepted} were certified."]
    lines.append("Refused against expectation: " + (", ".join(others) or "none") + ".")
    lines.append("Certified against expectation: " + (", ".join(wrongly) or "none") + ".")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--options", type=CertifyOptions.model_validate_json, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time limit of one model")
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(asdict(examine(arguments.one, arguments.options))))
        return
    models = (ROOT / os.environ.get("LIPCERT_SHARED", "../shared")).resolve() / "models"
    entries = read_manifest(models)

    def examined(entry: Entry, options: CertifyOptions) -> Outcome:
        outcome = examine_in_child(models / entry.path, options, arguments.seconds)
        answer = f"L <= {outcome.upper:.6g}" if outcome.upper is not None else outcome.refusal
        print(f"{outcome.seconds:8.2f} s  {entry.label}: {answer}", flush=True)
        return outcome

    outcomes = [examined(entry, default_options(Path(entry.path))) for entry in entries]
    chosen = [
        (entry, examined(entry, CertifyOptions.model_validate(WITH_OPTIONS[Path(entry.path).name])))
        for entry in entries
        if Path(entry.path).name in WITH_OPTIONS
    ]
    by_path = {entry.path: (outcome.outputs, outcome.pairs) for entry, outcome in zip(entries, outcomes, strict=True)}
    # The reference multiplies norms, so the product of norms is what it is compared with.
    product = examine_in_child(models / GLORO, CertifyOptions(method="product"), arguments.seconds)
    checks = reference_checks(models, by_path | {GLORO: (product.outputs, product.pairs)})
    PAGE.write_text(page(entries, outcomes, chosen, checks), encoding="utf-8")
    if not all(held for _, held, _ in checks) or any(outcome.code == "crashed" for outcome in outcomes):
        sys.exit(1)


if __name__ == "__main__":
    main()
