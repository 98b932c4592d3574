"""The metadata database: opened by URL, brought to the newest schema."""

from __future__ import annotations

from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from service.migrations import upgrade

SQLITE_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000")
"""Readers beside one writer; a commit is on the disk when it returns; a second writer waits."""


def open_database(url: str) -> Engine:
    """The database at `url`, migrated."""
    is_sqlite = make_url(url).get_backend_name() == "sqlite"
    # A connection over a network may have died in the pool; one to a file cannot.
    engine = create_engine(url, pool_pre_ping=not is_sqlite)
    if is_sqlite:
        event.listen(engine, "connect", _configure_sqlite)
    upgrade(engine)
    return engine


def _configure_sqlite(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    for pragma in SQLITE_PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
