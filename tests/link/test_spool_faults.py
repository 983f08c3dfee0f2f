"""The spool on a disk that fails: short writes, ENOSPC, EIO, failed syncs (link-20)."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncline.errors import StorageError
from syncline.spool import START, OsDisk, Spool, SpoolRecord
from syncline.timebase import ManualClock
from syncline.topics import LinkClass

E, R, T, B = LinkClass


class FailingDisk(OsDisk):
    """Fails on a script; `room` bounds the bytes that all files may take, as a full disk does."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.short = self.eio = self.sync_fails = 0.0
        self.room: int | None = None
        self.failures = 0

    def fdatasync(self, fd: int) -> None:
        """No power is cut here, so the real call would only cost time."""

    def sync_folder(self, path: Path) -> None:
        """As `fdatasync`."""

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        if self.rng.random() < self.eio:
            self.failures += 1
            done = super().pwrite(fd, data[: len(data) // 2], offset)
            raise OSError(errno.EIO, f"input/output error after {done}")
        if self.room is not None:
            free = self.room - _used(fd)
            if free <= 0:
                self.failures += 1
                raise OSError(errno.ENOSPC, "no space left on device")
            data = data[:free]
        if len(data) > 1 and self.rng.random() < self.short:
            data = data[: self.rng.randrange(1, len(data))]
        return super().pwrite(fd, data, offset)


@pytest.fixture(autouse=True)
def files_closed() -> Iterator[None]:
    """Spools are abandoned here as a kill would leave them; their files must not pile up."""
    yield
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(entry.readlink())
            if "/faults" in target or "/syncs" in target:
                os.close(int(entry.name))


def _used(fd: int) -> int:
    """Bytes of all files in the folder of the spool that `fd` belongs to."""
    path = Path(f"/proc/self/fd/{fd}").readlink()
    return sum(f.stat().st_size for f in path.parent.parent.rglob("*.seg"))


def everything(folder: Path) -> list[SpoolRecord]:
    spool = Spool(folder, clock=ManualClock(9_000_000_000, "b"))
    out: list[SpoolRecord] = []
    for link_class in LinkClass:
        after = START
        while True:
            rows, after = spool.read(link_class, after)
            if not rows:
                break
            out += [r for r, _ in rows]
    spool.close()
    return out


def put_and_sync(
    spool: Spool, rng: random.Random, link_class: LinkClass, *, rounds: int, most: int, size: int
) -> tuple[int, int]:
    """Records put, and how many of them a sync reported durable."""
    put = durable = 0
    for _ in range(rounds):
        for _ in range(rng.randrange(1, most)):
            spool.put(link_class, "/stream", put, b"%d" % put + b"." * rng.randrange(size))
            put += 1
        with contextlib.suppress(StorageError):
            spool.sync()
            durable = put
    return put, durable


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    short=st.sampled_from([0.0, 0.3]),
    eio=st.sampled_from([0.0, 0.2]),
    room=st.sampled_from([None, 20_000, 60_000]),
)
def test_link_20_nothing_that_was_reported_durable_is_lost(
    tmp_path_factory: pytest.TempPathFactory, seed: int, short: float, eio: float, room: int | None
) -> None:
    """link-20: after `sync` returned, short writes, EIO and ENOSPC lose no record that it covered.

    A record may only be missing when it is in a counter: given up for room, or refused.
    """
    folder = tmp_path_factory.mktemp("faults")
    rng = random.Random(seed)
    disk = FailingDisk(rng)
    spool = Spool(
        folder, clock=ManualClock(1_000_000_000, "b"), disk=disk, segment_bytes=8192,
        quota_bytes=1 << 20,
    )  # fmt: skip
    disk.short, disk.eio, disk.room = short, eio, room
    put, durable = put_and_sync(spool, rng, T, rounds=60, most=12, size=200)
    lost = spool.stats().classes[T]
    del spool  # as kill -9: what is in memory is gone
    found = [r.raw_ns for r in everything_of_dead(folder)]
    assert found == sorted(set(found)), "reordered or doubled"
    assert all(n < put for n in found)
    missing = set(range(durable)) - set(found)
    assert len(missing) <= lost.dropped + lost.refused, "a durable record is gone, uncounted"
    if room is None and not eio:
        assert not missing


def everything_of_dead(folder: Path) -> list[SpoolRecord]:
    """What a next process finds; the lock of the dead one is gone with it."""
    (folder / "lock").unlink()
    return everything(folder)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32))
