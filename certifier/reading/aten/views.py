"""Views: tensors that look into the memory of another one, and what a write through them leaves there.

A view is where its operator takes the entries of its source from; the operator itself says where, when it is applied
to the places of the source instead of its values.  So one write through any chain of views is one scatter at known
places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from certifier.errors import UnsupportedNode
from certifier.graph import Array
from certifier.reading.aten.table import lower
from certifier.reading.emitting import Emitter, Ref

VIEWS = frozenset(
    """alias chunk detach diagonal expand expand_as movedim narrow permute select slice split split_with_sizes
    squeeze swapaxes swapdims t tensor_split transpose unbind unflatten unsafe_chunk unsafe_split
    unsafe_split_with_sizes unsqueeze view view_as""".split()
)
"""Operators whose results always lie in the memory of their first tensor.  Others may copy, so nobody can tell."""


@dataclass(frozen=True, kw_only=True)
class View:
    """One operator of `VIEWS`, without its first tensor; `part` says which of several results is meant."""

    operator: str
    arguments: Sequence[object]
    keywords: Mapping[str, object]
    part: int | None

    def of(self, emitter: Emitter, source: Ref, where: str) -> Ref:
        """What the view shows of a source.

        Raises: what `lower` raises.
        """
        result = lower(emitter, self.operator, [source, *self.arguments], self.keywords, where=where)
        if isinstance(result, (list, tuple)) and self.part is not None:
            result = result[self.part]
        if not isinstance(result, Ref):
            raise UnsupportedNode(where, self.operator, "gives no tensor")
        return result


class Writes:
    """What was written in place through views, so that what a write did not touch is read as it was before."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[Ref, Array]] = {}
        """By the name of a value: the value that it was written into, and the places that were written."""

    def written(
        self, emitter: Emitter, base: Ref, path: Sequence[View], value: Ref, *, operator: str, where: str
    ) -> Ref:
        """`base`, with `value` where the views of `path`, one after another, look.

        Raises: UnsupportedNode if the views show one entry twice; what `lower` raises.
        """
        known = _places(emitter, base, path, where)
        if known is None or known.shape != value.shape or np.unique(known).size < known.size:
            raise UnsupportedNode(where, operator, "writes in place through a view that shows one entry several times")
        flat, rows = (lower(emitter, "reshape", [ref, [ref.size]], {}, where=where) for ref in (base, value))
        assert isinstance(flat, Ref) and isinstance(rows, Ref)
        indices = emitter.constant(known.reshape(-1, 1), f"{where}/indices")
        (whole,) = emitter.node("ScatterND", [flat, indices, rows], {}, outputs=1, name=where)
        result = lower(emitter, "reshape", [whole, list(base.shape)], {}, where=where)
        assert isinstance(result, Ref)
        self._before[result.name] = (base, known)
        return result

    def shown(self, emitter: Emitter, base: Ref, path: Sequence[View], where: str) -> Ref:
        """What the views of `path`, one after another, show of `base`.

        Raises: what `lower` raises.
        """
        known = _places(emitter, base, path, where) if base.name in self._before else None
        while known is not None and base.name in self._before:
            before, touched = self._before[base.name]
            if np.isin(known, touched).any():
                break
            base = before
        for view in path:
            base = view.of(emitter, base, where)
        return base


def _places(emitter: Emitter, base: Ref, path: Sequence[View], where: str) -> Array | None:
    """The flat places of `base` that the views show."""
    places = emitter.constant(np.arange(base.size).reshape(base.shape), f"{where}/places")
    for view in path:
        places = view.of(emitter, places, where)
    return emitter.value(places)
