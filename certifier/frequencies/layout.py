"""Where a value without history is laid out: any placement of its entries is an isometry, so its reader chooses."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certifier.flow import Network
from certifier.frequencies.views import Signal, View
from certifier.operators import Composed, Convolution, Diagonal, Identity, Operator, Rearrange
from certifier.terms import Activation, Affine, Term

Indices = NDArray[Any]


class Layouts:
    """Fresh signals for values of one network."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.shapes: Mapping[str, tuple[int, ...]] = {
            network.input.name: network.input.shape,
            **{term.output: term.shape for term in network.terms},
        }
        self.readers: dict[str, list[Term]] = {}
        for term in network.terms:
            for source in set(term.sources):
                self.readers.setdefault(source, []).append(term)

    def is_sole(self, value: str) -> bool:
        """Whether one term alone reads the value, once."""
        readers = self.readers.get(value, ())
        return len(readers) == 1 and readers[0].sources.count(value) == 1 and value != self.network.output

    def fresh(self, value: str) -> View:
        """A signal that holds every entry of the value once, as the first convolution behind it reads them."""
        size = self.network.sizes[value]
        channels, box, indices = self._tensor(value)
        signal = Signal(channels, box, is_clean=True, is_point=math.prod(box) == 1)
        inverse = np.argsort(indices)
        return View(signal, None if np.array_equal(inverse, np.arange(size)) else inverse)

    def _tensor(self, value: str) -> tuple[int, tuple[int, ...], Indices]:
        """(channels, box, which entry of the value is where), every entry once."""
        size = self.network.sizes[value]
        pending, seen = deque([(value, np.arange(size))]), {value}
        fallback = None
        while pending:
            name, indices = pending.popleft()
            shape = self.shapes[name]
            if fallback is None and len(shape) > 2 and math.prod(shape[2:]) > 1 and _holds_all(indices, size):
                fallback = (math.prod(shape[:2]), shape[2:], indices)
            for term in self.readers.get(name, ()):
                moved, convolution = _followed(term, name, indices)
                if moved is None:
                    continue
                if convolution is not None:
                    tensor = _cropped(moved.reshape(convolution.channels_in, *convolution.input_shape))
                    if _holds_all(tensor, size):
                        return tensor.shape[0], tensor.shape[1:], tensor.ravel()
                elif term.output not in seen:
                    seen.add(term.output)
                    pending.append((term.output, moved))
        return fallback if fallback is not None else (size, (1,), np.arange(size))


def _followed(term: Term, source: str, indices: Indices) -> tuple[Indices | None, Convolution | None]:
    """Where the entries are in the term's output, or in what its convolution reads; None where they are mixed."""
    parts: Sequence[Operator] = ()
    if isinstance(term, Affine):
        operator = term.operators[term.sources.index(source)]
        parts = operator.parts if isinstance(operator, Composed) else (operator,)
    elif not isinstance(term, Activation):
        return None, None
    for part in parts:
        if isinstance(part, Convolution):
            return indices, part
        if isinstance(part, Rearrange):
            indices = np.where(part.indices >= 0, indices[part.indices], -1)
        elif not isinstance(part, (Identity, Diagonal)):
            return None, None
    return indices, None


def _cropped(tensor: Indices) -> Indices:
    """Without the zeros around it: what pads a tensor is no part of its box."""
    for axis in range(tensor.ndim):
        kept = np.flatnonzero((tensor >= 0).any(axis=tuple(other for other in range(tensor.ndim) if other != axis)))
        if len(kept):
            tensor = np.take(tensor, np.arange(kept[0], kept[-1] + 1), axis=axis)
    return tensor


def _holds_all(indices: Indices, size: int) -> bool:
    """Every entry once, and nothing else."""
    flat = indices.ravel()
    return flat.size == size and bool((flat >= 0).all()) and bool((np.bincount(flat, minlength=size) == 1).all())
