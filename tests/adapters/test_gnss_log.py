"""Recorded receivers as a sensor: judged by pynmeagps and pyubx2, damaged at will."""

from __future__ import annotations

import datetime
import io
import itertools
import re
import struct
from pathlib import Path

import pynmeagps
import pytest
import pyubx2
from hypothesis import given, settings
from hypothesis import strategies as st

from syncline.errors import DeviceError, LogError
from syncline.sensors.adapter import HealthState, SensorAdapter
from syncline.sensors.adapters.gnss_decoder import GnssSample
from syncline.sensors.adapters.gnss_epochs import GnssReading, TriggerMark, day_utc_ns
from syncline.sensors.adapters.gnss_log import GnssLog
from syncline.sensors.adapters.ubx import frame_bytes
from syncline.sensors.frame import FrameEvent
from syncline.timebase import NS_PER_S, Clock

LEAP_S = 18
NMEA_LOGS = (
    "bt451", "firefly-II", "garmin-10x", "geos-1m", "gp-320fw-2019-04-06-overflow",
    "gp-320fw-2019-04-07-coldboot", "haicom-305N", "humminbird-M37", "isync", "meinberg-gps164",
    "nmea-fuzzy-cases", "nmea-rtk", "telit-he910", "tn200-all", "ublox-8", "ublox-lea-5h",
    "unicore-um621",
)  # fmt: skip
UBX_LOGS = (
    "navisys-gr8013",
    "ublox-f9p-rtcm",
    "ublox-zed-f9p-hp",
    pytest.param("ublox-glo", marks=pytest.mark.soak),
    pytest.param("ublox-neo-m8l", marks=pytest.mark.soak),
)


def readings(path: Path) -> tuple[list[GnssSample], GnssLog]:
    log = GnssLog(path)
    return list(log.frames()), log


def ns_of(day: datetime.date, time: datetime.time, nano: int | None = None) -> int:
    whole = day_utc_ns((day.year, day.month, day.day))
    assert whole is not None
    seconds = time.hour * 3600 + time.minute * 60 + time.second
    return whole + seconds * NS_PER_S + (time.microsecond * 1000 if nano is None else nano)


def judged_rmc(data: bytes) -> list[tuple[int, bool, float, float]]:
    """(UTC, valid, latitude, longitude) of every dated RMC, by pynmeagps."""
    found = []
    for line in re.findall(rb"\$..RMC,[\x20-\x7e]*\*[0-9A-Fa-f]{2}(?=[\r\n])", data):
        try:
            message = pynmeagps.NMEAReader.parse(line + b"\r\n")
        except pynmeagps.NMEAParseError:
            continue
        if message is None or not message.date or not isinstance(message.time, datetime.time):
            continue
        where = (message.lat or 0.0, message.lon or 0.0)
        found.append((ns_of(message.date, message.time), message.status == "A", *where))
    return found


@pytest.mark.parametrize("name", NMEA_LOGS)
def test_nmea_epochs_are_those_of_an_independent_reader(shared_data: Path, name: str) -> None:
    path = shared_data / "gnss" / "gpsd" / f"{name}.log"
    frames, log = readings(path)
    assert isinstance(log, SensorAdapter)
    by_time: dict[int, list[GnssReading]] = {}
    for frame in frames:
        assert isinstance(frame.payload, GnssReading)
        assert frame.driver is not None
        assert (frame.driver.clock, frame.driver.event) == (Clock.UTC, FrameEvent.MID)
        by_time.setdefault(frame.driver.t_ns, []).append(frame.payload)
    judged = judged_rmc(path.read_bytes())
    assert judged
    for utc_ns, valid, latitude, longitude in judged:
        there = by_time.get(utc_ns, [])
        assert there, f"no epoch at {utc_ns}"
        if valid:
            assert any(
                abs((r.latitude_deg or 0.0) - latitude) < 1e-6
                and abs((r.longitude_deg or 0.0) - longitude) < 1e-6
                for r in there
            )
        else:
            assert any(r.fix_mode == 0 for r in there)
    assert log.health().state is HealthState.ENDED


