"""Real receiver logs with garbage dates, rollovers, back-steps: no false time comes out."""

from __future__ import annotations

import functools
import io
import operator
from pathlib import Path

import pynmeagps
import pytest
import pyubx2
from hypothesis import given
from hypothesis import strategies as st

from syncline.sync.floor import (
    BUILD_UTC_NS,
    NEAR_FLOOR_NS,
    ROLLOVER_NS,
    Floor,
    iso,
    utc_from_civil_ns,
)
from syncline.sync.sources.gnss_stream import GnssStream
from syncline.sync.sources.nmea import NmeaEpochs, NmeaReader
from syncline.sync.sources.ubx import UbxEpochs, UbxReader, frame_bytes
from syncline.timebase import TimeState
from tests.sync_os.gnss_replay import S, logs, pieces, plan, replay

EARLY = Floor(build_utc_ns=utc_from_civil_ns(2005, 1, 1, 0))


def _path(shared: Path, name: str) -> Path:
    return next(path for path in logs(shared / "gnss") if path.name == name)


def test_sync_25_every_log_publishes_no_false_time(shared_data: Path) -> None:
    """sync-24, 25, 26, 27: what is published lies within its bound of a line the receiver held
    with a fix; garbage dates without a fix, back-steps and wrong epochs never get through."""
    published = {}
    for path in logs(shared_data / "gnss"):
        parts = pieces(path)
        made = plan(parts)
        done = replay(parts, made, EARLY)
        for raw_ns, segment in done.segments:
            if segment.state is TimeState.COLD:
                continue
            claims = [claim for since, claim in made.claims if since <= raw_ns]
            errors = [abs(segment.utc_ns(raw_ns) - raw_ns - claim) for claim in claims]
            assert errors, f"{path.name}: published before any fix"
            assert min(errors) <= segment.bound_ns(raw_ns), f"{path.name}: {min(errors)} ns off"
            assert EARLY.admits(segment.utc_ns(raw_ns))
        published[path.name] = len(done.segments)
    assert len(published) >= 32
    assert sum(1 for count in published.values() if count) >= 15
    for name in ("gp-320fw-2019-04-07-coldboot.log", "tn200-all.log", "april6_2019.log"):
        assert published[name] == 0, name


def test_old_logs_under_todays_floor_are_refused_or_one_epoch_ahead(shared_data: Path) -> None:
    """sync-24: a live receiver that says 2009 today is not believed; only a date that one GPS epoch
    puts within 400 days after the floor may be a rollover."""
    floor = Floor()
    for path in logs(shared_data / "gnss"):
        parts = pieces(path)
        made = plan(parts)
        for raw_ns, segment in replay(parts, made, floor).segments:
            utc_ns = segment.utc_ns(raw_ns)
            if floor.utc_ns <= utc_ns <= floor.utc_ns + NEAR_FLOOR_NS + 86_400 * S:
                continue
            pytest.fail(f"{path.name}: {iso(utc_ns)} was published")


def test_sync_25_telit_rollover_is_undone_whatever_the_host_clock(shared_data: Path) -> None:
    """sync-25: the Telit HE910 said 1999-08-22; with a floor of its March 2019 it is 2019-04-07,
    doubly stale it still is, and the host's clock is nowhere asked."""
    text = _path(shared_data, "april6_2019.log").read_bytes()
    line = next(x for x in text.split(b"\n") if b"000231.42" in x)
    floor = Floor(build_utc_ns=utc_from_civil_ns(2018, 12, 1, 0)).with_saved(
        utc_from_civil_ns(2019, 3, 14, 0)
    )
    stream = GnssStream("telit", floor, trust_leap=True)
    got = []
    for second in range(6):
        body = line.strip()[1:-3].replace(b"000231.42", b"0002%02d.42" % (31 + second))
        check = 0
        for byte in body:
            check ^= byte
        got += stream.feed(b"$%s*%02X\r\n" % (body, check), (10 + second) * S)
    assert [iso(m.utc_ns)[:19] for m in got] == [f"2019-04-07T00:02:{33 + i}" for i in range(4)]
    base = got[0].utc_ns
    for stale in (base - ROLLOVER_NS, base - 2 * ROLLOVER_NS, base):
        from syncline.sync.floor import snap_epoch

        assert snap_epoch(stale, floor)[0] == base


def test_sync_27_a_first_lock_52_minutes_wrong(shared_data: Path) -> None:
    """sync-27: bt451 jumps back 52 min in the middle: the first line is kept, the other refused."""
    parts = pieces(_path(shared_data, "bt451.log"))
    made = plan(parts)
    assert len(made.claims) == 2
    done = replay(parts, made, EARLY)
    first = made.claims[0][1]
    raw_ns, last = done.segments[-1]
    assert abs(last.utc_ns(raw_ns) - raw_ns - first) <= last.bound_ns(raw_ns)
    assert done.gate.tally.counts["time jumped"] >= 1


