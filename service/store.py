"""Certified models, kept so that a killed process loses none and leaves nothing half-made.

Writing: a staging row, then the blobs, then one transaction that turns the staging row into a visible version.
Deleting: one transaction that hides the version, then its blobs.  `sweep` finishes at start-up what a killed process
began: it removes blobs that no row names, and folders of hidden versions.
Every call blocks; the event loop calls it from threads.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import RowMapping, delete, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from certifier.documents import Certificate
from certifier.search.state import CHECKER_REVISION
from service.artifacts import BESIDE_THE_CERTIFICATE, CERTIFICATE
from service.blobs import Blobs
from service.database import open_database
from service.errors import NameConflict, UnknownModel
from service.tables import models, staging, versions

NOT_FINAL = 0
"""The revision of no checker: that of versions which the same upload would better."""
ABANDONED_AFTER = timedelta(days=1)
"""Blobs that another server began to write longer ago than this belong to a server that died."""


@dataclass(frozen=True, kw_only=True)
class StoredVersion:
    """One visible version of a model."""

    name: str
    version: int
    prefix: str
    sha256: str
    options_digest: str
    bytes: int
    created: str
    summary: dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Upload:
    """What identifies an upload: its name, wanted version, digest and options."""

    name: str
    version: int | None
    sha256: str
    options_digest: str
    bytes: int


class Store:
    """The metadata in a database and the blobs beside it."""

    def __init__(self, *, database_url: str, storage_url: str, owner: str) -> None:
        self._engine = open_database(database_url)
        self._blobs = Blobs(storage_url)
        self._owner = owner

    def close(self) -> None:
        """Release the database connections."""
        self._engine.dispose()

    def check(self) -> None:
        """Database and storage answer; any exception says that they do not."""
        with self._engine.connect() as connection:
            connection.execute(text("SELECT 1"))
        self._blobs.check()

    def names(self, *, limit: int, after: str) -> list[str]:
        """Names with a visible version, in order, those behind `after`."""
        query = (
            select(versions.c.name)
            .where(versions.c.visible == 1, versions.c.name > after)
            .distinct()
            .order_by(versions.c.name)
            .limit(limit)
        )
        with self._engine.connect() as connection:
            return list(connection.scalars(query))

    def versions(self, name: str) -> list[StoredVersion]:
        """The visible versions of `name`, newest first.

        Raises: UnknownModel.
        """
        query = select(versions).where(versions.c.name == name, versions.c.visible == 1)
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(versions.c.version.desc())).mappings().all()
        if not rows:
            raise UnknownModel(name)
        return [_stored(row) for row in rows]

    def resolve(self, name: str, version: int | None) -> StoredVersion:
        """The visible `version` of `name`; the newest without one.

        Raises: UnknownModel.
        """
        query = select(versions).where(versions.c.name == name, versions.c.visible == 1)
        if version is not None:
            query = query.where(versions.c.version == version)
        with self._engine.connect() as connection:
            row = connection.execute(query.order_by(versions.c.version.desc()).limit(1)).mappings().first()
        if row is None:
            raise UnknownModel(name, version)
        return _stored(row)

    def find(self, upload: Upload) -> StoredVersion | None:
        """The version that already answers `upload`, or None if it has to be certified.

        Without a wanted version, an answer given by an older checker does not count.
        Raises: NameConflict when the wanted version is taken by another upload or was deleted.
        """
        query = select(versions).where(versions.c.name == upload.name)
        if upload.version is not None:
            query = query.where(versions.c.version == upload.version)
        else:
            query = query.where(
                versions.c.visible == 1,
                versions.c.sha256 == upload.sha256,
                versions.c.options_digest == upload.options_digest,
                versions.c.checker_revision == CHECKER_REVISION,
            )
        with self._engine.connect() as connection:
            row = connection.execute(query.order_by(versions.c.version.desc()).limit(1)).mappings().first()
        if row is None:
            return None
        if not row["visible"]:
            raise NameConflict(row["name"], row["version"], "was deleted; version numbers are not reused")
        if row["sha256"] != upload.sha256:
            raise NameConflict(row["name"], row["version"], "exists with other bytes")
        if row["options_digest"] != upload.options_digest:
            raise NameConflict(row["name"], row["version"], "exists with other options")
        return _stored(row)

    def read(self, version: StoredVersion, artifact: str) -> bytes:
        """One blob of a version.

        Raises: UnknownModel when the version was deleted meanwhile.
        """
        try:
            return self._blobs.get(version.prefix, artifact)
        except FileNotFoundError as error:
            raise UnknownModel(version.name, version.version) from error

    def publish(
        self, upload: Upload, certificate: Certificate, folder: Path, *, is_final: bool
    ) -> tuple[StoredVersion, bytes]:
        """Make the artifacts in `folder` a visible version; afterwards no crash can lose it.

        One that is not final does not answer the same upload when it comes again without a wanted version.
        Raises: NameConflict when the wanted version was taken meanwhile.
        """
        prefix = uuid.uuid4().hex
        with self._engine.begin() as connection:
            connection.execute(insert(staging).values(prefix=prefix, owner=self._owner, started=_now()))
        try:
            for artifact in BESIDE_THE_CERTIFICATE:
                self._blobs.put_file(prefix, artifact, folder / artifact)
            while True:
                number = self._next_version(upload)
                document = _numbered(certificate, upload.name, number)
                data = document.model_dump_json().encode()
                self._blobs.put(prefix, CERTIFICATE, data)
                if self._insert(upload, prefix, document, number, CHECKER_REVISION if is_final else NOT_FINAL):
                    return self.resolve(upload.name, number), data
                if upload.version is not None and self._is_given(upload.name, number):
                    raise NameConflict(upload.name, upload.version, "was taken meanwhile")
        except BaseException:
            self._blobs.remove(prefix)
            with self._engine.begin() as connection:
                connection.execute(delete(staging).where(staging.c.prefix == prefix))
            raise

    def delete(self, name: str, version: int | None) -> list[StoredVersion]:
        """Hide one version, or all of them, for good, and remove their blobs.

        Raises: UnknownModel.
        """
        hide = update(versions).where(versions.c.name == name, versions.c.visible == 1)
        seek = select(versions).where(versions.c.name == name, versions.c.visible == 1)
        if version is not None:
            hide, seek = hide.where(versions.c.version == version), seek.where(versions.c.version == version)
        with self._engine.connect() as connection:
            found = [_stored(row) for row in connection.execute(seek).mappings()]
        prefixes = [item.prefix for item in found]
        with self._engine.begin() as connection:
            hidden = connection.execute(hide.where(versions.c.prefix.in_(prefixes)).values(visible=0)).rowcount
        if not hidden:
            raise UnknownModel(name, version)
        for prefix in prefixes:
            self._forget(prefix)
        return found

    def sweep(self) -> int:
        """Remove what killed processes left; returns how many folders that were.

        Blobs that another server is writing now are left alone.
        """
        self._blobs.remove_unfinished_files()
        abandoned = (datetime.now(UTC) - ABANDONED_AFTER).isoformat()
        # Listed before the rows are read: a folder begun in between is then not in the list at all.
        present = self._blobs.prefixes()
        with self._engine.begin() as connection:
            stale = (staging.c.owner == self._owner) | (staging.c.started < abandoned)
            connection.execute(delete(staging).where(stale))
            named = set(connection.scalars(select(versions.c.prefix).where(versions.c.visible == 1)))
            named |= set(connection.scalars(select(staging.c.prefix)))
            hidden = select(versions.c.prefix).where(versions.c.visible == 0, versions.c.prefix.is_not(None))
            deleted = set(connection.scalars(hidden))
        for prefix in deleted:
            self._forget(prefix)
        debris = present - named - deleted
        for prefix in debris:
            self._blobs.remove(prefix)
        return len(debris) + len(deleted)

    def _forget(self, prefix: str) -> None:
        self._blobs.remove(prefix)
        with self._engine.begin() as connection:
            connection.execute(update(versions).where(versions.c.prefix == prefix).values(prefix=None))

    def _next_version(self, upload: Upload) -> int:
        if upload.version is not None:
            return upload.version
        with self._engine.connect() as connection:
            last = connection.scalar(select(models.c.last_version).where(models.c.name == upload.name))
        return (last or 0) + 1

    def _is_given(self, name: str, number: int) -> bool:
        query = select(versions.c.version).where(versions.c.name == name, versions.c.version == number)
        with self._engine.connect() as connection:
            return connection.scalar(query) is not None

    def _insert(self, upload: Upload, prefix: str, document: Certificate, number: int, revision: int) -> bool:
        """The transaction that makes the version visible; False when the number is taken."""
        values = {
            "name": upload.name,
            "version": number,
            "visible": 1,
            "prefix": prefix,
            "sha256": upload.sha256,
            "options_digest": upload.options_digest,
            "checker_revision": revision,
            "bytes": upload.bytes,
            "created": _now(),
            "summary": _summary(document),
        }
        raised = (
            func.max(models.c.last_version, number) if self._is_sqlite else func.greatest(models.c.last_version, number)
        )
        try:
            with self._engine.begin() as connection:
                # The write comes first, so that SQLite takes its lock before anything is read.
                known = connection.execute(
                    update(models).where(models.c.name == upload.name).values(last_version=raised)
                )
                if not known.rowcount:
                    connection.execute(insert(models).values(name=upload.name, last_version=number))
                connection.execute(insert(versions).values(**values))
                connection.execute(delete(staging).where(staging.c.prefix == prefix))
        except IntegrityError:
            return False
        return True

    @property
    def _is_sqlite(self) -> bool:
        return self._engine.dialect.name == "sqlite"


def _numbered(certificate: Certificate, name: str, number: int) -> Certificate:
    described = certificate.model.model_copy(update={"name": name, "version": number})
    unlisted = certificate.pairs is None and certificate.task == "classification"
    link = f"/models/{name}/versions/{number}/pairs" if unlisted else None
    return certificate.model_copy(update={"model": described, "pairs_link": link})


def _summary(document: Certificate) -> dict[str, object]:
    return {
        "format": document.model.format,
        "task": document.task,
        "classes": document.classes,
        "lipschitz": document.lipschitz.model_dump(),
        "arithmetic": document.arithmetic.name,
    }


def _stored(row: RowMapping) -> StoredVersion:
    fields = ("name", "version", "prefix", "sha256", "options_digest", "bytes", "created", "summary")
    return StoredVersion(**{field: row[field] for field in fields})


def _now() -> str:
    return datetime.now(UTC).isoformat()
