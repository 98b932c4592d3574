"""Our constants against bounds that others published for the same networks.

Only bounds that may be trusted take part.  A published product of norms is an upper bound like ours: ours may fall
below it where consecutive linear maps are one, and not otherwise by more than the reference's own slack.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

Constants = Mapping[str, tuple[list[float] | None, list[list[float]] | None]]
"""By path in the manifest: the constants of the outputs and of the pairs."""

GLORO = "tobycmurray/python-certifier/gloro_mnist_8x128.onnx"
GLORO_AGREEMENT = 1e-6
GLORO_SLACK = 5e-8
"""The reference differs by up to 4.1e-8, either way, from the product of the singular values of the file's weights."""
SINGULAR_VALUES = 1e-12
"""Relative error of nine largest singular values by LAPACK, multiplied."""
DIGITS_LABEL = 7
"""The published bounds of the digits networks speak of this logit alone."""


def reference_checks(models: Path, constants: Constants) -> list[tuple[str, bool, str]]:
    """(what was compared, whether it holds, the figures) for every reference whose model was certified."""
    checks = []
    pairs = constants.get(GLORO, (None, None))[1]
    if pairs is not None:
        with np.load(models / GLORO.replace(".onnx", "_reference.npz"), allow_pickle=False) as reference:
            checks.append(compare_pairs(np.array(pairs), reference["margin_lipschitz"]))
        checks.append(compare_product(np.array(pairs), dense_weights(models / GLORO)))
    published = json.loads((models / "reference_bounds.json").read_text(encoding="utf-8"))
    for path, (outputs, _) in constants.items():
        entry = published.get(Path(path).stem)
        if entry is None or outputs is None or "Lip_MP" not in entry.get("usable", ()):
            continue
        checks.append(compare_output(Path(path).stem, outputs[DIGITS_LABEL], entry["ref"]))
    return checks


def compare_pairs(ours: NDArray[np.float64], reference: NDArray[np.float64]) -> tuple[str, bool, str]:
    """Every pair constant within 1e-6 of the reference, and not below it lowered by its slack."""
    apart = ~np.eye(len(ours), dtype=bool)
    relative = ours[apart] / reference[apart] - 1.0
    held = bool(np.abs(relative).max() <= GLORO_AGREEMENT and relative.min() >= -GLORO_SLACK)
    figures = f"relative difference from {relative.min():.1e} to {relative.max():.1e}"
    return "GloRo MNIST, constants of all pairs", held, figures


def compare_product(ours: NDArray[np.float64], weights: list[NDArray[np.float64]]) -> tuple[str, bool, str]:
    """Never below the product of the largest singular values times the distance of two rows, and close to it."""
    *inner, last = weights
    product = float(np.prod([np.linalg.norm(weight, 2) for weight in inner]))
    rows = np.linalg.norm(last[:, None] - last[None], axis=2)
    apart = ~np.eye(len(ours), dtype=bool)
    relative = ours[apart] / (product * rows[apart]) - 1.0
    held = bool(-SINGULAR_VALUES <= relative.min() and relative.max() <= 1e-7)
    figures = f"relative excess from {relative.min():.1e} to {relative.max():.1e}"
    return "GloRo MNIST, product of singular values", held, figures


def dense_weights(path: Path) -> list[NDArray[np.float64]]:
    """The weight matrices of a file with dense layers only, [outputs, inputs] each, in their order."""
    tensors = (numpy_helper.to_array(tensor) for tensor in onnx.load(str(path)).graph.initializer)
    return [tensor.astype(np.float64) for tensor in tensors if tensor.ndim == 2]


def compare_output(name: str, ours: float, reference: Mapping[str, float]) -> tuple[str, bool, str]:
    """The logit's constant is at most the published product of norms and not below what was attained."""
    product, attained = reference["Lip_MP"], reference["Lip_lb"]
    # The published figures are products of float32 norms.
    held = attained * (1.0 - 1e-6) <= ours <= product * (1.0 + 1e-6)
    return (
        f"{name}, logit {DIGITS_LABEL}",
        held,
        f"{ours:.7g}; published product {product:.7g}, attained {attained:.4g}",
    )
