"""A flood in the log is one line per reason and period."""

from __future__ import annotations

import logging

from syncline.edge.log_limit import PERIOD_NS, LogLimit, limited
from syncline.timebase import ManualClock


def test_a_flood_is_one_line_per_reason_and_period() -> None:
    clock, lines = ManualClock(), []

    class Keeps(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler = Keeps()
    handler.addFilter(LogLimit(clock))
    log = logging.getLogger("tests.daemon.flood")
    log.propagate = False
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    for at in range(1000):
        log.error("spool full: dropped class=%d records=%d", 2, at)
        log.warning("camera %s: frame refused: %s", f"cam{at % 2}", f"stamp {at} too old")
        log.info("told always")
    assert lines.count("told always") == 1000
    told = [line for line in lines if line != "told always"]
    assert told == [
        "spool full: dropped class=2 records=0",
        "camera cam0: frame refused: stamp 0 too old",
        "camera cam1: frame refused: stamp 1 too old",
    ]
    clock.advance(PERIOD_NS)
    log.error("spool full: dropped class=%d records=%d", 2, 7)
    assert lines[-1] == (
        "spool full: dropped class=2 records=7 (999 more like it since the last line)"
    )
    log.removeHandler(handler)


def test_the_log_is_limited_only_while_the_daemon_runs() -> None:
    handlers = logging.getLogger().handlers
    before = [list(handler.filters) for handler in handlers]
    assert handlers
    with limited(ManualClock()):
        assert all(isinstance(handler.filters[-1], LogLimit) for handler in handlers)
    assert [handler.filters for handler in handlers] == before


def test_the_log_limit_is_bounded() -> None:
    from syncline.edge.log_limit import MAX_REASONS

    limit = LogLimit(ManualClock())
    for at in range(2 * MAX_REASONS):
        name = "n" + "x" * at
        limit.filter(logging.LogRecord(name, logging.ERROR, "", 0, "m", (), None))
    assert len(limit._told) == MAX_REASONS
