"""Proves and remembers the norms of one network's linear maps: decomposition, search, proof, kept state.

Every proof obligation is keyed by the digest of exactly what is proved.  Equal digests within a run share one proof;
across runs a bound is taken over only under a valid seal, and kept vectors are mere starting points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from certifier.documents import LayerReport
from certifier.magnitudes import MagnitudeNorms
from certifier.operators import Operator
from certifier.proof.norms import ProvedNorms, gram_proof, torus_proof
from certifier.proof.structure import Closed, Kernel, Matrix, Plan
from certifier.search.hints import CarriedVectors
from certifier.search.matrices import Found, prove_matrix_norm
from certifier.search.state import LayerState, Seal, SearchState
from certifier.search.symbols import prove_kernel_norm

Search = Literal["none", "cold", "warm", "reused"]


class Norms(ProvedNorms):
    """Proved spectral norms by operator digest, with the state to keep for the next version of the model."""

    def __init__(
        self, *, state: SearchState, seal: Seal, carried: CarriedVectors, progress: Callable[[str], None]
    ) -> None:
        """`state` is what an earlier version left; `carried` are vectors inside the model itself."""
        super().__init__()
        self._kept, self._carried, self._seal, self._progress = state.layers, carried, seal, progress
        self._magnitudes = MagnitudeNorms(before=progress)
        self._sealed = {layer.digest: layer for layer in state.layers.values() if seal.verifies(layer)}
        self._reports: list[LayerReport] = []
        self._layers: dict[str, LayerState] = {}

    def evaluate(self, plan: Plan, operator: Operator, layer: str) -> float:
        """The same, saying which layer is looked at, and with a report where no leaf makes one."""
        self._progress(layer)
        upper = super().evaluate(plan, operator, layer)
        if isinstance(plan, Closed) and plan.upper != 1.0 and np.isfinite(plan.upper):
            self._report(layer, operator.describe(), plan.proof, None, plan.upper, 0, "none")
        return upper

    def magnitude_upper(self, operator: Operator, name: str) -> float:
        """‖|A|‖ <= result for the entrywise magnitude of a map."""
        return self._magnitudes.norm_upper(operator, name)

    def reports(self) -> list[LayerReport]:
        """One report per map that was bounded, in the order of the network."""
        return list(self._reports)

    def state(self, multipliers: Mapping[str, NDArray[np.float64]]) -> SearchState:
        """Vectors and sealed bounds of this run, with where the search for multipliers stood."""
        return SearchState(layers=dict(self._layers), multipliers=dict(multipliers))

    def prove_leaf(self, plan: Matrix | Kernel, digest: str, name: str) -> float:
        """Take over what is sealed; search and prove the rest."""
        sealed = self._sealed.get(digest)
        return self._search(plan, digest, name) if sealed is None else self._reuse(sealed, plan, name)

    def _reuse(self, sealed: LayerState, plan: Matrix | Kernel, name: str) -> float:
        name = self._unique(name)
        self._layers[name] = sealed
        estimate = sealed.estimate if sealed.estimate > 0 else None
        self._report(name, _describe(plan), sealed.proof, estimate, sealed.upper, 0, "reused")
        return sealed.upper

    def _search(self, plan: Matrix | Kernel, digest: str, name: str) -> float:
        name = self._unique(name)
        shape = _shape(plan)
        layer = self._kept.get(name)
        kept = layer.vector if layer is not None and layer.shape == shape else self._carried.take(*shape)
        seed = int(digest[:12], 16)
        found, proof = _prove(plan, kept, seed)
        estimate = found.estimate or 0.0
        self._layers[name] = LayerState(
            shape=shape,
            vector=found.vector,
            digest=digest,
            estimate=estimate,
            upper=found.upper,
            proof=proof,
            seal=self._seal.sign(digest=digest, upper=found.upper, estimate=estimate, proof=proof),
        )
        search: Search = "none" if found.estimate is None else ("warm" if found.warm else "cold")
        self._report(name, _describe(plan), proof, found.estimate, found.upper, found.iterations, search)
        return found.upper

    def _unique(self, name: str) -> str:
        taken, number = name, 2
        while taken in self._layers:
            taken, number = f"{name}#{number}", number + 1
        return taken

    def _report(
        self,
        name: str,
        kind: str,
        proof: str,
        estimate: float | None,
        upper: float,
        iterations: int,
        search: Search,
    ) -> None:
        self._reports.append(
            LayerReport(
                name=name,
                kind=kind,
                proof=proof,
                estimate=estimate,
                upper=upper,
                iterations=iterations,
                search=search,
            )
        )


def _prove(plan: Matrix | Kernel, kept: NDArray[np.float64] | None, seed: int) -> tuple[Found, str]:
    if isinstance(plan, Matrix):
        found = prove_matrix_norm(gram_proof(plan), kept, seed=seed)
        return found, "closed form" if found.estimate is None else "cholesky"
    return prove_kernel_norm(torus_proof(plan), kept, seed=seed), "torus"


def _describe(plan: Matrix | Kernel) -> str:
    if isinstance(plan, Matrix):
        return "matrix " + "x".join(map(str, plan.values.shape))
    return plan.convolution.describe()


def _shape(plan: Matrix | Kernel) -> tuple[int, int]:
    if isinstance(plan, Matrix):
        return (plan.values.shape[0], plan.values.shape[1])
    return (plan.convolution.rows, plan.convolution.columns)
