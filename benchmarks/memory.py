"""Peak memory of certifying a 25-million-parameter CNN at 224x224: `python -m benchmarks.memory`.

The model is a ResNet-50 with random weights at He's initialisation.  It is certified in a child process of its own,
whose largest resident size is what the operating system counted; the file is written by the parent.
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

from benchmarks.networks import resnet50
from benchmarks.tables import markdown
from certifier.certification import certify
from certifier.documents import CertifyOptions
from certifier.limits import Limits
from certifier.search.state import Seal, SearchState

TARGET_BYTES = 4 * 2**30
SEAL_KEY = b"benchmarks only, never a secret."


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What certifying one file took.  Units: bytes, seconds since the file was opened."""

    peak_bytes: int
    seconds: float
    upper: float
    lower: float
    stages: dict[str, float]


def certify_file(path: Path) -> Cost:
    """Certify one file in this process; the peak is that of the whole life of the process."""
    reached: list[tuple[str, float]] = []
    started = time.perf_counter()
    certified = certify(
        path.read_bytes(),
        name="benchmark",
        version=1,
        options=CertifyOptions(method="product"),
        limits=Limits(),
        state=SearchState(),
        seal=Seal(SEAL_KEY),
        progress=lambda news: reached.append((news.stage, time.perf_counter() - started)),
    )
    seconds = time.perf_counter() - started
    bound = certified.certificate.lipschitz
    return Cost(
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        seconds=seconds,
        upper=bound.upper,
        lower=bound.lower,
        stages=_durations(reached, seconds),
    )


def _durations(reached: list[tuple[str, float]], end: float) -> dict[str, float]:
    """Seconds from each stage's report to the next one's."""
    starts = [at for _, at in reached]
    durations: dict[str, float] = {}
    for (stage, start), stop in zip(reached, [*starts[1:], end], strict=True):
        durations[stage] = durations.get(stage, 0.0) + stop - start
    return durations


def certify_in_child(path: Path) -> Cost:
    """The same in a fresh process, so that the peak is that of certifying alone."""
    command = [sys.executable, "-m", "benchmarks.memory", "--child", str(path)]
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    return Cost(**json.loads(finished.stdout.splitlines()[-1]))


def measure(model: bytes) -> Cost:
    """Write the model to a temporary file and certify it in a child."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model)
        return certify_in_child(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--stages", action="store_true", help="list the stages that took longest")
    arguments = parser.parse_args()
    if arguments.child is not None:
        print(json.dumps(vars(certify_file(arguments.child))))
        return
    rows = []
    for normalised in (False, True):
        label = "batch normalisation kept" if normalised else "batch normalisation folded"
        model = resnet50(size=224, width_divisor=1, classes=1000, normalised=normalised, seed=0)
        cost = measure(model)
        gibibytes = cost.peak_bytes / 2**30
        rows.append((f"ResNet-50, {label}", len(model) // 4, f"{gibibytes:.2f} GiB", cost.seconds, cost.upper))
        if arguments.stages:
            for stage, seconds in sorted(cost.stages.items(), key=lambda item: -item[1])[:15]:
                print(f"{seconds:8.1f} s  {stage}")
    print(markdown(["model", "parameters, about", "peak", "seconds", "L upper"], rows))
    print(f"\ntarget: peak below {TARGET_BYTES / 2**30:.0f} GiB")


if __name__ == "__main__":
    main()