def test_sentences_agree_with_pynmeagps(shared_data: Path) -> None:
    """Our date, time and status of RMC equal pynmeagps's on every log."""
    compared = 0
    for path in logs(shared_data / "gnss"):
        reader, epochs = NmeaReader(), NmeaEpochs()
        for part in pieces(path):
            for sentence in reader.feed(part, 0):
                if sentence.kind != "RMC":
                    continue
                body = f"{sentence.talker}RMC,{','.join(sentence.fields)}".encode()
                text = b"$%s*%02X\r\n" % (body, functools.reduce(operator.xor, body))
                ours = epochs.take(sentence)
                try:
                    theirs = pynmeagps.NMEAReader.parse(text, validate=0)
                except Exception:
                    continue
                if ours is None or theirs is None or not theirs.date or not theirs.time:
                    continue
                theirs_text = f"{theirs.date.isoformat()}T{theirs.time.isoformat()[:8]}"
                assert iso(ours.utc_ns)[2:19] == theirs_text[2:]
                assert (theirs.status == "A") or ours.fix_mode == 0
                compared += 1
    assert compared > 1000


def test_frames_agree_with_pyubx2(shared_data: Path) -> None:
    """We find the same UBX frames as pyubx2, with the same NAV-PVT times."""
    for name in ("u-blox-m8t-time.log", "ublox-zed-f9p-hp.log", "ublox-neo-m8l.log"):
        data = b"".join(pieces(_path(shared_data, name)))
        ours = [(f.kind, f.payload) for f in UbxReader().feed(data, 0)]
        theirs = []
        stream = pyubx2.UBXReader(io.BytesIO(data), protfilter=2, quitonerror=0, validate=1)
        for raw, message in stream:
            if message is not None and raw[:2] == b"\xb5\x62":
                theirs.append((raw[2] << 8 | raw[3], raw[6:-2]))
        assert len(ours) >= len(theirs) > 100
        assert set(theirs) <= set(ours)


def test_ubx_time_pulse_jamming_and_leap_seconds(shared_data: Path) -> None:
    """TIM-TP, MON-HW, NAV-TIMELS and NAV-SVINFO of real receivers are read."""
    m8t = GnssStream("m8t", EARLY)
    for part in pieces(_path(shared_data, "u-blox-m8t-time.log")):
        m8t.feed(part, 0)
    pulse = m8t.pulse_ahead()
    assert pulse is not None
    assert pulse.utc_ns % S == 0
    assert iso(pulse.utc_ns).startswith("2021-02-23T18:0")
    assert abs(pulse.quantisation_ps) < 50_000
    navisys = GnssStream("gr701w", EARLY)
    for part in pieces(_path(shared_data, "navisys-gr701w.log")):
        navisys.feed(part, 0)
    sky = navisys.signals()
    assert sky is not None
    assert sky.jamming is not None
    assert 0 < sky.jamming < 0.3
    assert sky.cn0_dbhz is not None


@given(data=st.binary(max_size=400), cut=st.integers(1, 50))
def test_any_bytes_are_read_without_exception(data: bytes, cut: int) -> None:
    stream = GnssStream("fuzz", Floor())
    mixed = b"$GPRMC," + data + b"*00\r\n\xb5\x62\x01\x07" + data
    for at in range(0, len(mixed), cut):
        stream.feed(mixed[at : at + cut], at)


@given(payload=st.binary(max_size=120), known=st.booleans())
def test_any_ubx_payload_is_read_without_exception(payload: bytes, known: bool) -> None:
    ubx = UbxEpochs(Floor())
    ubx._leap_s = 18 if known else None
    for kind in ubx._handlers:
        (frame,) = UbxReader().feed(frame_bytes(kind, payload), 0)
        epoch = ubx.take(frame)
        assert epoch is None or epoch.utc_ns < 2**63


def test_flipped_bytes_of_a_log_never_make_a_false_time(shared_data: Path) -> None:
    import random

    rng = random.Random(3)
    parts = pieces(_path(shared_data, "quectel-eg25-g.log"))
    made = plan(parts)
    broken = []
    for part in parts:
        wire = bytearray(part)
        if rng.random() < 0.3:
            wire[rng.randrange(len(wire))] ^= 1 << rng.randrange(8)
        broken.append(bytes(wire))
    done = replay(broken, made, EARLY)
    assert done.segments
    for raw_ns, segment in done.segments:
        error = abs(segment.utc_ns(raw_ns) - raw_ns - made.claims[0][1])
        assert error <= segment.bound_ns(raw_ns)


def test_build_date_is_the_first_of_a_month() -> None:
    assert iso(BUILD_UTC_NS) == "2026-11-01T00:00:00.000000000Z"
