"""Proved spectral norms against computed singular values: `python -m benchmarks.norms [dense|convolutions]`.

A competitor's number is an approximation without an error bound; ours is a theorem about the same matrix.
Dense: Gram matrix, search and Cholesky proof against `torch.linalg.svdvals` in float64.
Convolutions: every frequency of the padded torus proved, against a Fourier transform of the kernel on the same torus
and the singular values of every frequency (Sedghi et al. 2019), once over all frequencies as published and once over
one of each conjugate pair.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.tables import markdown
from benchmarks.timing import interleaved
from certifier.proof.dense import GramProof
from certifier.proof.norms import MEMORY_LIMIT
from certifier.proof.torus import TorusProof, axis_torus
from certifier.search.matrices import Found, prove_matrix_norm
from certifier.search.symbols import prove_kernel_norm

Floats = NDArray[np.float64]
DENSE_SIZES = {1024: 3, 2048: 2, 4096: 1}
"""Order and rounds."""
DECAYING = 2048
"""The order at which a matrix with a decaying spectrum is measured too."""
DENSE_TARGET = 0.25
CONVOLUTION_TARGET = 5.0


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One convolution: channels, kernel size, stride and the input's height and width; pads keep the size."""

    name: str
    inputs: int
    outputs: int
    taps: int
    stride: int
    size: int

    @property
    def pad(self) -> int:
        return self.taps // 2

    @property
    def output_size(self) -> int:
        return (self.size + 2 * self.pad - self.taps) // self.stride + 1

    @property
    def torus(self) -> int:
        """Points of the padded torus along one axis."""
        return axis_torus(
            taps=self.taps,
            length=self.size,
            outputs=self.output_size,
            stride=self.stride,
            pad_before=self.pad,
            dilation=1,
        ).size


RESNET50 = (
    Layer(name="stem", inputs=3, outputs=64, taps=7, stride=2, size=224),
    Layer(name="stage 1", inputs=64, outputs=64, taps=3, stride=1, size=56),
    Layer(name="stage 2, first", inputs=128, outputs=128, taps=3, stride=2, size=56),
    Layer(name="stage 2", inputs=128, outputs=128, taps=3, stride=1, size=28),
    Layer(name="stage 3, first", inputs=256, outputs=256, taps=3, stride=2, size=28),
    Layer(name="stage 3", inputs=256, outputs=256, taps=3, stride=1, size=14),
    Layer(name="stage 4, first", inputs=512, outputs=512, taps=3, stride=2, size=14),
    Layer(name="stage 4", inputs=512, outputs=512, taps=3, stride=1, size=7),
)
"""The distinct convolutions of ResNet-50 with more than one tap, at 224x224."""
POINTWISE = ((64, 64), (256, 64), (128, 256), (512, 128), (256, 512), (1024, 256), (512, 1024), (2048, 512))
"""Outputs and inputs of its 1x1 convolutions, whose norm is that of one matrix (transposes left out)."""


@dataclass(frozen=True, kw_only=True)
class DenseRow:
    """Seconds of proof and of singular values, and how far the proved bound lies above the largest of them."""

    matrix: str
    proof_seconds: float
    peer_seconds: float
    excess: float
    iterations: int

    @property
    def ratio(self) -> float:
        return self.proof_seconds / self.peer_seconds


@dataclass(frozen=True, kw_only=True)
class ConvolutionRow:
    """The same for one convolution; `peer_half_seconds` is the competitor over one of each conjugate pair."""

    layer: Layer
    proof_seconds: float
    peer_seconds: float
    peer_half_seconds: float
    excess: float


def gaussian_matrix(rows: int, columns: int, seed: int) -> Floats:
    """Independent normal entries of variance 1/columns: a layer at initialisation."""
    return np.random.default_rng(seed).standard_normal((rows, columns)) / np.sqrt(columns)


def trained_matrix(order: int, seed: int) -> Floats:
    """Singular values that fall off as a power of their rank, over a flat noise floor: a layer after training."""
    random = np.random.default_rng(seed)
    rank = min(order, 64)
    left, right = random.standard_normal((order, rank)), random.standard_normal((rank, order))
    scale = 3.0 / (1.0 + np.arange(rank)) ** 0.7 / order
    return (left * scale) @ right + 0.5 * gaussian_matrix(order, order, seed + 1)


def prove_dense(matrix: Floats) -> Found:
    """The certifier's whole path for one matrix."""
    return prove_matrix_norm(GramProof(matrix, None), None, seed=1)


def dense_row(label: str, matrix: Floats, *, rounds: int) -> DenseRow:
    tensor = torch.from_numpy(matrix)
    timed = interleaved(
        {"proof": lambda: prove_dense(matrix), "peer": lambda: torch.linalg.svdvals(tensor)}, rounds=rounds
    )
    found: Found = timed["proof"].value
    return DenseRow(
        matrix=label,
        proof_seconds=timed["proof"].seconds,
        peer_seconds=timed["peer"].seconds,
        excess=found.upper / float(timed["peer"].value[0]) - 1.0,
        iterations=found.iterations,
    )


def prove_convolution(kernel: Floats, layer: Layer) -> Found:
    """The certifier's whole path for one convolution."""
    proof = TorusProof(
        kernel,
        None,
        input_shape=(layer.size, layer.size),
        output_shape=(layer.output_size, layer.output_size),
        strides=(layer.stride, layer.stride),
        pads_before=(layer.pad, layer.pad),
        dilations=(1, 1),
        groups=1,
        memory_limit=MEMORY_LIMIT,
    )
    return prove_kernel_norm(proof, None, seed=1)


