"""Refined radii beside the global ones, CROWN's and attacks, on the same images: `python -m benchmarks.refinement`.

CROWN is written anew here, in plain numpy for dense rectifier networks: lines of least area followed backwards for
every neuron, bisection to a thousandth.  For all other networks it is this project's own analysis with nothing but such
lines and bisection to a fiftieth.  The published implementation, auto_LiRPA 0.3, asks for torch before 1.13 and
cannot be installed beside the current one; its figures for two networks were measured once on the same images.  Seconds
are those of the processor, so that other work on the machine counts little; start with one thread per process.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.corpus import ROOT, SEAL
from benchmarks.tables import markdown
from certifier.box import Box
from certifier.certification import certify
from certifier.choice import choose
from certifier.documents import CertifyOptions, Preprocessing
from certifier.flow import Network
from certifier.limits import Limits
from certifier.network import build_network
from certifier.operators import Kronecker
from certifier.packing import unpack_constants
from certifier.prediction import Predictor
from certifier.proof.execution import Gains
from certifier.proof.local.analysis import Local
from certifier.search.attack import attack_in_ball
from certifier.search.lines import LeastArea
from certifier.search.state import SearchState
from certifier.terms import Affine

Array = NDArray[Any]
VNNCOMP = "stanleybak/vnncomp2021/benchmarks/"
IMAGENET = Preprocessing(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network of the shared folder with its images; `lirpa` is auto_LiRPA's (median radius, seconds an image)."""

    path: str
    data: str
    images: int
    seconds: float
    """For each image."""
    preprocessing: Preprocessing | None = None
    channels_last: bool = False
    lirpa: tuple[float, float] | None = None
    crown: bool = True
    """Whether an analysis that follows every neuron ends in minutes."""
    options: dict[str, Any] = field(default_factory=dict)


CASES = (
    Case(path=VNNCOMP + "mnistfc/mnist-net_256x2.onnx", data="mnist", images=60, seconds=2.0, lirpa=(0.296, 0.04)),
    Case(path=VNNCOMP + "mnistfc/mnist-net_256x4.onnx", data="mnist", images=60, seconds=2.0, lirpa=(0.313, 0.1)),
    Case(path=VNNCOMP + "verivital/Convnet_avgpool.onnx", data="mnist", images=10, seconds=2.0),
    Case(path=VNNCOMP + "verivital/Convnet_maxpool.onnx", data="mnist", images=10, seconds=2.0),
    Case(
        path="NeuralNetworkVerification/Marabou/resources/onnx/cnn_max_mninst2.onnx",
        data="mnist", images=10, seconds=2.0,
    ),
    Case(
        path=VNNCOMP + "oval21/nets/cifar_base_kw.onnx",
        data="cifar10", images=10, seconds=2.0, preprocessing=IMAGENET,
    ),
    Case(
        path=VNNCOMP + "oval21/nets/cifar_deep_kw.onnx",
        data="cifar10", images=10, seconds=2.0, preprocessing=IMAGENET,
    ),
    Case(
        path=VNNCOMP + "marabou-cifar10/nets/cifar10_small.onnx",
        data="cifar10", images=10, seconds=2.0, channels_last=True,
    ),
    Case(
        path=VNNCOMP + "cifar10_resnet/onnx/resnet_2b.onnx",
        data="cifar10", images=10, seconds=2.0, preprocessing=IMAGENET,
    ),
    Case(
        path="converted/akamaster/pytorch_resnet_cifar10/pretrained_models/cifar_resnet20_bnfolded.onnx",
        data="cifar10", images=2, seconds=20.0, preprocessing=IMAGENET, crown=False,
    ),
)  # fmt: skip


def crown_radii(network: Network, x: Array, labels: Array) -> Array | None:
    """CROWN's radii for dense rectifier networks; None for others.  Shapes: x [B, n]."""
    layers = []
    for term in network.terms:
        if isinstance(term, Affine):
            operator = term.operators[0]
            if isinstance(operator, Kronecker) and operator.before == operator.after == 1 and len(term.sources) == 1:
                layers.append((operator.dense(), np.zeros(operator.rows) if term.offset is None else term.offset))
            elif operator.fan_in:
                return None
        elif term.operator != "Relu":
            return None
    return np.array([_bisected(layers, row, int(label)) for row, label in zip(x, labels, strict=True)])


