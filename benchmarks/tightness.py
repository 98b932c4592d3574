"""Every method of the ladder side by side on the shared models: `python -m benchmarks.tightness [--seconds S]`.

Per network: the product of norms, the loop transformation, multipliers, frequencies, and the certificate that results,
as the constant L of the whole output, the mean constant over pairs of outputs, and seconds; beside them the lower bound
that the certificate carries and, with the extra `benchmarks` installed and for chains of dense layers, ECLipsE and
ECLipsE-Fast.  Each model is certified in a child process, so that none can hold up the others.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.corpus import ROOT, SEAL, read_manifest, uploaded
from benchmarks.peers import chain_of, eclipse, form_of_model, has_peers
from benchmarks.tables import markdown
from certifier.certification import certify
from certifier.documents import CertifyOptions
from certifier.errors import CertifierError
from certifier.limits import Limits
from certifier.search.state import SearchState

METHODS = ("product", "loop_transform", "multipliers", "frequency")
TARGETS = {
    "mnist-net_256x2.onnx": (313.0, 397.0),
    "mnist-net_256x4.onnx": (None, 1.78e4),
    "ACASXU_run2a_1_1_batch_2000.onnx": (None, 2.35e4),
    "resnet_2b.onnx": (None, 54.0),
}
"""(L, mean pair constant) that the project set itself; None for no target."""


def _measured(path: Path, seconds: float) -> dict[str, object]:
    """One certificate as plain data, or why there is none."""
    try:
        certified = certify(
            uploaded(path),
            name="model",
            version=1,
            options=CertifyOptions(seconds=seconds),
            limits=Limits(),
            state=SearchState(),
            seal=SEAL,
            progress=lambda news: None,
        )
    except CertifierError as error:
        return {"refused": str(error)}
    certificate, pairs = certified.certificate, None
    form = form_of_model(uploaded(path)) if has_peers() else None
    chain = None if form is None else chain_of(form)
    peers = {} if chain is None else {"ECLipsE-Fast": eclipse(chain, fast=True), "ECLipsE": eclipse(chain, fast=False)}
    if certificate.pairs is not None and certificate.classes > 1:
        upper = [certificate.pairs[t][j] for t in range(certificate.classes) for j in range(t)]
        pairs = sum(upper) / len(upper)
    return {
        "upper": certificate.lipschitz.upper,
        "lower": certificate.lipschitz.lower,
        "mean_pair": pairs,
        "seconds": certificate.seconds,
        "peers": {name: peer.__dict__ for name, peer in peers.items() if peer is not None},
        "methods": [report.model_dump() for report in certificate.methods],
    }


def _in_a_child(path: Path, seconds: float) -> dict[str, object]:
    command = [sys.executable, "-m", "benchmarks.tightness", "--one", str(path), "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=3600)
    return json.loads(done.stdout) if done.returncode == 0 else {"refused": done.stderr.strip().splitlines()[-1]}


def _rows(name: str, measured: dict[str, object]) -> list[list[object]]:
    rows: list[list[object]] = []
    reports = measured["methods"]
    assert isinstance(reports, list)
    for report in reports:
        if report["upper"] is not None:
            rows.append([name, report["method"], report["upper"], report["mean_pair"], report["seconds"], None])
    peers = measured["peers"]
    assert isinstance(peers, dict)
    for peer, figures in peers.items():
        rows.append([name, f"{peer} (unproved)", figures["whole"], figures["mean_pair"], figures["seconds"], None])
    rows.append(
        [name, "**certificate**", measured["upper"], measured["mean_pair"], measured["seconds"], measured["lower"]]
    )
    return rows


def main() -> None:
    """Certify every accepted model of the shared folder and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="time for the search of each model")
    parser.add_argument("--model", action="append", help="file names to measure; all without it")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(_measured(arguments.one, arguments.seconds)))
        return
    folder = (ROOT / os.environ.get("LIPCERT_SHARED", "../shared")).resolve() / "models"
    rows: list[list[object]] = []
    for entry in read_manifest(folder):
        name = Path(entry.path).name
        if entry.expected != "accept" or (arguments.model and name not in arguments.model) or name.endswith(".pt"):
            continue
        measured = _in_a_child(folder / entry.path, arguments.seconds)
        if "refused" in measured:
            print(f"{name}: {measured['refused']}", file=sys.stderr)
            continue
        rows += _rows(name, measured)
        whole, pair = TARGETS.get(name, (None, None))
        if whole is not None or pair is not None:
            rows.append([name, "target", whole, pair, None, None])
    print(markdown(["model", "method", "L", "mean pair constant", "seconds", "attained"], rows))


if __name__ == "__main__":
    main()
