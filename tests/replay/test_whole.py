"""What a replay writes stays whole: no quota takes its first segments, a full disk ends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncline.cli import main
from syncline.edge.records import Output
from syncline.edge.whole import LEAST_FREE_BYTES, LOOK_EVERY, RoomGuard, whole_recorder
from syncline.errors import StorageError
from syncline.log.picture import image_message
from syncline.log.reader import LogReader
from syncline.timebase import NS_PER_S, ManualClock

from .rig import BOOT_A, record_boot


def output(raw_ns: int) -> Output:
    return Output(
        "/camera/front/image", image_message(raw_ns, "front", b"x" * 20_000, "jpeg"), raw_ns
    )


def test_no_segment_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk that is nearly full too: a vehicle's ring would give up its oldest here."""
    from syncline.log.disk import Disk

    monkeypatch.setattr(Disk, "free_bytes", lambda _self, _path: 1 << 20)
    clock = ManualClock(NS_PER_S, BOOT_A)
    with whole_recorder(tmp_path, clock, "replay") as recorder:
        for second in range(60):
            clock.sleep_until(second * NS_PER_S)
            item = output(clock.raw_ns())
            assert recorder.write(item.topic, item.message, item.raw_ns)
            recorder.flush()
    assert len(list((tmp_path / "ring").iterdir())) >= 5
    with LogReader(tmp_path) as reader:
        assert sum(r.topic == "/camera/front/image" for r in reader) == 60


def test_a_disk_that_fills_ends_the_replay(tmp_path: Path) -> None:
    clock = ManualClock(NS_PER_S, BOOT_A)
    free = [LEAST_FREE_BYTES, LEAST_FREE_BYTES - 1]
    with whole_recorder(tmp_path, clock, "replay") as recorder:
        guard = RoomGuard(recorder, tmp_path, lambda _: free.pop(0))
        for _ in range(LOOK_EVERY):
            guard.emit(output(NS_PER_S))
        with pytest.raises(StorageError, match="255 MiB are free, 256 are needed") as caught:
            guard.emit(output(NS_PER_S))
    assert "Free space" in caught.value.remedy


def test_replay_onto_a_full_disk_ends_with_5(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from syncline.log.disk import Disk

    record_boot(tmp_path / "in", BOOT_A, 3)
    monkeypatch.setattr(Disk, "free_bytes", lambda _self, _path: 1 << 20)
    assert main(["replay", str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 5
    assert "1 MiB are free" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["file", "full folder"])
def test_out_must_be_a_new_folder(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    record_boot(tmp_path / "in", BOOT_A, 3)
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "mine.txt").write_text("mine")
    assert main(["replay", str(tmp_path / "in"), "--out", str(out)]) == 2
    assert "is not an empty folder" in capsys.readouterr().err
