"""The truth store's engine: SQLite in WAL mode by default, PostgreSQL by URL.

Every transaction begins IMMEDIATE on SQLite, so that read-then-write cannot lose a race; a reader
that writes nothing says `execution_options(readonly=True)` and takes no write lock.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from syncline.errors import StorageError

BUSY_MS = 10_000
_TRIES = 5
_PAUSE_S = 0.2


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


def make_tables(engine: sa.Engine, tables: sa.MetaData) -> None:
    """Make the tables that are absent.

    Two collectors that begin on one new database at once meet here: SQLite answers "locked" at
    once where waiting could not help the statement, and a new transaction can.

    Raises:
        StorageError: The database cannot be used.
    """
    for left in reversed(range(_TRIES)):
        try:
            tables.create_all(engine)
        except sa.exc.OperationalError as error:
            if not left or "locked" not in str(error.orig):
                raise refused(error) from error
            time.sleep(_PAUSE_S)
        except sa.exc.SQLAlchemyError as error:
            raise refused(error) from error
        else:
            return


def refused(error: sa.exc.SQLAlchemyError) -> StorageError:
    """What the database said, on one line, with the remedy that fits."""
    cause = getattr(error, "orig", None) or error
    text = str(cause).replace("\n", " ")
    remedy = next((remedy for words, remedy in _REMEDIES if words in text.lower()), "")
    return StorageError(f"catalog: {text}", remedy=remedy or "Check the database and its disk")


_REMEDIES = (
    ("readonly", "Let this user write the data folder and the files in it"),
    ("unable to open", "Let this user write the data folder and the files in it"),
    ("full", "Free space on the disk of the data folder"),
    ("locked", "Another program holds the database: wait, or end it"),
    ("malformed", "Restore the database from a backup"),
    ("not a database", "Restore the database from a backup"),
)
"""What a message of SQLite holds, and what to do about it."""


def sqlite_url(data: Path) -> str:
    """URL of the catalog in a data folder."""
    return f"sqlite:///{data.resolve() / 'catalog.db'}"


def _on_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we begin transactions ourselves
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={BUSY_MS}",
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _on_begin(connection: sa.Connection) -> None:
    readonly = connection.get_execution_options().get("readonly", False)
    connection.exec_driver_sql("BEGIN" if readonly else "BEGIN IMMEDIATE")
