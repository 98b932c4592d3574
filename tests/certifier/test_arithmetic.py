"""Whose arithmetic a certificate speaks of: the option, what is served, what is said, and what it costs."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from certifier.certificates import NO_ROOM, WITHIN_DRIFT, decide, decide_binary
from certifier.certification import CertifiedModel
from certifier.documents import AskedArithmetic, Certificate, CertifyOptions, Preprocessing
from certifier.engine import describe_engine
from certifier.errors import SelfTestFailed
from certifier.prediction import OF_ANOTHER_BUILD, Predictor
from certifier.proof.drifts import Carried, Drifts, Own
from certifier.proof.execution import Measures
from tests.building import Model, certify_bytes, certify_model, predictor_of, single

ASKED: tuple[AskedArithmetic, ...] = ("float32", "float64", "real")


def _model(dtype: type = np.float32) -> Model:
    generator = np.random.default_rng(0)
    model = Model(6, dtype=dtype)
    model.linear(single(generator.standard_normal((8, 6))), single(generator.standard_normal(8)))
    model.then("Relu")
    model.linear(single(generator.standard_normal((3, 8))), single(generator.standard_normal(3)))
    return model


def _options(arithmetic: AskedArithmetic, **others: object) -> CertifyOptions:
    return CertifyOptions.model_validate({"method": "product", "arithmetic": arithmetic, **others})


ROWS = np.random.default_rng(1).standard_normal((20, 6))


def test_the_engine_s_own_arithmetic_is_the_default():
    certificate = certify_model(_model()).certificate
    assert certificate.options.arithmetic == certificate.arithmetic.name == "float32"
    assert "onnxruntime" in certificate.arithmetic.statement and certificate.arithmetic.because is None


def test_radii_shrink_with_the_rounding_that_they_cover():
    radii = {}
    for asked in ASKED:
        predictor = predictor_of(certify_model(_model(), options=_options(asked)))
        assert predictor.certificate.arithmetic.name == asked
        radii[asked] = np.array([row.radius for row in predictor.predict(ROWS, epsilon=None, preprocessing=None)])
    assert (radii["float32"] < radii["float64"]).all() and (radii["float64"] <= radii["real"]).all()
    assert (radii["real"] - radii["float32"] <= 1e-4).all() and (radii["real"] - radii["float64"] <= 1e-12).all()


def test_float64_serves_the_float64_evaluation():
    certified = certify_model(_model(), options=_options("float64"))
    assert "numpy" in certified.certificate.engine and "float64" in certified.certificate.engine
    rows = predictor_of(certified).predict(ROWS, epsilon=0.1, preprocessing=None)
    exact = _model().reference()(ROWS)
    served = np.array([row.logits for row in rows])
    assert np.abs(served - exact).max() <= 1e-13
    assert (served.astype(np.float32) != served).any()


def test_a_double_model_is_served_in_double_by_the_engine_whatever_is_asked():
    for asked in ("float32", "float64"):
        certificate = certify_model(_model(np.float64), options=_options(asked)).certificate
        assert certificate.arithmetic.name == "float64" and "onnxruntime" in certificate.engine


def test_intervals_and_differences_hold_for_what_is_served():
    """(x + 2^27) - 2^27 maps 3.9 to 0 and 4.1 to 16 in single precision: an exact 1-Lipschitz bound is broken."""
    model = Model(1)
    model.add("Add", "x", np.array([2.0**27]))
    model.then("Sub", np.array([2.0**27]))
    x, y = np.array([[7.9]]), np.array([[8.1]])
    executed = predictor_of(certify_model(model, options=_options("float32")))
    (comparison,) = executed.compare(x, y)
    assert comparison.output_difference == 16.0
    assert comparison.output_difference <= comparison.output_difference_bound <= 100.0
    assert comparison.outputs[0].difference <= comparison.outputs[0].bound
    (real,) = predictor_of(certify_model(model, options=_options("real"))).compare(x, y)
    assert real.output_difference > real.output_difference_bound
    (row,) = executed.predict(x, epsilon=0.5, preprocessing=None)
    assert row.output_bounds is not None
    (interval,) = row.output_bounds.intervals
    for point in (7.4, 7.9, 8.1, 8.4):
        (served,) = executed.predict(np.array([[point]]), epsilon=None, preprocessing=None)
        assert interval.lower <= served.logits[0] <= interval.upper
        assert abs(served.logits[0] - row.logits[0]) <= row.output_bounds.l2


def test_where_no_bound_is_known_radii_are_zero_and_say_why():
    """An epsilon that is no larger than what single precision flushes to zero."""
    model = Model(4)
    model.then("LayerNormalization", np.ones(4), np.zeros(4), epsilon=2.0**-126)
    certified = certify_model(model, options=_options("float32"))
    assert certified.certificate.arithmetic.name == "float32"
    reason = certified.certificate.arithmetic.because
    assert reason is not None and "LayerNorm" in reason and reason in certified.certificate.arithmetic.statement
    x = np.array([[1.0, 0.0, 0.0, 0.0]])
    (row,) = predictor_of(certified).predict(x, epsilon=0.1, preprocessing=None)
    assert (row.radius, row.because, row.output_bounds, row.certified) == (0.0, reason, None, False)
    (comparison,) = predictor_of(certified).compare(x, 2.0 * x)
    assert comparison.output_difference <= comparison.output_difference_bound < 1e30
    exact = predictor_of(certify_model(model, options=_options("real")))
    (row,) = exact.predict(x, epsilon=0.1, preprocessing=None)
    assert row.radius and row.radius > 0 and row.because is None


def test_a_requests_preprocessing_is_part_of_what_is_covered():
    """A mean of 2^27 leaves multiples of 2^-26 in double; the radius is in the caller's units."""
    model = Model(2)
    model.linear(np.eye(2))
    predictor = predictor_of(certify_model(model, options=_options("float32")))
    shift = Preprocessing(mean=[2.0**27])
    row = np.array([[2.0**27 + 1.0, 2.0**27]])
    (plain,) = predictor.predict(row - 2.0**27, epsilon=None, preprocessing=None)
    (shifted,) = predictor.predict(row, epsilon=None, preprocessing=shift)
    assert plain.radius is not None and shifted.radius is not None
    assert 0.7 < shifted.radius < plain.radius < 0.70711


