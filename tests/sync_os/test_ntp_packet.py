"""NTP packets: eras, real captures, and that nothing bad changes anything."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import ntplib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncline.errors import MessageError
from syncline.sync.floor import Floor, iso, utc_from_civil_ns
from syncline.sync.measurement import Measurement
from syncline.sync.sources.kernel_socket import Received
from syncline.sync.sources.ntp_packet import (
    NtpPacket,
    Refusal,
    decode,
    encode,
    encode_request,
    refusal,
    stamp_to_utc_ns,
    utc_ns_to_stamp,
)
from syncline.sync.sources.ntp_session import NtpOptions, NtpSession
from tests.sync_os.ntp_fakes import FLOOR, UTC0_NS, S, changed, honest

ERA1_NS = utc_from_civil_ns(2036, 2, 7, (6 * 3600 + 28 * 60 + 16) * S)


def session(floor: Floor = FLOOR) -> NtpSession:
    return NtpSession("ntp:test", NtpOptions("test"), floor)


def ask(s: NtpSession, **fields: Any) -> tuple[NtpPacket, Received]:
    """A request of `s` and the reply to it, edited."""
    packet = honest(s.request(), UTC0_NS + 10_000_000, UTC0_NS + 10_020_000)
    packet = changed(**fields)(packet)
    return packet, Received(encode(packet), 5_000_000, 15_020_000, 200)


@given(utc_ns=st.integers(1_793_491_200 * S, 1_793_491_200 * S + 120 * 365 * 86_400 * S))
def test_stamps_go_round_within_a_quarter_nanosecond(utc_ns: int) -> None:
    assert abs(stamp_to_utc_ns(utc_ns_to_stamp(utc_ns), Floor().utc_ns) - utc_ns) <= 1


@pytest.mark.parametrize("around_ns", [-S, -1, 0, 1, S, 3600 * S])
def test_sync_29_era_crossing_costs_nothing(around_ns: int) -> None:
    """sync-29: T2 and T3 on either side of 2036-02-07 06:28:16 give an offset without error."""
    assert iso(ERA1_NS) == "2036-02-07T06:28:16.000000000Z"
    assert utc_ns_to_stamp(ERA1_NS) == 0
    middle_ns = ERA1_NS + around_ns
    t2, t3 = middle_ns - 10_000, middle_ns + 10_000
    s = session(Floor())
    packet = honest(s.request(), t2, t3)
    if packet.receive == 0 or packet.transmit == 0:
        pytest.skip("the all-zero stamp means 'not set' by RFC 5905")
    measured = s.handle(Received(encode(packet), 1_000_000, 11_020_000, 200))
    assert measured is not None
    assert abs(measured.utc_ns - middle_ns) <= 1


def test_sync_29_the_pivot_is_the_floor() -> None:
    """sync-29: the same 64 bits mean 2036 or 1900+136*2 by the floor, not by the host's clock."""
    stamp = utc_ns_to_stamp(ERA1_NS + 5 * S)
    assert stamp_to_utc_ns(stamp, Floor().utc_ns) == ERA1_NS + 5 * S
    late = utc_from_civil_ns(2150, 1, 1, 0)
    assert stamp_to_utc_ns(stamp, late) == ERA1_NS + 5 * S + (1 << 32) * S


@given(data=st.binary(min_size=48, max_size=48))
def test_decoding_agrees_with_ntplib(data: bytes) -> None:
    ours = decode(data)
    theirs = ntplib.NTPPacket()
    theirs.from_data(data)
    assert (ours.leap, ours.version, ours.mode) == (theirs.leap, theirs.version, theirs.mode)
    assert (ours.stratum, ours.poll, ours.precision) == (
        theirs.stratum, struct.unpack("b", struct.pack("B", theirs.poll))[0], theirs.precision,
    )  # fmt: skip
    assert ours.root_delay_ns == pytest.approx(theirs.root_delay * 1e9, abs=1)
    assert ours.root_dispersion_ns == pytest.approx(theirs.root_dispersion * 1e9, abs=1)
    for stamp, seconds in (
        (ours.reference, theirs.ref_timestamp), (ours.origin, theirs.orig_timestamp),
        (ours.receive, theirs.recv_timestamp), (ours.transmit, theirs.tx_timestamp),
    ):  # fmt: skip
        assert stamp / 2**32 == pytest.approx(seconds, abs=1e-6)


def test_a_good_reply_is_a_measurement() -> None:
    s = session()
    _, got = ask(s)
    measured = s.handle(got)
    assert measured is not None
    assert measured.raw_ns == 10_010_000
    assert abs(measured.utc_ns - (UTC0_NS + 10_010_000)) <= 1
    assert measured.delay_ns == pytest.approx(10_000_000, abs=2)
    assert measured.root_bound_ns == pytest.approx(1_000_000, abs=20_000)
    assert s.reach == 1


