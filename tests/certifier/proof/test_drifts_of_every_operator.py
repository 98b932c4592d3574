"""Drifts hold for every operator that rounds, as the ONNX project's own node cases use it."""

from __future__ import annotations

from collections import defaultdict
from functools import cache

import numpy as np
import pytest

from certifier.box import Box
from certifier.errors import MalformedModel, UnsupportedModel, UnsupportedNode
from tests.certifier.laws.backend_cases import Single, singles
from tests.certifier.laws.test_backend_cases import PROMISED
from tests.certifier.proof.test_drifts import Case, hold

LARGEST = 20_000
"""Entries of a case's input: larger cases repeat smaller ones."""
HALF = 0.01
"""Half the width of the box around a case's input, on which functions of unbounded slope have a range."""
NOT_SERVED = {"Cast", "Celu", "DepthToSpace", "SpaceToDepth"}
"""Their cases in single precision are of an operator set that the engine does not take, or of several rows."""
MORE = """Asinh Atan Cos Exp Expand GatherElements GroupNormalization GRU Log LSTM Mean Pow Reciprocal RMSNormalization
    RNN ScatterElements ScatterND Sin Sqrt Sum Swish Tile Where""".split()
OPERATORS = [operator for operator in (*PROMISED, *MORE) if operator not in NOT_SERVED]


@cache
def _cases() -> dict[str, list[Single]]:
    found: dict[str, list[Single]] = defaultdict(list)
    for single in singles():
        live = single.live
        if isinstance(live, np.ndarray) and live.dtype == np.float32 and 0 < live.size <= LARGEST:
            if np.isfinite(live).all():
                found[single.operator].append(single)
    return found


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_engine_keeps_to_the_drifts_of_an_operator(operator: str):
    generator = np.random.default_rng(len(operator))
    held = 0
    for single in _cases()[operator]:
        row = single.live.astype(np.float64).reshape(1, -1)
        box = Box(lower=row[0] - HALF, upper=row[0] + HALF)
        try:
            case = Case(single.model, "float32", box)
            # Some kernels see what they refuse only when they run.
            case.engine.run(row)
        except (MalformedModel, UnsupportedModel, UnsupportedNode):
            continue
        hold(case, np.repeat(row, 2, axis=0), generator, (0.0, HALF / 10, HALF))
        held += 1
    assert held
