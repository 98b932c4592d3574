"""Every ONNX backend node case of a supported operator gives the expected output or a typed refusal."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.certifier.laws.backend_cases import Outcome, outcomes
from tests.certifier.laws.backend_report import page

PROMISED = tuple(
    """Gemm MatMul Add Sub Mul Div Neg Conv ConvTranspose BatchNormalization Relu LeakyRelu PRelu Elu Celu Selu Sigmoid
    HardSigmoid Tanh Softplus Softsign Erf Gelu HardSwish Mish Clip Abs MaxPool AveragePool GlobalMaxPool
    GlobalAveragePool LpPool ReduceMean ReduceSum ReduceMax ReduceMin ReduceL1 ReduceL2 Flatten Reshape Transpose
    Squeeze Unsqueeze Identity Dropout Cast Pad Slice Split Gather Concat Max Min Softmax LogSoftmax LayerNormalization
    InstanceNormalization Resize Upsample DepthToSpace SpaceToDepth""".split()
)
"""The promised operators that have backend cases; Constant and Shape fold away."""


@pytest.fixture(scope="module")
def results() -> tuple[Outcome, ...]:
    return outcomes()


def test_no_case_is_wrong(results: tuple[Outcome, ...]):
    assert [result for result in results if result.status == "wrong"] == []


@pytest.mark.parametrize("operator", PROMISED)
def test_a_promised_operator_passes_at_least_one_case(results: tuple[Outcome, ...], operator: str):
    statuses = Counter(result.status for result in results if result.operator == operator)
    assert statuses["passed"] >= 1, statuses


def test_most_cases_pass_and_every_refusal_says_why(results: tuple[Outcome, ...]):
    statuses = Counter(result.status for result in results)
    assert statuses["passed"] >= 430, statuses
    assert all(len(result.reason) > 10 for result in results if result.status == "refused")


def test_the_report_counts_what_was_run(results: tuple[Outcome, ...]):
    text = page(results)
    passed = sum(result.status == "passed" for result in results)
    assert f"{passed} outputs pass" in text
    # The table's own head is one row more.
    assert text.count("\n| ") == 1 + len({result.operator for result in results})


def test_the_report_would_show_a_wrong_case():
    made_up = Outcome(case="test_relu", operator="Relu", output="y", status="wrong", reason="off by 1")
    assert "1 are wrong" in page([made_up])
