"""A certificate file proves itself again; one in which anything was changed does not."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from onnx import numpy_helper

from certifier.documents import CertifyOptions
from certifier.errors import CertificateRefused
from certifier.limits import Limits
from certifier.portable.document import Contents, from_bytes
from certifier.verification import verify
from certifier.witness import Witness
from tests.building import Model, certify_model
from tests.certifier.portable.certified import Case, certified, convolutional, dense, forged, gated, verified
from tests.random_networks import image_networks, vector_networks

PROJECT = Path(__file__).resolve().parents[3]
BOX = {"lower": -1.0, "upper": 1.0}


@pytest.fixture(scope="module")
def case() -> Case:
    """A dense network whose certificate rests on norms and multipliers."""
    return certified(dense())


@pytest.mark.parametrize(
    ("model", "options", "methods"),
    [
        (dense(), {"method": "product"}, ["product"]),
        (dense(1), {"method": "loop_transform"}, ["product", "loop_transform"]),
        (dense(2), {}, ["product", "multipliers"]),
        (dense(3, operator="Gelu"), {}, ["product", "multipliers"]),
        (convolutional(), {}, ["product", "frequency"]),
        (gated(), {"input_box": BOX, "method": "product"}, ["product"]),
        (dense(4), {"preprocessing": {"scale": 0.5, "mean": [0.1]}}, ["product", "multipliers"]),
        (dense(5), {"task": "regression"}, ["product", "multipliers"]),
    ],
)
def test_a_certificate_is_proved_again(model: Model, options: dict[str, object], methods: list[str]) -> None:
    chosen = CertifyOptions.model_validate({"seconds": 1.0, **options})
    known = certify_model(model, options=chosen)
    found = verified(Case(model=model.data(), certificate=known.portable))
    assert found.methods == methods
    assert found.norms > 0 and found.terms == len(from_bytes(known.portable).certificate.network)
    upper = known.certificate.lipschitz.upper
    # What is written leaves room for another machine's rounding, upward and not much of it.
    assert upper < found.lipschitz_upper <= upper * (1 + 2.0**-19)
    stated = from_bytes(known.portable).constants.pairs
    if known.certificate.pairs is not None:
        assert stated is not None
        pairs = np.array(known.certificate.pairs)
        assert (stated >= pairs).all() and (stated <= pairs * (1 + 2.0**-19)).all()


@settings(max_examples=15)
@given(vector_networks(layers=4) | image_networks(layers=3))
def test_certificates_of_random_networks_hold(drawn: tuple[Model, int]) -> None:
    model, _ = drawn
    assert verified(certified(model, seconds=0.05)).verdict == "holds"


def test_verifying_loads_neither_search_nor_engine_nor_torch(case: Case, tmp_path: Path) -> None:
    (tmp_path / "certificate").write_bytes(case.certificate)
    (tmp_path / "model").write_bytes(case.model)
    program = (
        "import sys, pathlib\n"
        "from certifier.limits import Limits\n"
        "from certifier.verification import verify\n"
        "at = pathlib.Path(sys.argv[1])\n"
        "verify((at / 'certificate').read_bytes(), (at / 'model').read_bytes(), keys=[], limits=Limits())\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('torch', 'onnxruntime') or 'search' in name])\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "torch" not in done.stdout and "onnxruntime" not in done.stdout


def test_a_thousand_damaged_documents_are_refused(case: Case) -> None:
    """Bytes overwritten, flipped, removed, inserted or cut off, at random places."""
    random = Random(5)
    for _ in range(1000):
        data = bytearray(case.certificate)
        at = random.randrange(len(data))
        match random.randrange(5):
            case 0:
                data[at] ^= 1 << random.randrange(8)
            case 1:
                data[at] = (data[at] + random.randrange(1, 256)) % 256
            case 2:
                del data[at : at + random.choice((1, 8, 64))]
            case 3:
                data[at:at] = random.randbytes(random.choice((1, 8, 64)))
            case _:
                del data[at:]
        with pytest.raises(CertificateRefused):
            verify(bytes(data), case.model, keys=[], limits=Limits())


def _lower_pair(parts: Contents) -> Contents:
    assert parts.constants.pairs is not None
    pairs = parts.constants.pairs.copy()
    pairs[0, 1] *= 1 - 1e-5
    return replace(parts, constants=replace(parts.constants, pairs=pairs))


def _constants(**changes: object) -> Callable[[Contents], Contents]:
    return lambda parts: replace(parts, constants=replace(parts.constants, **changes))


def _scaled_upper(factor: float) -> Callable[[Contents], Contents]:
    return lambda parts: replace(parts, constants=replace(parts.constants, upper=parts.constants.upper * factor))


def _without_outputs_scaled(factor: float) -> Callable[[Contents], Contents]:
    def change(parts: Contents) -> Contents:
        assert parts.constants.outputs is not None
        return replace(parts, constants=replace(parts.constants, outputs=parts.constants.outputs * factor))

    return change


def _certificate(**changes: object) -> Callable[[Contents], Contents]:
    return lambda parts: replace(parts, certificate=parts.certificate.model_copy(update=changes))


def _norms(factor: float, position: int = 0) -> Callable[[Contents], Contents]:
    def change(parts: Contents) -> Contents:
        norms = dict(parts.certificate.norms)
        norms[sorted(norms)[position]] *= factor
        return replace(parts, certificate=parts.certificate.model_copy(update={"norms": norms}))

    return change


def _multipliers(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Contents], Contents]:
    def changed(parts: Contents) -> Contents:
        witness = parts.witnesses["multipliers"]
        arrays = {name: change(array.copy()) for name, array in witness.arrays.items()}
        fresh = Witness(method=witness.method, header=witness.header, arrays=arrays)
        return replace(parts, witnesses={**parts.witnesses, "multipliers": fresh})

    return changed


def _one_entry(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[0] = value
        return array

    return change


def _no_witness(parts: Contents) -> Contents:
    bare = parts.certificate.model_copy(update={"witnesses": []})
    return replace(parts, certificate=bare, witnesses={})


def _other_term(parts: Contents) -> Contents:
    first, *others = parts.certificate.network
    changed = first.model_copy(update={"sha256": hashlib.sha256(b"other").hexdigest()})
    return _certificate(network=[changed, *others])(parts)


@pytest.mark.parametrize(
    ("change", "step"),
    [
        (_lower_pair, "constants"),
        (_scaled_upper(0.999), "constants"),
        (_scaled_upper(1.01), "constants"),
        (_scaled_upper(float("nan")), "constants"),
        (_without_outputs_scaled(0.99), "constants"),
        (_constants(pairs=None), "constants"),
        (_constants(pairs=np.zeros((3, 3))), "constants"),
        (_norms(0.99), "proof"),
        (_norms(0.0), "proof"),
        (_norms(-1.0), "proof"),
        (_norms(float("nan")), "document"),
        (_certificate(norms={}), "proof"),
        (_multipliers(lambda array: array * 1.5), "proof"),
        (_multipliers(lambda array: array * 0.5), "constants"),
        (_multipliers(lambda array: array[:-1]), "proof"),
        (_multipliers(_one_entry(-1.0)), "proof"),
        (_multipliers(_one_entry(float("nan"))), "proof"),
        (_multipliers(_one_entry(1e300)), "proof"),
        (_no_witness, "constants"),
        (_other_term, "network"),
        (_certificate(classes=3), "model"),
        (_certificate(task="regression"), "model"),
    ],
)
def test_a_forged_document_is_refused_where_it_lies(
    case: Case, change: Callable[[Contents], Contents], step: str
) -> None:
    """The digest is made anew each time, so that nothing but the proof stands between a forger and a certificate."""
    assert verified(forged(case, lambda parts: parts)).verdict == "holds"
    with pytest.raises(CertificateRefused) as refused:
        verified(forged(case, change))
    assert refused.value.step == step


def test_every_claimed_norm_is_proved(case: Case) -> None:
    count = len(from_bytes(case.certificate).certificate.norms)
    assert count == verified(case).norms > 3
    for position in range(count):
        with pytest.raises(CertificateRefused):
            verified(forged(case, _norms(1 - 1e-6, position)))


def test_a_document_of_another_model_is_refused(case: Case) -> None:
    with pytest.raises(CertificateRefused) as refused:
        verified(replace(case, model=dense(9).data()))
    assert refused.value.step == "model"


def test_a_model_with_one_other_weight_is_refused_even_with_its_digest_in_the_document(case: Case) -> None:
    model = onnx.load_model_from_string(case.model)
    weights = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weights.flat[3] = np.nextafter(weights.flat[3], np.float32(2))
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, model.graph.initializer[0].name))
    other = model.SerializeToString()

    def renamed(parts: Contents) -> Contents:
        described = parts.certificate.model.model_copy(update={"sha256": hashlib.sha256(other).hexdigest()})
        return _certificate(model=described)(parts)

    with pytest.raises(CertificateRefused) as refused:
        verified(replace(forged(case, renamed), model=other))
    assert refused.value.step == "network"


def test_a_box_cannot_be_left_out_or_widened() -> None:
    boxed = certified(gated(), input_box=BOX, method="product")
    for options in ({"method": "product"}, {"method": "product", "input_box": {"lower": -2.0, "upper": 2.0}}):
        with pytest.raises(CertificateRefused):
            verified(forged(boxed, _certificate(options=CertifyOptions.model_validate(options))))


def test_a_narrower_box_is_no_license_for_smaller_constants() -> None:
    """Options are part of what is claimed: with them the constants have to be those that follow from them."""
    boxed = certified(gated(), input_box=BOX, method="product")
    narrow = CertifyOptions.model_validate({"method": "product", "input_box": {"lower": -0.5, "upper": 0.5}})
    with pytest.raises(CertificateRefused) as refused:
        verified(forged(boxed, _certificate(options=narrow)))
    assert refused.value.step in ("proof", "constants")
