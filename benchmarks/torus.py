"""What the torus costs small maps, whatever the search: `python -m benchmarks.torus`.  Needs the extra `benchmarks`.

Networks of three zero-padded 3×3 convolutions with ReLUs and a matrix, as in
`tests/certifier/test_frequency_tightness.py`.  Beside what is proved on frequencies stand the least that any
multipliers per channel can give on that torus, and the best that they give on the zero-padded network itself.  The
least is the conic optimum of LipSDP, which falls apart into one matrix for every frequency, because a circular
network's best multipliers may be averaged over all shifts.  Least ÷ best is what no search on that torus undercuts.
"""

from __future__ import annotations

from importlib import import_module
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.tables import markdown
from certifier.bounds.product import ProductBound
from certifier.documents import CertifyOptions
from certifier.frequencies.method import arrays_of_part, check
from certifier.frequencies.plans import Planner
from certifier.limits import Budget
from certifier.operators import Convolution, Kronecker
from certifier.terms import Affine
from certifier.tightening.frequency import search
from tests.building import certify_model
from tests.certifier.dense_multipliers import dense_mean_pair
from tests.certifier.preparing import mean_pair, prepared
from tests.certifier.test_frequency_tightness import convolutions

CASES = (("plain", 6), ("plain", 8), ("plain", 10), ("strided", 6), ("strided", 8))
SECONDS = 60.0
DENSE_STEPS = 150

Complex = NDArray[np.complex128]


def symbol(kernel: NDArray[Any], frequency: tuple[float, float]) -> Complex:
    """A 3×3 kernel, padded by one, at a frequency.  Shapes: [c_out, c_in, 3, 3] -> [c_out, c_in]."""
    offsets = np.arange(3) - 1
    phases = np.exp(1j * (frequency[0] * offsets[:, None] + frequency[1] * offsets[None, :]))
    return np.einsum("oikl,kl->oi", kernel, phases)


def optimum_on_the_torus(convolved: list[Convolution], head: NDArray[Any], size: int) -> list[float]:
    """The least constant of every pair of outputs by multipliers per channel on the torus of `size`² points."""
    cvxpy: Any = import_module("cvxpy")
    stride = convolved[1].strides[0]
    points = size // stride
    aliases = [(i, j) for i in range(stride) for j in range(stride)]
    channels = convolved[0].channels_out
    fine, inputs = len(aliases), convolved[0].channels_in
    # The state of a coarse frequency: input and first layer at each of its aliases, then the second and third layer.
    starts = np.cumsum([0, fine * inputs, fine * channels, channels, channels])
    order = int(starts[-1])
    side = convolved[2].output_shape[0]

    def layers(coarse: tuple[int, int]) -> list[Complex]:
        """What each layer reads, as a matrix on the state."""
        read = [np.zeros((count, order), dtype=complex) for count in (fine * channels, channels, channels)]
        for which, (i, j) in enumerate(aliases):
            fine_frequency = (
                2 * np.pi * (coarse[0] + i * points) / size,
                2 * np.pi * (coarse[1] + j * points) / size,
            )
            rows = slice(which * channels, (which + 1) * channels)
            read[0][rows, which * inputs : (which + 1) * inputs] = symbol(convolved[0].kernel, fine_frequency)
            second = symbol(convolved[1].kernel, fine_frequency) / stride
            read[1][:, starts[1] + which * channels : starts[1] + (which + 1) * channels] = second
        here = (2 * np.pi * coarse[0] / points, 2 * np.pi * coarse[1] / points)
        read[2][:, starts[2] : starts[3]] = symbol(convolved[2].kernel, here)
        return read

    def functional(row: NDArray[Any], coarse: tuple[int, int]) -> Complex:
        """A row of the head on the state."""
        cube = row.reshape(channels, side, side)
        along = [np.exp(2j * np.pi * each / points * np.arange(side)) / np.sqrt(points) for each in coarse]
        whole = np.zeros(order, dtype=complex)
        whole[starts[3] :] = np.einsum("cij,i,j->c", cube, along[0], along[1])
        return whole

    found = []
    for first, second in combinations(range(len(head)), 2):
        multipliers = cvxpy.Variable((3, channels), nonneg=True)
        total: Any = 0
        constraints = []
        for coarse in np.ndindex(points, points):
            mirror = tuple(-each % points for each in coarse)
            if mirror < coarse:
                continue
            form: Any = np.diag((np.arange(order) < starts[1]).astype(float))
            for layer, read in enumerate(layers(coarse)):
                for channel in range(channels):
                    own, other = np.zeros_like(read), np.zeros_like(read)
                    chosen = np.arange(channel, len(read), channels)
                    own[chosen, starts[layer + 1] + chosen] = 1
                    other[chosen] = read[chosen]
                    # 2 Re hᴴ(y - h) >= 0 for slopes between 0 and 1.
                    cross = own.conj().T @ other
                    form = form - multipliers[layer, channel] * (cross + cross.conj().T - 2 * own.conj().T @ own)
            row = functional(head[first] - head[second], coarse)
            bound = cvxpy.Variable((1, 1))
            whole = cvxpy.bmat([[form, row.conj()[:, None]], [row[None], bound]])
            # Written in real numbers: [[Re, -Im], [Im, Re]].
            doubled = cvxpy.bmat([[cvxpy.real(whole), -cvxpy.imag(whole)], [cvxpy.imag(whole), cvxpy.real(whole)]])
            constraints.append((doubled + doubled.T) / 2 >> 0)
            total = total + (1 if mirror == coarse else 2) * bound[0, 0]
        problem = cvxpy.Problem(cvxpy.Minimize(total), constraints)
        problem.solve(solver=cvxpy.CLARABEL)
        found.append(float(np.sqrt(problem.value)))
    return found


def main() -> None:
    """Prints the table."""
    rows = []
    for kind, size in CASES:
        model = convolutions(1, kind=kind, size=size, channels=3)
        network, norms = prepared(model.data())
        planner = Planner(network, norms)
        witness = search(planner, ProductBound(network, norms), budget=Budget.of(SECONDS)).witness
        ours = mean_pair(check(planner, witness))
        parts: Any = witness.header["parts"]
        torus = int(parts[0]["tori"][0][0])
        maps = [term.operators[0] for term in network.terms if isinstance(term, Affine)]
        convolved = [each for each in maps if isinstance(each, Convolution)]
        heads = [each.dense() for each in maps if isinstance(each, Kronecker)]
        floor = float(np.mean(optimum_on_the_torus(convolved, heads[-1], torus)))
        _, dense = dense_mean_pair(network, arrays_of_part(witness, 0), steps=DENSE_STEPS)
        pairs = certify_model(model, options=CertifyOptions(seconds=20)).certificate.pairs
        assert pairs is not None
        served = float(np.mean(np.array(pairs)[np.triu_indices(len(pairs), 1)]))
        rows.append(
            (
                f"{kind} {size}x{size}",
                f"{torus}x{torus}",
                ours,
                floor,
                dense,
                ours / floor,
                floor / dense,
                served / dense,
            )
        )
    header = "network|torus|proved on frequencies|least on the torus|best on the network"
    print(markdown([*header.split("|"), "proved ÷ least", "least ÷ best", "served ÷ best"], rows))


if __name__ == "__main__":
    main()
