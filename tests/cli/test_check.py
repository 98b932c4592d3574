"""`lipcert check`: exit code 0 and a table of operators, or 1 with every reason and what helps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from certifier.documents import ModelCheck
from tests.building import sum_of_two_inputs
from tests.cli.conftest import Commands
from tests.service.helpers import dense_network


@pytest.fixture
def rounding(tmp_path: Path) -> Path:
    path = tmp_path / "rounding.onnx"
    path.write_bytes(dense_network(4, 8, 3, operator="Round"))
    return path


def test_a_model_that_certifies_ends_well(lipcert: Commands) -> None:
    report = ModelCheck.model_validate(lipcert.json("check", lipcert.model))
    assert report.refusals == []
    assert {one.operator: one.count for one in report.operators} == {"Gemm": 4, "PRelu": 3}
    assert "nothing is refused" in lipcert.table("check", lipcert.model)


def test_a_refused_model_ends_with_one_and_says_where_why_and_what_helps(lipcert: Commands, rounding: Path) -> None:
    result = lipcert("check", rounding)
    assert result.exit_code == 1
    assert result.stderr == "lipcert: the model would be refused, for 1 reason\n"
    for text in ("between0", "discontinuous", "what helps", "Round"):
        assert text in result.stdout
    result = lipcert("check", rounding, "--json")
    report = ModelCheck.model_validate(json.loads(result.stdout))
    document, _ = lipcert.refused("certify", rounding)
    assert result.exit_code == 1
    first = report.refusals[0]
    assert (first.node, first.reason, first.remedy) == (document["node"], document["reason"], document["remedy"])


def test_options_are_those_of_certify(lipcert: Commands, tmp_path: Path) -> None:
    path = tmp_path / "sum.onnx"
    path.write_bytes(sum_of_two_inputs())
    assert lipcert("check", path, "--perturb", "x", "--fix", "y=1", "--input-box", "0,1").exit_code == 0
    assert lipcert("check", path, "--perturb", "x").exit_code == 1
    assert lipcert("check", path, "--input-box", "0").exit_code == 2
    assert lipcert("check", tmp_path / "none.onnx").exit_code == 2
    assert lipcert("check", "-", "--json", stdin=path.read_bytes()).exit_code == 0
