"""Fixtures: the commands inside this process, and the example model with its held-out images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from service.commandline.commands import app

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


class Commands:
    """Runs commands and looks at how they ended."""

    model = str(EXAMPLES / "digits.onnx")
    inputs = str(EXAMPLES / "digits_inputs.npy")
    labels = str(EXAMPLES / "digits_labels.npy")

    def __call__(self, *arguments: object, stdin: bytes | None = None) -> Result:
        """Run one command, whatever its exit code."""
        plain = {"FORCE_COLOR": None, "TTY_COMPATIBLE": None}
        return CliRunner(env=plain).invoke(app, [str(argument) for argument in arguments], input=stdin)

    def table(self, *arguments: object) -> str:
        """What a command that succeeds shows."""
        result = self(*arguments)
        assert (result.exit_code, result.stderr) == (0, ""), result.output
        return result.stdout

    def json(self, *arguments: object, stdin: bytes | None = None) -> Any:
        """The one JSON document that a command that succeeds prints."""
        result = self(*arguments, "--json", stdin=stdin)
        assert (result.exit_code, result.stderr) == (0, ""), result.output
        return json.loads(result.stdout)

    def refused(self, *arguments: object, stdin: bytes | None = None) -> tuple[dict[str, Any], str]:
        """The error document and the one line of a command that is refused."""
        result = self(*arguments, "--json", stdin=stdin)
        assert result.exit_code == 1, result.output
        (line,) = result.stderr.splitlines()
        document = json.loads(result.stdout)
        helps = f"; what helps: {document['remedy']}" if document.get("remedy") else ""
        assert line == f"lipcert: {document['message']}{helps}"
        return document, line


@pytest.fixture
def lipcert() -> Commands:
    return Commands()


@pytest.fixture
def images() -> np.ndarray:
    return np.load(EXAMPLES / "digits_inputs.npy")


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[Any], Path]:
    """Saves an array under a fresh name."""
    count = 0

    def save(array: Any) -> Path:
        nonlocal count
        count += 1
        path = tmp_path / f"array{count}.npy"
        np.save(path, np.asarray(array), allow_pickle=np.asarray(array).dtype.kind == "O")
        return path

    return save
