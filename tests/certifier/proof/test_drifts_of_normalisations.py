"""Centred normalisations: whatever formula an engine takes, at points that cancel, against 60-digit arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest

from certifier.certificates import NO_ROOM
from certifier.documents import CertifyOptions
from certifier.errors import UnsupportedNode
from certifier.terms import PRECISIONS, Precision
from certifier.vector_functions.normalising import PER_SPREAD, Normalisation
from certifier.vector_functions.softmaxes import roundings_upper
from tests.building import Model, certify_model, predictor_of, single
from tests.certifier.proof.test_drifts import Case, hold

FLOAT32 = PRECISIONS["float32"]
Executed = Callable[[np.ndarray, Normalisation], np.ndarray]


def _summed(x: np.ndarray) -> np.float32:
    """One after the other, the order that errs the most."""
    return np.add.accumulate(x, dtype=np.float32)[-1]


def _in_two_passes(x: np.ndarray, function: Normalisation) -> np.ndarray:
    count, scale, shift = np.float32(x.size), single_(function.scale), single_(function.shift)
    z = x - _summed(x) / count
    s = np.sqrt(_summed(z * z) / count + np.float32(function.epsilon))
    return (z / s) * scale + shift


def _in_one_pass(x: np.ndarray, function: Normalisation) -> np.ndarray:
    count, scale, shift = np.float32(x.size), single_(function.scale), single_(function.shift)
    mean = _summed(x) / count
    s = np.sqrt(_summed(x * x) / count - mean * mean + np.float32(function.epsilon))
    return (x - mean) / s * scale + shift


def _distributed(x: np.ndarray, function: Normalisation) -> np.ndarray:
    count, scale, shift = np.float32(x.size), single_(function.scale), single_(function.shift)
    mean = _summed(x) / count
    s = np.sqrt(_summed(x * x) / count - mean * mean + np.float32(function.epsilon))
    weight = scale / s
    return x * weight + (shift - mean * weight)


def single_(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)


def _exactly(x: np.ndarray, function: Normalisation) -> tuple[list[Any], Any]:
    """F(x), and the spread √(‖z‖² + n ε), of one group."""
    entries = [mpmath.mpf(float(entry)) for entry in x]
    mean = mpmath.fsum(entries) / len(entries)
    z = [entry - mean for entry in entries]
    spread = mpmath.sqrt(mpmath.fsum([entry**2 for entry in z]) + len(entries) * mpmath.mpf(function.epsilon))
    s = spread / mpmath.sqrt(len(entries))
    terms = zip(z, function.scale, function.shift, strict=True)
    return [mpmath.mpf(float(a)) * each / s + mpmath.mpf(float(b)) for each, a, b in terms], spread


def _function(generator: np.random.Generator, count: int, epsilon: float) -> Normalisation:
    return Normalisation(
        name="normalisation",
        groups=1,
        scale=single(generator.standard_normal(count)),
        shift=single(generator.standard_normal(count)),
        epsilon=float(np.float32(epsilon)),
        centred=True,
    )


def _inputs(generator: np.random.Generator, count: int, function: Normalisation) -> list[np.ndarray]:
    """Ordinary ones, of which some underflow, and such that the mean is as large beside the deviation as allowed."""
    noise = generator.standard_normal(count)
    noise -= noise.mean()
    rows = [noise * 10.0**power + 10.0 ** (power - 1) for power in (-42, -24, -3, 0, 4, 9)]
    for power in (-6, 0, 6):
        z = noise * 10.0**power
        s = np.sqrt(np.mean(z**2) + function.epsilon)
        rows.append(z + np.sqrt(max((0.99 * PER_SPREAD * s) ** 2 - np.mean(z**2), 0.0)))
    return [single_(row) for row in rows]


@pytest.mark.parametrize("execute", [_in_two_passes, _in_one_pass, _distributed])
@pytest.mark.parametrize("count", [1, 2, 7, 64, 1024])
def test_every_formula_stays_within_the_rounding(execute: Executed, count: int) -> None:
    generator = np.random.default_rng(count)
    tries = 0
    for epsilon in (1e-12, 1e-5, 1.0):
        function = _function(generator, count, epsilon)
        own = function.rounding(Precision(unit=2.0**-24, tiny=FLOAT32.tiny))
        assert own is not None
        for x in _inputs(generator, count, function):
            with mpmath.workdps(60):
                exact, spread = _exactly(x, function)
                length = mpmath.norm([mpmath.mpf(float(entry)) for entry in x])
                if length > PER_SPREAD * spread or length > own.largest_input:
                    continue
                with np.errstate(under="ignore"):
                    executed = execute(x, function)
                off = mpmath.norm([mpmath.mpf(float(a)) - b for a, b in zip(executed, exact, strict=True)])
                assert off <= own.of_input * length + own.absolute
            tries += 1
    assert tries >= 15


def test_the_worst_that_sums_may_err_by_stays_within_the_rounding_and_comes_near() -> None:
    """The mean, the variance and the last roundings each as wrong as their own bounds allow, all in one direction."""
    count, generator = 64, np.random.default_rng(0)
    function = Normalisation(
        name="n", groups=1, scale=np.full(count, -3.0), shift=np.zeros(count), epsilon=1e-12, centred=True
    )
    own = function.rounding(FLOAT32)
    unit = roundings_upper(3 * count + 16, FLOAT32.unit)
    z = np.sign(generator.permutation(np.arange(count) - 31.5))
    x = z + 0.999 * np.sqrt(PER_SPREAD**2 - 1)
    s = np.sqrt(np.mean(z**2) + function.epsilon)
    wrong_z = z + np.sign(z) * unit * (np.abs(x) + np.abs(x).mean())
    wrong_s = np.sqrt(s**2 - unit * np.mean(x**2))
    off = np.linalg.norm(3.0 * wrong_z / wrong_s * (1 + unit) - 3.0 * z / s)
    assert own is not None and np.linalg.norm(x) <= PER_SPREAD * np.sqrt(count) * s
    assert off <= own.absolute <= 1.1 * off


def test_a_mean_far_beyond_the_deviation_breaks_what_holds_below_it() -> None:
    """E[x²] - E[x]² then loses all: without the condition nothing would be true."""
    function = _function(np.random.default_rng(0), 64, 1e-5)
    own = function.rounding(FLOAT32)
    x = single_(1000.0 + 0.01 * np.random.default_rng(1).standard_normal(64))
    exact, spread = _exactly(x, function)
    with np.errstate(invalid="ignore"):
        executed = _in_one_pass(x, function)
    off = np.linalg.norm(executed.astype(np.float64) - np.array([float(each) for each in exact]))
    assert own is not None and np.linalg.norm(x) > PER_SPREAD * float(spread)
    assert not off <= own.absolute


def _ratio(x: np.ndarray, function: Normalisation) -> float:
    """√(E[x²])/s of one group."""
    return float(mpmath.norm([mpmath.mpf(float(each)) for each in x]) / _exactly(x, function)[1])


@pytest.mark.parametrize("offset", [0.0, 1.0, 3.0, 1e8])
@pytest.mark.parametrize("count", [2, 8, 100])
def test_within_the_room_no_mean_prevails(offset: float, count: int) -> None:
    """Moved straight towards the mean of a group, which is the shortest way out."""
    generator = np.random.default_rng(count)
    two = Normalisation(
        name="n", groups=2, scale=np.ones(2 * count), shift=np.zeros(2 * count), epsilon=1e-5, centred=True
    )
    one = _function(generator, count, 1e-5)
    x = np.append(generator.standard_normal(count), 0.1 * (offset + generator.standard_normal(count)))
    room = two.room_lower(x[None], np.zeros((1, 1))).item()
    with mpmath.workdps(60):
        worst = max(_ratio(part, one) for part in (x[:count], x[count:]))
        assert (room > 0) == (worst < PER_SPREAD)
        if room == 0:
            return
        for part in (x[:count], x[count:]):
            inwards = part.mean() - part
            inwards /= np.linalg.norm(inwards)
            outwards = np.full(count, np.sign(part.mean()) / np.sqrt(count))
            for way in (inwards, outwards, (inwards * PER_SPREAD + outwards) / np.hypot(PER_SPREAD, 1)):
                assert _ratio(part + room * way, one) <= PER_SPREAD
    assert two.room_lower(x[None], np.full((1, 1), room / 2)).item() <= room / 2
    # No farther than where the smaller group loses its deviation, and a third of that where no mean is in the way.
    least = np.linalg.norm(x[count:] - x[count:].mean())
    assert room <= least and (offset > 0 or room >= least / 3)


def test_nothing_is_known_of_what_is_not_finite() -> None:
    function = _function(np.random.default_rng(0), 4, 1e-5)
    assert function.room_lower(np.full((1, 4), np.inf), np.zeros((1, 1))).item() == 0.0
    assert function.room_lower(np.ones((1, 4)), np.full((1, 1), np.inf)).item() == 0.0


def test_what_could_lose_everything_has_no_rounding() -> None:
    """Sums too long for the precision, an epsilon that underflows, and scales that overflow on the way."""
    generator = np.random.default_rng(0)
    assert _function(generator, 64, 1e-5).rounding(PRECISIONS["float16"]) is None
    assert _function(generator, 64, 1e-38).rounding(FLOAT32) is None
    large = Normalisation(name="n", groups=1, scale=np.full(4, 2.0**120), shift=np.zeros(4), epsilon=1e-5, centred=True)
    assert large.rounding(FLOAT32) is None


def _classifier(operator: str) -> Model:
    generator = np.random.default_rng(5)
    model = Model(16) if operator == "LayerNormalization" else Model(4, 8)
    if operator == "LayerNormalization":
        model.linear(single(generator.standard_normal((12, 16))), single(generator.standard_normal(12)))
    size = 4 if operator == "InstanceNormalization" else 12
    if operator == "spelled out":
        mean = model.add("ReduceMean", "x", np.array([2]), keepdims=1)
        z = model.add("Sub", "x", mean)
        squared = model.add("Mul", z, z)
        variance = model.then("ReduceMean", np.array([2]), keepdims=1)
        assert squared != variance
        model.then("Add", np.array(1e-5))
        root = model.then("Sqrt")
        model.add("Div", z, root)
    else:
        model.then(operator, single(1 + generator.random(size)), single(generator.standard_normal(size)), epsilon=1e-5)
    if len(model.row_shape) > 1:
        model.then("Flatten")
    columns = 12 if operator == "LayerNormalization" else 32
    model.linear(single(generator.standard_normal((3, columns)) / 4), np.zeros(3))
    return model


OPERATORS = ["LayerNormalization", "InstanceNormalization", "spelled out"]


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_engine_keeps_to_the_drifts_up_to_where_they_end(operator: str) -> None:
    case = Case(_classifier(operator), "float32")
    generator = np.random.default_rng(1)
    rows = generator.standard_normal((2, case.network.input_size))
    room = case.at(rows).room
    assert (room > 0.02).all() and (room < 100.0).all()
    hold(case, rows, generator, (0.0, 1e-3, 0.1, 100.0))


@pytest.mark.parametrize("operator", OPERATORS)
def test_drifts_behind_a_normalisation_are_not_vacuous(operator: str) -> None:
    """Margins are of the order of 1."""
    case = Case(_classifier(operator), "float32")
    rows = np.random.default_rng(1).standard_normal((2, case.network.input_size))
    assert case.at(rows).outputs()[0].max() <= 5e-2


def test_radii_behind_a_normalisation_are_nearly_the_real_ones_and_end_where_the_mean_prevails() -> None:
    model = _classifier("InstanceNormalization")
    generator = np.random.default_rng(2)
    rows = generator.standard_normal((6, 4, 8))
    found = {}
    for arithmetic in ("float32", "real"):
        options = CertifyOptions(method="product", arithmetic=arithmetic)
        predictor = predictor_of(certify_model(model, options=options))
        found[arithmetic] = predictor.predict(rows, epsilon=None, preprocessing=None)
        far = predictor.predict(1e4 + rows, epsilon=None, preprocessing=None)
        assert {each.because for each in far} == ({NO_ROOM} if arithmetic == "float32" else {None})
    pairs = [(here.radius, there.radius) for here, there in zip(found["float32"], found["real"], strict=True)]
    assert all(0.9 * there <= here <= there for here, there in pairs if there > 1e-4)
    assert sum(here > 0 for here, _ in pairs) >= 4


@pytest.mark.parametrize(("gamma", "is_known"), [(1.0, True), (2.0**-50, True), (2.0**-70, False)])
def test_a_normalisation_whose_weights_may_underflow_is_not_recognised(gamma: float, is_known: bool) -> None:
    """z (γ/s): of a γ of 2^-70 nothing is left beside an s of 2^60."""
    model = Model(4, 8)
    mean = model.add("ReduceMean", "x", np.array([2]), keepdims=1)
    z = model.add("Sub", "x", mean)
    model.add("Mul", z, z)
    model.then("ReduceMean", np.array([2]), keepdims=1)
    model.then("Add", np.array(1e-5))
    root = model.then("Sqrt")
    model.add("Mul", z, model.add("Div", np.array(gamma), root))
    if is_known:
        assert len(Case(model, "float32").drifts.rooms) == 1
        return
    with pytest.raises(UnsupportedNode):
        Case(model, "float32")
