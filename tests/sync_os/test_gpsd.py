"""gpsd over a socket that breaks, lines of any bytes, its pulses."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncline.errors import MessageError
from syncline.sensors.adapters.gpsd_json import LineBuffer, decode, parse_time
from syncline.sync.floor import iso, utc_from_civil_ns
from syncline.sync.measurement import Measurement, SourceKind
from syncline.sync.sources.gnss_gate import GnssGate
from syncline.sync.sources.gpsd import Gpsd
from syncline.sync.sources.source import Health
from syncline.timebase import OsClock, PairedRead, RawClock
from tests.sync_os.ntp_fakes import FLOOR, S


class FakeGpsd:
    """A server that speaks gpsd's protocol badly on purpose."""

    def __init__(self) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(2)
        self.address = ("127.0.0.1", int(self.socket.getsockname()[1]))
        self.client: socket.socket | None = None

    def accept(self) -> None:
        self.socket.settimeout(6)
        self.client, _ = self.socket.accept()

    def say(self, data: bytes) -> None:
        assert self.client is not None
        self.client.sendall(data)

    def drop(self) -> None:
        if self.client is not None:
            self.client.close()
        self.client = None

    def close(self) -> None:
        self.drop()
        self.socket.close()


@pytest.fixture
def fake_gpsd() -> Iterator[FakeGpsd]:
    made = FakeGpsd()
    yield made
    made.close()


def tpv(n: int, extra: str = "") -> bytes:
    at = iso(utc_from_civil_ns(2027, 3, 1, n * S))[:23] + "Z"
    text = f'{{"class":"TPV","device":"/dev/x","mode":3,"time":"{at}","leapseconds":18{extra}}}\n'
    return text.encode()


def until(condition: Callable[[], bool], source: Gpsd, clock: RawClock, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        source.poll(clock.raw_ns())
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_sync_44_gpsd_killed_restarted_and_half_lines(fake_gpsd: FakeGpsd) -> None:
    """sync-44: half JSON, endless lines, hang-ups: reconnect within 5 s, no exception."""
    clock = OsClock()
    gate = GnssGate("gnss0", FLOOR, trust_leap=True)
    source = Gpsd(fake_gpsd.address, gate, clock)
    threading.Thread(target=fake_gpsd.accept, daemon=True).start()
    assert until(lambda: source._connected and fake_gpsd.client is not None, source, clock, 5)
    fake_gpsd.say(b'{"class":"VERSION","release":"3.22","rev":"3.22"}\n' + tpv(1)[:30])
    until(lambda: False, source, clock, 0.1)
    fake_gpsd.say(tpv(1)[30:] + tpv(2) + b'{"class":"TPV","mode":"three"}\n[1,2]\nnull\n{"cl\n')
    assert until(lambda: source.bad_lines >= 4, source, clock, 2)
    assert gate.epochs == 2
    fake_gpsd.say(b"x" * 70_000)
    assert until(lambda: source._lines.overlong == 1, source, clock, 2)
    fake_gpsd.drop()
    assert until(lambda: not source._connected, source, clock, 2)
    assert source.health().health is Health.MISSING
    began = time.monotonic()
    threading.Thread(target=fake_gpsd.accept, daemon=True).start()
    assert until(lambda: source._connected and fake_gpsd.client is not None, source, clock, 5)
    assert time.monotonic() - began < 5
    fake_gpsd.say(tpv(3))
    assert until(lambda: gate.epochs == 3, source, clock, 2)
    source.close()


def test_sync_44_no_gpsd_at_all() -> None:
    """sync-44: nothing listens: a message with the remedy, tried again every second."""
    clock = OsClock()
    source = Gpsd(("127.0.0.1", 1), GnssGate("gnss0", FLOOR), clock)
    until(lambda: bool(source.health().message), source, clock, 2)
    assert "start gpsd" in source.health().message
    assert source.due_raw_ns() - clock.raw_ns() <= S


@pytest.mark.parametrize("leap_known", [True, False])
def test_gpsd_pulses_need_a_fix_whose_leap_seconds_are_known(
    fake_gpsd: FakeGpsd, leap_known: bool
) -> None:
    """sync-26, sync-43: no fix, no pulse; a fix without leap seconds, no pulse either."""
    clock = OsClock()
    raw0 = clock.raw_ns()
    gate = GnssGate("gnss0", FLOOR)
    utc0 = utc_from_civil_ns(2027, 3, 1, 0)
    source = Gpsd(
        fake_gpsd.address,
        gate,
        clock,
        real=lambda: PairedRead(clock.raw_ns(), utc0 + clock.raw_ns() - raw0, 100),
    )
    threading.Thread(target=fake_gpsd.accept, daemon=True).start()
    assert until(lambda: source._connected and fake_gpsd.client is not None, source, clock, 5)

    def pulse(second: int) -> None:
        now = utc0 + clock.raw_ns() - raw0
        fake_gpsd.say(
            b'{"class":"PPS","device":"/dev/x","real_sec":%d,"real_nsec":0,"clock_sec":%d,'
            b'"clock_nsec":%d,"precision":-20}\n' % (utc0 // S + second, now // S, now % S)
        )

    pulse(0)
    assert until(lambda: "pulse without an accepted fix" in gate.tally.counts, source, clock, 2)
    for n in range(1, 5):
        at = utc0 + clock.raw_ns() - raw0
        line = tpv(0).replace(b"2027-03-01T00:00:00.000Z", f"{iso(at)[:23]}Z".encode())
        fake_gpsd.say(line if leap_known else line.replace(b',"leapseconds":18', b""))
        assert until(lambda n=n: gate.epochs == n, source, clock, 2)  # type: ignore[misc]
    got: list[Measurement] = []
    pulse((clock.raw_ns() - raw0) // S)
    end = time.monotonic() + 1.0
    while time.monotonic() < end and not got:
        got += source.poll(clock.raw_ns())
        time.sleep(0.01)
    assert bool(got) == leap_known
    if got:
        assert got[0].kind is SourceKind.PPS
        assert got[0].utc_ns % S == 0
    source.close()


@given(data=st.binary(max_size=300))
def test_gpsd_lines_of_any_bytes(data: bytes) -> None:
    for line in LineBuffer().feed(data + b"\n"):
        try:
            decode(line)
        except MessageError:
            continue


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("2027-03-01T00:00:00.000Z", True),
        ("2027-02-29T00:00:00.000Z", False),
        ("2027-03-01T24:00:00.000Z", False),
        ("2027-03-01T00:00:00.000", False),
        ("", False),
        ("2027-03-01", False),
        ("99999-03-01T00:00:00Z", False),
    ],
)
def test_gpsd_times(text: str, good: bool) -> None:
    assert (parse_time(text) is not None) == good
