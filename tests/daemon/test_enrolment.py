"""A device that is enrolled late, against a real collector: no restart is needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from syncline.link import LinkState, new_keypair
from tests.link.rig import Rig, wait


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    rig.start()
    yield rig
    rig.close()


def test_a_refused_device_gets_in_once_it_is_enrolled(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncline.link.uplink.REFUSED_HOLD_NS", 50_000_000)
    keys = rig.keys["late"] = new_keypair("late")
    _, uplink = rig.device("late", keys=keys)
    wait(lambda: uplink.stats().problem.startswith("refused"), 10)
    assert uplink.stats().state is not LinkState.OPEN
    rig.enrol("late")
    wait(lambda: uplink.stats().state is LinkState.OPEN, 10)
    assert uplink.stats().problem == ""
