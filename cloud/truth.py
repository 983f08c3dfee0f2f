"""The truth store's engine: SQLite in WAL mode by default, PostgreSQL by URL.

Every transaction begins IMMEDIATE on SQLite, so that read-then-write cannot lose a race; a reader
that writes nothing says `execution_options(readonly=True)` and takes no write lock.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

BUSY_MS = 10_000


def truth_engine(url: str) -> sa.Engine:
    """Engine for a database URL.

    Args:
        url: `sqlite:///path` or `postgresql+psycopg://...`.
    """
    engine = sa.create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _on_connect)
        sa.event.listen(engine, "begin", _on_begin)
    return engine


def sqlite_url(data: Path) -> str:
    """URL of the catalog in a data folder."""
    return f"sqlite:///{data.resolve() / 'catalog.db'}"


def _on_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we begin transactions ourselves
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=NORMAL",
        f"busy_timeout={BUSY_MS}",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _on_begin(connection: sa.Connection) -> None:
    readonly = connection.get_execution_options().get("readonly", False)
    connection.exec_driver_sql("BEGIN" if readonly else "BEGIN IMMEDIATE")
