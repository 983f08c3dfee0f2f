"""Health is not ok while the daemon itself loses what its models say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from syncline.edge.runner import Runner
from syncline.edge.status import TOLD_NS, Status
from syncline.messages import syncline_pb2 as pb
from syncline.timebase import ManualClock


def test_results_that_are_not_handed_on_are_told_for_a_while() -> None:
    clock, counters = ManualClock(5), dict[str, int]()

    def message() -> pb.Health:
        return pb.Health(state="ok", raw_ns=clock.raw_ns(), counters=counters)

    runner = SimpleNamespace(health=lambda: SimpleNamespace(to_message=message))
    status = Status(clock, cast(Runner, cast(Any, runner)), [], [])
    assert status.message().state == "ok"
    counters["callback-failed"] = 3
    assert "3 results or drops were not handed on" in status.message().detail
    clock.advance(TOLD_NS - 1)
    assert status.message().state == "degraded"
    clock.advance(1)
    assert status.message().state == "ok"
    counters["callback-failed"] = 4
    assert status.message().state == "degraded"
