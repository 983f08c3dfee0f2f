"""A triggered camera timed by the marks of a receiver: truth, doubt, and a receiver on a line."""

from __future__ import annotations

import os
import pty
import struct
from pathlib import Path

import numpy as np
import pytest

from syncline.edge.config import CameraSection, load_edge_config
from syncline.edge.declared_timer import DeclaredTimer
from syncline.edge.marked_timer import MarkBoard, MarkedTimer
from syncline.errors import ConfigError
from syncline.messages import syncline_pb2 as pb
from syncline.sensors.adapters.ubx import frame_bytes
from syncline.sensors.frame import Exposure, FrameEvent, FrameTime, RawFrame, Stamp
from syncline.sync.sources.gnss_serial import GnssSerial
from syncline.sync.sources.gnss_stream import GnssStream
from syncline.sync.sources.ubx import TimeMark
from syncline.timebase import NS_PER_S, Clock, ManualClock
from tests.sync_os.ntp_fakes import FLOOR

PERIOD_NS, READOUT_NS, PATH_NS = 50_000_000, 10_000_000, 30_000
BOUND_NS = 5_000
RAW0_NS = 100 * NS_PER_S
UTC0_NS = 1_810_000_000 * NS_PER_S
PPM = 20
"""The raw clock is slow by this."""


def section(**more: object) -> CameraSection:
    given = {
        "name": "front", "kind": "v4l2", "path": "/dev/video0", "fps": 20.0, "anchor": "trigger",
        "readout_us": 10_000.0, "shutter": "rolling", "marks": "gnss0", "trigger_delay_us": 30.0,
        "exposure_us": (1000.0, 8000.0),
    }  # fmt: skip
    return CameraSection(**{**given, **more})  # type: ignore[arg-type]


def raw_of(utc_ns: int) -> int:
    """The truth."""
    since = utc_ns - UTC0_NS
    return RAW0_NS + since - since * PPM // 1_000_000


class Service:
    """UTC as the time service knows it: wrong, within what it says."""

    def __init__(self, error_ns: int = 3_000, bound_ns: int = BOUND_NS) -> None:
        self.error_ns, self.bound_ns = error_ns, bound_ns

    def utc(self, raw_ns: int) -> tuple[int, int] | None:
        since = raw_ns - RAW0_NS
        away = since * PPM // (1_000_000 - PPM)
        return UTC0_NS + since + away + self.error_ns, self.bound_ns


class Drive:
    """20 edges a second, of which a receiver times five; one frame of each, but for drops."""

    def __init__(self, count: int = 400, seed: int = 1, *, latency_ns: int = 4_000_000) -> None:
        rng = np.random.default_rng(seed)
        self.edges_utc_ns = [
            UTC0_NS + k * PERIOD_NS + round(jitter)
            for k, jitter in enumerate(rng.normal(0, 50, count).tolist())
        ]
        self.exposures_ns = rng.integers(1_000_000, 8_000_000, count).tolist()
        self.late_ns = rng.integers(0, latency_ns, count).tolist()
        self.kept = rng.random(count) > 0.05

    def mid_ns(self, k: int) -> int:
        half_ns: int = self.exposures_ns[k] // 2
        return raw_of(self.edges_utc_ns[k]) + PATH_NS + half_ns

    def frame(self, k: int) -> RawFrame:
        """Its driver stamps the end of readout late, by up to `latency_ns`, and does not say so."""
        end_ns = raw_of(self.edges_utc_ns[k]) + PATH_NS + self.exposures_ns[k] + READOUT_NS
        stamp = Stamp(end_ns + self.late_ns[k], Clock.MONOTONIC_RAW, FrameEvent.EOF, 1000.0)
        arrival = Stamp(stamp.t_ns + 500_000, Clock.MONOTONIC_RAW, FrameEvent.ARRIVAL)
        picture = np.zeros((48, 64, 3), np.uint8)
        exposure = Exposure(self.exposures_ns[k])
        return RawFrame("front", k, None, stamp, arrival, (exposure,), picture)

    def run(self, timer: MarkedTimer) -> dict[int, FrameTime]:
        """Marks come 0.8 s after their edge, frames at once."""
        found = {}
        for k in range(len(self.edges_utc_ns)):
            told = k - 16
            if told >= 0 and told % 4 == 0:
                timer.mark((65_000 + told) % 65_536, self.edges_utc_ns[told], 25)
            if self.kept[k]:
                found[k] = timer.stamp(self.frame(k))
        return found


def timer(service: Service, **more: object) -> MarkedTimer:
    rough = DeclaredTimer(section(**more), NS_PER_S / 20)
    fine = DeclaredTimer(section(**more), NS_PER_S / 20)
    return MarkedTimer(rough, fine, service.utc, path_ns=PATH_NS)


@pytest.mark.parametrize("seed", range(4))
def test_the_middle_is_known_to_microseconds_once_there_are_marks(seed: int) -> None:
    """Frames stamped 0 to 4 ms late: within the bound of UTC, truth inside what is claimed."""
    drive, marked = Drive(seed=seed), timer(Service())
    found = drive.run(marked)
    assert marked.marked + marked.unmarked == len(found)
    by_edge = {k: time for k, time in found.items() if time.trigger_id is not None}
    assert len(by_edge) == marked.marked > 0.85 * len(found)
    assert min(by_edge) >= 16 + 7 * 4  # eight marks, each 0.8 s late
    for k, time in by_edge.items():
        off_ns = time.mid_ns - drive.mid_ns(k)
        assert abs(off_ns) < 4_000
        low_ns, high_ns = time.bias_ns
        assert low_ns - 3 * time.sigma_ns <= -off_ns <= high_ns + 3 * time.sigma_ns
        assert time.sigma_ns < 1_000
        assert (time.trigger_id or 0) - k == 1  # the first mark, of edge 0, is number 1
    before = [abs(time.mid_ns - drive.mid_ns(k)) for k, time in found.items() if k not in by_edge]
    assert max(before) > 1_000_000  # what the driver's stamps are worth
    assert {k: time.index for k, time in found.items()} == {k: k - min(found) for k in found}


