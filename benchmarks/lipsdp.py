"""Random networks of width 10 against the conic optimum of LipSDP: `python -m benchmarks.lipsdp [--seconds S]`.

For 4, 8, 16, 32 and 64 layers: the product of norms, ECLipsE-Fast, LipSDP solved as a conic program (CVXPY with
Clarabel, as long as that ends within its time), and the multipliers that this project finds and proves.  With the
shared models, also the digits network whose LipSDP value was published.  Needs the extra `benchmarks`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.corpus import ROOT
from benchmarks.peers import Chain, Peer, conic, eclipse, form_of_model, norms
from benchmarks.tables import markdown
from certifier.bounds.joint import JointForm, Slopes, Step
from certifier.bounds.multipliers import check_family
from certifier.limits import Budget
from certifier.proof.multipliers import LinearMap
from certifier.tightening.multipliers import Searching

DEPTHS = (4, 8, 16, 32, 64)
WIDTH = 10
CONIC_SECONDS = 900.0
DIGITS = Path("converted/ppauli/GLipSDP/Comparison/exports/glipsdp_digits_fnn2_seed0.onnx")
LOGIT, PUBLISHED = 7, 5.109714768971892
"""Which output the published value is of, and the value."""


def random_chain(depth: int, seed: int) -> Chain:
    """`depth` hidden ReLU layers of width 10."""
    generator = np.random.default_rng([depth, seed])
    weights = [generator.standard_normal((WIDTH, WIDTH)) * np.sqrt(2 / WIDTH) for _ in range(depth + 1)]
    return Chain(weights=tuple(weights), slopes=((0.0, 1.0),) * depth)


def form_of(chain: Chain) -> JointForm:
    """The chain as the dense method sees a network."""
    steps, width = [], chain.weights[0].shape[1]
    for position, (weight, (lower, upper)) in enumerate(zip(chain.weights, chain.slopes, strict=False)):
        size = len(weight)
        law = Slopes(lower=np.full(size, lower), upper=np.full(size, upper))
        read, kept = LinearMap(matrix=weight, distance=0.0), np.arange(width, width + size)
        steps.append(Step(name=str(position), output=str(position), size=size, law=law, read=read, kept=kept))
        width = size
    return JointForm(
        input_size=chain.weights[0].shape[1],
        steps=tuple(steps),
        readout=LinearMap(matrix=chain.weights[-1], distance=0.0),
    )


def proved(form: JointForm, seconds: float) -> Peer:
    """The smallest constant of the whole output that is found and proved within the time."""
    started = time.perf_counter()
    weights = np.ones((len(form.readout.matrix),) * 2)
    searching = Searching(form, weights=weights, classes=False, kept={}, progress=lambda name: None)
    found = [
        check_family(form, searching.witness(), family).upper
        for family in searching.families(Budget.of(seconds), cost=lambda: 0.0, is_worthwhile=lambda: False)
    ]
    return Peer(whole=min(found), mean_pair=None, seconds=time.perf_counter() - started)


def digits(path: Path, seconds: float) -> list[list[object]]:
    """The rows of the published digits network, for the one output that its value is of."""
    form = form_of_model(path.read_bytes())
    assert form is not None
    row = np.ascontiguousarray(form.readout.matrix[LOGIT : LOGIT + 1])
    form = replace(form, readout=LinearMap(matrix=row, distance=form.readout.distance))
    ours = proved(form, seconds)
    assert ours.whole is not None
    name = f"digits fnn2, logit {LOGIT}"
    return [
        [name, "LipSDP, published", PUBLISHED, "0.00 %", None],
        [name, "proved here", ours.whole, f"{100 * (ours.whole / PUBLISHED - 1):.2f} %", f"{ours.seconds:.1f}"],
    ]


def conic_in_a_child(depth: int, seed: int) -> Peer:
    """The conic optimum, or none if the solver does not end in time."""
    command = [sys.executable, "-m", "benchmarks.lipsdp", "--conic", str(depth), "--seed", str(seed)]
    started = time.perf_counter()
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=CONIC_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Peer(whole=None, mean_pair=None, seconds=CONIC_SECONDS)
    if done.returncode:
        return Peer(whole=None, mean_pair=None, seconds=time.perf_counter() - started)
    return Peer(**json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="time for each search")
    parser.add_argument("--depths", type=int, nargs="+", default=list(DEPTHS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--conic", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.conic is not None:
        print(json.dumps(conic(random_chain(arguments.conic, arguments.seed)).__dict__))
        return
    rows: list[list[object]] = []
    for depth in arguments.depths:
        chain = random_chain(depth, arguments.seed)
        best, ours = conic_in_a_child(depth, arguments.seed), proved(form_of(chain), arguments.seconds)
        fast = eclipse(chain, fast=True)
        figures = {"product of norms": norms(chain), "ECLipsE-Fast": fast, "LipSDP, conic": best, "proved here": ours}
        for name, peer in figures.items():
            if peer is None or peer.whole is None:
                rows.append([f"{depth} layers", name, "none", None, None if peer is None else f"{peer.seconds:.1f}"])
                continue
            above = f"{100 * (peer.whole / best.whole - 1):.2f} %" if best.whole else None
            rows.append([f"{depth} layers", name, peer.whole, above, f"{peer.seconds:.1f}"])
    models = (ROOT / os.environ.get("LIPCERT_SHARED", "../shared")).resolve() / "models"
    if (models / DIGITS).exists():
        rows += digits(models / DIGITS, arguments.seconds)
    print(markdown(["network", "method", "L", "above the optimum", "seconds"], rows))


if __name__ == "__main__":
    main()
