"""Seeds faults into a copy of the library, one at a time, and shows that the tests catch each of them.

    python -m tests.faults            all of them
    python -m tests.faults pads seal  those whose names contain one of the words

A fault is caught if the tests it is mapped to pass without it and fail with it.  Exit code 1 if one is missed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
JOBS = 2

KNOWN = "tests/certifier/test_known_failures.py"
SOUND = "tests/certifier/test_soundness.py"
STATE = "tests/certifier/test_state.py"
BOUNDS = "tests/certifier/test_bounds.py"
CERTIFICATES = "tests/certifier/test_certificates.py"
NETWORK = "tests/certifier/test_network.py"
EXECUTION = "tests/certifier/test_execution.py"
SELF_TEST = "tests/certifier/test_selftest.py"
SEARCH = "tests/certifier/test_search.py"
READING = "tests/certifier/test_reading.py"
PREDICTION = "tests/certifier/test_prediction.py"
PROOF = "tests/certifier/proof/"
RULES = "tests/certifier/rules/"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """`old` becomes `new`, once, in `file`; `tests` are the smallest that should notice."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


FAULTS = (
    Fault(
        name="the slope of ReLU is [0, 0.9]",
        file="certifier/elementwise.py",
        old="derivative=lambda x: np.where(x >= 0, 1.0, 0.0),\n        slope_lower=0.0,\n        slope_upper=1.0,",
        new="derivative=lambda x: np.where(x >= 0, 1.0, 0.0),\n        slope_lower=0.0,\n        slope_upper=0.9,",
        tests=(KNOWN,),
    ),
    Fault(
        name="the slope of LeakyReLU ignores alpha",
        file="certifier/elementwise.py",
        old="lower, upper = np.minimum(1.0, slopes), np.maximum(1.0, slopes)",
        new="lower, upper = np.minimum(0.0, 0 * slopes), np.maximum(1.0, 0 * slopes)",
        tests=(KNOWN,),
    ),
    Fault(
        name="the steepest slope forgets the lower end",
        file="certifier/terms.py",
        old="np.maximum(np.abs(self.function.slope_lower), np.abs(self.function.slope_upper))",
        new="np.asarray(self.function.slope_upper)",
        tests=(KNOWN,),
    ),
    Fault(
        name="the torus has the size of the input",
        file="certifier/proof/torus.py",
        old="size = max(length + max(0, pad_before), last_read + 1, last_row + 1)",
        new="size = length",
        tests=(PROOF + "test_proof_torus.py",),
    ),
    Fault(
        name="the padding in front is left out of the torus",
        file="certifier/proof/torus.py",
        old="size = max(length + max(0, pad_before), last_read + 1, last_row + 1)",
        new="size = max(length, last_row + 1)",
        tests=(PROOF + "test_proof_torus.py",),
    ),
    Fault(
        name="the aliases of a stride are ignored",
        file="certifier/proof/torus.py",
        old="axis.size // axis.stride * aliases[:, position]",
        new="0 * aliases[:, position]",
        tests=(PROOF + "test_proof_torus.py",),
    ),
    Fault(
        name="phases are trusted to be exact",
        file="certifier/proof/torus.py",
        old="            distance = add_upper(distance, add_upper(rounded, mul_upper(entries, 2.0**-1000)))",
        new="            distance = mul_upper(distance, 0.0)",
        tests=(PROOF + "test_proof_torus.py",),
    ),
    Fault(
        name="the shift of the semidefiniteness proof forgets rounding",
        file="certifier/proof/semidefinite.py",
        old="return float_upper(backward / (1 - backward))",
        new="return 0.0",
        tests=(PROOF + "test_proof_semidefinite.py",),
    ),
    Fault(
        name="the error norm is not taken off before the factorisation",
        file="certifier/proof/semidefinite.py",
        old="add_upper(mul_upper(square, errors[:, None]), shift[:, None])",
        new="add_upper(mul_upper(square, 0.0 * errors[:, None]), shift[:, None])",
        tests=(PROOF + "test_proof_semidefinite.py",),
    ),
    Fault(
        name="a factor with NaN counts as completed",
        file="certifier/proof/semidefinite.py",
        old="good = np.isfinite(errors) & np.isfinite(stack).all(axis=(1, 2)) & _is_hermitian(stack)",
        new="good = np.isfinite(errors) & (stack == stack[:, :, :]).any(axis=(1, 2)) | True",
        tests=(PROOF + "test_proof_semidefinite.py",),
    ),
    Fault(
        name="asymmetric matrices are accepted",
        file="certifier/proof/semidefinite.py",
        old=" & _is_hermitian(stack)\n",
        new="\n",
        tests=(PROOF + "test_proof_semidefinite.py",),
    ),
    Fault(
        name="entry errors are dropped from the Gram proof",
        file="certifier/proof/dense.py",
        old="distance = add_upper(distance, magnitude_norm_upper(form.error))",
        new="distance = add_upper(distance, 0.0)",
        tests=(SEARCH, PROOF + "test_proof_dense.py"),
    ),
    Fault(
        name="the estimate of the search is sold as the bound",
        file="certifier/search/matrices.py",
        old="return Found(upper=demand_finite(upper), estimate=below",
        new="return Found(upper=demand_finite(below), estimate=below",
        tests=(SEARCH, KNOWN),
    ),
    Fault(
        name="a sum takes the larger of its branches",
        file="certifier/bounds.py",
        old="total = add_upper(total, bound)",
        new="total = max(total, bound)",
        tests=(KNOWN, BOUNDS),
    ),
    Fault(
        name="a stack takes the larger of its branches",
        file="certifier/bounds.py",
        old="float(norm_upper(np.array(bounds), None)) if stacked",
        new="float(max(bounds)) if stacked",
        tests=(KNOWN, SOUND),
    ),
    Fault(
        name="activations stop counting",
        file="certifier/bounds.py",
        old="return float(mul_upper(float(np.max(term.steepest)), self._constants[term.sources[0]]))",
        new="return self._constants[term.sources[0]]",
        tests=(KNOWN,),
    ),
    Fault(
        name="pair constants are those of the whole vector",
        file="certifier/certificates.py",
        old="radii = strictly_below(margin_lower, pairs[label])",
        new="radii = strictly_below(margin_lower, pairs[label] / np.sqrt(2.0))",
        tests=(KNOWN, CERTIFICATES),
    ),
    Fault(
        name="pairs behind an activation use one output's constant",
        file="certifier/proof/readout.py",
        old="pairs = add_upper(outputs[:, None], outputs[None, :])",
        new="pairs = np.maximum(outputs[:, None], outputs[None, :])",
        tests=(BOUNDS, SOUND),
    ),
    Fault(
        name="max-pooling is 1-Lipschitz",
        file="certifier/vector_functions/pooling.py",
        old="def constant_upper(self) -> float:\n        return _root_upper(self.windows.overlap)",
        new="def constant_upper(self) -> float:\n        return 1.0",
        tests=(KNOWN,),
    ),
    Fault(
        name="radii are not rounded down",
        file="certifier/certificates.py",
        old="below = np.nextafter(np.nextafter(quotient, -np.inf), -np.inf)",
        new="below = quotient",
        tests=(CERTIFICATES,),
    ),
    Fault(
        name="radii ignore what rounding hides",
        file="certifier/certificates.py",
        old="margin_lower = np.nextafter(gaps - allowance, -np.inf)",
        new="margin_lower = np.nextafter(gaps - 0 * allowance, -np.inf)",
        tests=(CERTIFICATES,),
    ),
    Fault(
        name="only the runner-up's pair counts",
        file="certifier/certificates.py",
        old="radius = np.where(finite, radii.min(axis=1), 0.0)",
        new="radius = np.where(finite, radii[count, runner_up], 0.0)",
        tests=(CERTIFICATES,),
    ),
    Fault(
        name="absolute operators keep their signs",
        file="certifier/operators.py",
        old="return Kronecker(abs(self.matrix), before",
        new="return Kronecker(self.matrix, before",
        tests=(EXECUTION, "tests/certifier/test_operators.py"),
    ),
    Fault(
        name="a broadcast operand counts once",
        file="certifier/proof/structure.py",
        old="float(sqrt_upper(float(most))) if most > 1 else float(most)",
        new="1.0 if most > 1 else float(most)",
        tests=(KNOWN, SOUND),
    ),
    Fault(
        name="any rearrangement in front is taken for an isometry",
        file="certifier/proof/structure.py",
        old="return bool((rearrange.indices >= 0).all()) and int(rearrange.counts.max(initial=0)) <= 1",
        new="return bool((rearrange.indices >= 0).all())",
        tests=(KNOWN, SOUND),
    ),
    Fault(
        name="a sealed bound is reused without its seal",
        file="certifier/norms.py",
        old="for layer in state.layers.values() if seal.verifies(layer)}",
        new="for layer in state.layers.values()}",
        tests=(STATE,),
    ),
    Fault(
        name="the seal does not cover the bound",
        file="certifier/search/state.py",
        old="text = json.dumps([CHECKER_REVISION, digest, float(upper).hex(), float(estimate).hex(), proof])",
        new="text = json.dumps([CHECKER_REVISION, digest, float(estimate).hex(), proof])",
        tests=(STATE,),
    ),
    Fault(
        name="a sealed bound is found by name instead of digest",
        file="certifier/norms.py",
        old="sealed = self._sealed.get(digest)",
        new="sealed = self._sealed.get(digest) or next(iter(self._sealed.values()), None)",
        tests=(STATE,),
    ),
    Fault(
        name="a softmax over part of the outputs is cut off",
        file="certifier/network.py",
        old='return ("softmax", last.inputs[0]) if spans == math.prod(shape) else (None, output)',
        new='return ("softmax", last.inputs[0]) if spans else (None, output)',
        tests=(KNOWN,),
    ),
    Fault(
        name="a sigmoid is cut off whatever the number of outputs",
        file="certifier/network.py",
        old='if last.operator == "Sigmoid" and math.prod(shape) == 1:',
        new='if last.operator == "Sigmoid":',
        tests=(NETWORK,),
    ),
    Fault(
        name="the threshold of a binary classifier is taken for its logit",
        file="certifier/serving.py",
        old="first, second = math.log(self.threshold), math.log1p(-self.threshold)",
        new="first, second = self.threshold, 0.5",
        tests=(NETWORK,),
    ),
    Fault(
        name="a transposed convolution is bounded as the convolution of its input",
        file="certifier/rules/convolutions.py",
        old="full = strides[i] * (size - 1) + dilations[i] * (taps[i] - 1) + 1 + extra[i]",
        new="full = strides[i] * (size - 1) + dilations[i] * (taps[i] - 1) + 1",
        tests=(RULES + "test_convolutions.py", SOUND),
    ),
    Fault(
        name="padding counts in every average",
        file="certifier/rules/poolings.py",
        old='if site.integer("count_include_pad", 0):',
        new='if site.integer("count_include_pad", 1) >= 0:',
        tests=(RULES + "test_poolings.py", SOUND),
    ),
    Fault(
        name="epsilon of a normalisation is outside the root",
        file="certifier/vector_functions/normalising.py",
        old="return float(div_upper(np.max(np.abs(self.scale), initial=0.0), sqrt_lower(self.epsilon)))",
        new="return float(np.max(np.abs(self.scale), initial=0.0) / (1.0 + self.epsilon))",
        tests=(KNOWN,),
    ),
    Fault(
        name="a request's preprocessing multiplies radii where it should divide",
        file="certifier/prediction.py",
        old="div_lower(radius, stretch)",
        new="radius * stretch",
        tests=(PREDICTION,),
    ),
    Fault(
        name="the stretch of preprocessing is its mean over the channels",
        file="certifier/transforms.py",
        old="return float(np.max(div_upper(abs(self.scale), np.abs(self.std))))",
        new="return float(np.mean(div_upper(abs(self.scale), np.abs(self.std))))",
        tests=(PREDICTION,),
    ),
    Fault(
        name="an engine that disagrees passes the self-test",
        file="certifier/selftest.py",
        old="passed = bool((difference <= allowed).all())",
        new="passed = True",
        tests=(SELF_TEST,),
    ),
    Fault(
        name="a lower bound above the upper passes the self-test",
        file="certifier/selftest.py",
        old="passed=subject.lower <= subject.upper,",
        new="passed=True,",
        tests=(SELF_TEST,),
    ),
    Fault(
        name="the self-test attacks nothing",
        file="certifier/selftest.py",
        old="if flipped.any():",
        new="if False:",
        tests=(SELF_TEST,),
    ),
    Fault(
        name="failed self-tests do not stop the upload",
        file="certifier/selftest.py",
        old="if not check.passed:",
        new="if False:",
        tests=(SELF_TEST,),
    ),
    Fault(
        name="lower bounds keep the rounding of their evaluations",
        file="certifier/search/attack.py",
        old="reliable = np.nextafter(difference, 0.0) - np.nextafter(strays[0] + strays[1], np.inf)",
        new="reliable = difference",
        tests=(SEARCH,),
    ),
    Fault(
        name="own rounding is left out of the enclosure",
        file="certifier/terms.py",
        old="return gamma_upper(count, at.unit) * size + 2 * count * at.tiny",
        new="return 0.0 * size",
        tests=(EXECUTION,),
    ),
    Fault(
        name="attributes that a rule does not know are ignored",
        file="certifier/rules/registry.py",
        old="    if unknown:\n",
        new="    if False:\n",
        tests=(NETWORK, RULES),
    ),
    Fault(
        name="weights that are not finite are accepted",
        file="certifier/rules/registry.py",
        old="if not np.isfinite(values).all():",
        new="if False:",
        tests=(KNOWN,),
    ),
    Fault(
        name="external data is ignored",
        file="certifier/reading/onnx.py",
        old="if tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.external_data):",
        new="if False:",
        tests=(READING,),
    ),
    Fault(
        name="folded constants are evaluated whatever their size",
        file="certifier/reading/folding.py",
        old="    _demand_size(node, model, limits)\n",
        new="",
        tests=(READING,),
    ),
)


