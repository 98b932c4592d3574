"""What every test may ask for: the shared folder of models and data, and one deterministic hypothesis profile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

# The same examples in every run: a failure in CI is a failure on every machine.
settings.register_profile(
    "fixed",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
settings.load_profile("fixed")


def shared_folder() -> Path:
    """The folder that LIPCERT_SHARED names, by default `../shared` beside the project's root."""
    return (ROOT / os.environ.get("LIPCERT_SHARED", "../shared")).resolve()


@pytest.fixture
def shared() -> Path:
    """The shared folder; the test is skipped, or fails where LIPCERT_REQUIRE_SHARED=1, if there is none."""
    folder = shared_folder()
    _demand(folder)
    return folder


@pytest.fixture(autouse=True)
def _needs_shared(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("needs_shared") is not None:
        _demand(shared_folder())


def _demand(folder: Path) -> None:
    if (folder / "models").is_dir():
        return
    reason = f"no shared models at {folder}; set LIPCERT_SHARED to the folder that holds them"
    if os.environ.get("LIPCERT_REQUIRE_SHARED") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
