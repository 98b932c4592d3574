"""Radii of the certifiably trained MNIST network: `python -m benchmarks.radii [--seconds S]`.

The share of the 10 000 test images whose radius exceeds 0.3, and the mean radius, by the product of norms, by the whole
ladder, and by the ladder with those images as calibration, in real arithmetic and in that of the engine.  The radii are
those that `predict` gives; no label takes part.
"""

from __future__ import annotations

import argparse
import io
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.corpus import ROOT, SEAL
from benchmarks.references import GLORO
from benchmarks.tables import markdown
from certifier.certification import certify
from certifier.documents import CertifyOptions
from certifier.limits import Limits
from certifier.prediction import Predictor
from certifier.search.state import SearchState

EPSILON = 0.3
TARGET = (0.9590, 1.0885)
"""(certified share at EPSILON, mean radius) that the project set itself."""
BATCH = 1000


def radii(predictor: Predictor, images: NDArray[Any]) -> NDArray[np.float64]:
    """The certified radius of every image."""
    rows = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
    predictions = (row for batch in rows for row in predictor.predict(batch, epsilon=None, preprocessing=None))
    return np.array([row.radius for row in predictions])


def main() -> None:
    """Certify the network in each way and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120.0, help="time for the search")
    seconds = parser.parse_args().seconds
    shared = (ROOT / os.environ.get("LIPCERT_SHARED", "../shared")).resolve()
    model = (shared / "models" / Path(GLORO)).read_bytes()
    with np.load(shared / "data" / "mnist_test10000_x_u8.npz", allow_pickle=False) as archive:
        images = archive["x"].reshape(-1, 784).astype(np.float32) / np.float32(255)
    calibration = io.BytesIO()
    np.save(calibration, images)
    ways: list[tuple[str, str, CertifyOptions, bytes | None]] = [
        (name, arithmetic, options.model_copy(update={"arithmetic": arithmetic}), inputs)
        for arithmetic in ("real", "float32")
        for name, options, inputs in (
            ("product", CertifyOptions(method="product"), None),
            ("auto", CertifyOptions(seconds=seconds), None),
            ("auto, calibrated", CertifyOptions(seconds=seconds), calibration.getvalue()),
        )
    ]
    rows: list[list[object]] = []
    for name, arithmetic, options, inputs in ways:
        begun = time.process_time()
        certified = certify(
            model, name="gloro", version=1, options=options, limits=Limits(), state=SearchState(), seal=SEAL,
            progress=lambda news: None, calibration=inputs,
        )  # fmt: skip
        spent = time.process_time() - begun
        predictor = Predictor(
            certificate=certified.certificate, served_model=certified.served_model, constants=certified.constants
        )
        pairs = np.array(certified.certificate.pairs)
        mean_pair = float(pairs[np.triu_indices(len(pairs), 1)].mean())
        found = radii(predictor, images)
        rows.append([name, arithmetic, float((found > EPSILON).mean()), float(found.mean()), mean_pair, spent])
    rows.append(["target", "real", *TARGET, None, None])
    print(
        markdown(
            ["method", "arithmetic", f"certified at {EPSILON}", "mean radius", "mean pair constant", "processor s"],
            rows,
        )
    )


if __name__ == "__main__":
    main()
