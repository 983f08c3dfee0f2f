"""Statements for many rows at once, handed to the driver as it takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import sqlalchemy as sa

Row = tuple[int | str, ...]
ROWS = 128
"""Rows of a statement: few enough parameters for SQLite and PostgreSQL."""


class Bulk:
    """One statement that is run with many rows in each group of the collector.

    `Connection.execute(statement, rows)` makes several dictionaries of each row: three times what
    SQLite needs to store it. Here rows are tuples, numbers and texts alone, which no type of
    SQLAlchemy converts. And `ROWS` of them go in one statement, because `sqlite3` gives up the
    interpreter's lock at each, and a busy receiving thread gives it back late.

    Args:
        build: Makes the statement for rows of parameters.
        width: Values of a row.
    """

    def __init__(
        self,
        build: Callable[[list[tuple[sa.BindParameter[Any], ...]]], sa.Insert | sa.Update],
        width: int,
    ) -> None:
        self._build = build
        self._width = width
        self._made: dict[tuple[str, int], tuple[str, Callable[[Row], Any]]] = {}

    def run(self, db: sa.Connection, rows: Sequence[Row]) -> None:
        """Run it for the rows, in the transaction of `db`.

        Raises:
            sa.exc.SQLAlchemyError: The database refused.
        """
        whole = len(rows) - len(rows) % ROWS
        for at in range(0, whole, ROWS):
            text, given = self._compiled(db, ROWS)
            db.exec_driver_sql(text, given(tuple(chain.from_iterable(rows[at : at + ROWS]))))
        if whole < len(rows):
            text, given = self._compiled(db, 1)
            db.exec_driver_sql(text, [given(row) for row in rows[whole:]])

    def _compiled(self, db: sa.Connection, n: int) -> tuple[str, Callable[[Row], Any]]:
        key = db.dialect.name, n
        if key not in self._made:
            self._made[key] = self._compile(db, n)
        return self._made[key]

    def _compile(self, db: sa.Connection, n: int) -> tuple[str, Callable[[Row], Any]]:
        names = [f"p{i}_{k}" for i in range(n) for k in range(self._width)]
        marks: list[sa.BindParameter[Any]] = [sa.bindparam(name) for name in names]
        at = range(0, len(marks), self._width)
        compiled = self._build([tuple(marks[i : i + self._width]) for i in at]).compile(
            dialect=db.dialect
        )
        if not compiled.positional:
            return str(compiled), lambda flat: dict(zip(names, flat, strict=True))
        order = compiled.positiontup or []
        if order == names:
            return str(compiled), tuple
        return str(compiled), itemgetter(*map(names.index, order))


def inserting(table: sa.Table) -> Bulk:
    """Rows with all columns of a table, in its order."""
    names = [column.name for column in table.columns]
    return Bulk(
        lambda rows: table.insert().values([dict(zip(names, row, strict=True)) for row in rows]),
        len(names),
    )


def setting(key: sa.Column[int], value: sa.Column[int]) -> Bulk:
    """Rows (number, new value): one column of a table, by its key."""

    def build(rows: list[tuple[sa.BindParameter[Any], ...]]) -> sa.Update:
        columns = sa.column("k", key.type), sa.column("v", value.type)
        cast = [(sa.cast(k, key.type), sa.cast(v, value.type)) for k, v in rows]
        fresh = sa.values(*columns, name="fresh").data(cast).cte("fresh")
        return sa.update(key.table).where(key == fresh.c.k).values({value: fresh.c.v})

    return Bulk(build, 2)
