"""The checks of `syncline doctor` for inertial sensors, receivers and what is configured."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from syncline.cli.doctor_checks import Finding, Machine
from syncline.errors import SynclineError

if TYPE_CHECKING:
    from syncline.edge.config import CameraSection
    from syncline.sensors.adapter import SensorAdapter, Stamped
    from syncline.sensors.frame import FrameTime, RawFrame

S = TypeVar("S", bound="Stamped")

LOOK_S = 6.0
"""How long a configured camera has for its first frames."""
LOOK_FRAMES = 5

_RECEIVER_STAMP = (
    "stamp: UTC of the epoch by the receiver, the first byte's arrival by us; "
    "TIM-TM2 marks: an edge, in UTC"
)


def inertial(machine: Machine) -> Iterator[Finding]:
    """Industrial-I/O devices and what their timestamps mean."""
    from syncline.sensors.adapters.iio_sysfs import IioDevice

    area, found = "inertial sensors", False
    for device in IioDevice.all(machine.root):
        kinds = device.kinds()
        name = f"{device.folder.name} ({device.text('name') or 'unnamed'})"
        if not kinds:
            detail = "no buffered accelerometer or gyroscope"
            yield Finding(area, device.folder.name, "note", f"{name}: {detail}")
            continue
        found = True
        clock, coarse = device.timestamp_clock()
        tick = ", coarse (up to 10 ms early)" if coarse else ""
        detail = f"{name}: {' and '.join(kinds)}; stamp: the trigger, by the kernel, {clock.name}"
        if os.access(device.node, os.R_OK):
            yield Finding(area, device.folder.name, "ok", detail + tick)
        else:
            remedy = f"let this user read /dev/{device.folder.name} (udev rule)"
            yield Finding(area, device.folder.name, "warn", detail + tick, remedy)
    if not found:
        yield Finding(area, "iio", "note", "none", "load the driver of the sensor, if there is one")


def receivers(machine: Machine) -> Iterator[Finding]:
    """Serial lines that may hold a GNSS receiver, and the kernel's own receiver nodes."""
    area, found = "receivers", False
    by_id = {
        link.resolve(): link.name
        for link in sorted((machine.root / "dev/serial/by-id").glob("*"))
        if link.exists()
    }
    for pattern in ("gnss[0-9]*", "ttyACM[0-9]*", "ttyUSB[0-9]*", "ttyAMA[0-9]*"):
        for node in machine.nodes(pattern):
            found = True
            protocol = machine.text(f"sys/class/gnss/{node.name}/type")
            what = by_id.get(node.resolve()) or protocol or "serial line; a receiver, if it is one"
            if os.access(node, os.R_OK):
                yield Finding(area, f"/dev/{node.name}", "ok", f"{what}; {_RECEIVER_STAMP}")
            else:
                remedy = "sudo usermod -aG dialout $USER, then log in again"
                yield Finding(
                    area, f"/dev/{node.name}", "warn", f"{what}: not ours to read", remedy
                )
    if not found:
        detail = "no /dev/gnss*, ttyACM*, ttyUSB* or ttyAMA*"
        remedy = "plug a receiver in; its recordings are read as files"
        yield Finding(area, "serial", "note", detail, remedy)


def configured(path: Path) -> Iterator[Finding]:
    """Each camera, bus and inertial sensor, opened for a few samples: what comes, what times mean.

    Raises:
        ConfigError: The configuration is wrong.
    """
    from syncline.edge.can_bus import can_adapter
    from syncline.edge.config import load_edge_config
    from syncline.edge.vehicle import imu_adapter
    from syncline.timebase import OsClock

    config = load_edge_config(path)
    for section in config.camera:
        yield _camera(section)
    clock = OsClock()
    for bus in config.can:
        yield _sensor(f"can {bus.name}", can_adapter(bus, clock), silent="its bus may be asleep")
    for imu in config.imu:
        yield _sensor(f"imu {imu.name}", imu_adapter(imu, clock))


