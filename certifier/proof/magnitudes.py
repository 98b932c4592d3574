"""‖|A|‖ for the entrywise magnitude |A| of a linear map, from one positive vector.

For a matrix B >= 0 and any vector w > 0 (Collatz-Wielandt):

    ‖B‖² = λmax(BᵀB) <= max_i (BᵀB w)_i / w_i,

because D⁻¹ BᵀB D with D = diag(w) has the same eigenvalues and these row sums.  A vector near the largest eigenvector
of BᵀB gives nearly the norm; any other gives a bound all the same, so whoever proposes it need not be trusted.
Arithmetic: rounded up.  Nothing cancels, so both products err by a small factor and by what underflows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from certifier.operators import Adjoint, Composed, Operator, Sum
from certifier.proof.readout import underflow_upper
from certifier.proof.rounding import FLOAT64, add_upper, div_upper, gamma_upper, mul_upper, sqrt_upper

Floats = NDArray[np.float64]

LEAST_WEIGHT = 2.0**-30
"""Of the largest entry of w: smaller ones are raised, so that what underflows is not magnified by the quotient."""


def magnitude_norm_upper(operator: Operator, weights: Floats) -> float:
    """‖|A|‖ <= result for the map's entrywise magnitude `operator.absolute()`; +inf where it overflows.

    Shapes: weights [columns]; whatever is in them is taken as a proposal.
    """
    weights = np.asarray(weights, dtype=np.float64)
    largest = float(np.max(weights, initial=0.0))
    usable = np.isfinite(weights).all() and largest > 0
    w = np.maximum(weights / largest, LEAST_WEIGHT) if usable else np.ones_like(weights)
    magnitude = operator.absolute()
    with np.errstate(over="ignore", invalid="ignore"):
        image = magnitude.forward(w[None])
        back = magnitude.adjoint(image)[0]
        lost = underflow_upper(magnitude, underflow_upper(_transposed(magnitude), 0.0))
    count = operator.fan_in + operator.fan_out + 8
    relative = mul_upper(1.0 + 2.0 * gamma_upper(count, FLOAT64), (1.0 + 2.0 * operator.weight_error) ** 2)
    sums = mul_upper(add_upper(np.where(np.isnan(back), np.inf, back), lost), relative)
    return float(sqrt_upper(np.max(div_upper(sums, w), initial=0.0)))


def _transposed(operator: Operator) -> Operator:
    """Aᵀ, whose parts are those of A, so that what underflows between them is seen."""
    if isinstance(operator, Composed):
        return Composed([_transposed(part) for part in reversed(operator.parts)])
    if isinstance(operator, Sum):
        return Sum([_transposed(part) for part in operator.parts])
    return Adjoint(operator)
