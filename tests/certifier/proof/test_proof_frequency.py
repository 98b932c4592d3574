"""The recursion on frequencies equals the same recursion on the whole torus, and is refused where nothing is proved."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from certifier.errors import NotProved
from certifier.proof.frequencies import Torus, grid
from certifier.proof.frequency.checking import prove
from certifier.proof.frequency.congruence import congruence, inverse_upper, largest_eigenvalue_upper
from certifier.proof.frequency.steps import Block, Linear, Segment, Slopes
from certifier.proof.frequency.symbols import stray_upper, symbols
from certifier.witness import Witness

SIZES = ((1,), (5,), (6,), (4, 6), (3, 2, 2))


def block(kernel, offsets, *, row=0, column=0, error=0.0) -> Block:
    return Block(
        row=row,
        column=column,
        channels=0 if kernel is None else kernel.shape[0],
        kernel=kernel,
        offsets=np.asarray(offsets, dtype=np.int64),
        relative_error=error,
    )


def identity(channels, axes, *, row=0, column=0) -> Block:
    offsets = np.zeros((1, axes), dtype=np.int64)
    return Block(row=row, column=column, channels=channels, kernel=None, offsets=offsets, relative_error=0.0)


def dense(step: Linear, sizes: tuple[int, ...], columns: int) -> np.ndarray:
    """The step's matrix on the whole torus, written down entry by entry: rows and columns are (channel, point)."""
    points = [tuple(int(i) for i in point) for point in grid(sizes)]
    place = {point: position for position, point in enumerate(points)}
    strides = sizes if step.strides is None else step.strides
    kept = [point for point in points if all(i % s == 0 for i, s in zip(point, strides, strict=True))]
    matrix = np.zeros((step.rows, len(kept), columns, len(points)))
    for part in step.blocks:
        kernel = np.eye(part.channels)[:, :, None] if part.kernel is None else part.kernel
        for (position, point), (tap, offset) in product(enumerate(kept), enumerate(part.offsets)):
            seen = place[tuple(int((p + o) % n) for p, o, n in zip(point, offset, sizes, strict=True))]
            rows, inputs = kernel.shape[:2]
            matrix[part.row : part.row + rows, position, part.column : part.column + inputs, seen] += kernel[:, :, tap]
    return matrix.reshape(step.rows * len(kept), columns * len(points))