def test_a_clock_that_is_not_sure_of_utc_leaves_the_times_as_they_are() -> None:
    """A receiver without a pulse: UTC within 0.75 s says nothing of edges 50 ms apart."""
    drive = Drive()
    for service in (Service(bound_ns=750_000_000), Service(bound_ns=20_000_000)):
        marked, declared = timer(service), DeclaredTimer(section(), NS_PER_S / 20)
        found = drive.run(marked)
        assert marked.marked == 0
        assert found == {k: declared.stamp(drive.frame(k)) for k in found}


def test_a_camera_whose_own_stamps_do_not_tell_the_edge_is_not_matched() -> None:
    """Late by 13 to 37 ms, which is between two edges: no guess."""
    drive = Drive()
    drive.late_ns = [25_000_000] * len(drive.late_ns)
    marked = timer(Service())
    drive.run(marked)
    assert marked.marked == 0


def test_a_trigger_that_begins_anew_is_not_timed_by_the_old_line() -> None:
    drive = Drive(600)
    half = 300
    drive.edges_utc_ns[half:] = [t + 7_000_000 for t in drive.edges_utc_ns[half:]]
    marked = timer(Service())
    found = drive.run(marked)
    late = [k for k in found if k >= half + 16 + 4 * 8]
    assert all(found[k].trigger_id is not None for k in late)
    for k in late:
        assert abs(found[k].mid_ns - drive.mid_ns(k)) < 4_000
    # Until the first new mark comes, 0.8 s late, the old line stands: wrong by the jump, no more.
    between = [k for k in found if half <= k < half + 20 and found[k].trigger_id is not None]
    assert all(abs(found[k].mid_ns - drive.mid_ns(k)) < 7_010_000 for k in between)


def test_marks_come_from_a_receiver_on_a_line_to_the_cameras_that_name_it(tmp_path: Path) -> None:
    drive, service = Drive(200), Service()
    board = MarkBoard(service.utc)
    declared = DeclaredTimer(section(), NS_PER_S / 20)
    marked = board.timer(section(), declared)
    assert isinstance(marked, MarkedTimer)
    other = section(marks="")
    assert board.timer(other, declared) is declared
    master, slave = pty.openpty()
    link = tmp_path / "receiver"
    link.symlink_to(os.ttyname(slave))
    stream = GnssStream("gnss0", FLOOR, baud=9600, trust_leap=True)
    clock = ManualClock(RAW0_NS)
    source = GnssSerial(link, stream, clock, 9600, board.take)
    source.poll(clock.raw_ns())
    try:
        for k in range(0, 160, 4):
            os.write(master, tim_tm2(k, drive.edges_utc_ns[k]))
            source.poll(clock.raw_ns())
    finally:
        source.close()
        os.close(master)
        os.close(slave)
    board.take("gnss1", TimeMark(0, 0, True, 1, 1))  # another receiver's
    board.take("gnss0", TimeMark(0, 0, False, 160, 1))  # a falling edge
    time = marked.stamp(drive.frame(165))
    assert time.trigger_id is not None
    assert abs(time.mid_ns - drive.mid_ns(165)) < 4_000
    message = pb.Health()
    board.add_to(message)
    assert dict(message.counters) == {"camera.front.marked": 1, "camera.front.unmarked": 0}


def tim_tm2(count: int, utc_ns: int) -> bytes:
    """A rising edge in UTC (time base 2)."""
    since_ns = utc_ns - 315_964_800 * NS_PER_S
    week, tow_ns = divmod(since_ns, 7 * 86_400 * NS_PER_S)
    ms, ns = divmod(tow_ns, 1_000_000)
    payload = struct.pack("<BBHHH5I", 0, 0xC0 | 2 << 3, count, week, week, ms, ns, 0, 0, 25)
    return frame_bytes(0x0D03, payload)


@pytest.mark.parametrize(
    ("camera", "time", "match"),
    [
        ('anchor = "trigger"', 'device = "/dev/ttyACM0"', ""),
        ('anchor = "readout"', 'device = "/dev/ttyACM0"', "anchor 'readout'"),
        ('anchor = "trigger"', 'gpsd = "127.0.0.1:2947"', "gpsd does not tell the marks"),
        ('anchor = "trigger"', 'name = "roof"\ndevice = "/dev/ttyACM0"', "no \\[\\[time.gnss"),
    ],
)
def test_marks_need_a_trigger_and_a_receiver_of_ours(
    tmp_path: Path, camera: str, time: str, match: str
) -> None:
    file = tmp_path / "edge.toml"
    file.write_text(
        f'[device]\nname = "car"\ndata = "x"\n[[camera]]\nname = "front"\nkind = "v4l2"\n'
        f'path = "/dev/video0"\nmarks = "gnss0"\n{camera}\n[[time.gnss]]\n{time}\n'
    )
    if not match:
        assert load_edge_config(file).camera[0].marks == "gnss0"
        return
    with pytest.raises(ConfigError, match=match):
        load_edge_config(file)
