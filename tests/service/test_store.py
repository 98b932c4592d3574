"""The store: numbering, conflicts, deletion, and what a start-up sweep does about a crash at every step."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import create_engine, insert, select

from certifier.documents import Certificate
from service.artifacts import BESIDE_THE_CERTIFICATE as ARTIFACTS
from service.artifacts import CERTIFICATE, SERVED
from service.errors import NameConflict, UnknownModel
from service.store import Store, Upload
from service.tables import staging, versions

EXAMPLE = {
    "model": {"name": "m", "version": 1, "sha256": "0" * 64, "format": "onnx", "inputs": [], "outputs": []},
    "task": "classification",
    "classes": 2,
    "lipschitz": {"upper": 2.0, "lower": 1.0, "method": "product"},
    "outputs": [1.0, 1.0],
    "pairs": [[0.0, 2.0], [2.0, 0.0]],
    "layers": [],
    "arithmetic": {"name": "real", "statement": "real"},
    "self_test": {"passed": True, "checks": []},
    "options": {},
    "notes": [],
    "engine": "none",
    "seconds": 0.0,
}
CERTIFICATE_EXAMPLE = Certificate.model_validate(EXAMPLE)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


def open_store(folder: Path, owner: str = "me") -> Store:
    return Store(database_url=f"sqlite:///{folder / 'db.sqlite'}", storage_url=(folder / "blobs").as_uri(), owner=owner)


def artifacts(folder: Path, text: str = "x") -> Path:
    job = folder / "job"
    job.mkdir(exist_ok=True)
    for artifact in ARTIFACTS:
        (job / artifact).write_text(f"{artifact} {text}")
    return job


def upload(name: str = "m", digest: str = "a", version: int | None = None, options: str = "o") -> Upload:
    return Upload(name=name, version=version, sha256=digest * 64, options_digest=options * 64, bytes=1)


def publish(store: Store, tmp_path: Path, wanted: Upload) -> int:
    return store.publish(wanted, CERTIFICATE_EXAMPLE, artifacts(tmp_path), is_final=True)[0].version


def stored_files(folder: Path) -> list[Path]:
    return [path for path in (folder / "blobs").rglob("*") if path.is_file()]


def test_versions_count_up_and_are_never_given_twice(store: Store, tmp_path: Path) -> None:
    assert [publish(store, tmp_path, upload(digest=digest)) for digest in "abc"] == [1, 2, 3]
    store.delete("m", 3)
    assert publish(store, tmp_path, upload(digest="d")) == 4
    store.delete("m", None)
    with pytest.raises(UnknownModel):
        store.versions("m")
    assert publish(store, tmp_path, upload(digest="e")) == 5
    assert publish(store, tmp_path, upload(digest="f", version=9)) == 9
    assert publish(store, tmp_path, upload(digest="g")) == 10
    assert publish(store, tmp_path, upload(digest="h", version=7)) == 7
    assert publish(store, tmp_path, upload(digest="i")) == 11


def test_the_certificate_carries_the_number_it_got(store: Store, tmp_path: Path) -> None:
    publish(store, tmp_path, upload(digest="a"))
    stored, data = store.publish(upload(digest="b"), CERTIFICATE_EXAMPLE, artifacts(tmp_path), is_final=True)
    assert Certificate.model_validate_json(data).model.version == stored.version == 2
    assert store.read(stored, CERTIFICATE) == data
    assert store.read(stored, SERVED) == b"served.onnx x"


def test_unlisted_pairs_get_a_link(store: Store, tmp_path: Path) -> None:
    large = CERTIFICATE_EXAMPLE.model_copy(update={"pairs": None})
    _, data = store.publish(upload(), large, artifacts(tmp_path), is_final=True)
    assert Certificate.model_validate_json(data).pairs_link == "/models/m/versions/1/pairs"


def test_what_is_not_final_answers_only_who_asks_for_its_number(store: Store, tmp_path: Path) -> None:
    store.publish(upload(), CERTIFICATE_EXAMPLE, artifacts(tmp_path), is_final=False)
    assert store.find(upload()) is None
    pinned = store.find(upload(version=1))
    assert pinned is not None and store.resolve("m", None) == pinned
    publish(store, tmp_path, upload())
    found = store.find(upload())
    assert found is not None and found.version == 2


def test_same_upload_is_found_and_conflicts_are_refused(store: Store, tmp_path: Path) -> None:
    assert store.find(upload()) is None
    publish(store, tmp_path, upload())
    publish(store, tmp_path, upload(digest="b"))
    found = store.find(upload())
    assert found is not None and found.version == 1
    assert store.find(upload(options="p")) is None
    assert store.find(upload(name="other")) is None
    assert store.find(upload(version=1)) is not None
    for conflicting in (upload(digest="c", version=1), upload(options="p", version=1)):
        with pytest.raises(NameConflict):
            store.find(conflicting)
        with pytest.raises(NameConflict):
            publish(store, tmp_path, conflicting)
    store.delete("m", 1)
    with pytest.raises(NameConflict, match="not reused"):
        store.find(upload(version=1))
    assert store.find(upload()) is None
    assert len(stored_files(tmp_path)) == 1 + len(ARTIFACTS), "only version 2 has blobs"


def test_deleting_removes_blobs_and_leaves_the_rest(store: Store, tmp_path: Path) -> None:
    publish(store, tmp_path, upload(name="a"))
    publish(store, tmp_path, upload(name="b"))
    assert store.names(limit=10, after="") == ["a", "b"]
    assert [gone.version for gone in store.delete("a", None)] == [1]
    assert store.names(limit=10, after="") == ["b"]
    assert store.read(store.resolve("b", None), SERVED)
    for name, version in (("a", None), ("a", 1), ("b", 2), ("c", None)):
        with pytest.raises(UnknownModel):
            store.delete(name, version)
        with pytest.raises(UnknownModel):
            store.resolve(name, version)
    assert len(stored_files(tmp_path)) == 1 + len(ARTIFACTS)


def test_simultaneous_publications_get_numbers_of_their_own(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    # Wanted numbers so far apart that the counted ones between them never take one.
    wanted = [upload(digest=f"{index:x}", version=None if index % 2 else 100 + 50 * index) for index in range(16)]
    job = artifacts(tmp_path)
    with ThreadPoolExecutor(8) as threads:
        stored = list(threads.map(lambda item: store.publish(item, CERTIFICATE_EXAMPLE, job, is_final=True)[0], wanted))
    assert len({item.version for item in stored}) == 16
    assert all(item.version == asked.version for item, asked in zip(stored, wanted, strict=True) if asked.version)
    assert sorted(item.version for item in store.versions("m")) == sorted(item.version for item in stored)
    assert len(stored_files(tmp_path)) == 16 * (1 + len(ARTIFACTS))


class Killed(BaseException):
    """Stands for SIGKILL at one step: nothing of the store runs after it."""


@pytest.mark.parametrize("survivors", range(len(ARTIFACTS) + 1))
def test_a_crash_while_publishing_leaves_nothing(store: Store, tmp_path: Path, survivors: int) -> None:
    publish(store, tmp_path, upload(digest="a"))
    before = stored_files(tmp_path)
    # The state that a process killed after `survivors` blobs leaves: a staging row and those blobs.
    with create_engine(f"sqlite:///{tmp_path / 'db.sqlite'}").begin() as connection:
        connection.execute(insert(staging).values(prefix="f" * 32, owner="me", started="2999"))
    folder = tmp_path / "blobs" / "versions" / ("f" * 32)
    folder.mkdir()
    for artifact in ARTIFACTS[:survivors]:
        (folder / artifact).write_text("half")
    (folder / "upload#1").write_text("half a file")
    reopened = open_store(tmp_path)
    reopened.sweep()
    assert stored_files(tmp_path) == before
    assert not folder.exists()
    assert reopened.read(reopened.resolve("m", 1), SERVED)
    with create_engine(f"sqlite:///{tmp_path / 'db.sqlite'}").connect() as connection:
        assert connection.execute(select(staging)).all() == []


def test_a_crash_while_deleting_is_finished_later(store: Store, tmp_path: Path) -> None:
    publish(store, tmp_path, upload(digest="a"))
    publish(store, tmp_path, upload(digest="b"))

    def killed(prefix: str) -> None:
        raise Killed

    store._blobs.remove = killed  # type: ignore[method-assign]
    with pytest.raises(Killed):
        store.delete("m", 1)
    reopened = open_store(tmp_path)
    with pytest.raises(UnknownModel):
        reopened.resolve("m", 1)
    assert len(stored_files(tmp_path)) == 2 * (1 + len(ARTIFACTS))
    assert reopened.sweep() == 1
    assert len(stored_files(tmp_path)) == 1 + len(ARTIFACTS)
    assert reopened.sweep() == 0
    with create_engine(f"sqlite:///{tmp_path / 'db.sqlite'}").connect() as connection:
        assert connection.scalars(select(versions.c.prefix).where(versions.c.visible == 0)).all() == [None]


def test_what_another_server_is_writing_is_left_alone(store: Store, tmp_path: Path) -> None:
    with create_engine(f"sqlite:///{tmp_path / 'db.sqlite'}").begin() as connection:
        connection.execute(insert(staging).values(prefix="e" * 32, owner="another", started="2999"))
        connection.execute(insert(staging).values(prefix="d" * 32, owner="another", started="2000"))
    for prefix in ("d" * 32, "e" * 32):
        (tmp_path / "blobs" / "versions" / prefix).mkdir(parents=True)
        (tmp_path / "blobs" / "versions" / prefix / "upload").write_text("half")
    store.sweep()
    assert [path.parent.name for path in stored_files(tmp_path)] == ["e" * 32]


def test_migrations_make_the_tables_that_the_code_uses(store: Store, tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from service.tables import metadata

    with create_engine(f"sqlite:///{tmp_path / 'db.sqlite'}").connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