def main(words: Sequence[str]) -> int:
    """Seed every chosen fault; returns the exit code."""
    chosen = [fault for fault in FAULTS if not words or any(word in fault.name for word in words)]
    stale = [fault for fault in chosen if (ROOT / fault.file).read_text().count(fault.old) < 1]
    for fault in stale:
        print(f"STALE   {fault.name}: its text is no longer in {fault.file}")
    files = sorted({test for fault in chosen for test in fault.tests})
    with tempfile.TemporaryDirectory(prefix="lipcert-faults-") as folder:
        # Copied once, so that editing the tree meanwhile changes no result.
        sound = _copy(ROOT, Path(folder) / "sound")
        status, output = _tests_in(sound, files)
        if status != 0:
            print(output[-3000:])
            print("the tests fail without any fault, so they cannot show that they catch one")
            return 1
        with ThreadPoolExecutor(JOBS) as pool:
            seeded = [fault for fault in chosen if fault not in stale]
            places = [Path(folder) / str(number) for number in range(len(seeded))]
            results = list(pool.map(lambda fault, place: _seed(fault, sound, place), seeded, places))
    missed = results.count(False)
    print(f"{len(results) - missed} of {len(results)} faults caught, {missed} missed, {len(stale)} stale")
    return 1 if missed or stale else 0


def _seed(fault: Fault, sound: Path, place: Path) -> bool:
    """Whether the tests notice the fault."""
    copy = _copy(sound, place)
    source = copy / fault.file
    source.write_text(source.read_text().replace(fault.old, fault.new, 1))
    status, output = _tests_in(copy, fault.tests)
    caught = status == 1 and "error" not in output.splitlines()[-1]
    print(f"{'caught ' if caught else 'MISSED '} {fault.name}", flush=True)
    if not caught:
        print("        " + "\n        ".join(output.splitlines()[-4:]), flush=True)
    shutil.rmtree(copy)
    return caught


def _copy(origin: Path, place: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__")
    for part in ("certifier", "tests"):
        shutil.copytree(origin / part, place / part, ignore=ignored)
    shutil.copy(origin / "pyproject.toml", place)
    return place


def _tests_in(place: Path, files: Sequence[str]) -> tuple[int, str]:
    """Exit status and output of the tests run on the copy in `place`."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(place),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "LIPCERT_SHARED": os.environ.get("LIPCERT_SHARED", str(ROOT.parent / "shared")),
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.strip() or done.stderr.strip() or "no output"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
