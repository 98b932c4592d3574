"""What certifying again costs: `python -m benchmarks.warm`.

Unchanged bytes are answered from the store of a real server process; an unchanged model under other bytes reuses
every sealed bound; a model whose weights moved starts every search from the vectors of the version before.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.networks import convolutional_network, dense_network, moved, random_move
from benchmarks.tables import markdown
from certifier.certification import CertifiedModel, certify
from certifier.documents import CertifyOptions
from certifier.limits import Limits
from certifier.search.state import Seal, SearchState

ROOT = Path(__file__).resolve().parents[1]
SEAL = Seal(b"benchmarks only, never a secret.")
STORED_TARGET = 0.02
ITERATIONS_TARGET = 0.25
MOVES: dict[str, int | None] = {"random direction": None, "rank 4": 4}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One certification: seconds, the sum of the layers' search iterations, and what the searches started from."""

    seconds: float
    iterations: int
    searches: dict[str, int]
    upper: float
    state: SearchState


@dataclass(frozen=True, kw_only=True)
class StoredAnswer:
    """Seconds of `POST /certify` for new bytes and for the same bytes again; the least of several."""

    cold_seconds: float
    again_seconds: float


def models() -> dict[str, bytes]:
    """The models that are measured, by name."""
    return {
        "MLP 784-1024-1024-10": dense_network(784, 1024, 1024, 10, seed=1),
        "CNN of 6 layers, 32x32": convolutional_network(
            channels=(3, 32, 32, 64, 64, 128, 128), size=32, classes=10, seed=2
        ),
        "examples/digits.onnx": (ROOT / "examples" / "digits.onnx").read_bytes(),
    }


def certify_once(model: bytes, state: SearchState) -> Run:
    """Certify with the library, starting from `state`."""
    started = time.perf_counter()
    certified: CertifiedModel = certify(
        model,
        name="benchmark",
        version=1,
        options=CertifyOptions(method="product"),
        limits=Limits(),
        state=state,
        seal=SEAL,
        progress=lambda news: None,
    )
    seconds = time.perf_counter() - started
    layers = certified.certificate.layers
    searches: dict[str, int] = {}
    for layer in layers:
        searches[layer.search] = searches.get(layer.search, 0) + 1
    return Run(
        seconds=seconds,
        iterations=sum(layer.iterations for layer in layers),
        searches=searches,
        upper=certified.certificate.lipschitz.upper,
        state=certified.state,
    )


def stored_answer(model: bytes, client: httpx.Client, *, rounds: int) -> StoredAnswer:
    """Ask a running server to certify `model` under a new name, then again."""
    cold, again = [], []
    for number in range(rounds):
        name = f"benchmark-{len(model)}-{number}"
        for seconds in (cold, *[again] * 3):
            started = time.perf_counter()
            answer = client.post(
                "/certify",
                params={"name": name, "options": '{"method": "product"}'},
                content=model,
                headers={"content-type": "application/octet-stream"},
            )
            seconds.append(time.perf_counter() - started)
            answer.raise_for_status()
    return StoredAnswer(cold_seconds=min(cold), again_seconds=min(again))


@contextmanager
def server() -> Iterator[httpx.Client]:
    """A client of a server process with a data folder of its own."""
    with server_process() as (client, _):
        yield client


@contextmanager
def server_process() -> Iterator[tuple[httpx.Client, int]]:
    """The same with the number of the process."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LIPCERT_")}
        environment |= {"LIPCERT_DATA_DIR": folder, "LIPCERT_PORT": str(port), "LIPCERT_DRAIN_SECONDS": "0"}
        with (Path(folder) / "server.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "service"], cwd=ROOT, env=environment, stdout=log, stderr=log
            )
            try:
                with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client:
                    _wait_until_ready(client, process)
                    yield client, process.pid
            finally:
                process.terminate()
                process.wait(timeout=60)


def _wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if client.get("/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise RuntimeError("the server did not start")


def measure_stored(rounds: int) -> str:
    rows = []
    with server() as client:
        for name, model in models().items():
            answer = stored_answer(model, client, rounds=rounds)
            share = answer.again_seconds / answer.cold_seconds
            rows.append((name, answer.cold_seconds, answer.again_seconds, f"{100 * share:.2f} %"))
    return markdown(["model", "cold s", "same bytes again s", "share"], rows)


def measure_library() -> str:
    rows = []
    for name, model in models().items():
        cold = certify_once(model, SearchState())
        again = certify_once(model, cold.state)
        versions = {"unchanged, sealed bounds": again}
        for move, rank in MOVES.items():
            changed = moved(model, random_move(share=0.01, rank=rank, seed=3))
            versions[f"moved 1 %, {move}"] = certify_once(changed, cold.state)
        rows.append((name, "cold", cold.seconds, cold.iterations, None, _words(cold.searches), cold.upper))
        for version, run in versions.items():
            share = f"{run.iterations / cold.iterations:.3f}" if cold.iterations else None
            rows.append((name, version, run.seconds, run.iterations, share, _words(run.searches), run.upper))
    return markdown(["model", "version", "seconds", "iterations", "of cold", "layers", "L upper"], rows)


def _words(searches: dict[str, int]) -> str:
    return ", ".join(f"{count} {search}" for search, count in sorted(searches.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="cold certifications per model on the server")
    parser.add_argument("--library", action="store_true", help="leave the server out")
    arguments = parser.parse_args()
    if not arguments.library:
        print(measure_stored(arguments.rounds))
        print(f"\ntarget: below {100 * STORED_TARGET:.0f} % of the cold time\n")
    print(measure_library())
    print(f"\ntarget: moved models take at most {ITERATIONS_TARGET} of the cold iterations")


if __name__ == "__main__":
    main()
