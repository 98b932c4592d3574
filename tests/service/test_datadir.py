"""The data folder: one owner, a secret key that lasts, no debris."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from service.datadir import DataDirectory, DataDirectoryInUse
from service.settings import Settings


def test_one_server_at_a_time(settings: Settings) -> None:
    first = DataDirectory(settings)
    with pytest.raises(DataDirectoryInUse):
        DataDirectory(settings)
    first.close()
    DataDirectory(settings).close()


def test_the_seal_key_is_secret_and_lasts(settings: Settings) -> None:
    folder = DataDirectory(settings)
    key = folder.seal(settings).key
    assert len(key) == 32
    assert stat.S_IMODE((folder.path / "seal.key").stat().st_mode) == 0o600
    folder.close()
    again = DataDirectory(settings)
    assert again.seal(settings).key == key
    again.close()


def test_a_key_cut_short_by_a_crash_is_not_used(settings: Settings) -> None:
    folder = DataDirectory(settings)
    (folder.path / "seal.key.partial").write_bytes(b"half")
    assert len(folder.seal(settings).key) == 32
    (folder.path / "seal.key").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="32 bytes"):
        folder.seal(settings)
    folder.close()


def test_the_key_of_the_settings_wins(tmp_path: Path) -> None:
    settings = Settings.model_validate({"data_dir": tmp_path, "seal_key": "ab" * 32})
    folder = DataDirectory(settings)
    assert folder.seal(settings).key == b"\xab" * 32
    assert not (tmp_path / "seal.key").exists()
    assert "ab" * 32 not in repr(settings)
    folder.close()
    for wrong in ("ab" * 31, "zz" * 32, ""):
        with pytest.raises(ValueError, match="hexadecimal"):
            Settings.model_validate({"seal_key": wrong})


def test_half_received_uploads_are_swept_at_start(settings: Settings) -> None:
    folder = DataDirectory(settings)
    (folder.new_folder() / "upload").write_bytes(b"half")
    folder.close()
    again = DataDirectory(settings)
    assert list((again.path / "incoming").iterdir()) == []
    again.close()
