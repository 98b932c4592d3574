"""Every hostile upload, by format and attack."""

from __future__ import annotations

from collections.abc import Mapping

from tests.hostile import archives, bundles, exports, onnx_files, torchscripts
from tests.hostile.case import Case

SHAPES: Mapping[str, tuple[int, ...] | None] = {"torchscript": torchscripts.SHAPE}
"""The shape that is declared with uploads of a format, where it does not carry one."""
FORMATS: Mapping[str, Mapping[str, Case]] = {
    "onnx": onnx_files.CASES,
    "bundle": bundles.CASES,
    "torchscript": torchscripts.CASES,
    "torch.export": exports.CASES,
    "zip": archives.CASES,
}
REGISTRY: Mapping[str, tuple[str, Case]] = {
    f"{form}: {attack}": (form, case) for form, cases in FORMATS.items() for attack, case in cases.items()
}