def test_link_20_a_failed_sync_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    """link-20: fdatasync fails, the kernel forgets the pages; a later good sync covers all."""
    folder = tmp_path_factory.mktemp("syncs")
    rng = random.Random(seed)
    disk = _ForgetfulDisk(rng)
    spool = Spool(folder, clock=ManualClock(1_000_000_000, "b"), disk=disk, segment_bytes=4096)
    disk.sync_fails = 0.4
    _, durable = put_and_sync(spool, rng, R, rounds=40, most=20, size=300)
    del spool
    found = [r.raw_ns for r in everything_of_dead(folder)]
    assert found == sorted(set(found))
    assert set(range(durable)) <= set(found)


class _ForgetfulDisk(FailingDisk):
    """Forgets, at a failed sync, everything since the last good one, as kernels may."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self.kept: dict[str, int] = {}

    def fdatasync(self, fd: int) -> None:
        name = str(Path(f"/proc/self/fd/{fd}").readlink())
        size = os.fstat(fd).st_size
        if self.rng.random() < self.sync_fails:
            kept = self.kept.get(name, 0)
            if kept and kept < size:
                os.pwrite(fd, b"\0" * (size - kept), kept)
            raise OSError(errno.EIO, "input/output error")
        self.kept[name] = size


def test_link_20_a_full_disk_gives_way_by_class_and_goes_on(tmp_path: Path) -> None:
    """link-20, link-21: on ENOSPC old bulk is unlinked so that new events can be written."""
    disk = FailingDisk(random.Random(1))
    spool = Spool(tmp_path, clock=ManualClock(10**9, "b"), disk=disk, segment_bytes=8192)
    for i in range(400):
        spool.put(B, "/log", i, b"x" * 200)
    spool.sync()
    disk.room = sum(f.stat().st_size for f in tmp_path.rglob("*.seg"))
    for i in range(200):
        spool.put(E, "/time/events", i, b"y" * 200)
        spool.sync()
    stats = spool.stats()
    assert stats.classes[E].dropped == stats.classes[E].refused == 0
    assert stats.classes[E].backlog == 200
    assert stats.classes[B].dropped > 0
    spool.close()
    found = everything(tmp_path)
    assert sum(r.stream == "/time/events" for r in found) == 200
    assert sum(r.stream == "/log" for r in found) == 400 - stats.classes[B].dropped


_LIMITED = """
import resource, signal, sys
from collections.abc import Iterator
from pathlib import Path
from syncline.errors import StorageError
from syncline.spool import Spool
from syncline.topics import LinkClass
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
spool = Spool(Path(sys.argv[1]), segment_bytes=1 << 20)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
synced = 0
for i in range(2000):
    spool.put(LinkClass.TELEMETRY, "/health", i, b"%d" % i + b"x" * 200)
    if i % 10 == 9:
        try:
            spool.sync()
            synced = i + 1
        except StorageError as error:
            print("refused", error)
            break
print("synced", synced, flush=True)
import os
os._exit(0)
"""


def test_link_20_the_kernels_own_file_limit(tmp_path: Path) -> None:
    """link-20 with a real short write: RLIMIT_FSIZE cuts a write in the middle of a record."""
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(tmp_path / "s")],
        check=True,
        capture_output=True,
        text=True,
    )
    synced = int(done.stdout.split()[-1])
    assert synced > 0
    found = everything(tmp_path / "s")
    numbers = [r.raw_ns for r in found if r.payload.startswith(b"%d" % r.raw_ns)]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == len(found)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 50_000
