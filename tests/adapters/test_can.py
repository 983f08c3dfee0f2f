"""CAN: kernel stamps, candump and MF4 logs of real cars, decoded and bounded."""

from __future__ import annotations

import csv
import errno
import itertools
import socket
import struct
import sys
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncline.errors import DeviceError, LogError, UsageError
from syncline.sensors.adapter import HealthState, Sample
from syncline.sensors.adapters.can import CandumpLog, CanFrame, parse_candump
from syncline.sensors.adapters.can_decoder import CanDecoder
from syncline.sensors.adapters.kernel_stamps import KernelStamps
from syncline.sensors.adapters.mf4_log import Mf4Log
from syncline.sensors.adapters.socket_can import (
    READ_S,
    SO_RXQ_OVFL,
    SO_TIMESTAMPNS,
    SocketCan,
    open_can_socket,
)
from syncline.timebase import Clock, ManualClock, PairedRead

RAW_NS, REAL_NS = 5_000_000_000, 1_700_000_000_123_456_789


def pair(clock: Clock) -> PairedRead:
    return PairedRead(RAW_NS, {Clock.REALTIME: REAL_NS, Clock.BOOTTIME: RAW_NS + 7}[clock], 100)


def stamp(t_ns: int) -> tuple[int, int, bytes]:
    return socket.SOL_SOCKET, SO_TIMESTAMPNS, struct.pack("=qq", *divmod(t_ns, 1_000_000_000))


class FakeSocket:
    def __init__(self, *items: tuple[bytes, list[tuple[int, int, bytes]]] | OSError) -> None:
        self.items, self.closed = list(items), False

    def settimeout(self, value: float | None) -> None:
        assert value == READ_S

    def recvmsg(
        self, size: int, control: int
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, object]:
        item = self.items.pop(0)
        if isinstance(item, OSError):
            raise item
        return item[0], item[1], 0, None

    def close(self) -> None:
        self.closed = True


def classic(word: int, data: bytes) -> bytes:
    return struct.pack("=IB3x8s", word, len(data), data)


def heard(*sockets: list[object]) -> tuple[list[Sample[CanFrame]], SocketCan]:
    """All frames of an interface that is opened once for each list, and absent after the last."""
    waiting = [FakeSocket(*items) for items in sockets]  # type: ignore[arg-type]

    def connect(interface: str) -> FakeSocket:
        if not waiting:
            bus.close()
            raise DeviceError(f"CAN interface {interface}: No such device")
        return waiting.pop(0)

    bus = SocketCan("can0", clock=ManualClock(RAW_NS), connect=connect, pair=pair)
    return list(bus.frames()), bus


DOWN = OSError(errno.ENETDOWN, "Network is down")


def test_kernel_stamps_move_to_the_raw_clock_to_the_nanosecond() -> None:
    fd = struct.pack("=IBB2x64s", 0x8CF00400, 12, 0, bytes(range(12)))
    (first, second), _ = heard(
        [(classic(0x123, b"\1\2"), [stamp(REAL_NS - 250_001)]), (fd, [stamp(REAL_NS - 7)]), DOWN]
    )
    assert (first.arrival.t_ns, first.arrival.clock) == (RAW_NS - 250_001, Clock.MONOTONIC_RAW)
    assert 0.0 < first.arrival.sigma_ns < 100.0
    assert first.payload == CanFrame(0x123, False, b"\1\2")
    assert second.payload == CanFrame(0xCF00400, True, bytes(range(12)))


def test_a_stamp_that_a_clock_step_made_absurd_is_replaced_and_counted() -> None:
    found, bus = heard(
        [
            (classic(1, b""), [stamp(REAL_NS + 3_600_000_000_000)]),
            (classic(1, b""), [stamp(REAL_NS - 3_600_000_000_000)]),
            (classic(1, b""), []),
            DOWN,
        ]
    )
    assert [sample.arrival.t_ns for sample in found] == [RAW_NS] * 3
    assert all(sample.arrival.sigma_ns >= 1e6 for sample in found)
    assert "3 frames timed by their reading" in bus.health().detail


class Machine:
    """REALTIME that is slewed and set while stamps wait to be read."""

    def __init__(self) -> None:
        self.raw_ns, self.stepped_ns, self.slewed_ns = RAW_NS, 0, 0

    def pair(self, clock: Clock) -> PairedRead:
        boot_ns = self.raw_ns + self.slewed_ns
        return PairedRead(
            self.raw_ns,
            boot_ns + (REAL_NS + self.stepped_ns if clock is Clock.REALTIME else 0),
            100,
        )

    def stamp(self) -> int:
        return self.pair(Clock.REALTIME).other_ns

    def advance(self, ns: int) -> None:
        self.raw_ns += ns
        self.slewed_ns += ns // 2000  # 500 ppm fast


