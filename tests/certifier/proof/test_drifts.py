"""Drifts bound what the engine adds, at every input of a ball, against exact rational or 50-digit evaluation."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings

from certifier.bounds.product import ProductBound
from certifier.box import Box
from certifier.documents import AskedArithmetic
from certifier.engine import Engine
from certifier.executions import Execution
from certifier.flow import Network
from certifier.limits import Limits
from certifier.magnitudes import positive_vector
from certifier.network import build_network, served_model
from certifier.norms import Norms
from certifier.operators import Composed, Convolution, Diagonal, Operator, Rearrange, Sum, dense
from certifier.packing import pack_constants, unpack_drifts
from certifier.proof.drifting import NoDrift, drifts
from certifier.proof.drifts import Drifts, DriftsAt, execution_margin_error
from certifier.proof.execution import Gains, Measured, enclose
from certifier.proof.following import sum_per_rounding
from certifier.proof.magnitudes import magnitude_norm_upper
from certifier.ranges import needs_range, with_ranges
from certifier.reading.onnx import read_onnx
from certifier.search.attack import EXACT
from certifier.search.hints import CarriedVectors
from certifier.search.state import SearchState
from certifier.terms import Affine
from tests.building import SEAL, Model, single
from tests.random_networks import image_networks, vector_networks

TRIES = 6


class Case:
    """A model with its drifts, and what they say around some inputs."""

    def __init__(self, model: Model | bytes, arithmetic: AskedArithmetic, box: Box | None = None) -> None:
        graph = read_onnx(model if isinstance(model, bytes) else model.data(), limits=Limits())
        read = build_network(graph, limits=Limits(), cut_head=False)
        norms = Norms(state=SearchState(), seal=SEAL, carried=CarriedVectors({}), progress=lambda layer: None)
        self.box = box or Box.everything(read.input_size)
        self.network: Network = with_ranges(read, self.box, norms.norm_upper)
        self.bound = ProductBound(self.network, norms)
        self.gains: Gains = self.bound.gains()
        execution = Execution.of(arithmetic, self.network)
        assert execution.precisions is not None
        self.drifts: Drifts = drifts(
            self.network,
            gains=self.gains,
            precisions=execution.precisions,
            magnitude_of=norms.magnitude_upper,
            norm_of=lambda operator: norms.norm_upper(operator, "readout"),
        )
        self.engine = Engine(served_model(self.network), self.network.input)

    def at(self, rows: np.ndarray) -> DriftsAt:
        found = enclose(
            self.network,
            rows,
            input_radius=np.zeros_like(rows),
            precisions=EXACT,
            gains=self.gains,
            measured=self.drifts.measured,
        )
        return self.drifts.at(found.measures)

    def exact(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Float64 outputs, and a bound of their distance from the exact ones."""
        found = enclose(self.network, rows, input_radius=np.zeros_like(rows), precisions=EXACT, gains=self.gains)
        return found.centre, found.radius