def _camera(section: CameraSection) -> Finding:
    from syncline.edge.cameras import make_camera
    from syncline.timebase import OsClock

    area, what = "configured cameras", section.name
    try:
        adapter, timer = make_camera(section, OsClock())
        adapter.open()
    except SynclineError as error:
        return Finding(area, what, "fail", f"{section.kind}: {error.message}", error.remedy)
    frames = _first(adapter)
    health = adapter.health()
    if not frames:
        detail = f"{section.kind}: opened, no frame within {LOOK_S:g} s; {health.detail}"
        return Finding(area, what, "fail", detail, "see that the camera delivers")
    try:
        times = [timer.stamp(frame) for frame in frames]
    except SynclineError as error:
        return Finding(area, what, "fail", f"{section.kind}: {error.message}", error.remedy)
    detail = f"{section.kind}, {meaning(frames[-1], times[-1])}"
    told = filter(None, [detail, _container(section), health.detail])
    return Finding(area, what, "ok", "; ".join(told))


def _container(section: CameraSection) -> str:
    """What a video's container or sidecar is worth."""
    if section.kind != "video":
        return ""
    from syncline.sensors.adapters.video import VideoFile

    video = VideoFile(Path(section.path))
    video.open()
    detail = video.health().detail
    video.close()
    return detail


def _sensor(what: str, adapter: SensorAdapter[S], silent: str = "") -> Finding:
    """A sensor that is no camera: what comes, what its stamps mark and how well they are known."""
    area = "configured sensors"
    try:
        adapter.open()
    except SynclineError as error:
        return Finding(area, what, "fail", error.message, error.remedy)
    samples = _first(adapter)
    told = adapter.health().detail
    if not samples:
        detail = f"opened, nothing within {LOOK_S:g} s; {silent or told}"
        return Finding(
            area, what, "warn" if silent else "fail", detail, "see that the sensor delivers"
        )
    stamp = samples[-1].driver or samples[-1].arrival
    low_ns, high_ns = stamp.bias_ns
    detail = (
        f"stamp: {_SAMPLED[stamp.event.value]}, {stamp.clock.name}; "
        f"sigma {stamp.sigma_ns / 1e6:.3f} ms, bias {low_ns / 1e6:+g}..{high_ns / 1e6:+g} ms"
    )
    return Finding(area, what, "ok", "; ".join(filter(None, [detail, told])))


def _first(adapter: SensorAdapter[S]) -> list[S]:
    """The first samples that come within `LOOK_S`; the adapter is closed."""
    found: list[S] = []

    def look() -> None:
        for sample in adapter.frames():
            found.append(sample)
            if len(found) == LOOK_FRAMES:
                return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(LOOK_S)
    adapter.close()
    thread.join(1.0)
    return found


def meaning(frame: RawFrame, timing: FrameTime, clock: str = "") -> str:
    """What a frame's stamp marks, and how well its middle of exposure is known.

    Args:
        frame: A frame of the source.
        timing: Its time.
        clock: What to call the stamp's clock; empty: by its name.
    """
    from syncline.sensors.frame import FrameEvent

    stamp = frame.driver if frame.driver is not None else frame.arrival
    if stamp.clock is not frame.arrival.clock:
        stamp = frame.arrival  # known, but not used as time
    shape = getattr(frame.payload, "shape", (0, 0))
    exposure = "exposure told" if frame.exposures else "exposure not told"
    low_ns, high_ns = timing.bias_ns
    event = "arrival" if stamp.event is FrameEvent.ARRIVAL else _EVENTS[stamp.event.value]
    return (
        f"{shape[1]}x{shape[0]}; stamp: {event}, {clock or stamp.clock.name}; {exposure}, "
        f"anchor {timing.anchor.value}; middle of exposure: sigma {timing.sigma_ns / 1e6:.3f} ms, "
        f"bias {low_ns / 1e6:+g}..{high_ns / 1e6:+g} ms"
    )


_SAMPLED = {
    "trigger": "the sampling, by the driver",
    "arrival": "reception",
}
_EVENTS = {
    "trigger": "trigger edge",
    "soe": "start of exposure",
    "sof": "start of readout",
    "eoe": "end of exposure",
    "eof": "end of readout",
    "mid": "middle of exposure",
}
