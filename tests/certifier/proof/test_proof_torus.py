"""Torus bounds lie above the exact norm of the materialised convolution, and nothing below it is proved."""

from itertools import product
from typing import Any

import mpmath
import numpy as np
import pytest

from certifier.proof.phases import PHASE_ERROR, cosine_sine
from certifier.proof.torus import TorusProof, axis_torus

LIMIT = 2**26


def materialised(kernel: np.ndarray, geometry: dict[str, Any]) -> np.ndarray:
    """The matrix of the zero-padded convolution, entry by entry from its definition."""
    outputs, per_group, *taps = kernel.shape
    groups = geometry["groups"]
    n, m = geometry["input_shape"], geometry["output_shape"]
    matrix = np.zeros((outputs, *m, per_group * groups, *n))
    for q in product(*map(range, m)):
        for t in product(*map(range, taps)):
            steps = zip(q, t, geometry["strides"], geometry["dilations"], geometry["pads_before"], strict=True)
            place = tuple(s * i + d * j - p for i, j, s, d, p in steps)
            if all(0 <= x < size for x, size in zip(place, n, strict=True)):
                for output in range(outputs):
                    first = output // (outputs // groups) * per_group
                    window = (output, *q, slice(first, first + per_group), *place)
                    matrix[window] += kernel[(output, slice(None), *t)]
    return matrix.reshape(outputs * int(np.prod(m)), -1)


def proved(proof: TorusProof) -> float:
    mu = max(np.linalg.eigvalsh(stack)[:, -1].max() for _, stack, _ in proof.grams(None))
    mu = (np.sqrt(mu) + proof.distance.max()) ** 2 * (1 + 1e-9)
    assert len(proof.prove(mu, None)) == 0
    return proof.norm_upper_from_mu(mu)


def mu_for(proof: TorusProof, norm: float, geometry: dict[str, Any], kernel: np.ndarray) -> float:
    aliases = np.prod([s for s, k in zip(geometry["strides"], kernel.shape[2:], strict=True) if k > 1])
    return float((norm * 2.0**-proof.exponent) ** 2 * aliases)


def random_case(rng: np.random.Generator, axes: int) -> tuple[np.ndarray, dict[str, Any]]:
    largest = (12, 6, 4)[axes - 1]
    while True:
        taps = rng.integers(1, 5 if axes < 3 else 4, axes)
        n = rng.integers(1, largest + 1, axes)
        strides, dilations = rng.integers(1, 4, axes), rng.integers(1, 3, axes)
        before, after = rng.integers(-1, 6, axes), rng.integers(-1, 6, axes)
        extent = n + before + after - dilations * (taps - 1) - 1
        outputs = extent // strides + 1
        if (extent >= 0).all() and outputs.max() <= 2 * largest:
            break
    groups = int(rng.choice([1, 1, 2, 3]))
    kernel = rng.standard_normal((groups * int(rng.integers(1, 4)), int(rng.integers(1, 3)), *taps))
    if rng.random() < 0.4:
        kernel = rng.choice([-1.0, 0.0, 1.0, 2.0], kernel.shape)
    geometry: dict[str, Any] = {
        "input_shape": n.tolist(),
        "output_shape": outputs.tolist(),
        "strides": strides.tolist(),
        "pads_before": before.tolist(),
        "dilations": dilations.tolist(),
        "groups": groups,
    }
    return kernel, geometry


@pytest.mark.parametrize(("axes", "seeds"), [(1, 250), (2, 120), (3, 50)])
def test_bound_is_above_the_exact_norm(axes: int, seeds: int) -> None:
    rng = np.random.default_rng(axes)
    tight = 0
    for _ in range(seeds):
        kernel, geometry = random_case(rng, axes)
        exact = float(np.linalg.norm(materialised(kernel, geometry), 2))
        proof = TorusProof(kernel, None, **geometry, memory_limit=LIMIT)
        if exact == 0:
            continue
        bound = proved(proof)
        assert exact <= bound
        assert bound <= proof.fallback_upper * (1 + 1e-9)
        assert len(proof.prove(mu_for(proof, exact * (1 - 1e-6), geometry, kernel), None)) > 0
        tight += bound <= 1.25 * exact
    assert tight > seeds / 10


