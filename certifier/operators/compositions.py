"""Maps made of other maps: transposes, products and sums."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from certifier.operators.movements import Identity, Placed, Rearrange
from certifier.operators.operator import Array, Operator


class Adjoint(Operator):
    """A^T of an operator A; a transposed convolution is the adjoint of the convolution that undoes its shape."""

    def __init__(self, operator: Operator) -> None:
        self.operator = operator
        self.rows, self.columns = operator.columns, operator.rows

    def forward(self, x: Array) -> Array:
        return self.operator.adjoint(x)

    def adjoint(self, y: Array) -> Array:
        return self.operator.forward(y)

    def absolute(self) -> Operator:
        return Adjoint(self.operator.absolute())

    @property
    def fan_in(self) -> int:
        return self.operator.fan_out

    @property
    def fan_out(self) -> int:
        return self.operator.fan_in

    @property
    def weight_error(self) -> float:
        return self.operator.weight_error

    def describe(self) -> str:
        return f"transposed {self.operator.describe()}"

    def _fingerprint(self) -> Sequence[object]:
        return (self.operator,)


class Composed(Operator):
    """parts[-1] ... parts[1] parts[0]: the first part is applied first."""

    def __init__(self, parts: Sequence[Operator]) -> None:
        for first, second in pairwise(parts):
            if first.rows != second.columns:
                raise ValueError(f"cannot compose {first.describe()} with {second.describe()}")
        self.parts = tuple(parts)
        self.rows, self.columns = parts[-1].rows, parts[0].columns

    def forward(self, x: Array) -> Array:
        for part in self.parts:
            x = part.forward(x)
        return x

    def adjoint(self, y: Array) -> Array:
        for part in reversed(self.parts):
            y = part.adjoint(y)
        return y

    def absolute(self) -> Operator:
        return Composed([part.absolute() for part in self.parts])

    @property
    def fan_in(self) -> int:
        # gamma_a and gamma_b compose to at most gamma_{a+b}.
        return sum(part.fan_in for part in self.parts)

    @property
    def fan_out(self) -> int:
        return sum(part.fan_out for part in self.parts)

    @property
    def weight_error(self) -> float:
        total = 1.0
        for part in self.parts:
            total *= 1.0 + part.weight_error
        return 0.0 if total == 1.0 else np.nextafter(total - 1.0, np.inf) * (1 + 1e-12) + 1e-30

    def describe(self) -> str:
        named = [part.describe() for part in self.parts if not isinstance(part, (Identity, Placed, Rearrange))]
        return " + ".join(named) if named else f"rearrangement {self.columns}->{self.rows}"

    def _fingerprint(self) -> Sequence[object]:
        return self.parts


class Sum(Operator):
    """The sum of operators between the same spaces."""

    def __init__(self, parts: Sequence[Operator]) -> None:
        if len({(part.rows, part.columns) for part in parts}) != 1:
            raise ValueError("a sum needs operators between the same spaces")
        self.parts = tuple(parts)
        self.rows, self.columns = parts[0].rows, parts[0].columns

    def forward(self, x: Array) -> Array:
        out = self.parts[0].forward(x)
        for part in self.parts[1:]:
            out = out + part.forward(x)
        return out

    def adjoint(self, y: Array) -> Array:
        out = self.parts[0].adjoint(y)
        for part in self.parts[1:]:
            out = out + part.adjoint(y)
        return out

    def absolute(self) -> Operator:
        return Sum([part.absolute() for part in self.parts])

    @property
    def fan_in(self) -> int:
        return max(part.fan_in for part in self.parts) + len(self.parts)

    @property
    def fan_out(self) -> int:
        return max(part.fan_out for part in self.parts) + len(self.parts)

    @property
    def weight_error(self) -> float:
        return max(part.weight_error for part in self.parts)

    def describe(self) -> str:
        return "sum of (" + "; ".join(part.describe() for part in self.parts) + ")"

    def _fingerprint(self) -> Sequence[object]:
        return self.parts


def compose(parts: Sequence[Operator]) -> Operator:
    """The composition of `parts`, first part first, with identities dropped and nested compositions flattened."""
    flat: list[Operator] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, Composed) else [part])
    kept = [part for part in flat if not isinstance(part, Identity)]
    if not kept:
        return Identity(parts[0].columns)
    return kept[0] if len(kept) == 1 else Composed(kept)
