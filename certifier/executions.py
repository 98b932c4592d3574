"""Whose arithmetic a certificate speaks of: the engine's, float64's, or that of the real numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from certifier.documents import REAL_ARITHMETIC, Arithmetic, ArithmeticName, AskedArithmetic, EngineDescription
from certifier.engine import describe_engine, engine_name
from certifier.flow import Network
from certifier.terms import PRECISIONS, Precision

COARSEST_FIRST: tuple[ArithmeticName, ...] = ("bfloat16", "float16", "float32", "float64")
EXECUTED = (
    "every radius, output interval and bound of an output difference holds for the answers that {engine} computes in "
    "{name}, rounding errors included, in any order of its sums; the Lipschitz constants are those of the exact network"
)


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a certified model is executed.

    `precisions` gives the arithmetic of every type of value, None for the exact network; `is_evaluated` tells that the
    model is served by the float64 evaluation of the bounded network instead of the engine.
    """

    name: ArithmeticName
    precisions: Mapping[str, Precision] | None
    is_evaluated: bool

    @classmethod
    def of(cls, asked: AskedArithmetic, network: Network) -> Execution:
        """The execution that an option asks for: `float32` is the engine's own, in the types of the model."""
        if asked == "real":
            return cls(name="real", precisions=None, is_evaluated=False)
        types = {network.input.dtype, *(term.dtype for term in network.terms)}
        if asked == "float64" and types != {"float64"}:
            double = PRECISIONS["float64"]
            return cls(name="float64", precisions=dict.fromkeys(PRECISIONS, double), is_evaluated=True)
        coarsest: ArithmeticName = next(name for name in COARSEST_FIRST if name in types)
        return cls(name=coarsest, precisions=PRECISIONS, is_evaluated=False)

    @property
    def engine(self) -> str:
        """What computes the answers."""
        return f"numpy {np.__version__}, float64 evaluation" if self.is_evaluated else engine_name()

    def description(self) -> EngineDescription:
        """What computes the answers in this process, in full."""
        found = describe_engine()
        return EngineDescription(name=self.engine, options={} if self.is_evaluated else found.options, cpu=found.cpu)

    def document(self, because: str | None) -> Arithmetic:
        """What answers say about it; `because` tells why no radius can be certified."""
        engine = self.engine
        if self.name == "real":
            return Arithmetic(name="real", statement=REAL_ARITHMETIC, because=None)
        statement = f"{self.name}: {EXECUTED.format(engine=engine, name=self.name)}."
        if because is not None:
            statement = (
                f"{self.name}: no radius can be certified for the answers that {engine} computes in {self.name}: "
                f"{because}. The Lipschitz constants are those of the exact network."
            )
        return Arithmetic(name=self.name, statement=statement, because=because)
