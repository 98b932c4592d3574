"""The metadata tables: which models and versions exist, and which blobs belong to them."""

from __future__ import annotations

from sqlalchemy import JSON, Column, ForeignKey, Index, Integer, MetaData, String, Table

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(column_0_label)s",
    }
)

models = Table(
    "models",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("last_version", Integer, nullable=False, comment="Highest version ever given; never falls."),
)

versions = Table(
    "versions",
    metadata,
    Column("name", String(128), ForeignKey("models.name"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("visible", Integer, nullable=False, comment="1: served; 0: deleted, kept so that its number is not reused."),
    Column("prefix", String(64), unique=True, comment="Folder of its blobs; null once they are removed."),
    Column("sha256", String(64), nullable=False),
    Column("options_digest", String(64), nullable=False),
    Column("checker_revision", Integer, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("created", String(32), nullable=False, comment="UTC, ISO 8601."),
    Column("summary", JSON, nullable=False),
    Index("ix_versions_upload", "name", "sha256", "options_digest"),
)

staging = Table(
    "staging",
    metadata,
    Column("prefix", String(64), primary_key=True, comment="Blobs being written; not yet a version."),
    Column("owner", String(64), nullable=False, comment="The server that writes them."),
    Column("started", String(32), nullable=False),
)
