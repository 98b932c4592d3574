"""Options that are declared as fields of a dataclass: a command takes them one by one, and no others."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from service.commandline.groups import with_groups


@dataclass(frozen=True, kw_only=True)
class Pair:
    first: Annotated[int, typer.Option("--one")] = 1
    second: str = "two"


def test_a_group_is_given_field_by_field() -> None:
    seen: list[Any] = []

    @with_groups
    def command(*, name: str, pair: Pair, loud: bool = False) -> None:
        seen.append((name, pair, loud))

    assert list(inspect.signature(command).parameters) == ["name", "first", "second", "loud"]
    app = typer.Typer()
    app.command()(command)
    assert CliRunner().invoke(app, ["x", "--one", "7", "--loud"]).exit_code == 0
    assert seen == [("x", Pair(first=7), True)]
    assert CliRunner().invoke(app, ["x", "--pair", "7"]).exit_code == 2
    with pytest.raises(TypeError):
        command(name="x", first=1, second="2", third=3)
