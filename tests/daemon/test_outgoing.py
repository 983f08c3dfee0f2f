"""What the daemon sends: every segment once, whatever the disk does; health says what fails."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from syncline.edge.config import EdgeConfig
from syncline.edge.metrics import metrics_text
from syncline.edge.outgoing import CLOSING_NS, TURN_NS, Outgoing
from syncline.edge.queued_segments import QueuedSegments
from syncline.errors import StorageError
from syncline.link import new_keypair
from syncline.link.keys import save_keypair
from syncline.messages import syncline_pb2 as pb
from syncline.timebase import ManualClock, OsClock


def config_of(tmp: Path, upload: bool | str = True) -> EdgeConfig:
    import msgspec

    for name in ("server", "car-1"):
        save_keypair(new_keypair(name), tmp / "keys")
    raw = {
        "device": {"name": "car-1", "data": str(tmp / "data")},
        "camera": [{"name": "c", "kind": "synthetic"}],
        "link": {
            "endpoint": "tcp://127.0.0.1:9",
            "server_key": str(tmp / "keys" / "server.pub"),
            "key": str(tmp / "keys" / "car-1.key"),
            "drain_s": 0.0,
            "upload_images": upload,
        },
        "model": {"shadow": "road-detector" if upload == "chosen" else ""},
    }
    return msgspec.convert(raw, EdgeConfig)


class Device:
    """An `Outgoing` on a folder, with segments made by hand and uploads noted."""

    def __init__(
        self, tmp: Path, monkeypatch: pytest.MonkeyPatch, upload: bool | str = True
    ) -> None:
        for path in (tmp / "keys").glob("*"):
            path.unlink()
        self.config = config_of(tmp, upload)
        self.data = tmp / "data"
        self.sent: list[str] = []
        self.refused: set[str] = set()
        self.clock = ManualClock(0)
        self.took_ns = 0
        self.outgoing = Outgoing(self.config, OsClock(), lambda _: None)
        assert self.outgoing.uplink is not None
        monkeypatch.setattr(self.outgoing.uplink, "upload", self._upload)

    def _upload(self, path: Path, *, name: str, meta: dict[str, str]) -> str:
        if meta["segment"] in self.refused:
            raise StorageError("cannot write the ticket: No space left on device")
        assert path.is_file()
        self.sent.append(meta["segment"])
        self.clock.advance(self.took_ns)
        return "digest"

    def segment(self, *names: str, pictures: bool = True) -> None:
        for name in names:
            folder = self.data / "recording" / "ring" / name
            folder.mkdir(parents=True)
            if pictures:
                (folder / "cam.mcap").write_bytes(name.encode())

    def wipe(self) -> None:
        ring = self.data / "recording" / "ring"
        for folder in list(ring.iterdir()):
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()

    def check(self) -> pb.Health:
        self.outgoing.upload_closed_segments()
        message = pb.Health(state="ok")
        self.outgoing.add_to(message)
        return message


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    device = Device(tmp_path, monkeypatch)
    yield device
    device.outgoing.close()


A, B, C, D = (f"0000000{n}-aaaa" for n in range(1, 5))


def test_closed_segments_are_queued_once_and_the_open_one_waits(device: Device) -> None:
    device.segment(A, B, C)
    assert device.check().state == "ok"
    device.check()
    assert device.sent == [A, B]
    device.segment(D)
    device.check()
    assert device.sent == [A, B, C]


def test_a_whole_ring_is_queued_in_turns_and_kept_over_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: Device
) -> None:
    """A ring takes minutes to read: meanwhile the daemon reports, stops and pets its watchdog."""
    clock = ManualClock(OsClock().raw_ns())
    monkeypatch.setattr(device.outgoing, "_clock", clock)
    monkeypatch.setattr(device, "took_ns", TURN_NS // 2)
    monkeypatch.setattr(device, "clock", clock)
    names = [f"{at:08d}-aaaa" for at in range(40)]
    device.segment(*names)
    before_ns = clock.raw_ns()
    device.check()
    assert device.sent == names[:2]
    assert clock.raw_ns() - before_ns <= TURN_NS
    assert (device.data / "queued-segments").read_text().split() == names[:2]
    device.check()
    assert device.sent == names[:4]
    monkeypatch.setattr(device, "took_ns", CLOSING_NS // 4)
    device.outgoing.close()
    assert device.sent == names[:8], "the next start goes on"
    again = Device(tmp_path, monkeypatch)
    again.check()
    again.outgoing.close()
    assert device.sent + again.sent == names


def test_a_segment_that_could_not_be_queued_is_queued_later(device: Device) -> None:
    device.segment(A, B, C, D)
    device.refused.add(B)
    health = device.check()
    assert device.sent == [A], "the order is kept: nothing overtakes what failed"
    assert health.state == "degraded"
    assert "uploads: cannot write the ticket" in health.detail
    assert health.counters["upload.not_queued"] == 1
    device.refused.clear()
    health = device.check()
    assert device.sent == [A, B, C]
    assert health.state == "ok"


def test_a_restart_queues_only_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: Device
) -> None:
    device.segment(A, B)
    device.check()
    device.outgoing.close()
    assert device.sent == [A, B], "the last segment is complete once the recorder is closed"
    again = Device(tmp_path, monkeypatch)
    again.segment(C, D)
    again.check()
    again.outgoing.close()
    assert again.sent == [C, D]


def test_a_wiped_ring_begins_again_with_the_same_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: Device
) -> None:
    device.segment(A, B, C)
    device.check()
    device.outgoing.close()
    device.wipe()
    again = Device(tmp_path, monkeypatch)
    again.segment(A, B)
    again.check()
    assert again.sent == [A]
    again.wipe()
    again.check()
    again.segment(A, B)
    again.check()
    assert again.sent == [A, A]
    again.outgoing.close()


def test_names_that_left_the_ring_are_forgotten(device: Device) -> None:
    for at in range(40):
        device.wipe() if at else None
        device.segment(f"{at:08d}-x", f"{at:08d}-y")
        device.check()
    assert len(device.outgoing._queued) <= 2
    assert len((device.data / "queued-segments").read_text().split()) <= 2


def test_a_segment_without_pictures_holds_nothing_up(device: Device) -> None:
    device.segment(A, pictures=False)
    device.segment(B, C)
    device.check()
    assert device.sent == [B]


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_neither_ends_the_daemon_nor_sends_twice(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.segment(A, B)
    with monkeypatch.context() as full:
        full.setattr("os.fsync", no_space)
        health = device.check()
        device.check()
    assert health.state == "degraded"
    assert "queued-segments: No space left on device" in health.detail
    assert device.sent == [A]
    assert not (device.data / "queued-segments").exists()
    assert device.check().state == "ok"
    assert (device.data / "queued-segments").read_text().split() == [A]
    assert [p.name for p in device.data.glob("*queued*")] == ["queued-segments"]


def test_a_ring_that_cannot_be_read_is_a_line_in_health(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.segment(A, B)
    with monkeypatch.context() as broken:
        broken.setattr(Path, "iterdir", no_space)
        assert "No space left" in device.check().detail
    device.check()
    assert device.sent == [A]


def test_a_damaged_memory_counts_as_empty(tmp_path: Path) -> None:
    path = tmp_path / "queued"
    path.write_bytes(b"\xff\xfe\x00")
    queued = QueuedSegments(path)
    assert len(queued) == 0
    queued.add(A)
    queued.save()
    assert A in QueuedSegments(path)


def test_everything_is_closed_when_the_recorder_lost_messages(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []

    def lost() -> None:
        raise StorageError("3 messages were lost")

    out: Any = device.outgoing
    with monkeypatch.context() as patch:
        patch.setattr(out._recorder, "close", lost)
        patch.setattr(out.uplink, "close", lambda _: closed.append("uplink"))
        patch.setattr(out._spool, "close", lambda: closed.append("spool"))
        with pytest.raises(StorageError, match="3 messages"):
            out.close()
    assert closed == ["uplink", "spool"]


def test_a_constructor_that_fails_gives_the_folders_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from syncline.edge import outgoing

    def refuse(*_: object, **__: object) -> None:
        raise StorageError("no uploads here")

    config = config_of(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(outgoing, "Uplink", refuse)
        with pytest.raises(StorageError, match="no uploads"):
            Outgoing(config, OsClock(), lambda _: None)
    # Recorder and spool lock their folders: a second one opens only when the first was closed.
    Outgoing(config, OsClock(), lambda _: None).close()


def test_health_names_the_part_and_counts_the_uploads(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    out: Any = device.outgoing
    out._recorder._session.error = "No space left on device"
    out._spool._failing = "Input/output error"
    message = device.check()
    assert message.detail == "recorder: No space left on device; spool: Input/output error"
    out._recorder._session.error = ""
    for name in ("upload.waiting", "upload.failed", "upload.done", "spool.backlog", "link.down"):
        assert name in message.counters
    assert message.counters["link.down"] == 1
    assert 'level{level="upload.waiting"} 0' in metrics_text(message)


def test_a_device_without_a_link_is_ok(tmp_path: Path) -> None:
    import msgspec

    raw = {
        "device": {"name": "a", "data": str(tmp_path / "data")},
        "camera": [{"name": "c", "kind": "synthetic"}],
    }
    outgoing = Outgoing(msgspec.convert(raw, EdgeConfig), OsClock(), lambda _: None)
    message = pb.Health(state="ok")
    outgoing.upload_closed_segments()
    outgoing.add_to(message)
    outgoing.close()
    assert (message.state, message.detail) == ("ok", "")


def test_chosen_files_are_sent_once_and_deleted_when_they_are_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """edge-36: what a shadow chose reaches the collector; nothing else does."""
    device = Device(tmp_path, monkeypatch, upload="chosen")
    uplink = device.outgoing.uplink
    assert uplink is not None
    waiting: set[Path] = set()
    monkeypatch.setattr(uplink.uploads, "is_waiting", waiting.__contains__)
    folder = device.data / "recording" / "chosen"
    folder.mkdir()
    files = [folder / f"{name}.mcap" for name in (A, B)]
    for path in files:
        path.write_bytes(b"pictures")
    waiting.update(files)
    device.segment(C, D)  # camera segments stay where they are
    device.refused.add(B)
    health = device.check()
    assert device.sent == [A]
    assert health.state == "degraded"
    device.refused.clear()
    assert device.check().counters["chosen.waiting"] == 2
    assert device.sent == [A, B]
    waiting.discard(files[0])
    device.check()
    assert [path.exists() for path in files] == [False, True]
    assert device.sent == [A, B]
    device.outgoing.close()
    # What is still there after a restart is offered again: the collector knows it by its digest.
    again = Device(tmp_path, monkeypatch, upload="chosen")
    again.check()
    assert again.sent == [B]
    again.outgoing.close()