def dense_covariance(segments, arrays, *, choose: bool) -> tuple[np.ndarray, int]:
    """The joint covariance of the last state on the whole torus, by plain linear algebra, and its channels.

    `choose`: multipliers half as large again as they have to be are written into `arrays`.
    """
    before = None
    for position, segment in enumerate(segments):
        variances = segment.squares
        if before is not None:
            inherited = np.where(segment.sources >= 0, before[segment.sources], before.max())
            variances = variances * inherited
        sizes, width = segment.sizes, len(variances)
        sigma = np.diag(np.repeat(variances, Torus(sizes).points))
        for number, step in enumerate(segment.steps):
            if isinstance(step, Linear):
                matrix = dense(step, sizes, width)
                sigma, width = matrix @ sigma @ matrix.T, step.rows
                strides = sizes if step.strides is None else step.strides
                sizes = tuple(n // s for n, s in zip(sizes, strides, strict=True))
                continue
            points = Torus(sizes).points
            rows = slice(step.start * points, (step.start + len(step.lower)) * points)
            middle, half = (np.repeat((step.upper + sign * step.lower) / 2, points) for sign in (1, -1))
            name = f"multipliers/{position}/{number}"
            if choose:
                shape = 1.0 + np.arange(len(step.lower))
                root = 1 / np.sqrt(np.repeat(shape, points))
                arrays[name] = 1.5 * np.linalg.eigvalsh(root[:, None] * sigma[rows, rows] * root)[-1] * shape
            t = np.repeat(arrays[name], points)
            across = sigma[:, rows]
            sigma = sigma + across @ np.linalg.inv(np.diag(t) - sigma[rows, rows]) @ across.T
            scale = np.ones(len(sigma))
            scale[rows] = middle
            sigma = scale[:, None] * sigma * scale
            sigma[rows, rows] += np.diag(half**2 * t)
        if position + 1 < len(segments):
            before = arrays[f"restarts/{position}"]
    return sigma, width


def chain(generator, sizes=(6, 4), strides=(2, 1)) -> tuple[list[Segment], Witness]:
    """Convolution, residual block with a copy, strided projection, activation of α < 0, and a matrix at the end."""
    axes = len(sizes)
    taps = grid((3,) * axes) - 1

    def kernel(rows, columns, count=len(taps)):
        return generator.standard_normal((rows, columns, count)) / np.sqrt(columns * count)

    ones = (1,) * axes
    flat = grid(tuple(n // s for n, s in zip(sizes, strides, strict=True)))
    steps = (
        Linear(blocks=(block(kernel(3, 2), taps),), rows=3, strides=ones),
        # (y, y): one of the two is activated.
        Linear(blocks=(identity(3, axes), identity(3, axes, row=3)), rows=6, strides=ones),
        Slopes(start=3, lower=np.array([0.0, -0.1, 0.2]), upper=np.array([1.0, 1.1, 0.7])),
        # x + K h, all points of every second row kept.
        Linear(
            blocks=(identity(3, axes), block(kernel(3, 3), taps, column=3), block(kernel(2, 3), taps + 1, row=3)),
            rows=5,
            strides=strides,
        ),
        Slopes(start=0, lower=np.zeros(5), upper=np.ones(5)),
        Linear(blocks=(block(kernel(3, 5, len(flat)), flat),), rows=3, strides=None),
        Slopes(start=0, lower=np.full(3, -0.5), upper=np.full(3, 0.5)),
        Linear(blocks=(block(kernel(2, 3, 1), [(0,) * axes]),), rows=2, strides=ones),
    )
    segment = Segment(sizes=sizes, squares=np.array([1.0, 2.0]), sources=np.array([-1, -1]), steps=steps)
    arrays: dict[str, np.ndarray] = {}
    dense_covariance([segment], arrays, choose=True)
    return [segment], Witness(method="frequency", header={}, arrays=arrays)


@pytest.mark.parametrize("sizes", SIZES)
def test_frequencies_stand_for_all_and_aliases_partition_them(sizes):
    torus = Torus(sizes)
    assert torus.multiplicities.sum() == torus.points
    every = grid(sizes)
    index, opposite = torus.places(every)
    back = torus.frequencies[index] * np.where(opposite, -1, 1)[:, None]
    assert np.array_equal(back % np.array(sizes), every)
    strides = tuple(2 if n % 2 == 0 else 1 for n in sizes)
    aliases = torus.aliases(strides).reshape(-1, len(sizes)) % np.array(sizes)
    both = np.concatenate([aliases, -aliases % np.array(sizes)])
    assert len(np.unique(both, axis=0)) == torus.points


def test_strides_must_divide_the_torus():
    with pytest.raises(ValueError, match="divide"):
        Torus((5, 4)).coarse((2, 2))


@pytest.mark.parametrize("sizes", [(5,), (6, 4)])
def test_symbols_stay_within_their_stray(sizes):
    """Against sums in extended precision; the bound is not much more than rounding."""
    generator = np.random.default_rng(1)
    axes = len(sizes)
    parts = (
        block(generator.standard_normal((3, 2, 9)), generator.integers(-3, 9, size=(9, axes))),
        block(generator.standard_normal((3, 2, 1)), np.zeros((1, axes))),
        identity(2, axes, row=1),
    )
    step = Linear(blocks=parts, rows=3, strides=(1,) * axes)
    torus = Torus(sizes)
    exact = np.zeros((len(torus.frequencies), 3, 2), dtype=np.clongdouble)
    for part in parts:
        kernel = np.eye(2)[:, :, None] if part.kernel is None else part.kernel
        turns = (torus.frequencies[:, None, :] * part.offsets).astype(np.longdouble) / np.array(sizes)
        phase = np.exp(2j * np.longdouble(np.pi) * turns.sum(axis=-1).astype(np.clongdouble))
        # The longdouble of π is that of the double: what it is off by is put back to first order.
        phase *= 1 + 2j * np.longdouble(1.2246467991473532e-16) * turns.sum(axis=-1)
        rows = slice(part.row, part.row + kernel.shape[0])
        exact[:, rows] += np.einsum("rct,ft->frc", kernel, phase)
    away = np.abs(symbols(step, torus, 2, slice(None)) - exact).astype(float)
    stray = stray_upper(step)
    assert np.sqrt((away**2).sum(axis=(1, 2))).max() <= stray <= 1e-12


def test_an_error_of_the_weights_is_part_of_the_stray():
    kernel = np.array([[[3.0, 4.0]]])
    step = Linear(blocks=(block(kernel, [[0], [1]], error=1e-3),), rows=1, strides=(1,))
    assert 7e-3 <= stray_upper(step) <= 7.001e-3


@pytest.mark.parametrize("is_complex", [False, True])
def test_congruences_err_by_less_than_they_say(is_complex):
    generator = np.random.default_rng(2)

    def stack(*shape):
        real = generator.standard_normal(shape)
        return real + 1j * generator.standard_normal(shape) if is_complex else real

    factor, root = stack(5, 3, 7), stack(5, 7, 7)
    matrix = root @ np.conj(np.swapaxes(root, 1, 2))
    matrix = (matrix + np.conj(np.swapaxes(matrix, 1, 2))) / 2
    computed, error = congruence(factor, matrix, 0.0)
    wide = np.clongdouble if is_complex else np.longdouble
    exact = factor.astype(wide) @ matrix.astype(wide) @ np.conj(np.swapaxes(factor, 1, 2)).astype(wide)
    away = np.sqrt((np.abs(computed - exact).astype(float) ** 2).sum(axis=(1, 2)))
    assert (away <= error).all() and (error <= 1e-9).all()
    assert np.array_equal(computed, np.conj(np.swapaxes(computed, 1, 2)))
    _, strayed = congruence(factor, matrix, 1e-3)
    size = np.linalg.norm(factor, axis=(1, 2)) * np.linalg.norm(matrix, 2, axis=(1, 2))
    assert (strayed >= 2e-3 * size * 0.5).all()


def test_too_large_covariances_are_refused():
    with pytest.raises(NotProved):
        congruence(np.ones((1, 1, 1)), np.full((1, 1, 1), 2.0**201), 0.0)
    with pytest.raises(NotProved):
        congruence(np.ones((1, 1, 1)), np.full((1, 1, 1), np.nan), 0.0)


def test_multipliers_that_are_too_large_are_refused():
    """Where the activation comes last, nothing but the bound itself looks at what they make of the covariance."""
    step = Slopes(start=0, lower=np.zeros(1), upper=np.array([4.0]))
    segment = Segment(sizes=(2,), squares=np.ones(1), sources=np.array([-1]), steps=(step,))
    for size in (1e100, 1e308):
        with pytest.raises(NotProved):
            prove([segment], Witness(method="", header={}, arrays={"multipliers/0/0": np.array([size])}))


def test_inverses_are_enclosed_from_above_and_indefinite_gaps_are_refused():
    generator = np.random.default_rng(3)
    root = generator.standard_normal((4, 5, 5)) + 1j * generator.standard_normal((4, 5, 5))
    gap = root @ np.conj(np.swapaxes(root, 1, 2)) + 0.01 * np.eye(5)
    gap = (gap + np.conj(np.swapaxes(gap, 1, 2))) / 2
    above = inverse_upper(gap) - np.linalg.inv(gap)
    scale = np.linalg.norm(np.linalg.inv(gap), 2, axis=(1, 2))
    eigenvalues = np.linalg.eigvalsh((above + np.conj(np.swapaxes(above, 1, 2))) / 2)
    assert (eigenvalues[:, 0] > 0).all() and (eigenvalues[:, -1] < 1e-5 * scale).all()
    for bad in (np.diag([1.0, -1e-9]), np.diag([1.0, 0.0]), np.diag([1.0, np.nan])):
        with pytest.raises(NotProved):
            inverse_upper(bad[None])


def test_the_largest_eigenvalue_is_bounded():
    matrices = np.array([[[2.0, 1.0], [1.0, 2.0]], [[0.0, 0.0], [0.0, 0.5]]])
    assert 3.0 <= largest_eigenvalue_upper(matrices) <= 3.0 * (1 + 1e-9)
    assert 0.0 <= largest_eigenvalue_upper(np.zeros((2, 1, 1))) <= 1e-300


@pytest.mark.parametrize(
    ("sizes", "strides"), [((6, 4), (2, 1)), ((6, 4), (1, 1)), ((6,), (3,)), ((2, 4, 3), (1, 2, 1))]
)
def test_frequencies_agree_with_the_whole_torus(sizes, strides):
    """The same multipliers give the same constants, from above."""
    segments, witness = chain(np.random.default_rng(4), sizes, strides)
    sigma, width = dense_covariance(segments, witness.arrays, choose=False)
    bound = prove(segments, witness)
    assert width == 2 and bound.pairs is not None
    difference = np.sqrt(sigma[0, 0] + sigma[1, 1] - 2 * sigma[0, 1])
    for proved, truth in (
        (bound.upper, np.sqrt(np.linalg.eigvalsh(sigma)[-1])),
        (bound.outputs[0], np.sqrt(sigma[0, 0])),
        (bound.outputs[1], np.sqrt(sigma[1, 1])),
        (bound.pairs[0, 1], difference),
    ):
        assert truth * (1 - 1e-12) <= proved <= truth * (1 + 1e-6)


def test_maps_as_outputs_agree_with_the_whole_torus():
    """Where the outputs are a map of several points: all together, and the entries of every channel."""
    segments, witness = chain(np.random.default_rng(5))
    steps = segments[0].steps[:5]
    segments = [Segment(sizes=(6, 4), squares=np.ones(2), sources=np.array([-1, -1]), steps=steps)]
    arrays = {name: array for name, array in witness.arrays.items() if name != "multipliers/0/6"}
    sigma, width = dense_covariance(segments, arrays, choose=False)
    bound = prove(segments, Witness(method="", header={}, arrays=arrays))
    truth = np.sqrt(np.diagonal(sigma).reshape(width, -1).max(axis=1))
    assert bound.pairs is None
    assert (truth * (1 - 1e-12) <= bound.outputs).all() and (bound.outputs <= truth * (1 + 1e-6)).all()
    upper = np.sqrt(np.linalg.eigvalsh(sigma)[-1])
    assert upper * (1 - 1e-12) <= bound.upper <= upper * (1 + 1e-6)


def restarted() -> tuple[list[Segment], dict[str, np.ndarray]]:
    generator = np.random.default_rng(6)
    kernel = generator.standard_normal((2, 1, 3))
    first = Segment(
        sizes=(5,),
        squares=np.ones(1),
        sources=np.array([-1]),
        steps=(Linear(blocks=(block(kernel, [[-1], [0], [1]]),), rows=2, strides=(1,)),),
    )
    second = Segment(sizes=(2,), squares=np.array([2.0, 3.0]), sources=np.array([1, -1]), steps=())
    peaks = [np.abs(np.fft.fft(np.roll(np.pad(row[0], (0, 2)), -1))).max() ** 2 for row in kernel]
    # Twice the larger eigenvalue of the diagonal always dominates.
    return [first, second], {"restarts/0": 2.0 * np.array(peaks)}


def test_a_restart_hands_over_its_variances():
    segments, arrays = restarted()
    bound = prove(segments, Witness(method="", header={}, arrays=arrays))
    d = arrays["restarts/0"]
    expected = np.sqrt([2.0 * d[1], 3.0 * d.max()])
    assert (bound.outputs >= expected).all() and bound.outputs == pytest.approx(expected, rel=1e-9)


def test_a_restart_that_does_not_dominate_is_refused():
    segments, arrays = restarted()
    with pytest.raises(NotProved):
        prove(segments, Witness(method="", header={}, arrays={"restarts/0": 0.4 * arrays["restarts/0"]}))


@pytest.mark.parametrize("name", ["multipliers/0/2", "multipliers/0/4", "multipliers/0/6"])
def test_multipliers_that_are_too_small_are_refused(name):
    segments, witness = chain(np.random.default_rng(4))
    for factor in (0.01, 0.0, -1.0, np.nan):
        arrays = {**witness.arrays, name: factor * witness.arrays[name]}
        with pytest.raises(NotProved):
            prove(segments, Witness(method="", header={}, arrays=arrays))


def test_missing_and_unknown_arrays_are_refused():
    segments, witness = chain(np.random.default_rng(4))
    arrays = dict(witness.arrays)
    with pytest.raises(NotProved):
        prove(segments, Witness(method="", header={}, arrays={**arrays, "more": np.ones(1)}))
    del arrays["multipliers/0/4"]
    with pytest.raises(NotProved):
        prove(segments, Witness(method="", header={}, arrays=arrays))


def test_slopes_must_be_finite_and_in_order():
    for lower, upper in ((0.0, np.inf), (1.0, 0.0), (np.nan, 1.0)):
        with pytest.raises(ValueError, match="slopes"):
            Slopes(start=0, lower=np.array([lower]), upper=np.array([upper])).middle_and_half()


def test_middle_and_half_hold_the_slopes():
    generator = np.random.default_rng(7)
    lower = generator.standard_normal(1000)
    upper = lower + generator.random(1000) * 10.0 ** generator.integers(-18, 3, size=1000)
    middle, half = Slopes(start=0, lower=lower, upper=upper).middle_and_half()
    wide = np.longdouble
    assert (middle.astype(wide) - half.astype(wide) <= lower).all()
    assert (middle.astype(wide) + half.astype(wide) >= upper).all()
    assert (half <= (upper - lower) / 2 * (1 + 1e-12) + 1e-15).all()
