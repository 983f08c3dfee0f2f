"""Statements for many rows at once store what one statement a row would."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import psycopg

from syncline.cloud.bulk import ROWS, Bulk, inserting, setting
from syncline.cloud.tables import META, QUARANTINE, STREAMS
from syncline.cloud.truth import sqlite_url, truth_engine


@pytest.mark.parametrize("n", [0, 1, ROWS - 1, ROWS, ROWS + 1, 3 * ROWS + 5])
def test_rows_arrive_whole_whatever_their_number(tmp_path: Path, n: int) -> None:
    engine = truth_engine(sqlite_url(tmp_path))
    META.create_all(engine)
    add, move = inserting(QUARANTINE), setting(STREAMS.c.id, STREAMS.c.tail_seq)
    rows = [(1 + i, i * 10, i * 10 + 3, f"reason '{i}") for i in range(n)]
    streams = [
        {
            "id": 1 + i,
            "device": f"d{i}",
            "boot": "b",
            "stream": "s",
            "link_class": 1,
            "tail_seq": -1,
        }
        for i in range(n + 1)
    ]
    with engine.begin() as db:
        db.execute(STREAMS.insert(), streams)
        add.run(db, rows)
        move.run(db, [(1 + i, 2**62 + i) for i in range(n)])
    with engine.connect() as db:
        assert [tuple(row) for row in db.execute(sa.select(QUARANTINE))] == rows
        tails = list(db.scalars(sa.select(STREAMS.c.tail_seq).order_by(STREAMS.c.id)))
    assert tails == [*[2**62 + i for i in range(n)], -1]
    engine.dispose()


def test_a_row_that_is_there_undoes_the_whole_group(tmp_path: Path) -> None:
    engine = truth_engine(sqlite_url(tmp_path))
    META.create_all(engine)
    rows = [(1, i, i, "") for i in range(2 * ROWS)]
    with engine.begin() as db:
        db.execute(
            STREAMS.insert().values(device="d", boot="b", stream="s", link_class=1, tail_seq=-1)
        )
    with pytest.raises(sa.exc.IntegrityError), engine.begin() as db:
        inserting(QUARANTINE).run(db, [*rows, rows[0]])
    with engine.connect() as db:
        assert db.scalar(sa.select(sa.func.count()).select_from(QUARANTINE)) == 0
    engine.dispose()


def test_a_driver_of_named_parameters_gets_names() -> None:
    """What psycopg would be given; no server is needed to see it."""
    ran: list[tuple[str, Any]] = []
    db: Any = SimpleNamespace(
        dialect=psycopg.dialect(),
        exec_driver_sql=lambda text, given: ran.append((text, given)),
    )
    bulk: Bulk = setting(STREAMS.c.id, STREAMS.c.tail_seq)
    bulk.run(db, [(i, i * i) for i in range(ROWS + 1)])
    (many, names), (one, rows) = ran
    assert names["p3_0"] == 3
    assert names["p3_1"] == 9
    assert many.count("CAST(%(p") == 2 * ROWS
    assert one.count("CAST(%(p") == 2
    assert rows == [{"p0_0": ROWS, "p0_1": ROWS * ROWS}]