def test_drifts_that_are_missing_are_noticed():
    certified = certify_model(_model())
    real = certify_model(_model(), options=_options("real"))
    with pytest.raises(ValueError, match="missing"):
        Predictor(certificate=certified.certificate, served_model=certified.served_model, constants=real.constants)


@pytest.mark.parametrize("layout", [None, 1])
def test_drifts_of_another_build_certify_nothing_and_say_why(layout: int | None):
    """Their numbers mean something else: taken for today's they would come to nearly nothing."""
    certified = certify_model(_model())
    with np.load(io.BytesIO(certified.constants)) as arrays:
        kept = {name: array for name, array in arrays.items() if name != "drift_layout"}
    if layout is not None:
        kept["drift_layout"] = np.array(layout)
    buffer = io.BytesIO()
    np.savez(buffer, **kept)
    predictor = Predictor(
        certificate=certified.certificate, served_model=certified.served_model, constants=buffer.getvalue()
    )
    assert predictor.arithmetic.because == OF_ANOTHER_BUILD
    for row in predictor.predict(ROWS, epsilon=0.1, preprocessing=None):
        assert (row.radius, row.certified, row.output_bounds, row.because) == (0.0, False, None, OF_ANOTHER_BUILD)


def test_certificates_of_exact_arithmetic_keep_saying_so_whatever_their_options():
    """Documents of another time may lack the option."""
    certified = certify_model(_model(), options=_options("real"))
    silent = certified.certificate.model_copy(update={"options": CertifyOptions(method="product")})
    predictor = Predictor(certificate=silent, served_model=certified.served_model, constants=certified.constants)
    expected = predictor_of(certified).predict(ROWS, epsilon=0.1, preprocessing=None)
    assert predictor.predict(ROWS, epsilon=0.1, preprocessing=None) == expected


def _measures(norm: float) -> Measures:
    return Measures(
        stray=np.zeros((1, 1)), values={"x": np.array([[norm]])}, sums={"y": np.ones((1, 1))}, entries={}, rooms={}
    )


def _drifts(count: int) -> Drifts:
    """Fixed parts 1/8 and growths 1/4 for every output; carried ones twice that for pairs; room for 100."""
    form = np.array([0.125, 0.0, 0.0, 0.0, 0.25])
    pairs = 2 * (1 - np.eye(count))
    return Drifts(
        values=("x",),
        sums=("y",),
        carried=(Carried(form=form, outputs=np.ones(count), pairs=pairs),),
        own=(Own(form=form, gains=np.ones(count)),),
        summed=(),
        constants=np.zeros(count),
        rooms=(),
        peak=np.array([0.0, 0.0, 0.0, 0.0, 0.01]),
        whole=form,
    )


def test_a_margin_pays_the_fixed_part_and_shares_the_ball_with_the_growth():
    """(margin - fixed) / (L + growth): (2 - ½) / (1 + 1), with own drifts of both outputs and the carried one."""
    around = _drifts(2).at(_measures(1.0))
    pairs = 1.0 - np.eye(2)
    decisions = decide(np.array([[2.0, 0.0]]), np.zeros((1, 2)), pairs, around)
    assert decisions.radius[0] == pytest.approx(0.75, rel=1e-5) and decisions.radius[0] < 0.75
    within = decide(np.array([[0.5, 0.0]]), np.zeros((1, 2)), pairs, around)
    assert (within.radius[0], within.because) == (0.0, [WITHIN_DRIFT])
    binary = decide_binary(np.array([-2.0]), np.zeros(1), (0.0, 0.0), 1.0, _drifts(1).at(_measures(1.0)))
    assert binary.radius[0] == pytest.approx(1.75 / 1.5, rel=1e-5) and binary.radius[0] < 1.75 / 1.5