def lines_radii(network: Network, gains: Gains, x: Array, labels: Array) -> Array:
    """CROWN's radii by this project's own analysis: lines of least area, all functionals, and no slopes or budgets."""
    everything = np.full(network.input_size, np.inf)
    local = Local(network, gains, lower=-everything, upper=everything)
    classes, rows = np.eye(network.output_size), np.arange(len(x))
    goals = np.concatenate([np.delete(classes[label] - classes, label, axis=0) for label in labels])
    owners = np.repeat(rows, len(goals) // len(rows))
    low, high = np.zeros(len(x)), np.full(len(x), np.inf)
    balls, now = local.balls(x, low), np.full(len(x), 0.05)
    while (high > 1.02 * low).any() and (high > 1e-6).any():
        guide = LeastArea(deadline=np.inf, budget=np.inf, steps=0)
        analysis = local.analyse(replace(balls, radii=now), guide, known=None)
        below = analysis.backward.below(network.output, goals, owners, own={}, seen=None, budgets=False)
        holds = (below.at(now[owners]) > 0).reshape(len(x), -1).all(axis=1)
        low, high = np.where(holds, now, low), np.where(holds, high, now)
        now = np.where(np.isinf(high), 2.0 * low, np.where(low == 0, high / 2, (low + high) / 2))
    return low


def _bisected(layers: list[tuple[Array, Array]], x: Array, label: int) -> float:
    low, high = 0.0, 0.1
    while _crown_holds(layers, x, label, high) and high < 1e3:
        low, high = high, 2.0 * high
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _crown_holds(layers, x, label, middle) else (low, middle)
    return low


def _crown_holds(layers: list[tuple[Array, Array]], x: Array, label: int, radius: float) -> bool:
    ranges: list[tuple[Array, Array]] = []
    for depth in range(len(layers) - 1):
        units = np.eye(len(layers[depth][1]))
        lower = _backwards(layers, ranges, depth, units, x, radius)
        ranges.append((lower, -_backwards(layers, ranges, depth, -units, x, radius)))
    classes = len(layers[-1][1])
    goals = np.delete(np.eye(classes)[label] - np.eye(classes), label, axis=0)
    return bool((_backwards(layers, ranges, len(layers) - 1, goals, x, radius) > 0).all())


def _backwards(
    layers: list[tuple[Array, Array]], ranges: list[tuple[Array, Array]], depth: int, a: Array, x: Array, radius: float
) -> Array:
    constant = a @ layers[depth][1]
    a = a @ layers[depth][0]
    for below in range(depth - 1, -1, -1):
        lower, upper = ranges[below]
        chord = np.clip(np.maximum(upper, 0.0) / np.maximum(upper - np.minimum(lower, 0.0), 1e-300), 0.0, 1.0)
        least = np.where(lower >= 0, 1.0, np.where(upper <= 0, 0.0, (upper > -lower) * 1.0))
        constant = constant + np.minimum(a, 0.0) @ np.where((lower < 0) & (upper > 0), -chord * lower, 0.0)
        a = np.maximum(a, 0.0) * least + np.minimum(a, 0.0) * chord
        constant = constant + a @ layers[below][1]
        a = a @ layers[below][0]
    return a @ x + constant - radius * np.linalg.norm(a, axis=1)


def attacked_distances(network: Network, x: Array, labels: Array) -> Array:
    """The smallest distance at which a descent towards the nearest class flips each row."""
    found = np.full(len(x), np.inf)
    each = np.arange(len(x))
    current = x.copy()
    for _ in range(40):
        here = network.linearised(current)
        steps, lengths = np.zeros_like(x), np.full(len(x), np.inf)
        for rival in range(network.output_size):
            goal = np.zeros_like(here.value)
            goal[each, labels] += 1.0
            goal[:, rival] -= 1.0
            slope = here.pullback(goal)
            gap, size = np.sum(goal * here.value, axis=1), np.linalg.norm(slope, axis=1)
            with np.errstate(all="ignore"):
                length = np.where((labels != rival) & (size > 0), np.abs(gap) / size, np.inf)
                step = -slope * (np.abs(gap) / np.square(size))[:, None]
            nearer = length < lengths
            steps, lengths = np.where(nearer[:, None], step, steps), np.where(nearer, length, lengths)
        moved = steps * np.minimum(1.0, 0.5 / np.maximum(np.linalg.norm(steps, axis=1), 1e-12))[:, None]
        current = current + 1.05 * moved
        flipped = network.evaluate(current).argmax(axis=1) != labels
        for row in np.flatnonzero(flipped & ~np.isfinite(found)):
            found[row] = _boundary(network, x[row], current[row], int(labels[row]))
    return found


def _boundary(network: Network, inside: Array, outside: Array, label: int) -> float:
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        point = inside + middle * (outside - inside)
        low, high = (middle, high) if network.evaluate(point[None])[0].argmax() == label else (low, middle)
    return high * float(np.linalg.norm(outside - inside))


def _flips_inside(network: Network, x: Array, labels: Array, radii: Array) -> int:
    """How many attacks within the radii succeed."""
    each = np.arange(len(x))

    def gradient(outputs: Array) -> Array:
        others = outputs.copy()
        others[each, labels] = -np.inf
        goal = np.zeros_like(outputs)
        goal[each, labels] += 1.0
        goal[each, others.argmax(axis=1)] -= 1.0
        return goal

    points = attack_in_ball(
        network, x, radii, gradient, box=Box.everything(network.input_size), iterations=10, steps=(1.0, 0.3, 0.1)
    )
    return sum(int((network.evaluate(each_try).argmax(axis=1) != labels).sum()) for each_try in points)


def measured(case: Case, *, skipped: int) -> list[object]:
    """One row of the table, without the first `skipped` images that are classified correctly."""
    folder = (ROOT / os.environ.get("LIPCERT_SHARED", "../shared")).resolve()
    data = (folder / "models" / case.path).read_bytes()
    options = CertifyOptions(arithmetic="real", seconds=10.0, preprocessing=case.preprocessing)
    certified = certify(
        data, name="model", version=1, options=options, limits=Limits(), state=SearchState(), seal=SEAL,
        progress=lambda news: None,
    )  # fmt: skip
    predictor = Predictor(
        certificate=certified.certificate, served_model=certified.served_model, constants=certified.constants
    )
    network = build_network(choose(data, options=options, limits=Limits()).graph, limits=Limits(), cut_head=True)
    with np.load(folder / "data" / f"{case.data}_test_first1000.npz") as archive:
        images, truth = archive["x"][:200] / 255.0, archive["y"][:200]
    if case.data == "cifar10" and not case.channels_last:
        images = images.transpose(0, 3, 1, 2)
    right = np.flatnonzero(network.evaluate(images.reshape(len(images), -1)).argmax(axis=1) == truth)
    right = right[skipped : skipped + case.images]
    x, labels = images[right].reshape(len(right), -1), truth[right]
    rows = x.reshape(len(x), *predictor.row_shape)
    plain = predictor.predict(rows, epsilon=None, preprocessing=None)
    predictor.predict(rows[:1], epsilon=None, preprocessing=None, refine=True, refine_seconds=0.0)
    started = time.process_time()
    refined = predictor.predict(
        rows, epsilon=None, preprocessing=None, refine=True, refine_seconds=case.seconds * len(rows)
    )
    seconds = (time.process_time() - started) / len(rows)
    radii = np.array([row.radius for row in refined], dtype=np.float64)
    started = time.process_time()
    crown = crown_radii(network, x, labels)
    if crown is None and case.crown:
        crown = lines_radii(network, unpack_constants(certified.constants)[1], x, labels)
    crown_seconds = None if crown is None else (time.process_time() - started) / len(rows)
    attacks = attacked_distances(network, x, labels)
    lirpa, lirpa_seconds = case.lirpa or (None, None)
    return [
        case.path.rsplit("/", 1)[1].removesuffix(".onnx"),
        len(rows),
        float(np.median([row.radius or 0.0 for row in plain])),
        float(np.median(radii)),
        seconds,
        None if crown is None else float(np.median(crown)),
        crown_seconds,
        lirpa,
        lirpa_seconds,
        float(np.median(attacks)),
        _flips_inside(network, x, labels, radii),
        sum(row.radius_method == "local" for row in refined),
    ]


HEADER = (
    "model", "images", "global", "refined", "s", "CROWN", "s", "auto_LiRPA", "s", "attack", "flips inside", "local",
)  # fmt: skip


def main() -> None:
    """Measure every case and print the table of medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", action="append", help="words in the names of models to measure; all without it")
    parser.add_argument("--skip", type=int, default=0, help="correctly classified images to leave out at the start")
    arguments = parser.parse_args()
    chosen = [case for case in CASES if not arguments.model or any(word in case.path for word in arguments.model)]
    rows = []
    for case in chosen:
        rows.append(measured(case, skipped=arguments.skip))
        print(markdown(HEADER, rows[-1:]).splitlines()[-1], flush=True)
    print(markdown(HEADER, rows))


if __name__ == "__main__":
    main()
