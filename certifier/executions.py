"""Whose arithmetic a certificate speaks of: an engine's, float64's, or that of the real numbers; and what it drifts.

No engine is asked here, so that verifying a certificate needs none; `certifier.executing` says which one serves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from certifier.documents import REAL_ARITHMETIC, Arithmetic, ArithmeticName, AskedArithmetic
from certifier.errors import NotProved
from certifier.flow import Network
from certifier.proof.drifting import NoDrift, drifts
from certifier.proof.drifts import Drifts
from certifier.proof.execution import Gains
from certifier.proof.following import MagnitudeOf
from certifier.proof.norms import ProvedNorms
from certifier.terms import PRECISIONS, Precision

COARSEST_FIRST: tuple[ArithmeticName, ...] = ("bfloat16", "float16", "float32", "float64")
EVERY_EXECUTION = "executions in {name} that keep to the assumptions"
EVERY_EVALUATION = "evaluations of the network in {name} that keep to the assumptions"
NO_NORM = "the norm of a map that rounding passes through cannot be proved"
REAL_ASSUMPTIONS = (
    "A1: the checker's arithmetic is IEEE-754 double",
    "A2: underflow at worst flushes a result to zero",
    "A4: the float64 reference's functions err by a few units",
)
ENGINE_ASSUMPTIONS = (
    "A3: the engine's linear layers are classical sums",
    "A5: the engine's kernels keep to these allowances",
)


@dataclass(frozen=True, kw_only=True)
class Derived:
    """The drifts of an execution, or why it has none; the exact network has neither."""

    drifts: Drifts | None
    because: str | None


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
    def assumptions(self) -> tuple[str, ...]:
        """Those of `docs/assumptions.md` that constants and drifts rest on."""
        has_engine = self.precisions is not None and not self.is_evaluated
        return tuple(sorted((*REAL_ASSUMPTIONS, *ENGINE_ASSUMPTIONS))) if has_engine else REAL_ASSUMPTIONS

    def drifts(self, network: Network, gains: Gains, norms: ProvedNorms, magnitude_of: MagnitudeOf) -> Derived:
        """How far the execution drifts from the exact network.  Raises: NotFinished, where `norms` do."""
        if self.precisions is None:
            return Derived(drifts=None, because=None)
        try:
            found = drifts(
                network,
                gains=gains,
                precisions=self.precisions,
                magnitude_of=magnitude_of,
                norm_of=lambda operator: norms.norm_upper(operator, "readout"),
            )
        except NoDrift as error:
            return Derived(drifts=None, because=str(error))
        except NotProved:
            # In words that are the same wherever the proof fails.
            return Derived(drifts=None, because=NO_NORM)
        return Derived(drifts=found, because=None)

    def claim(self, because: str | None) -> Arithmetic:
        """What a certificate file says, which holds for any engine; `because` tells why no radius can be certified."""
        words = EVERY_EVALUATION if self.is_evaluated else EVERY_EXECUTION
        return self.document(words.format(name=self.name), because)

    def document(self, whose: str, because: str | None) -> Arithmetic:
        """What is said of `whose` answers."""
        if self.name == "real":
            return Arithmetic(name="real", statement=REAL_ARITHMETIC, because=None)
        if because is not None:
            statement = f"no radius can be certified for {whose}: {because}. "
            statement += "The Lipschitz constants are those of the exact network."
        else:
            statement = (
                f"every radius, output interval and bound of an output difference holds for {whose}, rounding errors "
                "included, in any order of their sums; the Lipschitz constants are those of the exact network."
            )
        return Arithmetic(name=self.name, statement=f"{self.name}: {statement}", because=because)
