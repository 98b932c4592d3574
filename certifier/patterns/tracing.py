"""Looking backwards over terms: who computes a value, and how it hangs together with another one linearly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certifier.operators import Composed, Diagonal, Identity, Operator, Rearrange, compose
from certifier.products import Bilinear, EntrywiseForm
from certifier.steep import Steep
from certifier.terms import Activation, Affine, Term

Array = NDArray[Any]

LONGEST = 16
"""Affine terms on the way from one value to another that are followed at most."""


@dataclass(frozen=True)
class Groups:
    """`count` entries along the middle of three axes (before, count, after)."""

    before: int
    count: int
    after: int

    def spread(self) -> Array:
        """For every entry the number of its group."""
        groups = np.arange(self.before * self.after).reshape(self.before, 1, self.after)
        return np.broadcast_to(groups, (self.before, self.count, self.after)).reshape(-1)


class Trace:
    """The terms of a network by what they compute."""

    def __init__(self, terms: Sequence[Term]) -> None:
        self.producers: Mapping[str, Term] = {term.output: term for term in terms}
        self.names = {name for term in terms for name in (*term.sources, term.output)}

    def fresh(self, name: str) -> str:
        """`name`, or one like it that no value has."""
        while name in self.names:
            name += "'"
        self.names.add(name)
        return name

    def affine(self, value: str) -> Affine | None:
        """The affine term that computes `value`."""
        term = self.producers.get(value)
        return term if isinstance(term, Affine) else None

    def power(self, value: str, exponent: float) -> str | None:
        """x, where `value` is x to the `exponent`, entry by entry."""
        term = self.producers.get(value)
        if isinstance(term, Activation) and isinstance(term.function, Steep) and term.function.exponent == exponent:
            return term.sources[0]
        if exponent == 2 and isinstance(term, Bilinear) and isinstance(term.form, EntrywiseForm):
            same = term.sources[0] == term.sources[1] and term.form.first == term.form.second
            return term.sources[0] if same else None
        return None

    def steep(self, value: str, name: str) -> str | None:
        """x, where `value` is the exponential or the logarithm of x."""
        term = self.producers.get(value)
        if isinstance(term, Activation) and isinstance(term.function, Steep) and term.function.name == name:
            return term.sources[0]
        return None

    def expand(
        self, value: str, size: int, stops: Iterable[str]
    ) -> tuple[dict[str, list[Operator]], list[Affine]] | None:
        """The maps to `value`, of `size` entries, from each of `stops` and of what is not affine; the terms between.

        None if there are too many of them.
        """
        stopping, found, between = set(stops), dict[str, list[Operator]](), list[Affine]()
        pending: list[tuple[str, list[Operator]]] = [(value, [])]
        while pending:
            name, after = pending.pop()
            term = None if name in stopping else self.affine(name)
            if term is None:
                found.setdefault(name, []).append(compose(after[::-1]) if after else Identity(size))
                continue
            between.append(term)
            if len(between) > LONGEST:
                return None
            for source, operator in zip(term.sources, term.operators, strict=True):
                pending.append((source, [*after, operator]))
        return found, between

    def is_plain(self, terms: Iterable[Affine], dtype: str) -> bool:
        """Nothing is added, and nothing is rounded to another type."""
        return all(term.offset is None and term.dtype == dtype for term in terms)

    def equal(self, first: str, second: str) -> bool:
        """Whether two values are the same number by number, because equal affine terms compute them; False is safe."""
        if first == second:
            return True
        one, other = self.affine(first), self.affine(second)
        if one is None or other is None or len(one.sources) != len(other.sources) or one.dtype != other.dtype:
            return False
        if (one.offset is None) != (other.offset is None):
            return False
        if one.offset is not None and not np.array_equal(one.offset, other.offset):  # pyright: ignore[reportArgumentType]
            return False
        digests = [[operator.digest for operator in term.operators] for term in (one, other)]
        return digests[0] == digests[1] and all(
            self.equal(*pair) for pair in zip(one.sources, other.sources, strict=True)
        )

    def offset(self, root: Affine, sources: Iterable[str]) -> Array | None:
        """What the affine terms between `sources` and `root` add up to; None if nothing is added."""
        terms = [term for term in self.between(sources, root) if isinstance(term, Affine)]
        if all(term.offset is None for term in terms):
            return None
        values: dict[str, Array] = {}
        for term in terms:
            read = []
            for source, operator in zip(term.sources, term.operators, strict=True):
                read.append(values.get(source, np.zeros((1, operator.columns))))
            values[term.output] = term.evaluate(*read)
        return values[root.output].reshape(-1)

    def between(self, sources: Iterable[str], root: Term) -> list[Term]:
        """The terms that `root` depends on, up to `sources`, in order, `root` last."""
        wanted, ends, kept = set(root.sources), set(sources), list[Term]()
        for name, term in reversed(list(self.producers.items())):
            if name in wanted and name not in ends:
                kept.append(term)
                wanted.update(term.sources)
        return [*kept[::-1], root]


def moves(operator: Operator, *, factor: float) -> Array | None:
    """`read`, where the operator is y = factor x[read] exactly; None if it is anything else."""
    parts = operator.parts if isinstance(operator, Composed) else (operator,)
    read = np.arange(operator.columns)
    remaining = factor
    for part in parts:
        if isinstance(part, Rearrange) and bool((part.indices >= 0).all()):
            read = read[part.indices]
        elif isinstance(part, Diagonal) and part.weight_error == 0 and bool((part.values == remaining).all()):
            remaining = 1.0
        elif not isinstance(part, Identity):
            return None
    return read if remaining == 1.0 else None
