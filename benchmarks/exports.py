"""Time and peak memory of certifying published architectures in every format: `python -m benchmarks.exports`.

The models have random weights and the published shapes; PyTorch exports each as traced TorchScript, as an exported
program and by both ONNX exporters.  Every file is certified in a child process of its own, one at a time.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.tables import markdown
from certifier.certification import certify
from certifier.documents import CertifyOptions, InputBox
from certifier.limits import Limits
from certifier.search.state import Seal, SearchState
from tests.architectures.catalogue import NARROW, PUBLISHED, Architecture
from tests.architectures.exporting import FORMATS, exported

SEAL_KEY = b"benchmarks only, never a secret."


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What certifying one file took.  Units: bytes, seconds of processor and wall clock."""

    peak_bytes: int
    processor: float
    seconds: float
    upper: float


def certify_file(path: Path, architecture: Architecture) -> Cost:
    """Certify one file in this process; the peak is that of the whole life of the process."""
    box = None if architecture.box is None else InputBox(lower=architecture.box[0], upper=architecture.box[1])
    started, used = time.perf_counter(), time.process_time()
    certified = certify(
        path.read_bytes(),
        name="benchmark",
        version=1,
        options=CertifyOptions(input_box=box, method="product"),
        limits=Limits(),
        state=SearchState(),
        seal=Seal(SEAL_KEY),
        progress=lambda news: None,
    )
    return Cost(
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        processor=time.process_time() - used,
        seconds=time.perf_counter() - started,
        upper=certified.certificate.lipschitz.upper,
    )


def export_file(architecture: Architecture, format: str, path: Path) -> None:
    """Write the model in one format."""
    path.write_bytes(exported(architecture.model(), architecture.shape, format))


def in_child(catalogue: str, name: str, format: str, step: str, path: Path) -> str:
    """Run one step in a fresh process, so that the peak of certifying does not hold what exporting took."""
    command = [sys.executable, "-m", "benchmarks.exports", "--catalogue", catalogue, "--model", name]
    command += ["--format", format, "--child", step, str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def measure(catalogue: str, name: str, format: str) -> tuple[Cost, int]:
    """The cost of one model in one format, and the size of its file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        in_child(catalogue, name, format, "export", path)
        cost = Cost(**json.loads(in_child(catalogue, name, format, "certify", path).splitlines()[-1]))
        return cost, path.stat().st_size


def main() -> None:
    catalogues = {"published": PUBLISHED, "narrow": NARROW}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalogue", choices=catalogues, default="published")
    parser.add_argument("--model", action="append", help="only this one; may be given several times")
    parser.add_argument("--format", action="append", help="only this one; may be given several times")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    models = arguments.model or list(catalogues[arguments.catalogue])
    formats = arguments.format or list(FORMATS)
    if arguments.child is not None:
        step, path = arguments.child
        architecture = catalogues[arguments.catalogue][models[0]]
        if step == "export":
            export_file(architecture, formats[0], Path(path))
        else:
            print(json.dumps(vars(certify_file(Path(path), architecture))))
        return
    print(markdown(["model", "format", "file MB", "peak GiB", "processor s", "wall s", "L upper"], []), flush=True)
    spread = 0.0
    for name in models:
        uppers = []
        for format in formats:
            cost, size = measure(arguments.catalogue, name, format)
            uppers.append(cost.upper)
            peak = cost.peak_bytes / 2**30
            row = (name, format, round(size / 1e6, 1), peak, cost.processor, cost.seconds, cost.upper)
            print(markdown([], [row]).splitlines()[-1], flush=True)
        spread = max(spread, max(uppers) / min(uppers) - 1.0)
    print(f"\nLargest relative difference between the formats of one model: {spread:.1e}")


if __name__ == "__main__":
    main()
