"""Attacks on the rounding of many hostile networks and of one network with biases of many sizes.

`python -m tests.certifier.attack_campaign --networks 100000` makes at least so many tries inside of float32 radii,
`--biases 10000` attacks so many images at every size of bias.  Both print what flipped; the exit code is 1 if anything
did inside of a radius that was certified for the execution.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from certifier.documents import AskedArithmetic, CertifyOptions
from certifier.errors import InvalidInput, SelfTestFailed
from tests.building import certify_bytes, predictor_of
from tests.certifier.rounding_attacks import Target, flips, hostile_case, steps_along_the_gradient
from tests.conftest import shared_folder

HOSTILE = "models/tobycmurray/python-certifier/gloro_mnist_8x128_bias1e6end.onnx"
IMAGES = "data/mnist_test10000_x_u8.npz"
SIZES = (0.0, 1e3, 1e4, 3e4, 1e6)
REAL_EVERY = 10
"""Of so many networks one is attacked inside of its real radii as well, to see that the attacks bite."""


def images(shared: Path, count: int) -> np.ndarray:
    """The first `count` images, as the numbers that single precision divides them to."""
    with np.load(shared / IMAGES) as arrays:
        rows = arrays[arrays.files[0]][:count]
    return (rows.astype(np.float32) / np.float32(255)).astype(np.float64).reshape(count, -1)


def hardest_images(shared: Path, data: bytes, count: int) -> np.ndarray:
    """Those of all images whose margins over the reals are smallest."""
    rows = images(shared, 10_000)
    first, second = np.sort(Target.of(data).network.evaluate(rows), axis=1).T[[-1, -2]]
    return rows[np.argsort(first - second)[:count]]


def answers(data: bytes, rows: np.ndarray, arithmetic: AskedArithmetic) -> tuple[np.ndarray, np.ndarray]:
    """Labels and radii as they are served."""
    predictor = predictor_of(certify_bytes(data, options=CertifyOptions(method="product", arithmetic=arithmetic)))
    served = predictor.predict(rows.reshape(-1, *predictor.row_shape), epsilon=None, preprocessing=None)
    return np.array([each.label for each in served]), np.array([each.radius for each in served])


def with_biases(data: bytes, size: float) -> bytes:
    """Nearly the same function over the reals: b_7 is `size` everywhere, and b_8 takes off what W_8 makes of it."""
    model = onnx.load_model_from_string(data)
    arrays = {each.name: numpy_helper.to_array(each).astype(np.float64) for each in model.graph.initializer}
    last = arrays["b8"] + arrays["W8"] @ arrays["b7"] - arrays["W8"] @ np.full(arrays["b7"].shape, size)
    changed = {"b7": np.full(arrays["b7"].shape, size), "b8": last}
    for each in model.graph.initializer:
        if each.name in changed:
            each.CopyFrom(numpy_helper.from_array(changed[each.name].astype(np.float32), each.name))
    return model.SerializeToString()


@dataclass
class Tally:
    """How many tries were made, and how many flipped an answer."""

    networks: int = 0
    tries: int = 0
    flipped: int = 0
    real_tries: int = 0
    real_flipped: int = 0


def attacked_networks(*, tries: int, first: int, real_every: int = REAL_EVERY) -> Tally:
    """Hostile networks by their seeds from `first` on, until there were `tries` inside of float32 radii."""
    tally = Tally()
    while tally.tries < tries:
        seed = first + tally.networks
        tally.networks += 1
        model, rows = hostile_case(np.random.default_rng(seed))
        data = model.data()
        target = Target.of(data)
        try:
            labels, radii = answers(data, rows, "float32")
        except (InvalidInput, SelfTestFailed):
            # Nothing is certified where no probe's rounding is bounded, as where every mean prevails, or where the
            # engine's answers are no numbers.
            continue
        made, flipped = flips(target, rows, labels, radii, seed=seed)
        tally.tries, tally.flipped = tally.tries + made, tally.flipped + flipped
        if seed % real_every == 0:
            labels, radii = answers(data, rows, "real")
            made, flipped = flips(target, rows, labels, radii, seed=seed)
            tally.real_tries, tally.real_flipped = tally.real_tries + made, tally.real_flipped + flipped
    return tally


@dataclass(frozen=True, kw_only=True)
class Biased:
    """Attacks on one network: the share of images with a float32 radius, tries and flips inside of both radii."""

    positive: float
    tries: int
    flipped: int
    real_tries: int
    real_flipped: int


def attacked_biases(data: bytes, rows: np.ndarray, *, hardest: int) -> Biased:
    """Steps along the gradient from every row, and every attack from the `hardest`, of the smallest radii."""
    target = Target.of(data)
    found = {}
    for arithmetic in ("float32", "real"):
        labels, radii = answers(data, rows, arithmetic)
        order = np.argsort(np.where(radii > 0, radii, np.inf))[:hardest]
        steps = steps_along_the_gradient(target, rows, labels, radii)
        more = flips(target, rows[order], labels[order], radii[order], seed=0)
        found[arithmetic] = (steps[0] + more[0], steps[1] + more[1], float((radii > 0).mean()))
    return Biased(
        positive=found["float32"][2],
        tries=found["float32"][0],
        flipped=found["float32"][1],
        real_tries=found["real"][0],
        real_flipped=found["real"][1],
    )


def main() -> int:
    """0 if nothing flipped inside of a float32 radius."""
    parser = argparse.ArgumentParser(prog="attack_campaign", description=__doc__)
    parser.add_argument("--networks", type=int, metavar="TRIES", help="inside of float32 radii of hostile networks")
    parser.add_argument("--biases", type=int, metavar="IMAGES", help="attacked at every size of bias")
    parser.add_argument("--first", type=int, default=10_000, help="the seed of the first network")
    chosen = parser.parse_args()
    flipped = 0
    if chosen.networks:
        tally = attacked_networks(tries=chosen.networks, first=chosen.first)
        print(f"{tally.networks} networks: {tally.tries} tries inside of float32 radii flipped {tally.flipped}")
        print(f"every {REAL_EVERY}th: {tally.real_tries} tries inside of real radii flipped {tally.real_flipped}")
        flipped += tally.flipped
    if chosen.biases:
        data = (shared_folder() / HOSTILE).read_bytes()
        rows = images(shared_folder(), chosen.biases)
        print("| bias | float32 radius > 0 | tries | flips | tries inside of real radii | flips |")
        print("|---|---|---|---|---|---|")
        for size in SIZES:
            row = attacked_biases(with_biases(data, size), rows, hardest=500)
            inside = f"{row.tries} | {row.flipped} | {row.real_tries} | {row.real_flipped}"
            print(f"| {size:g} | {row.positive:.2%} | {inside} |", flush=True)
            flipped += row.flipped
    return 1 if flipped else 0


if __name__ == "__main__":
    sys.exit(main())
