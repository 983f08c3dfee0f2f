"""Uploads over real sockets: cut, remembered, given up."""

from __future__ import annotations

import errno
import hashlib
import random
from pathlib import Path

import pytest

from syncline.errors import StorageError
from syncline.link.uploads import Uploads

from .proxy import Proxy
from .rig import Rig, wait


def _cut_upload(rig: Rig, cuts: int, size: int) -> tuple[int, int]:
    rig.start()
    proxy = Proxy(rig.listen)
    path = rig.folder / "big.bin"
    path.write_bytes(random.Random(29).randbytes(size))
    _, uplink = rig.device(endpoint=proxy.endpoint)
    rng, done = random.Random(29), 0
    digest = uplink.upload(path)
    for _ in range(cuts):
        before = proxy.up_bytes
        proxy.cut_after = before + rng.randrange(1, max(2 * size // cuts, 2))
        wait(lambda: proxy.cut_after is None or uplink.uploads.waiting == 0, 30)
        if uplink.uploads.waiting == 0:
            break
        done += 1
    wait(lambda: uplink.uploads.waiting == 0, 60)
    assert rig.collector is not None
    assert hashlib.sha256(rig.collector.objects.get(digest)).hexdigest() == digest
    assert uplink.uploads.failed == 0
    sent = uplink.uploads.sent_bytes
    proxy.close()
    return done, sent


def test_link_29_a_cut_upload_goes_on_where_it_was(rig: Rig) -> None:
    """link-29: 5 cuts here, 100 in the soak; what is resent is what was in flight, sha256 equal."""
    done, sent = _cut_upload(rig, 5, 4_000_000)
    assert done >= 3
    assert sent - 4_000_000 <= done * 4 * 192 * 1024


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_link_29_a_hundred_cuts(rig: Rig) -> None:
    """link-29 at full count."""
    done, sent = _cut_upload(rig, 100, 100_000_000)
    print(f"{done} cuts, resent {(sent - 100_000_000) / max(done, 1) / 1024:.0f} kB each")
    assert sent - 100_000_000 <= done * 4 * 192 * 1024


def test_a_file_that_is_gone_is_given_up_and_told(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.start()
    path = rig.folder / "gone.bin"
    path.write_bytes(b"x" * 1000)
    keys = rig.enrol("car")
    spool, uplink = rig.device(keys=keys, endpoint="tcp://127.0.0.1:1")
    uplink.upload(path)
    uplink.close()
    spool.close()
    path.unlink()
    _, uplink = rig.device(keys=keys)
    wait(lambda: uplink.uploads.failed == 1, 10)
    assert "gone.bin" in caplog.text


def test_an_upload_is_remembered_over_a_restart(rig: Rig) -> None:
    collector = rig.start()
    path = rig.folder / "later.bin"
    path.write_bytes(b"later" * 1000)
    keys = rig.enrol("car")
    spool, uplink = rig.device(keys=keys, endpoint="tcp://127.0.0.1:1")
    digest = uplink.upload(path)
    uplink.close()
    spool.close()
    _, uplink = rig.device(keys=keys)
    wait(lambda: uplink.uploads.waiting == 0, 10)
    assert collector.objects.has(digest)


def test_a_ticket_that_the_disk_keeps_ends_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that turned read-only, say: what follows is still sent, and the log says so."""
    collector = rig.start()
    _, uplink = rig.device()
    paths = [rig.folder / name for name in ("one.bin", "two.bin")]
    for path in paths:
        path.write_bytes(path.name.encode() * 1000)
    honest = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.parent.name == "uploads":
            raise OSError(errno.EROFS, "Read-only file system")
        honest(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    for path in paths:
        uplink.upload(path)
    wait(lambda: uplink.uploads.waiting == 0, 10)
    assert uplink.uploads.done == 2
    assert len(collector.catalog.uploads("car")) == 2
    assert "Read-only file system" in caplog.text


def test_half_a_ticket_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "one.bin"
    path.write_bytes(b"x" * 1000)
    uploads = Uploads(tmp_path / "uploads")

    def no_space(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr("os.fsync", no_space)
        with pytest.raises(StorageError, match="No space left"):
            uploads.add(path, "one.bin", {})
    assert list((tmp_path / "uploads").iterdir()) == []
    assert uploads.waiting == 0
    uploads.add(path, "one.bin", {})
    assert Uploads(tmp_path / "uploads").waiting == 1
