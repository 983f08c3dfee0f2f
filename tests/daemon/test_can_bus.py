"""A CAN bus in the daemon: recorded, its speed told to the clock, unplugged and back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncline.edge.can_bus import SPEED_AGE_NS, CanBus
from syncline.edge.config import CanSection, load_edge_config
from syncline.edge.records import Output
from syncline.errors import ConfigError, DeviceError, LogError
from syncline.messages import syncline_pb2 as pb
from syncline.sensors.adapter import Sample
from syncline.sensors.adapters.can import CanFrame
from syncline.sensors.adapters.reopening import Reopening
from syncline.sensors.frame import FrameEvent, Stamp
from syncline.timebase import Clock, ManualClock

DBC = """VERSION ""
NS_ :
BS_:
BU_: ECU
BO_ 256 WHEELS: 8 ECU
 SG_ SPEED : 0|16@1+ (0.01,0) [0|655] "km/h" Vector__XXX
"""
EDGE = """[device]
name = "car"
data = "x"
[[camera]]
name = "front"
kind = "synthetic"
"""


def frame(
    t_ns: int, kmh: float = 36.0, *, identifier: int = 256, error: bool = False
) -> Sample[CanFrame]:
    data = round(kmh * 100).to_bytes(2, "little") + bytes(6)
    stamp = Stamp(t_ns, Clock.MONOTONIC_RAW, FrameEvent.ARRIVAL)
    return Sample("can0", None, None, stamp, CanFrame(identifier, False, data, error=error))


class Bus(Reopening[Sample[CanFrame]]):
    """Gives what the test puts in; goes away at each error, and is silent after the last item."""

    def __init__(self, *items: Sample[CanFrame] | DeviceError) -> None:
        super().__init__(None)
        self.items = list(items)
        self.held = False
        self.empty = threading.Event()

    def _open(self) -> None:
        self.held = True

    @property
    def _is_open(self) -> bool:
        return self.held

    def _some(self) -> Iterator[Sample[CanFrame]]:
        item = self.items.pop(0) if self.items else None
        if item is None:
            self.empty.set()
            self._closed.wait(0.001)
        elif isinstance(item, DeviceError):
            self._lose(item.message)
        else:
            yield item

    def _release(self) -> None:
        self.held = False


@pytest.fixture
def database(tmp_path: Path) -> Path:
    file = tmp_path / "vehicle.dbc"
    file.write_text(DBC)
    return file


def played(
    section: CanSection, clock: ManualClock, *items: Sample[CanFrame]
) -> tuple[CanBus, list[Output]]:
    out: list[Output] = []
    source = Bus(*items)
    bus = CanBus(section, clock, out.extend, source)
    bus.thread.start()
    assert source.empty.wait(5.0)
    bus.thread.close()
    return bus, out


def test_frames_are_recorded_and_speed_is_told_in_metres_per_second(database: Path) -> None:
    clock = ManualClock(10_000_000_000, "boot")
    section = CanSection(
        name="body", interface="can0", database=str(database), speed="WHEELS.SPEED"
    )
    bus, out = played(
        section,
        clock,
        frame(9_900_000_000),
        frame(9_950_000_000, identifier=7),
        frame(1, error=True),
    )
    assert [(o.topic, o.raw_ns, o.message.can_id) for o in out] == [  # type: ignore[union-attr]
        ("/can/body", 9_900_000_000, 256),
        ("/can/body", 9_950_000_000, 7),
    ]
    assert bus.speed_mps() == pytest.approx(10.0)
    clock.advance(SPEED_AGE_NS)
    assert bus.speed_mps() is None
    message = pb.Health()
    bus.add_to(message)
    assert message.counters["can.body.frames"] == 3
    assert message.counters["can.body.errors"] == 1


def test_recording_can_be_left_off_and_speed_unasked() -> None:
    section = CanSection(name="body", interface="can0", record=False)
    bus, out = played(section, ManualClock(10), frame(9))
    assert out == []
    assert bus.speed_mps() is None


def test_an_unplugged_bus_is_said_and_opened_again(caplog: pytest.LogCaptureFixture) -> None:
    source = Bus(frame(1), DeviceError("CAN interface can0: Network is down"), frame(2))
    seen: list[Output] = []
    bus = CanBus(CanSection(name="b", interface="can0"), ManualClock(5), seen.extend, source)
    bus.thread.start()
    assert source.empty.wait(5.0)
    message = pb.Health()
    bus.add_to(message)
    assert (message.counters["can.b.frames"], message.counters["can.b.reconnects"]) == (2, 1)
    assert bus.thread.trouble == ""
    bus.thread.close()
    assert [o.raw_ns for o in seen] == [1, 2]
    assert not source.held
    assert [r.getMessage() for r in caplog.records if r.levelname == "ERROR"] == [
        "gone: CAN interface can0: Network is down"
    ]


@pytest.mark.parametrize("driver", ["", "virtual", "nonsense"])
def test_an_absent_interface_is_a_line_and_the_rest_goes_on(
    driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if driver:
        can = pytest.importorskip("can")
        if driver == "virtual":
            monkeypatch.setattr(can, "Bus", lambda **_: 1 / 0)
    section = CanSection(name="b", interface="nocan7", driver=driver)
    bus = CanBus(section, ManualClock(5), lambda _: None)
    bus.thread.start()
    deadline = time.monotonic() + 5.0
    while not bus.thread.trouble and time.monotonic() < deadline:
        time.sleep(0.01)
    trouble = bus.thread.trouble
    bus.thread.close()
    assert "nocan7" in trouble
    assert trouble.startswith("absent: ") or driver == "nonsense"


@pytest.mark.parametrize(
    ("speed", "text", "error"),
    [("WHEELS.NOPE", DBC, ConfigError), ("WHEELS.SPEED", "not a database", LogError)],
)
def test_a_database_without_the_signal_is_refused(
    tmp_path: Path, speed: str, text: str, error: type[Exception]
) -> None:
    file = tmp_path / "v.dbc"
    file.write_text(text)
    section = CanSection(name="b", interface="can0", database=str(file), speed=speed)
    with pytest.raises(error, match=r"v\.dbc"):
        CanBus(section, ManualClock(5), lambda _: None)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('[[can]]\nname = "a"\ninterface = "can0"\nspeed = "SPEED"\n', "MESSAGE.SIGNAL"),
        ('[[can]]\nname = "a"\ninterface = "can0"\nspeed = "A.B"\n', "database"),
        ('[[can]]\nname = "a"\ninterface = "can0"\n' * 2, "share a name"),
        ('[[can]]\nname = "a"\ninterface = "/dev/serial/by-id/can"\n', "Set driver"),
        ('[[can]]\nname = "a"\ninterface = "can0"\nbitrate = 500000\n', "Set driver"),
        (
            '[[can]]\nname = "a"\ninterface = "can0"\nspeed = "A.B"\ndatabase = "x"\n'
            '[[can]]\nname = "b"\ninterface = "can1"\nspeed = "A.B"\ndatabase = "x"\n',
            "more than one",
        ),
    ],
)
def test_sections_that_contradict_are_refused(tmp_path: Path, text: str, match: str) -> None:
    file = tmp_path / "edge.toml"
    file.write_text(EDGE + text)
    with pytest.raises(ConfigError, match=match):
        load_edge_config(file)
