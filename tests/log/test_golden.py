"""Files of format version 1 as they were first written: every later reader reads them the same."""

from __future__ import annotations

import hashlib
from pathlib import Path

from syncline.log.reader import LogReader
from syncline.timebase import TimeState

GOLDEN = Path(__file__).with_name("golden") / "v1"
DIGEST = "193e52cd7a771ffeee8b919f43b48e70a65fddf2fde26ec42da0ce99a8b996c2"


def digest_of(path: Path) -> str:
    digest = hashlib.sha256()
    with LogReader(path) as reader:
        for r in reader:
            head = f"{r.topic} {r.schema} {r.raw_ns} {r.sequence} {r.publish_ns} {r.boot_id} "
            digest.update(head.encode())
            digest.update(r.data)
            digest.update(reader.decode(r).SerializeToString(deterministic=True))
    return digest.hexdigest()


def test_golden_files_read_the_same() -> None:
    assert digest_of(GOLDEN) == DIGEST


def test_golden_content() -> None:
    with LogReader(GOLDEN) as reader:
        counts: dict[str, int] = {}
        for record in reader:
            counts[record.topic] = counts.get(record.topic, 0) + 1
        utc = reader.timebase().utc(2 * 10**9)
    assert counts == {
        "/time/mapping": 1,
        "/imu/a": 20,
        "/camera/f/detections": 4,
        "/camera/f/image": 4,
        "/camera/f/annotations": 4,
    }
    assert utc.utc_ns == 1_700_000_001 * 10**9 + 2000
    assert 6000 <= utc.bound_ns <= 6001
    assert utc.state is TimeState.SYNCED
