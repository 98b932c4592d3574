"""A linear step of many rows as one of few that makes no vector shorter, for what only asks for lengths behind it."""

import numpy as np

from certifier.errors import NotProved
from certifier.proof.frequencies import Torus
from certifier.proof.frequency.congruence import SLACKS, congruence, frobenius_upper
from certifier.proof.frequency.steps import Block, Linear
from certifier.proof.frequency.symbols import stray_upper, symbols
from certifier.proof.rounding import FLOAT64, add_upper, gamma_upper, mul_upper
from certifier.proof.semidefinite import is_proved_psd


def narrowed(step: Linear, columns: int) -> Linear:
    """R with ‖R v‖ >= ‖A v‖ for every vector v of a point, on `columns` rows; the step itself where that is no gain.

    A is one real matrix at every frequency. RᵀR ⪰ AᵀA is proved: X = fl(AᵀA) is off by at most e for every A that the
    step may stand for, Y = fl(RᵀR) by e', and their difference is rounded once.
    Raises: NotProved.
    """
    if step.rows <= columns or not all(block.is_pointwise for block in step.blocks):
        return step
    axes = step.blocks[0].offsets.shape[1]
    factor = symbols(step, Torus((1,) * axes), columns, slice(None))
    gram, error = congruence(np.swapaxes(factor, 1, 2), np.eye(step.rows)[None], stray_upper(step))
    scale = float(np.max(np.diagonal(gram[0]), initial=0.0))
    for slack in SLACKS:
        try:
            root = np.linalg.cholesky(gram[0] + slack * scale * np.eye(columns))
        except np.linalg.LinAlgError:
            continue
        square, other = congruence(root[None], np.eye(columns)[None], 0.0)
        rounded = mul_upper(gamma_upper(2, FLOAT64), add_upper(frobenius_upper(gram), frobenius_upper(square)))
        if np.all(is_proved_psd(square - gram, add_upper(add_upper(error, other), rounded))):
            block = Block(
                row=0,
                column=0,
                channels=columns,
                kernel=np.ascontiguousarray(root.T)[:, :, None],
                offsets=np.zeros((1, axes), dtype=np.int64),
                relative_error=0.0,
            )
            return Linear(blocks=(block,), rows=columns, strides=step.strides)
    raise NotProved("no matrix of fewer rows is proved to make no vector shorter")
