"""Payloads that cannot be used: kept, marked, acknowledged (link-46)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from syncline.cloud.catalog import Catalog
from syncline.cloud.frames import Frame
from syncline.cloud.sessions import Accepted, Sessions
from syncline.cloud.store import FrameStore, checked
from syncline.cloud.validate import bad_ranges, reason_to_quarantine
from syncline.link.wire import Ack, Data, Hello, pack, pack_body, unpack
from syncline.messages.syncline_pb2 import Detections, Health
from syncline.topics import TOPICS, LinkClass

from ..link.lossy import QuickDisk  # noqa: TID252
from ..link.rig import Rig, wait  # noqa: TID252

STREAM = "/camera/a/detections"
GOOD = Detections(camera="a").SerializeToString()


def test_every_topic_that_is_sent_has_a_parser() -> None:
    for topic in TOPICS:
        assert reason_to_quarantine(topic.of("x"), b"") is None
    assert "not in the table" in str(reason_to_quarantine("/nope", b""))


def test_ranges_join_by_reason() -> None:
    bad = b"\xff\xff\xff"
    found = bad_ranges(STREAM, 10, [GOOD, bad, bad, GOOD, bad])
    assert [(a, b) for a, b, _ in found] == [(11, 12), (14, 14)]
    assert bad_ranges("/nope", 5, [GOOD] * 4)[0][:2] == (5, 8)


def test_readers_leave_quarantined_records_out(rig: Rig) -> None:
    """link-46: the device is told that all is well, the reader sees only what can be used."""
    collector = rig.start()
    spool, _ = rig.device()
    for i in range(100):
        spool.put(LinkClass.RESULTS, STREAM, i, b"\xff\xff" if i % 10 == 3 else GOOD)
        spool.put(LinkClass.TELEMETRY, "/not/a/topic", i, b"x")
    wait(lambda: spool.stats().backlog == 0, 10)
    (boot,) = collector.catalog.boots("car")
    good = [r.raw_ns for r in collector.catalog.records("car", boot, STREAM)]
    assert good == [i for i in range(100) if i % 10 != 3]
    everything = collector.catalog.records("car", boot, STREAM, with_quarantined=True)
    assert [r.raw_ns for r in everything] == list(range(100))
    reasons = collector.catalog.quarantined("car", boot, STREAM)
    assert len(reasons) == 10
    assert all("does not decode" in reason for _, _, reason in reasons)
    assert list(collector.catalog.records("car", boot, "/not/a/topic")) == []
    assert collector.health().counts["quarantined"] == 110


def _mutant(rng: random.Random) -> bytes:
    message = Health().SerializeToString() if rng.random() < 0.3 else GOOD + b"\x12\x05hello"
    raw = bytearray(message * rng.randrange(1, 4))
    for _ in range(rng.randrange(1, 6)):
        if raw:
            raw[rng.randrange(len(raw))] = rng.randrange(256)
    return bytes(raw[: rng.randrange(len(raw) + 1)])


def _fuzz(folder: Path, records: int) -> tuple[int, int]:
    """Mutated payloads and mutated messages through the collector's step."""
    rng = random.Random(46)
    with Catalog.open(folder) as catalog:
        store, sessions = FrameStore(catalog, QuickDisk()), Sessions()
        sessions.receive(b"\0p", "car", [pack(Hello(1, "car", "boot", []))], 0)
        tx = seq = 0
        while seq < records:
            accepted: list[Accepted] = []
            for _ in range(20):
                n = rng.randrange(1, 50)
                rows = [(i, _mutant(rng)) for i in range(n)]
                stream = rng.choice([STREAM, "/health", "/time/events", "/no/such"])
                whole = pack(Data(1, tx, 1, n, seq, "boot", stream, pack_body(rows)))
                damaged = bytearray(whole)
                damaged[rng.randrange(3, len(whole))] ^= 1 << rng.randrange(8)
                _, work = sessions.receive(b"\0p", "car", [bytes(damaged)], 0)
                assert work is None
                _, work = sessions.receive(b"\0p", "car", [whole], 0)
                assert isinstance(work, Accepted)
                accepted.append(work)
                tx, seq = tx + 1, seq + n
            good = [checked(one.frame) for one in accepted]
            store.store([g for g in good if not isinstance(g, str)])
            ((_, answer),) = sessions.stored(accepted)
            assert unpack(answer) == Ack(1, tx, sessions.window)
        streams = catalog.streams("car", "boot")
        bad = sum(b - a + 1 for s in streams for a, b, _ in catalog.quarantined("car", "boot", s))
        kept = sum(catalog.count("car", "boot", s) for s in streams)
        read = sum(1 for s in streams for _ in catalog.records("car", "boot", s))
        assert kept == seq
        assert read == kept - bad
        store.seal()
        return seq, bad


def test_link_46_fuzz(tmp_path: Path) -> None:
    """link-46: 10,000 mutants here, 100,000 in the soak: all acknowledged, nothing crashes."""
    records, bad = _fuzz(tmp_path, 10_000)
    assert records >= 10_000
    assert 0 < bad < records


@pytest.mark.soak
def test_link_46_a_hundred_thousand(tmp_path: Path) -> None:
    """link-46 at full count."""
    print(_fuzz(tmp_path, 100_000))


def test_a_body_that_contradicts_its_lengths_is_not_stored() -> None:
    frame = Frame("car", "boot", STREAM, 1, 0, 3, b"\0" * 36 + b"x")
    assert isinstance(checked(frame), str)
