"""Receivers: which epochs are time, marks, a receiver that is unplugged."""

from __future__ import annotations

import os
import pty
import time
from pathlib import Path

import pytest

from syncline.sync.floor import Floor, gps_to_utc_ns, iso, utc_from_civil_ns
from syncline.sync.measurement import Measurement
from syncline.sync.sources.gnss_gate import GnssEpoch, GnssGate, Leap
from syncline.sync.sources.gnss_serial import GnssSerial
from syncline.sync.sources.gnss_stream import GnssStream
from syncline.sync.sources.source import Health
from syncline.sync.sources.ubx import UbxEpochs, UbxReader, frame_bytes
from syncline.timebase import OsClock
from tests.sync_os.ntp_fakes import FLOOR, UTC0_NS, S


def epochs(gate: GnssGate, count: int, **what: object) -> list[Measurement | None]:
    base = {"fix_mode": 3, "leap": Leap.VALID}
    return [
        gate.take(GnssEpoch(n * S, UTC0_NS + n * S, **{**base, **what}))  # type: ignore[arg-type]
        for n in range(count)
    ]


def test_sync_26_no_leap_seconds_or_no_fix_no_time() -> None:
    """sync-26: GPS time without leap seconds, and epochs before a 2D fix, are not used."""
    assert not any(epochs(GnssGate("g", FLOOR), 20, leap=Leap.INVALID))
    assert not any(epochs(GnssGate("g", FLOOR), 20, fix_mode=1))
    assert sum(m is not None for m in epochs(GnssGate("g", FLOOR), 20)) == 18
    assert sum(m is not None for m in epochs(GnssGate("g", FLOOR), 20, confirmed=True)) == 20


def test_sync_26_unknown_leap_seconds_are_in_the_bound_until_the_almanac() -> None:
    """sync-26: NMEA cannot say; the bound holds 19 s more until 12.5 min of tracking."""
    got = epochs(GnssGate("g", FLOOR), 900, leap=Leap.UNKNOWN)
    bounds = [m.root_bound_ns for m in got if m is not None]
    assert bounds[0] > 19 * S
    assert bounds[-1] < S
    assert sum(b > S for b in bounds) == pytest.approx(748, abs=2)


def test_sync_25_week_0xffff_and_2038() -> None:
    """sync-25: week 0xFFFF means unknown; the rollover of 2038-11-21 is crossed."""
    with pytest.raises(Exception, match="unknown"):
        gps_to_utc_ns(0xFFFF, 0, 18, FLOOR)
    floor = Floor(build_utc_ns=utc_from_civil_ns(2030, 1, 1, 0)).with_saved(
        utc_from_civil_ns(2038, 11, 20, 0)
    )
    assert iso(gps_to_utc_ns(3072, 0, 18, floor))[:19] == "2038-11-20T23:59:42"
    assert iso(gps_to_utc_ns(0, 18 * S, 18, floor))[:19] == "2038-11-21T00:00:00"
    assert iso(gps_to_utc_ns(3072 % 1024, 18 * S, 18, floor))[:19] == "2038-11-21T00:00:00"
    gate = GnssGate("g", floor, trust_leap=True)
    stale = utc_from_civil_ns(2019, 4, 7, 0)
    got = [gate.take(GnssEpoch(n * S, stale + n * S, 3)) for n in range(5)]
    assert [iso(m.utc_ns)[:19] for m in got if m] == [f"2038-11-21T00:00:0{n}" for n in (2, 3, 4)]
    nav_sol = bytearray(52)
    nav_sol[8:12] = b"\xff\xff\x03\x0f"
    ubx = UbxEpochs(FLOOR)
    ubx._leap_s = 18
    (frame,) = UbxReader().feed(frame_bytes(0x0106, bytes(nav_sol)), 0)
    assert ubx.take(frame) is None
    assert ubx.refused_weeks == 1


def test_tim_tm2_marks() -> None:
    """A rising edge in UTC base becomes a mark; one without valid time does not."""
    week, ms = 2443, 86_400_000
    payload = bytearray(28)
    payload[1] = 0x80 | 0x40 | 0x20 | 2 << 3
    payload[2:8] = (7).to_bytes(2, "little") + week.to_bytes(2, "little") * 2
    payload[8:16] = ms.to_bytes(4, "little") + (123_456).to_bytes(4, "little")
    payload[24:28] = (25).to_bytes(4, "little")
    ubx = UbxEpochs(FLOOR)
    (frame,) = UbxReader().feed(frame_bytes(0x0D03, bytes(payload)), 5)
    ubx.take(frame)
    (mark,) = ubx.take_marks()
    assert mark.rising
    assert mark.utc_ns % S == 123_456
    assert (mark.count, mark.accuracy_ns, mark.raw_ns) == (7, 25, 5)
    payload[1] &= ~0x40
    (frame,) = UbxReader().feed(frame_bytes(0x0D03, bytes(payload)), 5)
    ubx.take(frame)
    assert ubx.take_marks() == []


def rmc(n: int) -> bytes:
    body = b"GNRMC,%02d%02d%02d.00,A,4800.0,N,01100.0,E,0.1,0.0,010327,,,A" % (
        n // 3600, n // 60 % 60, n % 60,
    )  # fmt: skip
    check = 0
    for byte in body:
        check ^= byte
    return b"$%s*%02X\r\n" % (body, check)


def test_a_serial_receiver_on_a_pty_that_is_unplugged(tmp_path: Path) -> None:
    clock = OsClock()
    master, slave = pty.openpty()
    link = tmp_path / "receiver"
    link.symlink_to(os.ttyname(slave))
    stream = GnssStream("gnss0", FLOOR, baud=9600, trust_leap=True)
    source = GnssSerial(link, stream, clock, baud=9600)
    source.poll(clock.raw_ns())
    assert source.health().health is Health.OK
    got: list[Measurement] = []
    base = clock.raw_ns()
    for n in range(5):
        os.write(master, rmc(n))
        time.sleep(0.02)
        got += source.poll(clock.raw_ns())
    assert stream.gate.epochs == 5
    assert clock.raw_ns() > base
    os.close(slave)
    os.close(master)
    for _ in range(3):
        source.poll(clock.raw_ns())
    assert source.health().health is Health.MISSING
    source.close()
    absent = GnssSerial(tmp_path / "none", stream, clock)
    absent.poll(clock.raw_ns())
    assert "Check cable" in absent.health().message
