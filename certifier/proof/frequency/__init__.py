"""Proved Lipschitz constants of a convolutional network, one small Hermitian matrix per frequency of a torus.

The state is a stack of signals s on a torus with a Hermitian Σ(ω) for every frequency such that, for any two inputs,

    Δŝ Δŝᴴ ⪯ ‖Δx‖²·diag(Σ(ω) over all ω)                               (I)

Two steps keep (I) and a third starts anew:

    Linear      s -> A s, convolutions with a common stride:   Σ'(θ) = S⁻¹ Σ_j A(ω_j) Σ(ω_j) A(ω_j)ᴴ over the aliases
    Slopes      y -> m y + η w with |w| <= |y|, per channel:   Σ' = Σ + Σ_sy G Σ_ys,  G ⪰ (T - Σ_yy)⁻¹,  Σ_ww = T
    Restart     Σ(ω) ⪯ diag(d) for all ω, then any map of known constant per channel

The multipliers t (T = diag t) and d are the witness; every matrix is computed here from the network's weights, and
what is proved is that it is large enough.  Signals are zero outside their boxes or masked: the caller's slopes hold for
the mask times the activation.

Proofs: `docs/proofs/frequency.md`. Reference: Fazlyab et al. (2019), arXiv 1906.04893, for multipliers.
"""
