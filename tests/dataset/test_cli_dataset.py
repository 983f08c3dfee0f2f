"""What `syncline dataset create` says to a person."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncline.cli import dataset
from syncline.cloud.dataset import split_of
from syncline.cloud.harvest import Harvest

from .test_dataset import make_item


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Harvest:
    found = Harvest([make_item(0, at) for at in range(4)])
    monkeypatch.setattr("syncline.cloud.harvest.harvest", lambda *_: found)
    return found


def test_counts_are_plain_and_few_drives_are_noted(
    made: Harvest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made.leave_bad(("car-1", "boot", "front", 7), "columns of unequal length")
    assert dataset.create("one", data=tmp_path) == 0
    text = capsys.readouterr().out
    expected = dict.fromkeys(("train", "val", "test"), 0)
    expected[split_of("car-1/boot-0000")] = 4
    assert "  ".join(f"{split} {count}" for split, count in expected.items()) in text
    assert "{" not in text
    assert "left out: car-1/boot/front/7: columns of unequal length" in text
    assert "note: 1 drive(s) cannot fill three splits" in text


def test_many_drives_need_no_note(
    made: Harvest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made.items = [make_item(drive, 0) for drive in range(3)]
    assert dataset.create("one", data=tmp_path) == 0
    assert "note" not in capsys.readouterr().out
