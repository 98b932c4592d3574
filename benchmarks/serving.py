"""What certifying for the served arithmetic costs `/predict`: `python -m benchmarks.serving [--pairs N]`.

The certifiably trained MNIST network, certified once for the exact network and once for its execution in float32, on
one server.  The same request goes to one and then to the other, in turns and in changing order.  Times are processor
seconds of the server, with all of its threads, since waiting says more of a busy machine than of the code; the overhead
is the median difference of neighbouring requests, beside it its standard error.  `Predictor.predict` alone is measured
in this process.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray

from benchmarks.corpus import ROOT, SEAL
from benchmarks.references import GLORO
from benchmarks.tables import markdown
from benchmarks.warm import server_process
from certifier.certification import certify
from certifier.documents import CertifyOptions
from certifier.limits import Limits
from certifier.prediction import Predictor
from certifier.search.state import SearchState

TARGET = 0.01
"""Of the throughput of `/predict`."""
BATCHES = (1, 16, 128)
KINDS = ("real", "float32")


def paired(
    calls: Mapping[str, Callable[[], object]], clock: Callable[[], float], pairs: int
) -> tuple[list[float], str]:
    """(median seconds of each, what the second takes more, in per cent of the first, with its standard error)."""
    kinds, times = list(calls), {kind: np.zeros(pairs) for kind in calls}
    for call in calls.values():
        call()
    for turn in range(pairs):
        for kind in kinds if turn % 2 else reversed(kinds):
            started = clock()
            calls[kind]()
            times[kind][turn] = clock() - started
    seconds = [float(np.median(taken)) for taken in times.values()]
    more = times[kinds[1]] - times[kinds[0]]
    middle = float(np.median(more))
    # Of a median; the spread is taken from the middle half, since other processes make the tails.
    error = 1.2533 * float(np.subtract(*np.quantile(more, [0.75, 0.25]))) / 1.349 / math.sqrt(pairs)
    return seconds, f"{100 * middle / seconds[0]:+.2f} ± {100 * error / seconds[0]:.2f} %"


def processor_seconds(process: int) -> float:
    """What all threads of another process have computed so far (Linux)."""
    tasks = Path(f"/proc/{process}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def over_http(
    client: httpx.Client, process: int, model: bytes, images: NDArray[np.float32], pairs: int
) -> list[list[object]]:
    """`/predict` of a running server, from the request's bytes to the answer's."""
    for kind in KINDS:
        client.post(
            "/certify",
            params={"name": kind, "options": json.dumps({"method": "product", "arithmetic": kind})},
            content=model,
            headers={"content-type": "application/octet-stream"},
        ).raise_for_status()
    rows = []
    for count in BATCHES:
        body = {"inputs": images[:count].tolist(), "epsilon": 0.3}
        bodies = {kind: json.dumps({"model": kind, **body}).encode() for kind in KINDS}

        def post(kind: str, bodies: Mapping[str, bytes] = bodies) -> None:
            headers = {"content-type": "application/json"}
            client.post("/predict", content=bodies[kind], headers=headers).raise_for_status()

        calls = {kind: partial(post, kind) for kind in KINDS}
        seconds, overhead = paired(calls, partial(processor_seconds, process), pairs)
        rows.append(["POST /predict", count, *seconds, overhead])
    return rows


def in_process(model: bytes, images: NDArray[np.float32], pairs: int) -> list[list[object]]:
    """`Predictor.predict` alone."""
    predictors: dict[str, Predictor] = {}
    for kind in KINDS:
        options = CertifyOptions.model_validate({"method": "product", "arithmetic": kind})
        certified = certify(
            model, name=kind, version=1, options=options, limits=Limits(), state=SearchState(), seal=SEAL,
            progress=lambda news: None,
        )  # fmt: skip
        predictors[kind] = Predictor(
            certificate=certified.certificate, served_model=certified.served_model, constants=certified.constants
        )
    rows = []
    for count in BATCHES:
        calls = {
            kind: partial(predictor.predict, images[:count], epsilon=0.3, preprocessing=None)
            for kind, predictor in predictors.items()
        }
        seconds, overhead = paired(calls, time.thread_time, pairs)
        rows.append(["predict alone", count, *seconds, overhead])
    return rows


def main() -> None:
    """Measure both and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=300, help="requests to each model and batch")
    pairs = parser.parse_args().pairs
    shared = (ROOT / os.environ.get("LIPCERT_SHARED", "../shared")).resolve()
    model = (shared / "models" / Path(GLORO)).read_bytes()
    with np.load(shared / "data" / "mnist_test10000_x_u8.npz", allow_pickle=False) as archive:
        images = archive["x"].reshape(-1, 784).astype(np.float32) / np.float32(255)
    with server_process() as (client, process):
        rows = over_http(client, process, model, images, pairs)
    rows += in_process(model, images, pairs)
    print(markdown(["what", "rows", "real s", "float32 s", "overhead"], rows))
    print(f"\ntarget: below {100 * TARGET:.0f} % of POST /predict")


if __name__ == "__main__":
    main()