def conv(n: int, k: int, **changes: Any) -> dict[str, Any]:
    pad = k // 2
    geometry: dict[str, Any] = {
        "input_shape": [n, n],
        "output_shape": [n, n],
        "strides": [1, 1],
        "pads_before": [pad, pad],
        "dilations": [1, 1],
        "groups": 1,
    }
    return geometry | changes


@pytest.mark.parametrize("seed", range(3))
def test_bound_is_within_six_percent_for_padded_convolutions(seed: int) -> None:
    kernel = np.random.default_rng(seed).standard_normal((4, 4, 3, 3))
    exact = np.linalg.norm(materialised(kernel, conv(16, 3)), 2)
    bound = proved(TorusProof(kernel, None, **conv(16, 3), memory_limit=LIMIT))
    assert exact <= bound <= 1.06 * exact


LINE: dict[str, Any] = {"strides": [1], "dilations": [1], "groups": 1}


def test_torus_of_the_input_size_would_be_unsound() -> None:
    kernel = np.array([[[1.0, -1.0]]])
    geometry: dict[str, Any] = LINE | {"input_shape": [3], "output_shape": [4], "pads_before": [1]}
    exact = np.linalg.norm(materialised(kernel, geometry), 2)
    assert exact > 1.8 > np.sqrt(3)
    proof = TorusProof(kernel, None, **geometry, memory_limit=LIMIT)
    assert proved(proof) >= exact
    assert len(proof.prove(mu_for(proof, np.sqrt(3) * 1.01, geometry, kernel), None)) > 0


def test_transposed_convolution_takes_the_torus_of_its_output() -> None:
    kernel = np.array([[[1.0, 1.0, 0.0, -1.0]]])
    geometry: dict[str, Any] = LINE | {"input_shape": [5], "output_shape": [2], "pads_before": [0]}
    exact = np.linalg.norm(materialised(kernel, geometry), 2)
    assert exact == pytest.approx(2.0)
    assert proved(TorusProof(kernel, None, **geometry, memory_limit=LIMIT)) >= exact


def test_axis_torus_is_minimal_where_it_can_be_checked() -> None:
    """On one point fewer, some read wraps into the input or two outputs coincide."""
    rng = np.random.default_rng(0)
    for _ in range(500):
        taps, n, s, d = (int(v) for v in rng.integers((2, 1, 1, 1), (5, 9, 4, 4)))
        before = int(rng.integers(-2, 6))
        outputs = int(rng.integers(1, 8))
        axis = axis_torus(taps=taps, length=n, outputs=outputs, stride=s, pad_before=before, dilation=d)
        assert axis.size % s == 0
        rows = [s * q for q in range(outputs)]
        assert len({row % axis.size for row in rows}) == outputs
        for row, offset in product(rows, axis.offsets):
            wrapped = (row + offset) % axis.size
            assert (row + offset == wrapped) if wrapped < n else not 0 <= row + offset < n


def test_entry_errors_are_covered() -> None:
    rng = np.random.default_rng(2)
    kernel = rng.standard_normal((2, 3, 3, 3))
    error = 0.05 * rng.random(kernel.shape)
    geometry = conv(6, 3)
    proof = TorusProof(kernel, error, **geometry, memory_limit=LIMIT)
    bound = proved(proof)
    for _ in range(20):
        other = kernel + error * rng.choice([-1, 1], kernel.shape)
        assert min(bound, proof.fallback_upper) >= np.linalg.norm(materialised(other, geometry), 2)


def test_an_entry_error_is_not_ignored() -> None:
    geometry = conv(6, 3, input_shape=[6, 6])
    proof = TorusProof(np.ones((1, 1, 3, 3)), np.full((1, 1, 3, 3), 0.1), **geometry, memory_limit=LIMIT)
    top = max(float(np.real(stack).max()) for _, stack, _ in proof.grams(None))
    assert len(proof.prove(1.09**2 * top, None)) > 0
    assert len(proof.prove(1.11**2 * top, None)) == 0


