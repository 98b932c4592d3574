"""Faults in outward rounding itself."""

from __future__ import annotations

from tests.faults.fault import PROOF, Fault

ROUNDING = PROOF + "test_proof_rounding.py"
HOME = "certifier/proof/rounding.py"

FAULTS = (
    Fault(
        name="squares that underflow are summed unscaled",
        file=HOME,
        old="squares.min() >= LEAST_SQUARE and ",
        new="",
        tests=(ROUNDING,),
    ),
    Fault(
        name="squares that overflow are summed unscaled",
        file=HOME,
        old=" and squares.max() <= LARGEST_SQUARE",
        new="",
        tests=(ROUNDING,),
    ),
    Fault(
        name="a sum of squares rounds for free",
        file=HOME,
        old="squares * growth_upper(x.size // squares.size + 2)",
        new="squares",
        tests=(ROUNDING,),
    ),
    Fault(
        name="subnormal numbers are operands like any other",
        file=HOME,
        old="(bits << _ONE) - _ONE < _TWICE_LARGEST_FRACTION",
        new="bits < bits",
        tests=(ROUNDING,),
    ),
    Fault(
        name="subnormal numbers have no norm",
        file=HOME,
        old="not np.ascontiguousarray(x).view(np.int64).any()",
        new="not (np.abs(x) >= TINY).any()",
        tests=(ROUNDING,),
    ),
)
