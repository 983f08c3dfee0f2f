"""Statements for many rows at once, handed to the driver as it takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa


class Bulk:
    """One statement that is run with many rows in each group of the collector.

    `Connection.execute(statement, rows)` makes several dictionaries of each row: three times what
    SQLite needs to store it. Here a row is a tuple from the beginning; numbers and texts alone,
    because no type of SQLAlchemy converts them.

    Args:
        statement: Its parameters are named as `names`.
        names: Parameters in the order of a row.
    """

    def __init__(self, statement: sa.Insert | sa.Update, names: Sequence[str]) -> None:
        self._statement = statement
        self._names = tuple(names)
        self._compiled: dict[str, tuple[str, tuple[int, ...] | None]] = {}

    def run(self, db: sa.Connection, rows: Sequence[tuple[int | str, ...]]) -> None:
        """Run it for each row, in the transaction of `db`.

        Raises:
            sa.exc.SQLAlchemyError: The database refused.
        """
        if not rows:
            return
        text, order = self._compiled.get(db.dialect.name) or self._compile(db)
        given: Any = rows
        if order is None:
            given = [dict(zip(self._names, row, strict=True)) for row in rows]
        elif order != tuple(range(len(self._names))):
            given = [tuple(row[i] for i in order) for row in rows]
        db.exec_driver_sql(text, given)

    def _compile(self, db: sa.Connection) -> tuple[str, tuple[int, ...] | None]:
        compiled = self._statement.compile(dialect=db.dialect, column_keys=self._names)
        order = None
        if compiled.positional:
            assert compiled.positiontup is not None
            order = tuple(self._names.index(name) for name in compiled.positiontup)
        made = self._compiled[db.dialect.name] = (str(compiled), order)
        return made