@pytest.mark.parametrize("exponent", [-1000, -664, 600])
def test_extreme_weights_give_the_scaled_bound(exponent: int) -> None:
    kernel = np.random.default_rng(2).standard_normal((3, 2, 3, 3))
    plain = proved(TorusProof(kernel, None, **conv(5, 3), memory_limit=LIMIT))
    scaled = proved(TorusProof(np.ldexp(kernel, exponent), None, **conv(5, 3), memory_limit=LIMIT))
    assert scaled == pytest.approx(np.ldexp(plain, exponent), rel=1e-5)
    assert scaled > 0


def test_subnormal_and_zero_kernels() -> None:
    tiny = TorusProof(np.full((1, 1, 3, 3), 1e-310), None, **conv(5, 3), memory_limit=LIMIT)
    assert tiny.fallback_upper > 9e-310
    assert len(tiny.prove(1e-300, None)) == tiny.pair_count
    zero = TorusProof(np.zeros((1, 1, 3, 3)), None, **conv(5, 3), memory_limit=LIMIT)
    assert len(zero.prove(0.0, None)) == 0 and zero.norm_upper_from_mu(0.0) == zero.fallback_upper == 0
    unsure = TorusProof(np.zeros((1, 1, 3, 3)), np.full((1, 1, 3, 3), 0.1), **conv(5, 3), memory_limit=LIMIT)
    assert len(unsure.prove(0.0, None)) > 0 and unsure.fallback_upper >= 0.9


