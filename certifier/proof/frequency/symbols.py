"""A(ω) of a linear step, with a bound on how far the computed one is from the exact one in norm."""

import numpy as np
from numpy.typing import NDArray

from certifier.proof.frequencies import Torus
from certifier.proof.frequency.steps import Linear
from certifier.proof.gram import magnitude_norm_upper
from certifier.proof.phases import PHASE_ERROR, cosine_sine
from certifier.proof.rounding import FLOAT64, add_upper, gamma_upper, mul_upper, sum_upper


def symbols(step: Linear, torus: Torus, columns: int, which: slice) -> NDArray:
    """A(ω) at some of the torus' frequencies, within `stray_upper` of the exact one in norm.

    Shapes: (F, rows, columns); float64 where all taps are at offset zero, else complex128.
    """
    frequencies = torus.frequencies[which]
    dtype = np.float64 if all(block.is_pointwise for block in step.blocks) else np.complex128
    result = np.zeros((len(frequencies), step.rows, columns), dtype=dtype)
    for block in step.blocks:
        if block.kernel is None:
            every = np.arange(block.channels)
            result[:, block.row + every, block.column + every] += 1.0
            continue
        outputs, inputs, taps = block.kernel.shape
        part = result[:, block.row : block.row + outputs, block.column : block.column + inputs]
        if block.is_pointwise:
            part += block.kernel.sum(axis=2)
            continue
        matrix = block.kernel.reshape(-1, taps).T
        cosine, sine = cosine_sine(torus.turns(frequencies, block.offsets), torus.denominator)
        part.real += (cosine @ matrix).reshape(part.shape)
        part.imag += (sine @ matrix).reshape(part.shape)
    return result


def stray_upper(step: Linear) -> float:
    """‖computed A(ω) - exact A(ω)‖₂ <= result at every frequency.

    Entrywise |computed - exact| <= (1.5(γ_(T+B)(1+ε) + ε) + relative error)·Σ_t|K_t| + underflow, as in
    `docs/proofs/torus.md`, Lemma 2, with B more additions where B blocks may meet; the norms of blocks add up.
    """
    total, count = np.float64(0.0), len(step.blocks)
    for block in step.blocks:
        if block.kernel is None:
            total = add_upper(total, gamma_upper(count, FLOAT64) if count > 1 else 0.0)
            continue
        magnitude = magnitude_norm_upper(sum_upper(np.abs(block.kernel), axis=-1))
        phase = 0.0 if block.is_pointwise else PHASE_ERROR
        rounding = add_upper(mul_upper(gamma_upper(block.taps + count, FLOAT64), add_upper(1.0, phase)), phase)
        relative = add_upper(mul_upper(1.5, rounding), block.relative_error)
        underflow = mul_upper(float(block.kernel.size + count), 2.0**-1000)
        total = add_upper(total, add_upper(mul_upper(relative, magnitude), underflow))
    return float(total)
