"""Norms that a document claims, each proved at once or refused: nothing is searched."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from threadpoolctl import threadpool_limits

from certifier.errors import NotProved
from certifier.proof.dense import GramProof
from certifier.proof.norms import ProvedNorms, gram_proof, torus_proof
from certifier.proof.rounding import mul_upper
from certifier.proof.structure import Kernel, Matrix
from certifier.proof.torus import TorusProof

ROOM = 1.0 + 2.0**-40
"""Claims are written this much above what was proved, since another machine adds up in another order."""
STEPS_DOWN = 64


def written(leaves: Mapping[str, float]) -> dict[str, float]:
    """Proved norms as claims that another machine can prove."""
    return {digest: float(mul_upper(upper, ROOM)) for digest, upper in leaves.items()}


class ClaimedNorms(ProvedNorms):
    """Spectral norms from claims by the digest of what is proved; `proved` are those that were needed."""

    def __init__(self, claims: Mapping[str, float], *, before_proof: Callable[[str], None]) -> None:
        """`before_proof` is told of every layer and may raise to end the proofs."""
        super().__init__()
        self._claims, self._before_proof = claims, before_proof

    @property
    def proved(self) -> int:
        """How many claims were needed and hold."""
        return len(self.leaves())

    def prove_leaf(self, plan: Matrix | Kernel, digest: str, name: str) -> float:
        """The claimed norm, once it is proved.

        Raises: NotProved for a layer without a claim, or whose claim fails.
        """
        claimed = self._claims.get(digest)
        if claimed is None:
            raise NotProved(
                f"the norm of layer {name!r} is claimed nowhere: it is another layer than the certified one"
            )
        self._before_proof(f"layer {name!r}")
        proof = gram_proof(plan) if isinstance(plan, Matrix) else torus_proof(plan)
        if not _holds(proof, claimed):
            raise NotProved(f"the norm {claimed!r} of layer {name!r} cannot be proved")
        return claimed


def _holds(proof: GramProof | TorusProof, claimed: float) -> bool:
    """True only if the norm is at most `claimed`."""
    if not (np.isfinite(claimed) and claimed >= 0):
        return False
    if claimed >= proof.fallback_upper:
        return True
    mu = proof.mu_from_norm(claimed)
    for _ in range(STEPS_DOWN):
        if proof.norm_upper_from_mu(mu) <= claimed:
            return _is_proved(proof, mu)
        mu = float(np.nextafter(mu, 0.0))
    return False


def _is_proved(proof: GramProof | TorusProof, mu: float) -> bool:
    if isinstance(proof, GramProof):
        return proof.prove(mu)
    # Many small factorisations: threads would only wait for one another.
    with threadpool_limits(1):
        return len(proof.prove(mu, None)) == 0