BAD: dict[str, tuple[dict[str, Any], Refusal]] = {
    "stratum 0": ({"stratum": 0, "ref_id": b"INIT"}, Refusal.KISS_OTHER),
    "stratum 16": ({"stratum": 16}, Refusal.STRATUM),
    "stratum 255": ({"stratum": 255}, Refusal.STRATUM),
    "leap 3": ({"leap": 3}, Refusal.UNSYNCHRONISED),
    "root dispersion": ({"root_dispersion_ns": 4 * S}, Refusal.ROOT_DISTANCE),
    "root delay": ({"root_delay_ns": 7 * S}, Refusal.ROOT_DISTANCE),
    "mode 3": ({"mode": 3}, Refusal.MODE),
    "mode 5": ({"mode": 5}, Refusal.MODE),
    "version 1": ({"version": 1}, Refusal.VERSION),
    "origin": ({"origin": 12345}, Refusal.ORIGIN),
    "origin 0": ({"origin": 0}, Refusal.ORIGIN),
    "zero T2": ({"receive": 0}, Refusal.ZERO_STAMP),
    "zero T3": ({"transmit": 0}, Refusal.ZERO_STAMP),
    "T3 before T2": ({"transmit": utc_ns_to_stamp(UTC0_NS)}, Refusal.BACKWARDS),
}


@pytest.mark.parametrize("name", BAD)
def test_sync_33_a_bad_reply_changes_nothing(name: str) -> None:
    """sync-33: refused with its reason, and the good reply that follows is still taken."""
    fields, reason = BAD[name]
    s = session()
    good, got = ask(s)
    bad = changed(**fields)(good)
    assert s.handle(Received(encode(bad), 5_000_000, 15_020_000, 200)) is None
    assert s.tally.counts == {reason.value: 1}
    assert s.reach == 0
    if reason is not Refusal.KISS_OTHER:
        assert s.handle(got) is not None


def test_sync_33_replay_and_duplicate() -> None:
    """sync-33: the same reply twice counts once, and an old one never."""
    s = session()
    _, got = ask(s)
    assert s.handle(got) is not None
    assert s.handle(got) is None
    s.request()
    assert s.handle(got) is None
    assert s.tally.counts == {Refusal.DUPLICATE.value: 1, Refusal.ORIGIN.value: 1}


@pytest.mark.parametrize("extra_ns", [50_000, 1_000_000, 10 * S])
def test_sync_34_negative_delay_is_refused(extra_ns: int) -> None:
    """sync-34: the server claims to have held the packet longer than the exchange took."""
    s = session()
    packet = honest(s.request(), UTC0_NS, UTC0_NS + 10_000_000 + extra_ns)
    assert s.handle(Received(encode(packet), 0, 10_000_000, 200)) is None
    assert s.tally.counts == {Refusal.DELAY.value: 1}


def test_sync_34_within_resolution_it_is_taken() -> None:
    """sync-34: -300 ns with stamps of 200 ns each is noise, not a lie."""
    s = session()
    packet = honest(s.request(), UTC0_NS, UTC0_NS + 10_000_300)
    assert s.handle(Received(encode(packet), 0, 10_000_000, 200)) is not None


def test_sync_32_kiss_codes() -> None:
    """sync-32: RATE doubles the interval, DENY and RSTR drop the server, forged ones do nothing."""
    s = session()
    before_ns = session().interval_ns()
    assert before_ns == 2 * S
    packet, _ = ask(s)
    forged = changed(stratum=0, ref_id=b"DENY", origin=1)(packet)
    s.handle(Received(encode(forged), 0, 1, 200))
    assert not s.dropped
    kiss = changed(stratum=0, ref_id=b"RATE", poll=4)(packet)
    s.handle(Received(encode(kiss), 0, 1, 200))
    assert s.interval_ns() >= 2 * 16 * S
    slow_ns = s.interval_ns()
    packet, _ = ask(s)
    s.handle(Received(encode(changed(stratum=0, ref_id=b"RATE")(packet)), 0, 1, 200))
    assert s.interval_ns() >= 2 * slow_ns
    s.set_poll(4)
    assert s.interval_ns() >= 2 * slow_ns
    for code in (b"DENY", b"RSTR"):
        s = session()
        packet, _ = ask(s)
        s.handle(Received(encode(changed(stratum=0, ref_id=code)(packet)), 0, 1, 200))
        assert code.decode() in s.dropped