@pytest.mark.parametrize("limit", [1, 2**14, 2**16, 2**28])
@pytest.mark.parametrize("groups", [1, 3])
def test_batches_cover_every_pair_once_at_any_memory_limit(limit: int, groups: int) -> None:
    kernel = np.random.default_rng(4).standard_normal((6, 6 // groups, 3, 3))
    geometry = conv(7, 3, groups=groups)
    proof = TorusProof(kernel, None, **geometry, memory_limit=limit)
    whole = TorusProof(kernel, None, **geometry, memory_limit=2**30)
    ((every, reference, _),) = whole.grams(None)
    lookup = {tuple(pair): matrix for pair, matrix in zip(every.tolist(), reference, strict=True)}
    assert len(lookup) == len(every) == proof.pair_count
    seen = []
    for part, stack, errors in proof.grams(None):
        assert len(part) == len(stack) == len(errors)
        for pair, matrix in zip(part.tolist(), stack, strict=True):
            seen.append(tuple(pair))
            assert np.allclose(matrix, lookup[tuple(pair)], rtol=1e-12, atol=1e-12)
    assert sorted(seen) == sorted(lookup)

    some = every[::-5]
    got = {tuple(p): m for part, stack, _ in proof.grams(some) for p, m in zip(part.tolist(), stack, strict=True)}
    assert sorted(got) == sorted(map(tuple, some.tolist()))
    assert all(np.allclose(matrix, lookup[pair], rtol=1e-12, atol=1e-12) for pair, matrix in got.items())

    median = float(np.median(np.linalg.eigvalsh(reference)[:, -1]))
    expected = {pair for pair, matrix in lookup.items() if np.linalg.eigvalsh(matrix)[-1] >= median}
    assert set(map(tuple, proof.prove(median, None).tolist())) == expected
    assert set(map(tuple, proof.prove(median, some).tolist())) == expected & set(map(tuple, some.tolist()))


def test_half_of_the_frequencies_represent_all() -> None:
    kernel = np.random.default_rng(4).standard_normal((2, 2, 3, 3))
    proof = TorusProof(kernel, None, **conv(7, 3), memory_limit=LIMIT)
    assert proof.frequencies == (8 * 8 + 4) // 2
    largest = max(
        np.linalg.norm(
            sum(
                kernel[:, :, a, b] * np.exp(2j * np.pi * (x * (a - 1) + y * (b - 1)) / 8)
                for a, b in product(range(3), repeat=2)
            ),
            2,
        )
        for x, y in product(range(8), repeat=2)
    )
    assert proved(proof) == pytest.approx(largest, rel=1e-8)


def test_single_taps_need_one_real_matrix() -> None:
    kernel = np.random.default_rng(4).standard_normal((6, 4, 1, 1))
    geometry = conv(8, 1, strides=[2, 2], output_shape=[4, 4])
    proof = TorusProof(kernel, None, **geometry, memory_limit=LIMIT)
    assert proof.frequencies == 1
    assert next(proof.grams(None))[1].dtype == np.float64
    norm = np.linalg.norm(kernel[:, :, 0, 0], 2)
    assert norm <= proved(proof) <= norm * (1 + 1e-8)


@pytest.mark.parametrize("denominator", [1, 2, 3, 4, 7, 8, 15, 230, 57 * 58, 2**20 + 7])
def test_phases_are_within_their_error(denominator: int) -> None:
    rng = np.random.default_rng(denominator)
    numerators = np.unique(rng.integers(-denominator, 2 * denominator, 200))
    cosine, sine = cosine_sine(numerators, denominator)
    with mpmath.workdps(40):
        for k, c, s in zip(numerators.tolist(), cosine.tolist(), sine.tolist(), strict=True):
            angle = 2 * mpmath.pi * k / denominator
            worst = max(abs(mpmath.cos(angle) - c), abs(mpmath.sin(angle) - s))
            assert worst <= 4 * mpmath.mpf(2) ** -53 < PHASE_ERROR


def test_quarter_turns_are_exact_and_large_denominators_refused() -> None:
    cosine, sine = cosine_sine(np.arange(4), 4)
    assert cosine.tolist() == [1, 0, -1, 0] and sine.tolist() == [0, 1, 0, -1]
    for bad in (0, 2**51):
        with pytest.raises(ValueError, match="denominator"):
            cosine_sine(np.arange(4), bad)


def test_symbols_are_within_their_distance() -> None:
    rng = np.random.default_rng(9)
    kernel = rng.standard_normal((2, 3, 3, 2))
    geometry = conv(5, 3, strides=[2, 1], pads_before=[1, 0], output_shape=[3, 4], dilations=[1, 2])
    proof = TorusProof(kernel, None, **geometry, memory_limit=LIMIT)
    sizes = [
        axis_torus(taps=3, length=5, outputs=3, stride=2, pad_before=1, dilation=1),
        axis_torus(taps=2, length=5, outputs=4, stride=1, pad_before=0, dilation=2),
    ]
    symbols = proof.symbols(np.arange(proof.frequencies)).reshape(-1, 2, 2, 3)  # frequency, row, alias, column
    rows, columns = sizes[0].size // 2, sizes[1].size
    coarse = [(x, y) for x, y in product(range(rows), range(columns)) if (x, y) <= (-x % rows, -y % columns)]
    assert len(coarse) == proof.frequencies
    scale = np.ldexp(1.0, -proof.exponent)
    with mpmath.workdps(40):
        for (x, y), block in list(zip(coarse, symbols, strict=True))[::3]:
            total = mpmath.mpf(0)
            for alias, row, column in product(range(2), range(2), range(3)):
                exact = mpmath.mpc(0)
                for a, b in product(range(3), range(2)):
                    turn = mpmath.mpf((x + rows * alias) * sizes[0].offsets[a]) / sizes[0].size
                    turn += mpmath.mpf(y * sizes[1].offsets[b]) / sizes[1].size
                    exact += mpmath.mpf(float(kernel[row, column, a, b] * scale)) * mpmath.expjpi(2 * turn)
                total += abs(exact - mpmath.mpc(complex(block[row, alias, column]))) ** 2
            assert mpmath.sqrt(total) <= mpmath.mpf(float(proof.distance[0]))


def test_misfits_are_refused() -> None:
    kernel = np.ones((4, 2, 3, 3))
    for changes in ({"groups": 3}, {"strides": [1]}, {"strides": [0, 1]}, {"input_shape": [0, 5]}):
        with pytest.raises(ValueError, match=r"groups|axis|at least 1"):
            TorusProof(kernel, None, **conv(5, 3, **changes), memory_limit=LIMIT)
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="finite"):
            TorusProof(np.full((1, 1, 3, 3), bad), None, **conv(5, 3), memory_limit=LIMIT)
    proof = TorusProof(kernel, None, **conv(5, 3), memory_limit=LIMIT)
    for mu in (np.nan, np.inf, -1.0, 0.0):
        assert len(proof.prove(mu, None)) == proof.pair_count