def _ball(generator: np.random.Generator, row: np.ndarray, radius: float) -> np.ndarray:
    """Points within `radius` of the row: on the sphere, inside of it, and the row itself; any float64 numbers."""
    directions = generator.standard_normal((TRIES, row.size))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    reach = radius * (1 - 1e-12) * np.append(np.ones(TRIES // 2), generator.random(TRIES - TRIES // 2))
    return np.concatenate([row + reach[:, None] * directions, row[None]])


def hold(case: Case, rows: np.ndarray, generator: np.random.Generator, radii: tuple[float, ...]) -> None:
    """Outputs and differences of the engine stay within the drifts, all over balls of several radii around two rows.

    Radii are cut to the room where a normalisation's room or what depends on ranges limits it.
    """
    around = case.at(rows)
    is_limited = bool(case.drifts.rooms) or any(needs_range(term) for term in case.network.terms)
    for asked in radii:
        fixed, growth = around.outputs()
        whole, slope = around.whole()
        for position, row in enumerate(rows):
            radius = min(asked, float(around.room[position])) if is_limited else asked
            points = case.box.clip(_ball(generator, row, radius))
            exact, blurred = case.exact(points)
            error = np.abs(case.engine.run(points) - exact)
            assert radius <= around.room[position]
            # The float64 reference is far closer to the exact network than the engine; its own error is allowed for.
            assert (error <= fixed[position] + growth[position] * radius + blurred).all()
            assert (np.linalg.norm(error, axis=1) <= whole[position] + slope * radius + blurred.sum(axis=1)).all()
            has_pairs = all(part.pairs is not None for part in case.drifts.carried)
            for label in range(exact.shape[1] if has_pairs else 0):
                taken = execution_margin_error(around, np.full(2, label), np.full(2, radius))[position]
                served = case.engine.run(points)
                gap = (served[:, [label]] - served) - (exact[:, [label]] - exact)
                others = np.arange(exact.shape[1]) != label
                allowed = taken + blurred + blurred[:, [label]]
                assert (np.abs(gap)[:, others] <= allowed[:, others] * (1 + 1e-12)).all()


def _hold(model: Model, seed: int, arithmetic: AskedArithmetic = "float32") -> None:
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((2, int(np.prod(model.row_shape))))
    hold(Case(model, arithmetic), rows, generator, (0.0, 0.1, 10.0))


@settings(max_examples=60)
@given(vector_networks(layers=6))
def test_the_engine_keeps_to_the_drifts_of_vector_networks(example):
    _hold(*example)


@settings(max_examples=30)
@given(image_networks(layers=4))
def test_the_engine_keeps_to_the_drifts_of_image_networks(example):
    _hold(*example)


def _dense_network(generator: np.random.Generator, widths: list[int], hostile: float) -> tuple[Model, list, list]:
    model, weights, biases = Model(widths[0]), [], []
    for position, (fan_in, out) in enumerate(pairwise(widths)):
        weights.append(single(generator.standard_normal((out, fan_in)) / np.sqrt(fan_in)))
        biases.append(single(hostile * generator.standard_normal(out)))
        model.linear(weights[-1], biases[-1])
        if position + 2 < len(widths):
            model.then("Relu")
    return model, weights, biases


def _exactly(weights: list, biases: list, row: np.ndarray) -> list[Fraction]:
    value = [Fraction(float(entry)) for entry in row]
    for position, (matrix, bias) in enumerate(zip(weights, biases, strict=True)):
        value = [
            sum((Fraction(float(w)) * v for w, v in zip(line, value, strict=True)), Fraction(float(b)))
            for line, b in zip(matrix, bias, strict=True)
        ]
        if position + 1 < len(weights):
            value = [max(v, Fraction(0)) for v in value]
    return value


@pytest.mark.parametrize("seed", range(8))
def test_drifts_of_dense_networks_hold_against_fractions(seed):
    """Over the rationals, and nothing is allowed for."""
    generator = np.random.default_rng(seed)
    hostile = [1.0, 1.0, 1.0, 1e3][seed % 4]
    model, weights, biases = _dense_network(generator, [10, 12, 12, 4], hostile)
    case = Case(model, "float32")
    rows = generator.standard_normal((2, 10))
    around = case.at(rows)
    fixed, growth = around.outputs()
    for position, row in enumerate(rows):
        points = _ball(generator, row, 0.5)
        served = case.engine.run(points)
        for point, answer in zip(points, served, strict=True):
            exact = _exactly(weights, biases, point)
            for k, value in enumerate(exact):
                bound = Fraction(float(fixed[position, k])) + Fraction(float(growth[position, k])) / 2
                assert abs(Fraction(float(answer[k])) - value) <= bound


def _looseness(layers: int, width: int, seed: int) -> float:
    """The bound over the largest error of 400 points of a ball, for a dense network with ReLUs."""
    generator = np.random.default_rng(seed)
    model, _, _ = _dense_network(generator, [width] * layers + [4], 1.0)
    case = Case(model, "float32")
    row = generator.standard_normal((1, width))
    fixed, growth = case.at(row).outputs()
    directions = generator.standard_normal((400, width))
    points = row + 0.1 * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    error = np.abs(case.engine.run(points) - case.exact(points)[0]).max()
    return float((fixed + 0.1 * growth).max()) / error


def test_drifts_are_within_fifty_times_the_error_seen_on_half_of_the_dense_networks():
    """One to three layers of four to sixteen neurons, and one layer of any usual width."""
    ratios = [_looseness(layers, width, seed) for layers in (1, 2, 3) for width in (4, 8, 16) for seed in (0, 1)]
    assert min(ratios) >= 1.0
    assert np.median(ratios) <= 50.0 and max(ratios) <= 300.0
    wide = [_looseness(1, width, 0) for width in (32, 64, 128)]
    assert min(wide) >= 1.0 and max(wide) <= 80.0


def test_sums_are_measured_by_what_they_round():
    """Above their magnitudes by no more than a millionth, entry by entry and in length."""
    generator = np.random.default_rng(0)
    model, weights, biases = _dense_network(generator, [10, 12, 4], 1.0)
    case = Case(model, "float32")
    row = generator.standard_normal((1, 10))
    inner, last = (term for term in case.network.terms if isinstance(term, Affine))
    measured = Measured(sums=frozenset({inner.output, last.output}), entries=frozenset({last.output}))
    found = enclose(
        case.network, row, input_radius=np.zeros_like(row), precisions=EXACT, gains=case.gains, measured=measured
    ).measures
    first = abs(row) @ abs(weights[0]).T.astype(float) + abs(biases[0])
    value = np.maximum(row @ weights[0].T.astype(float) + biases[0], 0)
    second = value @ abs(weights[1]).T.astype(float) + abs(biases[1])
    for term, truth in ((inner, first), (last, second)):
        known = sum_per_rounding(term) * found.sums[term.output][0, 0]
        assert np.linalg.norm(truth) <= known <= np.linalg.norm(truth) * (1 + 2.0**-18)
    known = sum_per_rounding(last) * found.entries[last.output]
    assert (second <= known).all() and (known <= second * (1 + 2.0**-18)).all()


def test_a_bias_that_hides_the_input_is_charged():
    """(x + 2^20) - 2^20 moves by what float32 rounds off, half a unit in the last place of 2^20."""
    model = Model(1)
    model.add("Add", "x", np.array([2.0**20]))
    model.then("Sub", np.array([2.0**20]))
    fixed, _ = Case(model, "float32").at(np.array([[0.3]])).outputs()
    assert 2.0**-4 <= fixed[0, 0] <= 1.0


def test_a_bias_is_charged_where_it_is_added():
    """Once as the offset of the last term, whose entries are measured, and once before another."""
    row = np.array([[0.3, 0.4]])
    last, inner = Model(2), Model(2)
    last.linear([[1.0, 1.0]], [2.0**20])
    inner.linear([[1.0, 1.0]], [2.0**20])
    inner.then("Relu")
    inner.linear([[1.0]])
    for model in (last, inner):
        case = Case(model, "float32")
        error = abs(case.engine.run(row) - case.exact(row)[0])[0, 0]
        assert 2.0**-6 < error <= case.at(row).outputs()[0][0, 0] <= 1.0


def test_a_ball_that_reaches_numbers_too_large_has_no_room():
    model = Model(2)
    model.linear([[2.0**100, 0.0], [0.0, 1.0]])
    case = Case(model, "float32")
    around = case.at(np.array([[1.0, 1.0], [2.0**30, 0.0]]))
    assert 2.0**20 <= around.room[0] <= 2.0**27 and around.room[1] == 0.0
    assert np.isinf(execution_margin_error(around, np.zeros(2, np.intp), np.array([2.0**28, 0.0]))).all()


def test_half_precision_has_its_own_drift_or_a_reason():
    """Sums of few products only: k u must be small."""
    generator = np.random.default_rng(0)
    model = Model(6, dtype=np.float16)
    model.linear(generator.standard_normal((5, 6)).astype(np.float16), np.zeros(5))
    model.then("Relu")
    model.linear(generator.standard_normal((3, 5)).astype(np.float16), np.zeros(3))
    _hold(model, 0)
    wide = Model(600, dtype=np.float16)
    wide.linear(np.full((2, 600), 2.0**-8), np.zeros(2))
    with pytest.raises(NoDrift, match="too many products for float16"):
        Case(wide, "float32")


def test_drifts_in_float64_are_a_billion_times_smaller():
    generator = np.random.default_rng(0)
    model, _, _ = _dense_network(generator, [10, 12, 4], 1.0)
    row = generator.standard_normal((1, 10))
    single_, double = (Case(model, name).at(row).outputs()[0] for name in ("float32", "float64"))
    assert (double < 1e-8 * single_).all() and (double > 0).all()


def test_drifts_survive_packing():
    generator = np.random.default_rng(0)
    model, _, _ = _dense_network(generator, [5, 6, 3], 1.0)
    case = Case(model, "float32")
    again = unpack_drifts(pack_constants(case.bound.constants(), case.gains, case.drifts))
    assert again is not None and again.measured == case.drifts.measured
    rows = generator.standard_normal((3, 5))
    label = np.array([0, 1, 2])
    before = case.at(rows).pairs(label)
    case.drifts = again
    for known, unpacked in zip(before, case.at(rows).pairs(label), strict=True):
        assert np.array_equal(known, unpacked)
    assert unpack_drifts(pack_constants(case.bound.constants(), case.gains, None)) is None


def _convolution(generator: np.random.Generator, groups: int, stride: int) -> Operator:
    kernel = generator.standard_normal((4, 4 // groups, 3, 3))
    return Convolution(
        kernel,
        input_shape=(6, 5),
        strides=(stride, stride),
        pads_before=(1, 1),
        pads_after=(1, 1),
        dilations=(1, 1),
        groups=groups,
        weight_error=0.0,
    )


def _maps() -> list[Operator]:
    generator = np.random.default_rng(3)
    matrix = generator.standard_normal((7, 9))
    other = generator.standard_normal((7, 9))
    chain = Composed([Diagonal(generator.standard_normal(9), weight_error=0.0), dense(matrix)])
    return [
        dense(matrix),
        dense(np.zeros((3, 4))),
        dense(matrix * 1e-200),
        chain,
        Sum([dense(matrix), dense(other)]),
        Rearrange(np.array([0, 0, 2, -1]), columns=3),
        *(_convolution(generator, groups, stride) for groups in (1, 2) for stride in (1, 2)),
    ]


@pytest.mark.parametrize("operator", _maps(), ids=lambda each: each.describe())
def test_norms_of_magnitudes_are_bounds_and_tight(operator):
    matrix = operator.absolute().forward(np.eye(operator.columns)).T
    scale = max(np.abs(matrix).max(), 1e-300)
    truth = np.linalg.norm(matrix / scale, 2) * scale
    for weights in (positive_vector(operator), np.ones(operator.columns)):
        assert magnitude_norm_upper(operator, weights) >= truth * (1 - 1e-14)
    assert magnitude_norm_upper(operator, positive_vector(operator)) <= truth * 1.25 + 1e-150


@pytest.mark.parametrize("weights", [np.zeros(9), np.full(9, np.nan), -np.ones(9), np.append(np.zeros(8), 1.0)])
def test_a_worthless_proposal_makes_the_bound_looser_and_never_wrong(weights):
    operator = dense(np.random.default_rng(3).standard_normal((7, 9)))
    assert magnitude_norm_upper(operator, weights) >= np.linalg.norm(abs(operator.matrix), 2)


@pytest.mark.parametrize("sizes", [(7, 5), (10, 11)])
def test_weights_that_the_engine_computes_itself_are_charged(sizes):
    """Interpolation: coordinates are rounded in single precision, and so are the weights made of them."""
    model = Model(2, 4, 4)
    model.then("Resize", "", "", model.constant([1, 2, *sizes]), mode="linear")
    generator = np.random.default_rng(0)
    case = Case(model, "float32")
    rows = generator.standard_normal((1, 32))
    fixed, growth = case.at(rows).outputs()
    points = _ball(generator, rows[0], 1.0)
    exact, blurred = case.exact(points)
    error = np.abs(case.engine.run(points) - exact)
    assert (error <= fixed + growth + blurred).all()
    # What deviates in the weights is most of what is charged.
    plain = [part for part in case.drifts.own if (part.gains > 0).any()]
    assert len(plain) == 1 + 2 and max(float(part.gains.max()) for part in plain[1:]) > float(plain[0].gains.max()) / 8


def test_an_activation_pays_for_its_kernel():
    """Near zero a sigmoid's argument is exact to 2^-34 and its value, a half, is not."""
    model = Model(200)
    model.then("Sigmoid")
    case = Case(model, "float32")
    rows = single(1e-3 * np.random.default_rng(0).standard_normal((1, 200)))
    fixed, _ = case.at(rows).outputs()
    error = np.abs(case.engine.run(rows) - case.exact(rows)[0])
    assert 2.0**-30 < error.max() <= fixed.max() <= 2.0**-15


def test_casting_the_input_is_paid_for():
    model = Model(200)
    model.then("Relu")
    case = Case(model, "float32")
    rows = 1.0 + np.random.default_rng(0).random((1, 200))
    whole, _ = case.at(rows).whole()
    error = np.linalg.norm(case.engine.run(rows) - case.exact(rows)[0])
    assert whole[0] / 4 <= error <= whole[0]