@pytest.mark.parametrize("name", UBX_LOGS)
def test_ubx_epochs_are_those_of_an_independent_reader(shared_data: Path, name: str) -> None:
    path = shared_data / "gnss" / "gpsd" / f"{name}.log"
    frames, _ = readings(path)
    stream = io.BytesIO(path.read_bytes())
    judged = [
        m
        for _, m in pyubx2.UBXReader(stream, protfilter=pyubx2.UBX_PROTOCOL, quitonerror=0)
        if m is not None and m.identity == "NAV-PVT" and m.validDate and m.validTime
    ]
    assert len(frames) == len(judged)
    for frame, message in zip(frames, judged, strict=True):
        day = datetime.date(message.year, message.month, message.day)
        clock = datetime.time(message.hour, message.min, message.second)
        assert frame.driver is not None
        assert frame.driver.t_ns == ns_of(day, clock, message.nano)
        reading = frame.payload
        assert isinstance(reading, GnssReading)
        assert reading.satellites == message.numSV
        if reading.latitude_deg is not None:
            assert reading.latitude_deg == pytest.approx(message.lat, abs=1e-9)
            assert reading.heading_deg == pytest.approx(message.headMot, abs=1e-4)
            assert reading.altitude_m == pytest.approx(message.hMSL / 1e3, abs=1e-6)


def test_receivers_without_nav_pvt(shared_data: Path) -> None:
    """A timing receiver (NAV-TIMEUTC) and one of 2010 (NAV-SOL and leap seconds)."""
    folder = shared_data / "gnss" / "gpsd"
    timing, _ = readings(folder / "u-blox-m8t-time.log")
    assert len(timing) == 151
    old, _ = readings(folder / "navisys-gr701w.log")
    assert len(old) == 81
    for frames in (timing, old):
        times = [f.driver.t_ns for f in frames if f.driver is not None]
        assert all(abs(b - a - NS_PER_S) < 1_000_000 for a, b in itertools.pairwise(times))


@pytest.mark.soak
def test_a_real_drive_is_a_steady_second(shared_data: Path) -> None:
    """29 minutes of a u-blox F9K: 1653 epochs, as many as the log has RMC sentences."""
    path = shared_data / "gnss" / "google" / "MTV.Local1.ublox-F9K.20200206-181434.nmea"
    frames, log = readings(path)
    assert len(frames) == 1653
    assert log.health().detail.startswith("stamp: UTC of the epoch, by the receiver")


# -- trigger marks -------------------------------------------------------------------------------


def timegps(valid: bool = True) -> bytes:
    payload = struct.pack("<IihbBI", 0, 0, 2300, LEAP_S, 7 if valid else 3, 20)
    return frame_bytes(0x0120, payload)


def mark(count: int, tow_ns: int, base: int = 1, flags: int = 0xC0, week: int = 2300) -> bytes:
    ms, ns = divmod(tow_ns, 1_000_000)
    payload = struct.pack(
        "<BBHHH5I", 0, flags | base << 3, count, week, week, ms, ns, ms + 5, ns, 25
    )
    message = pyubx2.UBXReader.parse(frame_bytes(0x0D03, payload))
    assert (message.count, message.towMsR, message.timeBase) == (count, ms, base)  # the judge
    return frame_bytes(0x0D03, payload)


def utc(tow_ns: int, leap_s: int = LEAP_S) -> int:
    return 315_964_800 * NS_PER_S + 2300 * 7 * 86_400 * NS_PER_S + tow_ns - leap_s * NS_PER_S


def write(tmp_path: Path, *parts: bytes) -> Path:
    path = tmp_path / "drive.ubx"
    path.write_bytes(b"".join(parts))
    return path


