"""The link in health: what is told of a collector that refuses or is absent, and when."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncline.edge.link_watch import ABSENT_NS, LinkWatch


def test_a_refused_device_is_told_at_once_and_once(caplog: pytest.LogCaptureFixture) -> None:
    watch = LinkWatch("tcp://c:1", Path("keys/car-1.key"), 0)
    problem = "refused: the collector does not know this device's key"
    for at in range(5):
        text = watch.step(is_open=False, problem=problem, raw_ns=at)
        assert text.startswith(problem)
        assert "syncline keys enrol car-1.pub" in text
    assert watch.step(is_open=True, problem="", raw_ns=9) == ""
    assert [r.getMessage() for r in caplog.records] == [f"link: {text}", "link: works again"]


@pytest.mark.parametrize("problem", ["", "no answer from the collector", "session: unknown"])
def test_an_absent_collector_has_half_a_minute(problem: str) -> None:
    watch = LinkWatch("tcp://c:1", Path("k.key"), 0)
    assert watch.step(is_open=False, problem=problem, raw_ns=ABSENT_NS - 1) == ""
    assert "tcp://c:1" in watch.step(is_open=False, problem=problem, raw_ns=ABSENT_NS)
    assert watch.step(is_open=True, problem="", raw_ns=2 * ABSENT_NS) == ""
    assert watch.step(is_open=False, problem=problem, raw_ns=3 * ABSENT_NS - 1) == ""