def test_interleaved_answers_use_the_true_sending_time() -> None:
    """RFC 9769: the second reply tells when the first one left; origin is the other cookie."""
    s = NtpSession("ntp:test", NtpOptions("test", interleaved=True), FLOOR)
    first = honest(s.request(), UTC0_NS + 10_000_000, UTC0_NS + 10_020_000)
    assert s.handle(Received(encode(first), 5_000_000, 15_040_000, 200)) is not None
    asked = decode(s.request())
    assert asked.origin == first.receive
    assert asked.receive not in (0, asked.transmit)
    late = changed(
        origin=asked.receive,
        receive=utc_ns_to_stamp(UTC0_NS + 2 * S),
        transmit=utc_ns_to_stamp(UTC0_NS + 10_040_000),
    )(first)
    measured = s.handle(Received(encode(late), 2 * S - 5_000_000, 2 * S + 5_000_000, 200))
    assert measured is not None
    assert measured.raw_ns == (5_000_000 + 15_040_000) // 2
    assert measured.delay_ns == pytest.approx(10_000_000, abs=2)
    assert abs(measured.utc_ns - (UTC0_NS + 10_020_000)) <= 1
    assert measured.arrival_raw_ns == 2 * S + 5_000_000
    again = decode(s.request())
    assert again.origin == late.receive
    basic = honest(encode_request(again.transmit), UTC0_NS + 4 * S, UTC0_NS + 4 * S + 1000)
    got = s.handle(Received(encode(basic), 4 * S - 5_000_000, 4 * S + 5_001_000, 200))
    assert got is not None
    assert got.raw_ns == 4 * S + 500
    assert s.interleaved == 1


def _fuzz(count: int, seed: int) -> int:
    rng = random.Random(seed)
    s = session()
    taken = 0
    for _ in range(count):
        good = encode(honest(s.request(), UTC0_NS, UTC0_NS + 20_000))
        wire = bytearray(good)
        kind = rng.randrange(4)
        if kind == 0:
            wire = bytearray(rng.randbytes(rng.randrange(0, 1300)))
        elif kind == 1:
            for _ in range(rng.randrange(1, 6)):
                wire[rng.randrange(len(wire))] ^= 1 << rng.randrange(8)
        elif kind == 2:
            wire = wire[: rng.randrange(48)]
        else:
            wire[:24] = rng.randbytes(24)
        t1 = rng.choice([0, 10**9, rng.randrange(2**62)])
        t4 = rng.choice([0, t1 + 10_000_000, rng.randrange(2**62)])
        measured = s.handle(Received(bytes(wire), t1, t4, 200))
        assert measured is None or isinstance(measured, Measurement)
        taken += measured is not None
    return taken


def test_sync_33_fuzzed_packets() -> None:
    """sync-33: 10 000 random, flipped and cut packets; no exception (100 000 in the soak)."""
    assert _fuzz(10_000, 1) < 10_000


@pytest.mark.soak
def test_sync_33_soak_fuzzed_packets() -> None:
    """sync-33: 100 000 fuzzed packets."""
    assert _fuzz(100_000, 2) < 100_000


def udp_payloads(path: Path) -> list[tuple[int, bytes]]:
    """(destination port, payload) of every IPv4 UDP packet of a pcap."""
    data = path.read_bytes()
    assert data[:4] == b"\xd4\xc3\xb2\xa1"
    found, at = [], 24
    while at + 16 <= len(data):
        length = struct.unpack_from("<I", data, at + 8)[0]
        frame = data[at + 16 : at + 16 + length]
        at += 16 + length
        if frame[12:14] == b"\x08\x00" and frame[23] == 17:
            start = 14 + (frame[14] & 15) * 4
            found.append((struct.unpack_from("!H", frame, start + 2)[0], frame[start + 8 :]))
    return found


def test_captured_ntp_exchanges(shared_data: Path) -> None:
    """sync-33: real captures decode; a leap-3 STEP reply is refused, a good one is taken."""
    seen: list[Refusal | None] = []
    for name in ("ntp.pcap", "ntp-time.pcap"):
        cookie: int | None = None
        for port, payload in udp_payloads(shared_data / "pcap" / name):
            packet = decode(payload)
            if port == 123:
                cookie = packet.transmit
            else:
                seen.append(refusal(packet, cookie))
                if seen[-1] is None:
                    year = iso(
                        stamp_to_utc_ns(
                            packet.transmit, Floor(UTC0_NS - 20 * 365 * 86_400 * S).utc_ns
                        )
                    )
                    assert year.startswith("2017-")
    assert Refusal.KISS_OTHER in seen
    assert None in seen


@pytest.mark.parametrize("name", ["time_2038.pcap", "time_2106.pcap", "ptp.pcap", "ptp_v2_1.pcap"])
def test_other_captures_are_refused_not_believed(shared_data: Path, name: str) -> None:
    """sync-33: packets of other protocols never become a measurement."""
    s = session()
    for _, payload in udp_payloads(shared_data / "pcap" / name):
        s.request()
        assert s.handle(Received(payload, 0, 1_000_000, 200)) is None


def test_a_request_tells_nothing_of_our_clock() -> None:
    wire = encode_request(0x1122334455667788)
    packet = decode(wire)
    assert (packet.mode, packet.version, packet.transmit) == (3, 4, 0x1122334455667788)
    assert wire[16:40] == bytes(24)
    cookies = {decode(session().request()).transmit for _ in range(100)}
    assert len(cookies) == 100


def test_length_is_checked() -> None:
    for size in (0, 1, 47, 1025):
        with pytest.raises(MessageError, match="must be 48"):
            decode(bytes(size))
