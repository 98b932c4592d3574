"""`lipcert certify`: the certificate that the library gives, as JSON and as a table, cold and warm."""

from __future__ import annotations

import hashlib
import re
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from certifier.certification import certify
from certifier.documents import Certificate, CertifyOptions, Preprocessing
from certifier.limits import Limits
from certifier.search.state import Seal, SearchState
from tests.cli.conftest import Commands


def by_the_library(data: bytes, name: str, options: CertifyOptions) -> dict[str, Any]:
    certified = certify(
        data,
        name=name,
        version=1,
        options=options,
        limits=Limits(),
        state=SearchState(),
        seal=Seal(bytes(32)),
        progress=lambda news: None,
    )
    return certified.certificate.model_dump(mode="json", exclude={"seconds"})


def test_json_is_the_librarys_certificate(lipcert: Commands) -> None:
    document = lipcert.json("certify", lipcert.model)
    assert Certificate.model_validate(document).model_dump(mode="json") == document
    assert [method["method"] for method in document["methods"]] == [
        "product",
        "loop_transform",
        "multipliers",
        "frequency",
    ]
    plain = lipcert.json("certify", lipcert.model, "--method", "product")
    expected = by_the_library(Path(lipcert.model).read_bytes(), "digits", CertifyOptions(method="product"))
    for one in (plain, expected):
        one["methods"][0].pop("seconds")
    assert {key: value for key, value in plain.items() if key != "seconds"} == expected


def test_standard_input_is_named_by_its_digest(lipcert: Commands) -> None:
    document = lipcert.json("certify", "-", stdin=Path(lipcert.model).read_bytes())
    assert document["model"]["name"] == "model-" + document["model"]["sha256"][:8]
    assert document["lipschitz"] == lipcert.json("certify", lipcert.model)["lipschitz"]


def test_preprocessing_becomes_part_of_the_network(lipcert: Commands) -> None:
    document = lipcert.json("certify", lipcert.model, "--scale", "1/16", "--mean", "0.5", "--std", ".25")
    declared = {"scale": 1 / 16, "mean": [0.5], "std": [0.25], "layout": None}
    assert document["options"]["preprocessing"] == declared
    options = CertifyOptions(preprocessing=Preprocessing(scale=1 / 16, mean=[0.5], std=[0.25]))
    expected = by_the_library(Path(lipcert.model).read_bytes(), "digits", options)
    assert document["lipschitz"] == expected["lipschitz"]
    plain = lipcert.json("certify", lipcert.model)
    assert plain["options"]["preprocessing"] is None
    assert document["lipschitz"]["upper"] == pytest.approx(plain["lipschitz"]["upper"] / 4, rel=1e-6)


def test_no_figure_of_the_table_overstates(lipcert: Commands) -> None:
    text = lipcert.table("certify", lipcert.model)
    certificate = Certificate.model_validate(lipcert.json("certify", lipcert.model))
    (upper,) = re.findall(r"at most (\S+) \(product\), proved", text)
    (lower,) = re.findall(r"at least (\S+), attained", text)
    assert certificate.lipschitz.upper <= float(upper) <= certificate.lipschitz.upper * (1 + 1e-8)
    assert certificate.lipschitz.lower * (1 - 1e-8) <= float(lower) <= certificate.lipschitz.lower
    for layer in certificate.layers:
        figures = re.search(rf"^{layer.name} .* (\S+) +\d+  cold", text, re.MULTILINE)
        assert figures and layer.upper <= float(figures[1]) <= layer.upper * (1 + 1e-8)
    assert " ".join(certificate.arithmetic.statement.split()[:8]) in text
    assert certificate.model.sha256 in text


def test_kept_state_spares_the_search(lipcert: Commands, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "state"
    cold, again = (lipcert.json("certify", lipcert.model, "--state", folder) for _ in range(2))
    assert {layer["search"] for layer in cold["layers"]} == {"cold"}
    assert {(layer["search"], layer["iterations"]) for layer in again["layers"]} == {("reused", 0)}
    assert again["lipschitz"] == cold["lipschitz"]
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.iterdir()]}
    assert modes == {"state": 0o700, "seal.key": 0o600, "digits.state.npz": 0o600}


def test_a_renamed_model_starts_from_the_newest_state(lipcert: Commands, tmp_path: Path) -> None:
    folder, renamed = tmp_path / "state", tmp_path / "digits-v2.onnx"
    shutil.copy(lipcert.model, renamed)
    lipcert.json("certify", lipcert.model, "--state", folder)
    document = lipcert.json("certify", renamed, "--state", folder)
    assert {layer["search"] for layer in document["layers"]} == {"reused"}


@pytest.mark.parametrize("damage", [b"", b"garbage", b"PK\x03\x04garbage"])
def test_damaged_state_is_reported_and_ignored(lipcert: Commands, tmp_path: Path, damage: bytes) -> None:
    cold = lipcert.json("certify", lipcert.model, "--state", tmp_path)
    (tmp_path / "digits.state.npz").write_bytes(damage)
    result = lipcert("certify", lipcert.model, "--state", tmp_path, "--json")
    assert result.exit_code == 0
    assert re.fullmatch(r"lipcert: warning: digits\.state\.npz is ignored: .*\n", result.stderr)
    document = Certificate.model_validate_json(result.stdout)
    assert {layer.search for layer in document.layers} == {"cold"}
    assert document.lipschitz.model_dump() == cold["lipschitz"]
    again = lipcert.json("certify", lipcert.model, "--state", tmp_path)
    assert {layer["search"] for layer in again["layers"]} == {"reused"}


@pytest.mark.parametrize("harm", ["readable", "short", "link"])
def test_bounds_under_a_key_that_is_not_private_are_proved_again(lipcert: Commands, tmp_path: Path, harm: str) -> None:
    folder, key = tmp_path / "state", tmp_path / "state" / "seal.key"
    lipcert.json("certify", lipcert.model, "--state", folder)
    if harm == "readable":
        key.chmod(0o644)
    elif harm == "short":
        key.write_bytes(b"short")
    else:
        key.rename(tmp_path / "elsewhere")
        key.symlink_to(tmp_path / "elsewhere")
    result = lipcert("certify", lipcert.model, "--state", folder, "--json")
    assert result.exit_code == 0
    assert result.stderr.startswith("lipcert: warning: seal.key is replaced: ")
    assert {layer.search for layer in Certificate.model_validate_json(result.stdout).layers} == {"warm"}
    assert not key.is_symlink() and stat.S_IMODE(key.stat().st_mode) == 0o600


def test_without_a_folder_nothing_is_kept(lipcert: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert {layer["search"] for layer in lipcert.json("certify", lipcert.model)["layers"]} == {"cold"}
    assert not list(tmp_path.iterdir())


def test_calibration_inputs_are_named_by_their_digest(lipcert: Commands, tmp_path: Path) -> None:
    data = Path(lipcert.inputs).read_bytes()
    document = lipcert.json("certify", lipcert.model, "--calibration", lipcert.inputs, "--seconds", "1")
    assert document["options"]["calibration"] == hashlib.sha256(data).hexdigest()
    (tmp_path / "none.npy").write_bytes(b"no array")
    error, _ = lipcert.refused("certify", lipcert.model, "--calibration", tmp_path / "none.npy")
    assert "calibration: is no .npy file" in error["message"]
    lipcert.table(
        "evaluate", lipcert.model, "--inputs", lipcert.inputs, "--calibration", lipcert.inputs, "--seconds", "1"
    )
