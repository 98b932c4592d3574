"""Multipliers for `certifier.proof.frequency`, by gradient descent through its recursion. Untrusted.

Adam on the parameters of all activations at once, for the mean logarithm of the pair constants; the best point seen is
kept.  PyTorch is imported when a search starts: proofs and their checks do without it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from certifier.errors import NotProved
from certifier.limits import Budget
from certifier.proof.frequency.steps import Segment
from certifier.search.thinning import thin_points

if TYPE_CHECKING:
    import torch

    from certifier.search.recursion import Recursion

RATE = 0.15
ITERATIONS = 400
WHOLE_NUMBERS = 2**19
"""Of the largest stack of matrices: beyond, steps are taken on a thinned torus, and only their result carried over."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """The arrays of the best witness seen, what the search thinks of it (a logarithm), and how many steps it took."""

    arrays: Mapping[str, NDArray[np.float64]]
    estimate: float
    iterations: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Wish:
    """What the descent is for: how much each pair of outputs matters (None: all alike), and where to begin.

    `norm_only`: nothing but the constant of all outputs together matters.  `start` holds the arrays of an earlier
    witness, of this network or one like it.
    Shapes: weights (c, c), symmetric.
    """

    weights: NDArray[np.float64] | None
    norm_only: bool
    start: Mapping[str, NDArray[np.float64]]


def descend(segments: Sequence[Segment], *, numbers: int, wish: Wish, budget: Budget) -> Found:
    """The best multipliers found within the budget.

    `numbers` is the size of the largest stack of matrices.
    """
    import torch

    from certifier.search.recursion import Recursion

    device = "cuda" if torch.cuda.is_available() else "cpu"

    def recursion(points: int | None) -> Recursion:
        return Recursion(segments, weights=wish.weights, norm_only=wish.norm_only, points=points, device=device)

    points = thin_points(segments)
    try:
        if numbers <= WHOLE_NUMBERS or points is None:
            whole = recursion(None)
            return _adam(whole, _begun(whole, wish), budget)
        thin = recursion(points)
        first = _begun(thin, wish)
        found = _adam(thin, first, budget)
        whole = recursion(None)
        last = _carried(whole, thin, found.iterations)
        # What a thinned torus suggests need not work on the whole one.
        return last if last is not None and last.estimate <= first.estimate else _begun(whole, wish)
    except (FloatingPointError, RuntimeError) as error:
        raise NotProved(f"the search cannot begin: {error}") from error


def _begun(recursion: Recursion, wish: Wish) -> Found:
    """Where the recursion begins."""
    recursion.begin_at(wish.start)
    return _found(recursion, 0)


def _carried(whole: Recursion, thin: Recursion, iterations: int) -> Found | None:
    """The parameters of a thinned torus on the whole one; None where they fail there."""
    from torch import no_grad

    with no_grad():
        for mine, theirs in zip(whole.every, thin.every, strict=True):
            mine.copy_(theirs)
    try:
        return _found(whole, iterations)
    except (FloatingPointError, RuntimeError):
        with no_grad():
            for mine in whole.every:
                mine.zero_()
        return None


def _found(recursion: Recursion, iterations: int) -> Found:
    """Where the recursion is."""
    import torch

    with torch.no_grad():
        loss, arrays = recursion.evaluate()
    plain = {name: array.detach().cpu().numpy().copy() for name, array in arrays.items()}
    return Found(arrays=plain, estimate=float(loss.detach()), iterations=iterations)


def _adam(recursion: Recursion, best: Found, budget: Budget) -> Found:
    """The best point seen; the rate falls to a hundredth along a cosine, as time or steps run out."""
    if not recursion.every:
        return best
    optimiser = _Adam(recursion.every)
    done, begun = 0, budget.left()
    for done in range(ITERATIONS):
        share = max(done / ITERATIONS, 1 - budget.left() / max(begun, 1e-9))
        if share >= 1:
            break
        try:
            loss, arrays = recursion.evaluate()
        except (FloatingPointError, RuntimeError):
            # A factorisation failed: the best point so far remains.
            break
        value = float(loss.detach())
        if not math.isfinite(value):
            break
        if value < best.estimate:
            plain = {name: array.detach().cpu().numpy().copy() for name, array in arrays.items()}
            best = Found(arrays=plain, estimate=value, iterations=done)
        loss.backward()
        optimiser.step(RATE * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share))))
    return Found(arrays=best.arrays, estimate=best.estimate, iterations=done + 1)


class _Adam:
    """Kingma & Ba (2015).  torch's own loads its compiler, which takes seconds and writes a folder of its own."""

    def __init__(self, parameters: Sequence[torch.Tensor]) -> None:
        from torch import zeros_like

        self.parameters, self.steps = parameters, 0
        self.means = [zeros_like(each) for each in parameters]
        self.squares = [zeros_like(each) for each in parameters]

    def step(self, rate: float) -> None:
        """Move every parameter along its gradient, and clear the gradients."""
        from torch import no_grad

        self.steps += 1
        with no_grad():
            for parameter, mean, square in zip(self.parameters, self.means, self.squares, strict=True):
                if parameter.grad is None:
                    continue
                mean.mul_(0.9).add_(parameter.grad, alpha=0.1)
                square.mul_(0.99).addcmul_(parameter.grad, parameter.grad, value=0.01)
                length = (square / (1 - 0.99**self.steps)).sqrt_().add_(1e-8)
                parameter.sub_(mean / length, alpha=rate / (1 - 0.9**self.steps))
                parameter.grad = None
