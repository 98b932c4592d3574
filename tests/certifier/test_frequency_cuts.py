"""What has no form on a torus goes by its constant, or is refused; scalings that differ between points by slopes."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from certifier.frequencies import maps, recording
from certifier.frequencies.lowering import lower
from certifier.frequencies.maps import Map, Part
from certifier.frequencies.recording import Cut, Lowered, Slope
from certifier.frequencies.scheduling import scheduled
from certifier.frequencies.views import NotCovered, Signal, View
from tests.building import Model
from tests.certifier.on_tori import network_of, no_norm


def test_an_average_that_leaves_the_padding_out_is_a_sum_with_slopes():
    """Heavier borders: a convolution of ones, then slopes between 0 (the mask) and one over the smallest window."""
    model = Model(2, 5, 5, opset=20)
    model.then("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=0)
    model.then("Flatten")
    model.linear(np.random.default_rng(0).standard_normal((2, 18)))
    lowered = lower(network_of(model), "x", no_norm)
    (slope,) = [operation for operation in lowered.operations if isinstance(operation, Slope)]
    assert slope.lower.tolist() == [0.0, 0.0] and slope.upper == pytest.approx([0.25, 0.25], rel=1e-15)
    assert (slope.upper >= 0.25).all()


def test_a_maximum_over_windows_cuts_channel_by_channel_and_a_transposed_convolution_by_its_norm():
    model = Model(2, 6, 6, opset=20)
    model.then("Conv", np.ones((3, 2, 3, 3)), pads=[1, 1, 1, 1])
    model.then("MaxPool", kernel_shape=[3, 3], strides=[2, 2])
    model.then("ConvTranspose", np.ones((3, 2, 2, 2)), strides=[2, 2])
    model.then("Conv", np.ones((3, 2, 3, 3)))
    model.then("Flatten")
    model.linear(np.ones((2, 12)))
    lowered = lower(network_of(model), "x", lambda operator, name: 7.0)
    pool, transposed = [operation for operation in lowered.operations if isinstance(operation, Cut)]
    assert pool.per_channel and not transposed.per_channel
    assert pool.square == pytest.approx(4.0) and transposed.square == pytest.approx(49.0)
    assert pool.square >= 4.0 and len(lowered.cuts) == 1
    segments = scheduled(lowered, norm_only=False).segments
    assert [segment.sources.tolist() for segment in segments] == [[-1, -1], [0, 1, 2], [-1, -1]]


def cut_of(model: Model) -> Cut:
    (cut,) = [each for each in lower(network_of(model), "x", no_norm).operations if isinstance(each, Cut)]
    return cut


def test_windows_of_channels_that_were_permuted_do_not_keep_their_variances():
    model = Model(2, 4, 4, opset=20)
    model.then("Conv", np.ones((3, 2, 3, 3)), pads=[1, 1, 1, 1])
    model.then("Gather", np.array([2, 0, 1]), axis=1)
    model.then("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    model.then("Conv", np.ones((3, 3, 1, 1)))
    cut = cut_of(model)
    assert not cut.per_channel and 1.0 <= cut.square <= 1.0 + 1e-12


def test_a_channel_that_a_cut_reads_twice_counts_twice():
    model = Model(2, 4, 4, opset=20)
    model.then("Conv", np.ones((2, 2, 3, 3)), pads=[1, 1, 1, 1])
    model.then("Gather", np.array([1, 0, 1]), axis=1)
    model.then("MaxPool", kernel_shape=[2, 2], strides=[1, 1])
    model.then("Conv", np.ones((3, 3, 1, 1)))
    assert 8.0 <= cut_of(model).square <= 8.0 + 1e-12


def test_a_scaling_that_joins_a_kernel_carries_both_errors_and_one_rounding():
    signal = Signal(2, (3,), is_clean=True, is_point=False)
    part = Part(
        source=signal, kernel=np.full((2, 2, 1), 0.1), offsets=np.zeros((1, 1), dtype=np.int64), relative_error=2.0**-50
    )
    scaled = part.scaled(np.array([0.3, 3.0]), 2.0**-51)
    assert scaled.kernel is not None
    away = abs(Fraction(0.1) * Fraction(0.3) - Fraction(float(scaled.kernel[0, 0, 0])))
    assert away > 0
    exact = (1 + Fraction(1, 2**50)) * (1 + Fraction(1, 2**51)) * (1 + Fraction(1, 2**53)) - 1
    assert exact <= Fraction(scaled.relative_error) <= exact * (1 + Fraction(1, 2**40))
    with pytest.raises(NotCovered, match="underflow"):
        part.scaled(np.array([1e-308, 1.0]), 0.0)


def test_what_two_branches_read_at_different_resolutions_is_refused():
    model = Model(2, 8, 8, opset=20)
    start = model.output
    model.then("Conv", np.ones((2, 2, 3, 3)), pads=[1, 1, 1, 1], strides=[2, 2])
    small = model.then("Flatten")
    large = model.add("Flatten", model.add("Conv", start, np.ones((2, 2, 1, 1))))
    model.add("Concat", small, large, axis=1)
    with pytest.raises(NotCovered):
        scheduled(lower(network_of(model), "x", no_norm), norm_only=False)


def test_a_torus_of_one_point_holds_no_neighbours():
    start, output = (Signal(1, (1,), is_clean=True, is_point=True) for _ in range(2))
    kernel, offsets = np.array([[[-1.0, 1.0]]]), np.array([[-1], [0]])
    part = Part(source=start, kernel=kernel, offsets=offsets, relative_error=0.0)
    reading = Map(output=output, parts=(part,), strides=(1,), reach=(2,))
    lowered = Lowered(origin="x", start=start, operations=(reading,), output=View(output, None), cuts=())
    with pytest.raises(NotCovered, match="one point"):
        scheduled(lowered, norm_only=False)


def test_a_padded_point_behind_a_crop_goes_by_the_norm_of_its_convolution():
    model = Model(1, 3, 3, opset=20)
    model.then("Conv", np.ones((1, 1, 3, 3)), pads=[1, 1, 1, 1])
    model.then("Slice", np.array([1, 1]), np.array([2, 2]), np.array([2, 3]))
    model.then("Conv", np.ones((1, 1, 3, 3)), pads=[1, 1, 1, 1])
    lowered = lower(network_of(model), "x", lambda operator, name: 7.0)
    assert len(lowered.cuts) == 1


def wide(operator: str) -> Model:
    """A vector of 60 entries that something happens to before a matrix makes a map of it."""
    model = Model(60, opset=20)
    match operator:
        case "Mul":
            model.then("Mul", np.arange(60.0))
        case "Gather":
            some = model.then("Gather", np.arange(0, 60, 2), axis=1)
            model.add("Concat", some, some, axis=1)
        case _:
            model.add("Concat", "x", model.then("Relu"), axis=1)
    return model


@pytest.mark.parametrize("operator", ["Mul", "Gather", "Concat"])
def test_what_would_be_too_large_is_not_written_out(operator, monkeypatch):
    network = network_of(wide(operator))
    lower(network, "x", no_norm)
    sizes: list[tuple[int, ...]] = []
    for name in ("eye", "zeros"):
        monkeypatch.setattr(np, name, _watched(getattr(np, name), sizes))
    monkeypatch.setattr(maps, "MAXIMAL_KERNEL", 100)
    with pytest.raises(NotCovered, match="too large"):
        lower(network, "x", no_norm)
    assert not sizes


def _watched(make, sizes):
    """`make`, keeping in mind the shapes of more than a hundred entries."""

    def watched(shape, *others, **named):
        made = make(shape, *others, **named)
        if made.size > 100:
            sizes.append(made.shape)
        return made

    return watched


def test_a_wide_matrix_is_written_out_from_its_short_side(monkeypatch):
    model = Model(200, opset=20)
    model.linear(np.ones((16, 200)))
    model.then("Reshape", np.array([0, 1, 4, 4]))
    model.then("Conv", np.ones((1, 1, 3, 3)), pads=[1, 1, 1, 1])
    network, sizes = network_of(model), []
    monkeypatch.setattr(np, "eye", _watched(np.eye, sizes))
    lower(network, "x", no_norm)
    assert all(shape == (16, 16) for shape in sizes)


def test_kernels_are_limited_together(monkeypatch):
    """A grouped convolution of few weights has a kernel for all pairs of channels."""
    model = Model(8, 4, 4, opset=20)
    for _ in range(3):
        model.then("Conv", np.ones((8, 1, 3, 3)), group=8, pads=[1, 1, 1, 1])
        model.then("Relu")
    network = network_of(model)
    assert not lower(network, "x", lambda operator, name: 7.0).cuts
    monkeypatch.setattr(recording, "MAXIMAL_KERNELS", 2 * 8 * 8 * 9)
    assert len(lower(network, "x", lambda operator, name: 7.0).cuts) == 1