def test_trigger_marks_are_edges_in_utc(tmp_path: Path) -> None:
    """TIM-TM2: to the nanosecond, in both time bases, both edges; a lost mark is counted."""
    tow = 123_456_789_012_345
    path = write(
        tmp_path,
        mark(6, tow),  # before the leap seconds are known
        timegps(),
        mark(7, tow),
        mark(8, tow + 10**9, base=2),
        mark(11, tow + 4 * 10**9, flags=0xC4),
        mark(12, tow, flags=0x80),  # its time is not valid
        mark(13, tow, base=0),
        mark(14, tow, week=0xFFFF),
    )
    frames, log = readings(path)
    marks = [f.payload for f in frames]
    assert marks == [
        TriggerMark(utc(tow), True, 7, 25),
        TriggerMark(utc(tow + 10**9, 0), True, 8, 25),
        TriggerMark(utc(tow + 4 * 10**9), True, 11, 25),
        TriggerMark(utc(tow + 4 * 10**9 + 5_000_000), False, 11, 25),
    ]
    for frame in frames:
        assert frame.driver is not None
        assert (frame.driver.clock, frame.driver.event) == (Clock.UTC, FrameEvent.TRIGGER)
        assert frame.driver.sigma_ns == 25.0
    health = log.health()
    assert (health.frames, health.dropped) == (4, 2)
    assert "4 trigger marks" in health.detail
    assert "1 marks or epochs in GPS time before the leap seconds" in health.detail


# -- what cannot be used -------------------------------------------------------------------------


def test_files_that_cannot_be_used_say_why(tmp_path: Path, shared_data: Path) -> None:
    with pytest.raises(DeviceError, match="No such file"):
        GnssLog(tmp_path / "absent").open()
    with pytest.raises(LogError, match="neither NMEA nor UBX"):
        GnssLog(write(tmp_path, b"hello\n" * 100)).open()
    with pytest.raises(LogError, match=r"not one dated epoch.*1 with a wrong checksum"):
        readings(write(tmp_path, b"$GPRMC,1,A*00\r\n"))
    span = shared_data / "gnss" / "google" / "MTV.Local1.SPAN.20200206-181434.gga"
    with pytest.raises(LogError, match="1748 epochs without a date"):
        readings(span)


def test_midnight_without_a_date_turns_the_day(tmp_path: Path) -> None:
    def line(body: str) -> bytes:
        check = 0
        for byte in body.encode():
            check ^= byte
        return f"${body}*{check:02X}\r\n".encode()

    gga = ",4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,"
    path = write(
        tmp_path,
        line("GPRMC,235959.00,A,4807.038,N,01131.000,E,022.4,084.4,311223,,,A"),
        line("GPGGA,000000.00" + gga),
        line("GPGGA,000001.00" + gga),
    )
    times = [f.driver.t_ns for f in readings(path)[0] if f.driver is not None]
    assert [b - a for a, b in itertools.pairwise(times)] == [NS_PER_S, NS_PER_S]


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_no_bytes_crash_the_reader(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Frames of every kind with any payload, sentences of any text, noise between: counted."""
    kinds = st.sampled_from([0x0107, 0x0102, 0x0103, 0x0106, 0x0120, 0x0121, 0x0126, 0x0D03])
    frame = st.builds(frame_bytes, kinds, st.binary(max_size=100))
    text = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60)

    def sentence(kind: str, fields: list[str]) -> bytes:
        body = ",".join([f"GP{kind}", *fields]).replace("*", "").replace("$", "").encode()
        check = 0
        for byte in body:
            check ^= byte
        return b"$" + body + b"*%02X\r\n" % check

    field = st.sampled_from(
        ["", "A", "V", "120000", "235960.5", "4807.1", "N", "E", "311299", "9" * 40]
    )
    lines = st.builds(sentence, st.sampled_from(["RMC", "GGA", "ZDA", "GSA", "GNS"]),
                      st.lists(field | text, max_size=14))  # fmt: skip
    parts = data.draw(st.lists(frame | lines | st.binary(max_size=20), max_size=8))
    path = tmp_path_factory.mktemp("gnss") / "x"
    path.write_bytes(b"$" + b"".join(parts))
    log = GnssLog(path)
    try:
        frames = list(log.frames())
    except LogError:
        return
    assert log.health().frames == len(frames) > 0
