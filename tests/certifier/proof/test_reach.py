"""Reaches contain what inputs of the box can produce, entry by entry and in norm, and are not much larger."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certifier import steep
from certifier.box import Box
from certifier.flow import Network
from certifier.limits import Limits
from certifier.network import build_network
from certifier.operators import Composed, Diagonal, Identity, Kronecker, Placed, Rearrange
from certifier.products import Bilinear, EntrywiseForm, MatrixForm
from certifier.proof.reach import Reach, _middle_and_radius, _through, factors_of, reach_of
from certifier.proof.structure import schur_upper
from certifier.ranges import with_ranges
from certifier.reading.onnx import read_onnx
from certifier.terms import Activation, Affine
from tests.building import Model, single


def norm_of(operator, name):
    return schur_upper(operator)


def network_of(model: Model, box: Box) -> Network:
    network = build_network(read_onnx(model.data(), limits=Limits()), limits=Limits(), cut_head=False)
    return with_ranges(network, box, norm_of)


def reaches(network: Network, box: Box) -> dict[str, Reach]:
    known = {network.input.name: Reach.box(box.lower, box.upper)}
    for term in network.terms:
        known[term.output] = reach_of(term, [known[source] for source in term.sources], norm_of)
    return known


def assert_holds(reach: Reach, values: np.ndarray) -> None:
    """Samples of float64 may differ from exact values by a few roundings, which the margins of 1e-12 stand for."""
    room = 1e-12 * (1 + np.abs(values))
    assert (reach.lower <= values + room).all() and (values - room <= reach.upper).all()
    for group, length in enumerate(reach.lengths):
        members = values[:, reach.group == group]
        assert (np.linalg.norm(members, axis=1) <= length * (1 + 1e-12) + 1e-12).all()


def box_of(size: int, generator: np.random.Generator) -> Box:
    middle, width = generator.standard_normal(size), generator.uniform(0, 2, size)
    return Box(lower=middle - width, upper=middle + width)


def tokens(generator: np.random.Generator) -> Model:
    """Everything that groups follow: normalised tokens, attention over two heads, a gate, slices and concatenation."""
    model = Model(3, 4)
    draw = generator.standard_normal
    model.then("LayerNormalization", single(draw(4)), single(draw(4)), axis=-1, epsilon=0.01)
    normal = model.output
    heads = []
    for weight in single(draw((3, 4, 4))):
        model.output = normal
        model.then("MatMul", weight)
        model.then("Reshape", np.array([0, 3, 2, 2]))
        heads.append(model.then("Transpose", perm=[0, 2, 1, 3]))
    keys = model.add("Transpose", heads[1], perm=[0, 1, 3, 2])
    model.add("MatMul", heads[0], keys)
    model.then("Softmax", axis=-1)
    model.then("MatMul", heads[2])
    model.then("Transpose", perm=[0, 2, 1, 3])
    mixed = model.then("Reshape", np.array([0, 3, 4]))
    model.output = mixed
    gate = model.then("Sigmoid")
    gated = model.add("Mul", normal, gate)
    left = model.add("Slice", gated, np.array([0]), np.array([2]), np.array([2]))
    right = model.add("Exp", model.add("Tanh", mixed))
    joined = model.add("Concat", left, right, axis=2)
    model.add("Div", joined, model.add("Add", model.add("ReduceSum", right, np.array([2]), keepdims=1), single([2.0])))
    return model


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_value_stays_in_its_reach(seed):
    generator = np.random.default_rng(seed)
    model, box = tokens(generator), box_of(12, generator)
    network = network_of(model, box)
    known = reaches(network, box)
    inputs = np.concatenate(
        [
            box.lower + (box.upper - box.lower) * generator.random((200, 12)),
            np.where(generator.random((200, 12)) < 0.5, box.lower, box.upper),
        ]
    )
    for term, _, value in network.walk(inputs):
        assert_holds(known[term.output], value)


def test_a_value_times_itself_is_a_square():
    """Also on either side of zero, around it, and without an end."""
    model = Model(5)
    model.add("Mul", "x", "x")
    box = Box(lower=np.array([1.0, -3.0, -2.0, 0.0, -1e-3]), upper=np.array([3.0, -1.0, 1.0, 0.0, 1.0]))
    network = network_of(model, box)
    (square,) = network.terms
    reach = reach_of(square, 2 * [Reach.box(box.lower, box.upper)], norm_of)
    assert (reach.lower <= [1.0, 1.0, 0.0, 0.0, 0.0]).all() and (reach.upper >= [9.0, 9.0, 4.0, 0.0, 1.0]).all()
    np.testing.assert_allclose(reach.lower, [1.0, 1.0, 0.0, 0.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(reach.upper, [9.0, 9.0, 4.0, 0.0, 1.0], rtol=1e-12, atol=1e-12)


def test_a_product_of_two_values_is_no_square():
    model = Model(2)
    model.add("Mul", "x", model.add("Neg", "x"))
    box = Box(lower=np.full(2, 1.0), upper=np.full(2, 2.0))
    reach = reaches(network_of(model, box), box)[model.output]
    assert (reach.lower <= -4.0).all() and (reach.upper >= -1.0).all()


def test_an_unbounded_input_is_bounded_again_by_what_normalises():
    generator = np.random.default_rng(1)
    model = tokens(generator)
    everything = Box(lower=np.full(12, -np.inf), upper=np.full(12, np.inf))
    network = network_of(model, everything)
    known = reaches(network, everything)
    assert np.isfinite(known[network.output].magnitude).all()
    for term, _, value in network.walk(1e6 * generator.standard_normal((200, 12))):
        assert_holds(known[term.output], value)


@pytest.mark.parametrize("size", [1, 5])
def test_a_softmax_row_has_length_one(size):
    model = Model(3, size)
    model.add("Softmax", "x", axis=-1)
    box = Box(lower=np.full(3 * size, -np.inf), upper=np.full(3 * size, np.inf))
    network = network_of(model, box)
    reach = reaches(network, box)[network.output]
    assert (reach.lower >= 0).all() and (reach.upper <= 1).all()
    np.testing.assert_array_equal(reach.lengths, np.ones(3))
    np.testing.assert_array_equal(reach.group, np.repeat(np.arange(3), size))


def test_affine_maps_over_a_box_are_tight():
    """Interval arithmetic is exact for one affine map, up to rounding."""
    generator = np.random.default_rng(2)
    weight, bias, box = (
        single(generator.standard_normal((5, 7))),
        single(generator.standard_normal(5)),
        box_of(7, generator),
    )
    model = Model(7)
    model.linear(weight, bias)
    network = network_of(model, box)
    reach = reaches(network, box)[network.output]
    upper = np.maximum(weight * box.lower, weight * box.upper).sum(1) + bias
    assert (reach.upper >= upper).all()
    np.testing.assert_allclose(reach.upper, upper, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ends", [(-1.0, 2.0**-60), (2.0**-60, 1.0), (-0.1, 0.3), (-1e308, 1e308)])
def test_the_middle_and_the_radius_cover_both_ends(ends):
    middle, radius = _middle_and_radius(Reach.box(np.array([ends[0]]), np.array([ends[1]])))
    centre, distance = Fraction(float(middle[0])), Fraction(float(radius[0]))
    assert centre - distance <= Fraction(ends[0]) and Fraction(ends[1]) <= centre + distance
    assert distance <= (Fraction(ends[1]) - Fraction(ends[0])) * Fraction(3, 4)


def grouped(*lengths: float) -> Reach:
    """Pairs of unbounded entries, whose lengths are bounded."""
    count = len(lengths)
    everything = np.full(2 * count, np.inf)
    return Reach.of(-everything, everything, (np.repeat(np.arange(count), 2), np.array(lengths)))


def of_nodes(*terms_of: str, width: int) -> Network:
    model = Model(1, width)
    for operator in terms_of:
        model.then(operator)
    everything = np.full(width, np.inf)
    return network_of(model, Box(lower=-everything, upper=everything))


def test_groups_of_an_activation_count_its_value_at_zero():
    """‖sigmoid(y)‖ <= ‖y‖/4 + √2/2, which is attained at y = 0, and less than the √2 of its range."""
    (term,) = of_nodes("Sigmoid", width=4).terms
    reach = reach_of(term, [grouped(0.5, 0.0)], norm_of)
    assert reach.lengths[0] >= np.linalg.norm(1 / (1 + np.exp(-np.full(2, 0.5 / np.sqrt(2)))))
    assert np.sqrt(0.5) <= reach.lengths[1] <= np.sqrt(0.5) * (1 + 1e-9)


def test_slopes_on_an_interval_say_nothing_about_the_way_from_zero_to_it():
    """10 on [1, 2] with slope 0 there, and 0 at 0."""

    def ends(low, high):
        flat = np.where(low >= 1, 0.0, 10.0)
        return (flat, np.zeros_like(flat)), (np.clip(10 * low, 0, 10), np.clip(10 * high, 0, 10))

    (term,) = of_nodes("Sigmoid", width=2).terms
    assert isinstance(term, Activation)
    step = replace(steep.exponential(), ends=ends, slope_lower=np.zeros(2), slope_upper=np.zeros(2))
    source = Reach.of(np.ones(2), np.full(2, 2.0), (np.zeros(2, dtype=np.intp), np.array([1.5])))
    reach = reach_of(replace(term, function=step), [source], norm_of)
    assert (reach.upper >= 10).all() and reach.lengths[0] >= np.sqrt(200) and reach.length_upper <= 15


def test_groups_of_a_sum_add_up():
    """x + 2x in groups: three times as long, and no longer."""
    term = Affine(
        name="sum",
        operator="Add",
        sources=("x", "x"),
        output="y",
        shape=(1, 4),
        dtype="float32",
        operators=(Identity(4), Diagonal(np.full(4, 2.0), weight_error=0.0)),
        offset=None,
        offset_magnitude=None,
        arrangement="sum",
        roundings=1,
        swelling=1.0,
        amplification=1.0,
    )
    source = grouped(1.0, 0.5)
    reach = reach_of(term, [source, source], norm_of)
    assert (reach.lengths >= 3 * source.lengths).all()
    np.testing.assert_allclose(reach.lengths, 3 * source.lengths, rtol=1e-9)


GROUPS = np.array([0, 0, 1, 1, 2, 2])


@pytest.mark.parametrize(
    "operator",
    [
        Identity(6),
        Rearrange(np.array([5, 0, 0, -1, 3, 2, 1]), columns=6),
        Placed(before=1, own=6, after=1, total=9, start=2),
        Diagonal(np.array([1.0, -3.0, 0.0, 2.0, 1.0, 1.0]), weight_error=0.0),
        Kronecker(np.array([[1.0, 2.0], [0.5, -1.0], [0.0, 1.0]]), before=3, after=1, weight_error=0.0),
        Kronecker(np.arange(9.0).reshape(3, 3), before=1, after=2, weight_error=0.0),
        Composed(
            [
                Kronecker(np.array([[1.0, 2.0]]), before=3, after=1, weight_error=0.0),
                Rearrange(np.array([2, 2, 0]), columns=3),
            ]
        ),
    ],
    ids=lambda operator: operator.describe(),
)
def test_groups_follow_operators(operator):
    generator = np.random.default_rng(3)
    lengths = np.array([1.0, 2.0, 0.5])
    group, bounds = _through(
        operator, (GROUPS, lengths), lambda part: float(np.linalg.norm(matrix_of(part), 2)) * (1 + 1e-12)
    )
    values = generator.standard_normal((300, 6))
    for member in range(3):
        part = values[:, GROUPS == member]
        values[:, GROUPS == member] = lengths[member] * part / np.linalg.norm(part, axis=1, keepdims=True)
    moved = operator.forward(values)
    for member, bound in enumerate(bounds):
        assert (np.linalg.norm(moved[:, group == member], axis=1) <= bound * (1 + 1e-12)).all()
    assert np.isfinite(bounds).all()


def matrix_of(operator) -> np.ndarray:
    return operator.forward(np.eye(operator.columns)).T


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_factors_bound_the_maps_that_differences_pass_through(seed):
    """The spectral norms of D -> U D and D -> D V at sampled U and V, by writing the maps out."""
    generator = np.random.default_rng(seed)
    forms = [
        EntrywiseForm(first=(2, 3), second=(2, 3), shape=(2, 3)),
        EntrywiseForm(first=(1, 3), second=(2, 1), shape=(2, 3)),
        EntrywiseForm(first=(), second=(2, 3), shape=(2, 3)),
        MatrixForm(first=(2, 3, 2), second=(2, 2, 4), shape=(2, 3, 4)),
        MatrixForm(first=(3, 2), second=(2, 2, 4), shape=(2, 3, 4)),
        MatrixForm(first=(2, 1, 3, 2), second=(1, 2, 2, 1), shape=(2, 2, 3, 1)),
    ]
    for form in forms:
        sizes = int(np.prod(form.first)), int(np.prod(form.second))
        boxes = [box_of(size, generator) for size in sizes]
        term = Bilinear(
            name="p",
            operator="P",
            sources=("u", "v"),
            output="y",
            shape=form.shape,
            dtype="float32",
            form=form,
            factors=None,
        )
        held = [Reach.box(box.lower, box.upper) for box in boxes]
        by_first, by_second = factors_of(term, *held)
        loosest = 0.0
        for _ in range(5):
            u, v = (box.lower + (box.upper - box.lower) * np.rint(generator.random(box.lower.size)) for box in boxes)
            of_v = form(np.repeat(u[None], sizes[1], 0), np.eye(sizes[1])).T
            of_u = form(np.eye(sizes[0]), np.repeat(v[None], sizes[0], 0)).T
            assert np.linalg.norm(of_u, 2) <= by_first * (1 + 1e-12)
            assert np.linalg.norm(of_v, 2) <= by_second * (1 + 1e-12)
            loosest = max(loosest, np.linalg.norm(of_u, 2) / by_first)
        assert loosest > 0.2