def fourier_norm(kernel: Floats, layer: Layer) -> tuple[float, float, float]:
    """(largest singular value, seconds, seconds with conjugate symmetry) of a Fourier transform and every SVD.

    Strides gather the aliases of one coarse frequency side by side: [K(w_1) ... K(w_S)] / sqrt(S).
    """
    started = time.perf_counter()
    symbols = _aliased_symbols(kernel, layer)
    representatives = _first_of_each_pair(layer.torus // layer.stride)
    transformed = time.perf_counter() - started
    largest, halves = 0.0, []
    for chosen in (representatives, ~representatives):
        started = time.perf_counter()
        values = torch.linalg.svdvals(torch.from_numpy(symbols[chosen]))
        halves.append(time.perf_counter() - started)
        largest = max(largest, float(values.max()))
    return largest, transformed + sum(halves), transformed + halves[0]


def _aliased_symbols(kernel: Floats, layer: Layer) -> NDArray[np.complex128]:
    stride, coarse = layer.stride, layer.torus // layer.stride
    spectrum = np.fft.fft2(kernel, (layer.torus, layer.torus), axes=(2, 3))
    split = spectrum.reshape(layer.outputs, layer.inputs, stride, coarse, stride, coarse)
    aligned = np.moveaxis(split, (3, 5), (0, 1)).transpose(0, 1, 2, 4, 5, 3)
    return aligned.reshape(coarse * coarse, layer.outputs, -1) / stride


def _first_of_each_pair(size: int) -> NDArray[np.bool_]:
    """True for one frequency of each pair {k, -k} of a size x size torus."""
    row, column = np.divmod(np.arange(size * size), size)
    return np.arange(size * size) <= (-row % size) * size + (-column % size)


def he_kernel(layer: Layer, seed: int) -> Floats:
    """A kernel at He's initialisation, as a network's weights are."""
    shape = (layer.outputs, layer.inputs, layer.taps, layer.taps)
    scale = np.sqrt(2.0 / (layer.inputs * layer.taps**2))
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32).astype(np.float64)


def convolution_row(layer: Layer, *, rounds: int, seed: int = 0) -> ConvolutionRow:
    kernel = he_kernel(layer, seed)
    timed = interleaved(
        {"proof": lambda: prove_convolution(kernel, layer), "peer": lambda: fourier_norm(kernel, layer)},
        rounds=rounds,
    )
    largest, whole, half = timed["peer"].value
    return ConvolutionRow(
        layer=layer,
        proof_seconds=timed["proof"].seconds,
        peer_seconds=whole,
        peer_half_seconds=half,
        excess=timed["proof"].value.upper / largest - 1.0,
    )


def dense_table(rows: list[DenseRow]) -> str:
    header = ["matrix", "proof s", "svdvals s", "proof ÷ svdvals", "relative excess", "iterations"]
    cells = [
        (r.matrix, r.proof_seconds, r.peer_seconds, round(r.ratio, 3), f"{r.excess:.1e}", r.iterations) for r in rows
    ]
    return markdown(header, cells)


def convolution_table(rows: list[ConvolutionRow]) -> str:
    header = [
        "layer",
        "kernel",
        "torus",
        "proof s",
        "FFT + SVD s",
        "faster by",
        "half the SVDs s",
        "faster by",
        "excess",
    ]
    cells = [
        (
            r.layer.name,
            f"{r.layer.outputs}x{r.layer.inputs}x{r.layer.taps}x{r.layer.taps} /{r.layer.stride}",
            f"{r.layer.torus}²",
            r.proof_seconds,
            r.peer_seconds,
            f"{r.peer_seconds / r.proof_seconds:.1f}x",
            r.peer_half_seconds,
            f"{r.peer_half_seconds / r.proof_seconds:.1f}x",
            f"{r.excess:.1e}",
        )
        for r in rows
    ]
    return markdown(header, cells)


def measure_dense() -> list[DenseRow]:
    rows = []
    for order, rounds in DENSE_SIZES.items():
        rows.append(dense_row(f"normal {order}²", gaussian_matrix(order, order, order), rounds=rounds))
        if order == DECAYING:
            rows.append(dense_row(f"decaying {order}²", trained_matrix(order, order), rounds=rounds))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=("all", "dense", "convolutions"), default="all")
    parser.add_argument("--threads", type=int, help="for both sides; on a busy machine one disturbs least")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with threadpool_limits(arguments.threads or None):
        report(arguments.part)


def report(part: str) -> None:
    """Measure and print one part, or `all`."""
    if part != "convolutions":
        rows = measure_dense()
        print(dense_table(rows))
        worst = max(row.ratio for row in rows if "4096" in row.matrix)
        print(f"\nproof ÷ svdvals at 4096: {worst:.3f}, target below {DENSE_TARGET}\n")
    if part != "dense":
        rows = [convolution_row(layer, rounds=1) for layer in RESNET50]
        print(convolution_table(rows))
        total = sum(row.peer_seconds for row in rows) / sum(row.proof_seconds for row in rows)
        least = min(row.peer_seconds / row.proof_seconds for row in rows)
        print(f"\nfaster by {total:.1f}x together, by {least:.1f}x at least; target {CONVOLUTION_TARGET:.0f}x\n")
        pointwise = [
            dense_row(f"1x1 {outputs}x{inputs}", gaussian_matrix(outputs, inputs, outputs), rounds=3)
            for outputs, inputs in POINTWISE
        ]
        print(dense_table(pointwise))


if __name__ == "__main__":
    main()
