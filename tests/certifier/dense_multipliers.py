"""Per-channel multipliers in the dense network: the same recursion, with no torus, in plain tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from certifier.flow import Network
from certifier.terms import Activation, Affine


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """An activation with the matrix before it; `points` entries share a multiplier."""

    matrix: Tensor
    lower: float
    upper: float
    points: int


def chain(network: Network) -> tuple[list[Layer], Tensor]:
    """The activations of a network without branches, and the matrix behind the last."""
    layers, value = [], network.input.name
    matrix = np.eye(network.input_size)
    for term in network.terms:
        assert term.sources == (value,)
        if isinstance(term, Activation):
            slopes = float(np.min(term.function.slope_lower)), float(np.max(term.function.slope_upper))
            points = int(np.prod(term.shape[2:]))
            layers.append(Layer(matrix=torch.tensor(matrix), lower=slopes[0], upper=slopes[1], points=points))
            matrix = np.eye(len(matrix))
        else:
            assert isinstance(term, Affine)
            matrix = term.operators[0].forward(matrix.T).T
        value = term.output
    return layers, torch.tensor(matrix.copy())


def dense_mean_pair(network: Network, multipliers: Mapping[str, np.ndarray], *, steps: int) -> tuple[float, float]:
    """The mean pair constant with these multipliers, and with the best per-channel ones found from there."""
    layers, last = chain(network)
    names = sorted(multipliers, key=lambda name: int(name.split("/")[-1]))
    shapes = [torch.tensor(np.log(multipliers[name]), requires_grad=True) for name in names]
    gains = [torch.zeros(1, dtype=torch.float64, requires_grad=True) for _ in names]

    def pairs(is_given: bool) -> Tensor:
        sigma = torch.eye(network.input_size, dtype=torch.float64)
        for layer, shape, gain in zip(layers, shapes, gains, strict=True):
            sigma = layer.matrix @ sigma @ layer.matrix.T
            t = torch.exp(shape).repeat_interleave(layer.points)
            if not is_given:
                root = torch.rsqrt(t)
                t = t * torch.linalg.eigvalsh(root[:, None] * sigma * root)[-1] / torch.sigmoid(gain) * (1 + 1e-9)
            middle, half = (layer.upper + layer.lower) / 2, (layer.upper - layer.lower) / 2
            sigma = middle**2 * (sigma + sigma @ torch.linalg.inv(torch.diag(t) - sigma) @ sigma)
            sigma = sigma + half**2 * torch.diag(t)
        q = last @ sigma @ last.T
        first, second = torch.triu_indices(len(q), len(q), offset=1)
        return (q[first, first] + q[second, second] - 2 * q[first, second]).sqrt()

    with torch.no_grad():
        given = float(pairs(True).mean())
    best, optimiser = np.inf, torch.optim.Adam([*shapes, *gains], lr=0.1)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 0.1 * (1 - step / steps)
        optimiser.zero_grad()
        found = pairs(False)
        best = min(best, float(found.detach().mean()))
        found.log().mean().backward()
        optimiser.step()
    return given, best
