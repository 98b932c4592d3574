"""Several inputs on the command line: `--perturb`, `--fix`, and archives of arrays by input name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.building import sum_of_two_inputs
from tests.cli.conftest import Commands

X, Y = np.arange(6.0).reshape(2, 3), np.ones((2, 3))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "sum.onnx"
    path.write_bytes(sum_of_two_inputs())
    return path


def test_an_archive_holds_the_inputs_by_name(lipcert: Commands, model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", y=Y, x=X)
    np.savez(tmp_path / "others.npz", y=Y + 1, x=X)
    answer = lipcert.json("predict", model, "--inputs", tmp_path / "rows.npz")
    assert [row["logits"] for row in answer["rows"]] == (X + Y).tolist()
    pairs = lipcert.json("compare", model, "--x", tmp_path / "rows.npz", "--y", tmp_path / "others.npz")
    assert all(row["output_difference"] <= row["output_difference_bound"] for row in pairs["rows"])
    shares = lipcert.json("evaluate", model, "--inputs", tmp_path / "rows.npz", "--epsilon", "0.1")
    assert shares["rows"] == 2
    np.savez(tmp_path / "half.npz", x=X)
    details, _ = lipcert.refused("predict", model, "--inputs", tmp_path / "half.npz")
    assert details["field"] == "inputs.y"


def test_inputs_are_fixed_to_numbers_lists_and_files(lipcert: Commands, model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", np.array([1.0, 2.0, 3.0]))
    np.save(tmp_path / "x.npy", X)
    for value, wanted in (("2", [2, 2, 2]), ("[1, 2, 3]", [1, 2, 3]), (str(tmp_path / "y.npy"), [1, 2, 3])):
        answer = lipcert.json("predict", model, "--fix", f"y={value}", "--inputs", tmp_path / "x.npy")
        assert [row["logits"] for row in answer["rows"]] == (X + wanted).tolist()
    table = lipcert.table("certify", model, "--perturb", "x", "--fix", "y=2")
    assert "fixed y" in table and "input x" in table
    details, line = lipcert.refused("certify", model, "--perturb", "x")
    assert details["field"] == "options.fixed_inputs.y" and "missing" in line


@pytest.mark.parametrize("typed", ["y", "=2", "y=nothing", "y=NaN"])
def test_what_is_no_value_is_misuse(lipcert: Commands, model: Path, typed: str) -> None:
    result = lipcert("certify", model, "--fix", typed)
    assert result.exit_code == 2 and "--fix" in result.stderr
