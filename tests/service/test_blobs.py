"""Blobs behave alike in a local folder and in an object storage."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.blobs import Blobs


@pytest.fixture(params=["file", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return Blobs((tmp_path / "a folder").as_uri() if request.param == "file" else "memory:///")


def test_blobs_come_back_and_go(blobs: Blobs, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 40_000)
    blobs.put_file("a", "upload", source)
    blobs.put("a", "certificate.json", b"{}")
    blobs.put("ab", "certificate.json", b"[]")
    blobs.put("a", "certificate.json", b"{1}")
    assert blobs.get("a", "upload") == source.read_bytes()
    assert blobs.get("a", "certificate.json") == b"{1}"
    assert blobs.prefixes() == {"a", "ab"}
    blobs.check()
    blobs.remove("a")
    blobs.remove("a")
    blobs.remove("never")
    assert blobs.prefixes() == {"ab"}
    assert blobs.get("ab", "certificate.json") == b"[]"
    with pytest.raises(FileNotFoundError):
        blobs.get("a", "upload")


def test_a_name_cannot_leave_the_storage(blobs: Blobs, tmp_path: Path) -> None:
    for prefix in ("..", "../..", "a/../../.."):
        with pytest.raises(Exception, match=r"\.\."):
            blobs.put(prefix, "x", b"x")
    assert not list(tmp_path.rglob("x"))


def test_half_written_files_are_removed(tmp_path: Path) -> None:
    blobs = Blobs((tmp_path / "blobs").as_uri())
    blobs.put("a", "upload", b"whole")
    (tmp_path / "blobs" / "versions" / "a" / "state#1").write_bytes(b"half")
    (tmp_path / "blobs" / "versions" / "empty").mkdir()
    blobs.remove_unfinished_files()
    kept = sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "blobs").rglob("*"))
    assert kept == ["blobs/versions", "blobs/versions/a", "blobs/versions/a/upload"]
    assert blobs.get("a", "upload") == b"whole"
