"""GroupSort, MaxMin and TopK in the spellings of exporters: constant 1, and nothing where places are read."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from certifier.errors import UnsupportedNode
from certifier.terms import REFERENCE
from certifier.vector_functions.sorting import Sorted
from tests.building import Model, certify_model
from tests.certifier.patterns.checking import assert_bound, functions, network_of

Spelling = Callable[[Model], object]
LAST = np.array([-1])


def split(m: Model) -> tuple[str, str]:
    m.add("Split", "x", np.array([3, 3]), outputs=("first", "second"), axis=1)
    return "first", "second"


def concatenated(m: Model) -> None:
    a, b = split(m)
    m.add("Concat", m.add("Max", a, b), m.add("Min", a, b), axis=1)


def smallest_first(m: Model) -> None:
    a, b = split(m)
    m.add("Concat", m.add("Min", b, a), m.add("Max", a, b), axis=1)


def interleaved(m: Model) -> None:
    """torch.stack((max, min), 2).flatten(1)."""
    a, b = split(m)
    largest = m.add("Unsqueeze", m.add("Max", b, a), np.array([2]))
    smallest = m.add("Unsqueeze", m.add("Min", b, a), np.array([2]))
    m.add("Reshape", m.add("Concat", largest, smallest, axis=2), np.array([-1, 6]))


def every_second(m: Model) -> None:
    a = m.add("Slice", "x", np.array([0]), np.array([6]), np.array([1]), np.array([2]))
    b = m.add("Slice", "x", np.array([1]), np.array([6]), np.array([1]), np.array([2]))
    m.add("Concat", m.add("Max", a, b), m.add("Min", a, b), axis=1)


def reduced(m: Model) -> None:
    pairs = m.add("Reshape", "x", np.array([-1, 3, 2]))
    m.add("Concat", m.add("ReduceMax", pairs, LAST, keepdims=1), m.add("ReduceMin", pairs, LAST, keepdims=1), axis=2)


def reduced_over_the_middle(m: Model) -> None:
    halves, axes = m.add("Reshape", "x", np.array([-1, 2, 3])), np.array([1])
    m.add("Concat", m.add("ReduceMin", halves, axes, keepdims=0), m.add("ReduceMax", halves, axes, keepdims=0), axis=1)


def group_sort(m: Model) -> None:
    """torch.sort(x.view(-1, 2, 3))[0].view(-1, 6)."""
    groups = m.add("Reshape", "x", np.array([-1, 2, 3]))
    values = m.add("TopK", groups, np.array([3]), outputs=("values", "places"), axis=-1, largest=0, sorted=1)
    m.add("Reshape", values, np.array([-1, 6]))


def sorted_along_the_middle(m: Model) -> None:
    groups = m.add("Reshape", "x", np.array([-1, 3, 2]))
    m.add("TopK", groups, np.array([3]), outputs=("values", "places"), axis=1)
    m.add("Reshape", "values", np.array([-1, 6]))


def two_largest(m: Model) -> None:
    groups = m.add("Reshape", "x", np.array([-1, 2, 3]))
    m.add("TopK", groups, np.array([2]), outputs=("values", "places"))


def largest_in_no_order(m: Model) -> None:
    groups = m.add("Reshape", "x", np.array([-1, 2, 3]))
    m.add("TopK", groups, np.array([1]), outputs=("values", "places"), sorted=0)


SPELLINGS = [
    concatenated, smallest_first, interleaved, every_second, reduced, reduced_over_the_middle, group_sort,
    sorted_along_the_middle, two_largest, largest_in_no_order,
]  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda each: each.__name__)
def test_sorting_costs_nothing(spelling):
    model = Model(6)
    spelling(model)
    assert_bound(model, 1.0)
    assert functions(network_of(model)) == ["sorted"]


def test_extremes_of_different_entries_cost_the_root_of_two():
    model = Model(6)
    a, b = split(model)
    model.add("Concat", model.add("Max", a, b), model.add("Min", a, model.add("Mul", b, np.array(1.25))), axis=1)
    upper = certify_model(model).certificate.lipschitz.upper
    assert functions(network_of(model)) == ["largest", "smallest"]
    # (1, 1, 1, 0.999, 0.999, 0.999) to itself less a bit in the second half moves both.
    assert upper >= np.sqrt(1.25**2)


def test_one_extreme_alone_stays_as_it_is():
    model = Model(6)
    model.add("Max", *split(model))
    assert functions(network_of(model)) == ["largest"]
    assert_bound(model, 1.0)


def test_max_and_min_read_twice_over_are_one_sorted_vector():
    """Whoever reads them reads the same two ends: max - min is a difference of two entries, of norm √2."""
    model = Model(2)
    model.add("Split", "x", np.array([1, 1]), outputs=("a", "b"), axis=1)
    model.add("Sub", model.add("Max", "a", "b"), model.add("Min", "a", "b"))
    assert_bound(model, np.sqrt(2))


def test_overlapping_windows_are_not_sorted():
    """A maximum and a minimum over overlapping windows are no ends of one permutation."""
    model = Model(1, 1, 4)
    largest = model.add("MaxPool", "x", kernel_shape=[1, 2], strides=[1, 1])
    smallest = model.add("Neg", model.add("MaxPool", model.add("Neg", "x"), kernel_shape=[1, 2], strides=[1, 1]))
    model.add("Concat", largest, smallest, axis=3)
    assert "sorted" not in functions(network_of(model))


def places_read(m: Model) -> None:
    m.add("TopK", "x", np.array([6]), outputs=("values", "places"))
    m.add("Mul", "values", m.add("Cast", "places", to=1))


def places_are_the_output(m: Model) -> None:
    groups = m.add("Reshape", "x", np.array([-1, 2, 3]))
    m.add("TopK", groups, np.array([3]), outputs=("values", "places"))
    m.output = m.add("Cast", "places", to=1)


def no_order(m: Model) -> None:
    m.add("Mul", m.add("TopK", "x", np.array([2]), outputs=("values", "places"), sorted=0), np.array(1.0))


@pytest.mark.parametrize("near_miss", [places_read, places_are_the_output, no_order], ids=lambda each: each.__name__)
def test_what_jumps_is_refused(near_miss):
    model = Model(6)
    near_miss(model)
    with pytest.raises(UnsupportedNode, match="TopK is continuous only in its sorted values") as caught:
        certify_model(model)
    assert caught.value.remedy is not None


@pytest.mark.parametrize("kept", [1, 2, 4])
@pytest.mark.parametrize("largest", [False, True])
def test_the_vector_function_sorts_and_its_pullback_is_the_transposed_selection(kept, largest):
    function = Sorted(name="sorted", before=2, count=4, after=3, kept=kept, largest=largest)
    generator = np.random.default_rng(1)
    x, gradient = generator.standard_normal((5, 24)), generator.standard_normal((5, 2 * kept * 3))
    cube = x.reshape(5, 2, 4, 3)
    by_hand = np.array(
        [[[sorted(cube[r, b, :, a], reverse=largest)[:kept] for a in range(3)] for b in range(2)] for r in range(5)]
    )
    assert np.array_equal(function.evaluate(x), by_hand.swapaxes(2, 3).reshape(5, -1))
    step = 1e-6 * generator.standard_normal((5, 24))
    change = function.evaluate(x + step) - function.evaluate(x)
    assert np.allclose((change * gradient).sum(1), (function.pullback(gradient, x) * step).sum(1), rtol=0, atol=1e-12)


def test_what_sorting_may_stray_by_covers_every_move():
    function = Sorted(name="sorted", before=1, count=4, after=2, kept=3, largest=True)
    generator = np.random.default_rng(2)
    x, radius = generator.standard_normal((200, 8)), generator.uniform(0, 1, (200, 8))
    output = function.evaluate(x)
    allowed = function.stray(x, radius, output, REFERENCE)
    for sign in (generator.uniform(-1, 1, (200, 8)), np.ones((200, 8)), -np.ones((200, 8))):
        assert (abs(function.evaluate(x + sign * radius) - output) <= allowed + 1e-15).all()
