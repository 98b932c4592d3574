"""Quantised models, which every format spells in operators of its own: one reason for all, and what helps."""

from __future__ import annotations

import re

STANDARD = (
    "ConvInteger",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "MatMulInteger",
    "QLinearConv",
    "QLinearMatMul",
    "QuantizeLinear",
)
"""The operators of the ONNX standard that compute with quantised numbers."""
REASON = "belongs to a quantised model, which rounds values to integers, so its outputs jump and have no constant"
REMEDY = "certify the float model: export it before it is quantised"
_NAMES = re.compile(r"quanti[sz]e|qtensor|qlinear|qattention|qgemm|integer", re.IGNORECASE)


def is_quantised(operator: str) -> bool:
    """Whether an operator's name, with namespace or domain, tells that it computes with quantised numbers."""
    return _NAMES.search(operator) is not None