STEP = st.one_of(
    st.integers(-(10**13), 10**13), st.sampled_from([10**9, -(10**9), 10**7, -(10**7), 10**5])
)


@given(
    st.lists(
        st.tuples(st.sampled_from(["frame", "read", "step"]), st.integers(0, 3 * 10**8), STEP),
        max_size=60,
    )
)
def test_whoever_sets_the_clock_frames_keep_their_times(
    acts: list[tuple[str, int, int]],
) -> None:
    """Frames queue, the clock is set, frames are read: each time is true or says how unsure it is.

    One step at most lies between two reads: of more, the sum would be known alone.
    """
    machine = Machine()
    stamps = KernelStamps(machine.pair)
    queue: deque[tuple[int, int]] = deque()
    unread_steps = 0
    for what, wait_ns, size_ns in acts:
        machine.advance(wait_ns)
        if what == "frame":
            queue.append((machine.raw_ns, machine.stamp()))
        elif what == "step" and not unread_steps:
            machine.stepped_ns += size_ns
            unread_steps = 1
        elif queue:
            raw_ns, real_ns = queue.popleft()
            found = stamps.convert(real_ns)
            unread_steps = 0
            if machine.raw_ns - raw_ns > 9 * 10**9:
                continue
            assert found is not None
            slew_ns = (machine.raw_ns - raw_ns) // 1900 + 1000
            assert abs(found[0] - raw_ns) <= found[1] + slew_ns


def test_a_step_between_stamp_and_reading_is_taken_out_to_the_nanosecond() -> None:
    machine = Machine()
    stamps = KernelStamps(machine.pair)
    for size_ns in (3_600_000_000_000, -3_600_000_000_000, 10**9, -(10**9), 10**7, -(10**7)):
        machine.raw_ns += 10**6
        raw_ns, real_ns = machine.raw_ns, machine.stamp()
        machine.raw_ns += 10**6
        machine.stepped_ns += size_ns
        found = stamps.convert(real_ns)
        assert found is not None
        assert found[0] == raw_ns
        assert found[1] < 100


def test_losses_of_the_kernel_are_counted_over_reopening() -> None:
    def counted(count: int) -> tuple[bytes, list[tuple[int, int, bytes]]]:
        told = socket.SOL_SOCKET, SO_RXQ_OVFL, struct.pack("=I", count)
        return classic(1, b""), [stamp(REAL_NS), told]

    found, bus = heard([counted(3), counted(5), DOWN], [counted(2), DOWN])
    health = bus.health()
    assert (len(found), health.frames, health.dropped, health.reconnects) == (3, 3, 7, 1)


def test_silence_nonsense_and_unplugging() -> None:
    nonsense: list[Any] = [(b"short", []), (struct.pack("=IB3x8s", 1, 200, b""), [])]
    states = []

    class Watched(FakeSocket):
        def recvmsg(self, size: int, control: int) -> tuple[bytes, list[Any], int, object]:
            states.append((bus.health().state, bus.health().detail))
            return super().recvmsg(size, control)

    sockets: list[Any] = [
        Watched(TimeoutError(), *nonsense, DOWN),
        DeviceError("CAN interface can0: No such device"),
        Watched((classic(1, b""), [stamp(REAL_NS)]), DOWN),
    ]

    def connect(_: str) -> FakeSocket:
        states.append((bus.health().state, bus.health().detail))
        step = sockets.pop(0)
        if isinstance(step, DeviceError):
            raise step
        assert isinstance(step, Watched)
        return step

    bus = SocketCan("can0", "body", clock=ManualClock(0), connect=connect, pair=pair)
    frames = bus.frames()
    assert next(frames).sensor == "body"
    health = bus.health()
    assert (health.frames, health.errors, health.reconnects) == (1, 2, 1)
    assert [state for state, _ in states] == [
        HealthState.CLOSED,
        *[HealthState.OK] * 4,  # a silent bus is in order
        *[HealthState.GONE] * 2,
        HealthState.OK,
    ]
    assert [detail for _, detail in states[5:7]] == [
        "CAN interface can0: Network is down", "CAN interface can0: No such device",
    ]  # fmt: skip


def test_an_absent_interface_is_a_typed_error() -> None:
    with pytest.raises(DeviceError, match="CAN interface nocan0"):
        open_can_socket("nocan0")


