"""A fault: one edit of one file, and the tests that should notice."""

from __future__ import annotations

from dataclasses import dataclass

KNOWN = "tests/certifier/test_known_failures.py"
ELEMENTWISE = "tests/certifier/test_elementwise.py"
SOUND = "tests/certifier/test_soundness.py"
STATE = "tests/certifier/test_state.py"
BOUNDS = "tests/certifier/bounds/test_product.py"
CHECKING = "tests/certifier/test_checking.py"
CERTIFICATES = "tests/certifier/test_certificates.py"
INPUTS = "tests/certifier/reading/test_several_inputs.py"
NETWORK = "tests/certifier/test_network.py"
EXECUTION = "tests/certifier/test_execution.py"
SELF_TEST = "tests/certifier/test_selftest.py"
SEARCH = "tests/certifier/test_search.py"
READING = "tests/certifier/test_reading.py"
RESOURCES = "tests/certifier/test_resources.py"
TRAPS = "tests/certifier/test_known_traps.py"
PREDICTION = "tests/certifier/test_prediction.py"
PROOF = "tests/certifier/proof/"
HOSTILE = "tests/certifier/test_hostile.py"
RULES = "tests/certifier/rules/"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """`old` becomes `new`, once, in `file`; `tests` are the smallest that should notice."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
