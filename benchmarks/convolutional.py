"""How much convolutional networks gain over the product of norms: `python -m benchmarks.convolutional [--seconds S]`.

Every accepted model of the shared folder with a convolution, or with `--large` ResNet-50 with random weights at He's
initialisation: the mean pair constant (L where there are no pairs) by the product of norms and of the certificate,
their quotient, seconds of search and of all, processor seconds, and the peak of memory.  Each model is certified in a
child process, and its certificate file is proved again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.corpus import ROOT, SEAL, default_options, read_manifest, uploaded
from benchmarks.networks import resnet50
from benchmarks.tables import markdown
from certifier.certification import certify
from certifier.choice import choose
from certifier.errors import CertifierError
from certifier.frequencies.plans import convolutions
from certifier.limits import Limits
from certifier.network import build_network
from certifier.search.state import SearchState
from certifier.verification import verify

DEEP = 4
"""Convolutions from which on a network counts in the geometric mean."""
TARGET = 0.1
LIMITS = Limits(seconds=3600.0)


def measured(path: Path, seconds: float) -> dict[str, object]:
    """One certificate as plain data, or why there is none."""
    data, options = uploaded(path), default_options(path).model_copy(update={"seconds": seconds})
    try:
        graph = choose(data, options=options, limits=LIMITS).graph
        count = len(list(convolutions(build_network(graph, limits=LIMITS, cut_head=True))))
        if count == 0:
            return {"convolutions": 0}
        started, processor = time.perf_counter(), time.process_time()
        certified = certify(
            data,
            name="model",
            version=1,
            options=options,
            limits=LIMITS,
            state=SearchState(),
            seal=SEAL,
            progress=lambda report: None,
        )
    except CertifierError as error:
        return {"refused": str(error)}
    spent, processor = time.perf_counter() - started, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    started = time.perf_counter()
    verify(certified.portable, data, keys=[], limits=LIMITS)
    product, *others = certified.certificate.methods
    return {
        "convolutions": count,
        "product": product.mean_pair or product.upper,
        "proved": mean_pair(certified.certificate.pairs) or certified.certificate.lipschitz.upper,
        "method": certified.certificate.lipschitz.method,
        "search": sum(report.seconds for report in others),
        "seconds": spent,
        "processor": processor,
        "verified": time.perf_counter() - started,
        "peak": peak,
        "notes": certified.certificate.notes,
    }


def mean_pair(pairs: list[list[float]] | None) -> float | None:
    if pairs is None or len(pairs) < 2:
        return None
    upper = [pairs[t][j] for t in range(len(pairs)) for j in range(t)]
    return sum(upper) / len(upper)


def _in_a_child(path: Path, seconds: float) -> dict[str, object]:
    command = [sys.executable, "-m", "benchmarks.convolutional", "--one", str(path), "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=7200, check=False)
    if done.returncode:
        return {"refused": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def _row(name: str, found: dict[str, object], quotient: float) -> list[object]:
    peak = found["peak"]
    assert isinstance(peak, int)
    figures = [found[each] for each in ("convolutions", "product", "proved")]
    times = [found[each] for each in ("search", "seconds", "processor", "verified")]
    return [name, *figures, quotient, found["method"], *times, f"{peak / 2**30:.2f}"]


def _large(folder: Path) -> list[Path]:
    """Files of networks that are made here."""
    paths = []
    for name, normalised in (("ResNet-50 224x224", False), ("ResNet-50 224x224, normalised", True)):
        path = folder / f"{name}.onnx"
        path.write_bytes(resnet50(size=224, width_divisor=1, classes=1000, normalised=normalised, seed=0))
        paths.append(path)
    return paths


def main() -> None:
    """Certify and print the table, with the geometric mean of the quotients of deep networks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="time for the search of each model")
    parser.add_argument("--model", action="append", help="file names to measure; all without it")
    parser.add_argument("--large", action="store_true", help="the networks that are made here instead")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(measured(arguments.one, arguments.seconds)))
        return
    models = (ROOT / os.environ.get("LIPCERT_SHARED", "../shared")).resolve() / "models"
    rows: list[list[object]] = []
    deep: list[float] = []
    with tempfile.TemporaryDirectory() as made:
        paths = [models / entry.path for entry in read_manifest(models) if entry.expected == "accept"]
        for path in _large(Path(made)) if arguments.large else paths:
            if arguments.model and path.name not in arguments.model:
                continue
            found = _in_a_child(path, arguments.seconds)
            if "refused" in found:
                print(f"{path.name}: {found['refused']}", file=sys.stderr)
            elif found["convolutions"]:
                product, proved, count = found["product"], found["proved"], found["convolutions"]
                assert isinstance(product, float) and isinstance(proved, float) and isinstance(count, int)
                rows.append(_row(path.name, found, proved / product))
                print(f"{path.name}: {proved / product:.4g}; {found['notes']}", file=sys.stderr)
                if count >= DEEP:
                    deep.append(proved / product)
    header = [
        "model",
        "convolutions",
        "product",
        "proved",
        "quotient",
        "method",
        "search s",
        "all s",
        "processor s",
        "verified s",
        "GiB",
    ]
    print(markdown(header, rows))
    if deep:
        mean = math.exp(sum(map(math.log, deep)) / len(deep))
        print(f"\ngeometric mean of {len(deep)} networks of {DEEP} or more convolutions: {mean:.4g}; target {TARGET}")


if __name__ == "__main__":
    main()