def test_candump_lines() -> None:
    frame = parse_candump("(1436509052.249713) vcan0 12345678#DEADBEEF\n")
    assert frame is not None
    assert frame.arrival.t_ns == 1_436_509_052_249_713_000
    assert frame.arrival.bias_ns == (0, 999)  # candump cuts off what is below a microsecond
    assert (frame.sensor, frame.payload.id, frame.payload.extended) == ("vcan0", 0x12345678, True)
    assert frame.payload.data.hex() == "deadbeef"
    fd = parse_candump("(1.000000001) can1 7FF##1" + "00" * 64)
    assert fd is not None
    assert (fd.arrival.t_ns, len(fd.payload.data)) == (1_000_000_001, 64)
    remote = parse_candump("(1.0) can1 001#R")
    assert remote is not None
    assert remote.payload.remote
    for bad in ("", "(x) can0 1#", "(1.0) can0 123#ABC", "(1.0) can0 123#" + "00" * 65):
        assert parse_candump(bad) is None


def test_a_damaged_candump_log_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"(1.5) can0 123#00\n\xff\xfe\n" + b"A" * 3000 + b"\n(2.5) can0 123#01\n")
    log = CandumpLog(path)
    assert [sample.payload.data for sample in log.frames()] == [b"\0", b"\1"]
    assert log.health().errors > 0
    path.write_bytes(b"nothing\n")
    with pytest.raises(LogError, match="none of 1 lines"):
        list(CandumpLog(path).frames())


@pytest.fixture
def canmod(shared_data: Path) -> Path:
    pytest.importorskip("asammdf")
    pytest.importorskip("cantools")
    return shared_data / "drive_logs" / "canmod_gps_164"


def test_mf4_times_and_signals_are_those_of_an_independent_decoding(canmod: Path) -> None:
    """Logger time and GPS epoch of each second agree with the table that lies beside the log."""
    decoder = CanDecoder(canmod / "canmod-gps.dbc")
    got: dict[int, int] = {}
    for sample in itertools.islice(Mf4Log(canmod / "00000001-60FE3F04.MF4").frames(), 40_000):
        if sample.payload.id != 2:
            continue
        decoded = decoder.decode(sample.payload)
        assert decoded is not None
        name, signals = decoded
        assert name == "gnss_time"
        got[round(float(signals["Epoch"]) * 1e3)] = sample.arrival.t_ns
    with (canmod / "derived_gnss_1hz.csv").open() as file:
        rows = list(csv.DictReader(file))
    away_ns = [
        got[key] - round(float(row["logger_unix_s"]) * 1e6) * 1000
        for row in rows
        if (key := round(float(row["gps_epoch_unix_s"]) * 1e3)) in got
    ]
    assert len(away_ns) > 100
    assert np.abs(away_ns).max() <= 10_000  # the table has 10 us digits
    assert decoder.errors == 0


def test_j1939_messages_match_by_group_whoever_sends_them(shared_data: Path) -> None:
    pytest.importorskip("asammdf")
    folder = shared_data / "drive_logs" / "css_can"
    decoder = CanDecoder(folder / "CSS-Electronics-SAE-J1939-DEMO.dbc")
    speeds = []
    for sample in Mf4Log(folder / "FCBF0606_00000001-60B621D9.MF4").frames():
        decoded = decoder.decode(sample.payload)
        if decoded and decoded[0] == "EEC1":
            speeds.append(float(decoded[1]["EngineSpeed"]))
    assert len(speeds) == 577
    assert set(speeds) == {0.0}  # the engine is off in this recording
    assert decoder.unknown > 0


def test_short_frames_do_not_decode(canmod: Path) -> None:
    decoder = CanDecoder(canmod / "canmod-gps.dbc")
    assert decoder.decode(CanFrame(3, False, b"\1")) is None
    assert decoder.decode(CanFrame(999, False, b"\1")) is None
    assert (decoder.errors, decoder.unknown) == (1, 1)


def test_damaged_files_are_typed_errors(canmod: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.MF4"
    path.write_bytes(b"MDF     4.10" + b"\0" * 100)
    with pytest.raises(LogError, match="cannot read"):
        list(Mf4Log(path).frames())
    path.write_text("BO_ nonsense")
    with pytest.raises(LogError, match="cannot read CAN database"):
        CanDecoder(path)


@pytest.mark.parametrize("module", ["asammdf", "cantools"])
def test_a_missing_library_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"needs {module}.*pip install 'syncline\[sensors\]'"):
        list(Mf4Log(tmp_path / "x").frames()) if module == "asammdf" else CanDecoder(tmp_path)
