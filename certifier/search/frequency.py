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

    Shapes: weights (c, c), symmetric. `start` holds the arrays of an earlier witness, of this network or one like it.
    """

    weights: NDArray[np.float64] | None
    start: Mapping[str, NDArray[np.float64]]


def descend(segments: Sequence[Segment], *, numbers: int, wish: Wish, budget: Budget) -> Found:
    """The best multipliers found within the budget.

    `numbers` is the size of the largest stack of matrices.
    """
    import torch

    from certifier.search.recursion import Recursion, thin_sizes

    device = "cuda" if torch.cuda.is_available() else "cpu"
    whole = Recursion(segments, weights=wish.weights, thinned=False, device=device)
    try:
        whole.begin_at(wish.start)
        best = _found(whole, 0)
    except (FloatingPointError, RuntimeError) as error:
        raise NotProved(f"the search cannot begin: {error}") from error
    if numbers <= WHOLE_NUMBERS or all(thin_sizes(segment) == segment.sizes for segment in segments):
        return _adam(whole, best, budget)
    thin = Recursion(segments, weights=wish.weights, thinned=True, device=device)
    try:
        thin.begin_at(wish.start)
        first = _found(thin, 0)
    except (FloatingPointError, RuntimeError):
        return best
    found = _adam(thin, first, budget)
    try:
        with torch.no_grad():
            for mine, theirs in zip(whole.every, thin.every, strict=True):
                mine.copy_(theirs)
        last = _found(whole, found.iterations)
    except (FloatingPointError, RuntimeError):
        # What a thinned torus suggests need not work on the whole one.
        return best
    return last if last.estimate < best.estimate else best


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
