"""operator -> proved spectral norm, from proofs of its plan's leaves, wherever those come from.

Every proof obligation is keyed by the digest of exactly what is proved, so that equal ones share one proof.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod

import numpy as np

from certifier.errors import NotProved
from certifier.operators import Operator
from certifier.proof.dense import GramProof
from certifier.proof.rounding import add_upper, mul_upper
from certifier.proof.structure import Closed, Kernel, Matrix, Plan, Product, decompose
from certifier.proof.torus import TorusProof

MEMORY_LIMIT = 256 * 2**20
"""Bytes that one convolution's symbols and Gram matrices may take at once."""


class ProvedNorms(ABC):
    """Spectral norms, each evaluated once by the operator's digest; how leaves are proved is the subclass' own."""

    def __init__(self) -> None:
        self._by_operator: dict[str, float] = {}
        self._by_leaf: dict[str, float] = {}

    @abstractmethod
    def prove_leaf(self, plan: Matrix | Kernel, digest: str, name: str) -> float:
        """The plan's norm is at most the result.

        Raises: NotProved.
        """

    def norm_upper(self, operator: Operator, name: str) -> float:
        """||A|| <= result; `name` is the layer's.

        Raises: NotProved.
        """
        known = self._by_operator.get(operator.digest)
        if known is None:
            layer = name or operator.describe()
            known = self.evaluate(decompose(operator), operator, layer)
            if not np.isfinite(known):
                raise NotProved(f"no finite norm could be proved for layer {layer!r}")
            self._by_operator[operator.digest] = known
        return known

    def leaves(self) -> dict[str, float]:
        """The proved norm of every leaf, by its digest."""
        return dict(self._by_leaf)

    def evaluate(self, plan: Plan, operator: Operator, layer: str) -> float:
        """The bound that the operator's plan gives."""
        return self._evaluate(plan, layer)

    def _evaluate(self, plan: Plan, name: str) -> float:
        """The bound of a plan, rounded up."""
        if isinstance(plan, Closed):
            return plan.upper
        if isinstance(plan, (Matrix, Kernel)):
            digest = obligation(plan)
            if digest not in self._by_leaf:
                self._by_leaf[digest] = self.prove_leaf(plan, digest, name)
            return self._by_leaf[digest]
        bounds = [self._evaluate(part, f"{name}/{position}") for position, part in enumerate(plan.parts)]
        combined = np.float64(1.0 if isinstance(plan, Product) else 0.0)
        for bound in bounds:
            combined = mul_upper(combined, bound) if isinstance(plan, Product) else add_upper(combined, bound)
        return float(combined)


def torus_proof(plan: Kernel) -> TorusProof:
    """The proof of a convolution's norm on its padded torus."""
    convolution = plan.convolution
    return TorusProof(
        np.asarray(convolution.kernel, dtype=np.float64),
        plan.error,
        input_shape=convolution.input_shape,
        output_shape=convolution.output_shape,
        strides=convolution.strides,
        pads_before=convolution.pads_before,
        dilations=convolution.dilations,
        groups=convolution.groups,
        memory_limit=MEMORY_LIMIT,
    )


def gram_proof(plan: Matrix) -> GramProof:
    """The proof of a matrix' norm."""
    return GramProof(plan.values, plan.error)


def obligation(plan: Matrix | Kernel) -> str:
    """SHA-256 of exactly what is proved: the numbers and, for a convolution, its geometry."""
    state = hashlib.sha256()
    if isinstance(plan, Kernel):
        state.update(b"kernel" + plan.convolution.digest.encode())
    else:
        state.update(f"matrix{plan.values.shape}".encode())
        state.update(np.ascontiguousarray(plan.values).data)
    state.update(b"exact" if plan.error is None else b"error")
    if plan.error is not None:
        state.update(np.ascontiguousarray(plan.error).data)
    return state.hexdigest()
