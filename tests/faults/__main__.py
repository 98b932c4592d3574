"""Seeds faults into a copy of the library, one at a time, and shows that the tests catch each of them.

    python -m tests.faults            all of them
    python -m tests.faults pads seal  those whose names contain one of the words

A fault is caught if the tests it is mapped to pass without it and fail with it.  Exit code 1 if one is missed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.faults import (
    in_arithmetic,
    in_balls,
    in_bounds,
    in_certificates,
    in_drifts,
    in_executions,
    in_frequencies,
    in_multipliers,
    in_overflow,
    in_ranges,
    in_rounding,
    in_service,
)
from tests.faults.fault import Fault

ROOT = Path(__file__).resolve().parent.parent.parent
FAULTS = (
    *in_arithmetic.FAULTS,
    *in_balls.FAULTS,
    *in_bounds.FAULTS,
    *in_certificates.FAULTS,
    *in_drifts.FAULTS,
    *in_executions.FAULTS,
    *in_frequencies.FAULTS,
    *in_multipliers.FAULTS,
    *in_overflow.FAULTS,
    *in_ranges.FAULTS,
    *in_rounding.FAULTS,
    *in_service.FAULTS,
)
JOBS = 2


def main(words: Sequence[str]) -> int:
    """Seed every chosen fault; returns the exit code."""
    chosen = [fault for fault in FAULTS if not words or any(word in fault.name for word in words)]
    stale = [fault for fault in chosen if (ROOT / fault.file).read_text().count(fault.old) < 1]
    for fault in stale:
        print(f"STALE   {fault.name}: its text is no longer in {fault.file}")
    files = sorted({test for fault in chosen for test in fault.tests})
    with tempfile.TemporaryDirectory(prefix="lipcert-faults-") as folder:
        # Copied once, so that editing the tree meanwhile changes no result.
        sound = _copy(ROOT, Path(folder) / "sound")
        status, output = _tests_in(sound, files)
        if status != 0:
            print(output[-3000:])
            print("the tests fail without any fault, so they cannot show that they catch one")
            return 1
        with ThreadPoolExecutor(JOBS) as pool:
            seeded = [fault for fault in chosen if fault not in stale]
            places = [Path(folder) / str(number) for number in range(len(seeded))]
            results = list(pool.map(lambda fault, place: _seed(fault, sound, place), seeded, places))
    missed = results.count(False)
    print(f"{len(results) - missed} of {len(results)} faults caught, {missed} missed, {len(stale)} stale")
    return 1 if missed or stale else 0


def _seed(fault: Fault, sound: Path, place: Path) -> bool:
    """Whether the tests notice the fault."""
    copy = _copy(sound, place)
    source = copy / fault.file
    source.write_text(source.read_text().replace(fault.old, fault.new, 1))
    status, output = _tests_in(copy, fault.tests)
    caught = status == 1 and "error" not in output.splitlines()[-1]
    print(f"{'caught ' if caught else 'MISSED '} {fault.name}", flush=True)
    if not caught:
        print("        " + "\n        ".join(output.splitlines()[-4:]), flush=True)
    shutil.rmtree(copy)
    return caught


def _copy(origin: Path, place: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__")
    for part in ("certifier", "service", "tests"):
        shutil.copytree(origin / part, place / part, ignore=ignored)
    shutil.copy(origin / "pyproject.toml", place)
    return place


def _tests_in(place: Path, files: Sequence[str]) -> tuple[int, str]:
    """Exit status and output of the tests run on the copy in `place`."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(place),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "LIPCERT_SHARED": os.environ.get("LIPCERT_SHARED", str(ROOT.parent / "shared")),
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.strip() or done.stderr.strip() or "no output"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