def test_a_radius_ends_where_a_number_could_overflow():
    around = _drifts(2).at(_measures(1.0))
    far = decide(np.array([[1e6, 0.0]]), np.zeros((1, 2)), 1.0 - np.eye(2), around)
    assert 99.9 < far.radius[0] <= 100.0
    over = Drifts(**{**vars(_drifts(2)), "peak": np.array([2.0, 0.0, 0.0, 0.0, 0.01])})
    around = over.at(_measures(1.0))
    none = decide(np.array([[1e6, 0.0]]), np.zeros((1, 2)), 1.0 - np.eye(2), around)
    assert (none.radius[0], none.because) == (0.0, [NO_ROOM])


def test_a_norm_that_is_not_known_certifies_nothing():
    drifts = Drifts(**{**vars(_drifts(2)), "own": (Own(form=np.array([0.0, 0.0, 1e-6, 0.0, 0.0]), gains=np.ones(2)),)})
    for norm in (np.inf, np.nan):
        around = drifts.at(_measures(norm))
        assert decide(np.array([[1e6, 0.0]]), np.zeros((1, 2)), 1.0 - np.eye(2), around).radius[0] == 0.0


@pytest.mark.slow
@pytest.mark.needs_shared
def test_what_single_precision_costs_on_the_certifiably_trained_network(shared: Path):
    """At 0.3: 95.75 % in float32 with multipliers; as many in float64 as over the reals, to the last input."""
    data = (shared / "models/tobycmurray/python-certifier/gloro_mnist_8x128.onnx").read_bytes()
    with np.load(shared / "data/mnist_test10000_x_u8.npz") as arrays:
        images = arrays[arrays.files[0]].astype(np.float32) / np.float32(255)

    def certified(arithmetic: AskedArithmetic, method: str) -> np.ndarray:
        predictor = predictor_of(certify_bytes(data, options=_options(arithmetic, method=method)))
        rows = images.reshape(-1, *predictor.row_shape)
        answers = [
            row
            for start in range(0, len(rows), 500)
            for row in predictor.predict(rows[start : start + 500], epsilon=0.3, preprocessing=None)
        ]
        return np.array([bool(row.certified) for row in answers])

    assert certified("float32", "multipliers").sum() >= 9575
    assert certified("float32", "product").sum() >= 9560
    assert np.array_equal(certified("float64", "product"), certified("real", "product"))


def _served_elsewhere(certified: CertifiedModel, **changed: object) -> Certificate:
    execution = certified.certificate.execution
    assert execution is not None
    return certified.certificate.model_copy(update={"execution": execution.model_copy(update=changed)})


def test_a_certificate_names_the_engine_its_options_and_the_machine():
    execution = certify_model(_model()).certificate.execution
    assert execution is not None and execution == describe_engine()
    assert execution.name.startswith("onnxruntime ") and execution.cpu
    assert execution.options["graph_optimization_level"] == "disabled"
    assert execution.options["intra_op_num_threads"] == "1"


@pytest.mark.parametrize(
    ("changed", "said"), [({"name": "onnxruntime 0.1"}, "onnxruntime"), ({"cpu": ["Z80"]}, "another machine")]
)
def test_another_engine_or_machine_is_tested_again_and_named(changed, said):
    certified = certify_model(_model())
    elsewhere = _served_elsewhere(certified, **changed)
    predictor = Predictor(certificate=elsewhere, served_model=certified.served_model, constants=certified.constants)
    statement = predictor.arithmetic.statement
    assert statement.startswith(certified.certificate.arithmetic.statement)
    assert f"Certified with {said}" in statement and "passed the self-test" in statement
    assert predictor_of(certified).arithmetic == certified.certificate.arithmetic


def test_another_engine_that_fails_the_self_test_does_not_serve():
    certified = certify_model(_model())
    elsewhere = _served_elsewhere(certified, name="onnxruntime 0.1")
    wrong = elsewhere.model_copy(update={"lipschitz": elsewhere.lipschitz.model_copy(update={"lower": 1e9})})
    with pytest.raises(SelfTestFailed, match="lower below upper"):
        Predictor(certificate=wrong, served_model=certified.served_model, constants=certified.constants)


def test_a_certificate_without_a_description_of_its_engine_is_tested_again():
    """As documents of another time are."""
    certified = certify_model(_model())
    old = certified.certificate.model_copy(update={"execution": None})
    predictor = Predictor(certificate=old, served_model=certified.served_model, constants=certified.constants)
    assert "passed the self-test when the model was loaded" in predictor.arithmetic.statement
