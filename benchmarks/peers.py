"""Peers of the dense method: ECLipsE and ECLipsE-Fast (`eclipse-nn`), and LipSDP as a conic program (CVXPY, Clarabel).

They take chains of dense layers.  None of them proves what it returns: their numbers are compared with, never served.

Reference: Fazlyab et al. 2019 (LipSDP-Neuron); Xu & Sivaranjani 2024 (ECLipsE).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certifier.bounds.joint import JointForm, Slopes, joint_form, obstacle
from certifier.choice import choose
from certifier.documents import CertifyOptions
from certifier.limits import Limits
from certifier.network import build_network

Floats = NDArray[np.float64]
SLOWEST_ECLIPSE = 64
"""Width of layers up to which ECLipsE, which solves a semidefinite program for each, is run."""


@dataclass(frozen=True, kw_only=True)
class Chain:
    """x -> W_l φ(… φ(W_1 x)), all slopes of one layer in one interval."""

    weights: tuple[Floats, ...]
    slopes: tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Peer:
    """What a peer returns for the whole output and, on average, for pairs of outputs; None where it returns none."""

    whole: float | None
    mean_pair: float | None
    seconds: float


def chain_of(form: JointForm) -> Chain | None:
    """The chain that a joint form is, or None if it is more than that."""
    weights, slopes, width = [], [], form.input_size
    for step in form.steps:
        last = np.arange(width, width + step.size)
        if not isinstance(step.law, Slopes) or step.kept.shape != last.shape or not (step.kept == last).all():
            return None
        lower, upper = step.law.lower, step.law.upper
        if np.ptp(lower) > 0 or np.ptp(upper) > 0:
            return None
        weights.append(step.read.matrix)
        slopes.append((float(lower[0]), float(upper[0])))
        width = step.size
    return Chain(weights=(*weights, form.readout.matrix), slopes=tuple(slopes))


def form_of_model(data: bytes) -> JointForm | None:
    """The joint form of a model, or None for one that has none."""
    graph = choose(data, options=CertifyOptions(), limits=Limits()).graph
    network = build_network(graph, limits=Limits(), cut_head=True)
    if obstacle(network) is not None:
        return None
    # Only products of live values ask for constants, and a chain has none.
    return joint_form(network, lambda value: 1.0)


def has_peers() -> bool:
    """Whether the packages of the extra `benchmarks` are installed."""
    return find_spec("eclipse_nn") is not None


def norms(chain: Chain) -> Peer:
    """The product of the layers' norms, as a check of the others."""
    started = time.perf_counter()

    def of(last: Floats) -> float:
        product = float(np.linalg.norm(last, 2))
        for weight, (lower, upper) in zip(chain.weights, chain.slopes, strict=False):
            product *= float(np.linalg.norm(weight, 2)) * max(abs(lower), abs(upper))
        return product

    return _peer(chain, of, started)


def eclipse(chain: Chain, *, fast: bool) -> Peer | None:
    """ECLipsE, or its closed form; None where it does not take the chain."""
    if any(lower * upper < 0 for lower, upper in chain.slopes):
        return None
    if not fast and max(len(weight) for weight in chain.weights[:-1]) > SLOWEST_ECLIPSE:
        return None
    import torch

    # Imported by name: only the extra `benchmarks` has them.
    ECLipsE = import_module("eclipse_nn.eclipsE").ECLipsE
    ECLipsE_Fast = import_module("eclipse_nn.eclipsE_fast").ECLipsE_Fast

    lowers, uppers = ([slope[end] for slope in chain.slopes] for end in (0, 1))

    def of(last: Floats) -> float:
        tensors = [torch.tensor(each, dtype=torch.float64) for each in (*chain.weights[:-1], last)]
        if fast:
            return float(ECLipsE_Fast(tensors, lowers, uppers))
        found, code = ECLipsE(tensors, lowers, uppers)
        return float(found) if code == 0 else float("nan")

    started = time.perf_counter()
    if fast:
        return _peer(chain, of, started)
    # Its layers look ahead by one, so that every pair would be a run of its own.
    whole = of(chain.weights[-1])
    return Peer(whole=whole, mean_pair=None, seconds=time.perf_counter() - started)


def conic(chain: Chain) -> Peer:
    """The optimum of LipSDP-Neuron for the whole output, by an interior-point method."""
    cvxpy: Any = import_module("cvxpy")
    started = time.perf_counter()
    widths = [chain.weights[0].shape[1], *(len(weight) for weight in chain.weights[:-1])]
    starts = np.cumsum([0, *widths])
    order = int(starts[-1])

    def placed(part: int) -> Floats:
        """Selects one layer's values from all of them."""
        selection = np.zeros((widths[part], order))
        selection[:, starts[part] : starts[part + 1]] = np.eye(widths[part])
        return selection

    square: Any = cvxpy.Variable(nonneg=True)
    last = chain.weights[-1] @ placed(len(widths) - 1)
    form: Any = square * (placed(0).T @ placed(0)) - last.T @ last
    for layer, (weight, (lower, upper)) in enumerate(zip(chain.weights, chain.slopes, strict=False)):
        multipliers = cvxpy.Variable(len(weight), nonneg=True)
        own, read = placed(layer + 1), weight @ placed(layer)
        # (h - αy)ᵀΛ(βy - h) >= 0, taken away: what is left has to be positive for all values.
        matrix = cvxpy.diag(multipliers)
        cross = own.T @ matrix @ read
        form = form + own.T @ matrix @ own - (lower + upper) / 2 * (cross + cross.T)
        form = form + lower * upper * (read.T @ matrix @ read)
    problem = cvxpy.Problem(cvxpy.Minimize(square), [form >> 0])
    try:
        problem.solve(solver=cvxpy.CLARABEL)
    except cvxpy.error.SolverError:
        return Peer(whole=None, mean_pair=None, seconds=time.perf_counter() - started)
    optimum: float | None = problem.value
    solved = problem.status in ("optimal", "optimal_inaccurate")
    whole = float(np.sqrt(optimum)) if solved and optimum is not None else None
    return Peer(whole=whole, mean_pair=None, seconds=time.perf_counter() - started)


def _peer(chain: Chain, of: Any, started: float) -> Peer:
    last = chain.weights[-1]
    count = len(last)
    pairs = [of((last[t] - last[j])[None]) for t in range(count) for j in range(t)]
    whole = of(last)
    return Peer(whole=whole, mean_pair=float(np.mean(pairs)) if pairs else None, seconds=time.perf_counter() - started)
