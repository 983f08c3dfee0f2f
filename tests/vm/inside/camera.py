"""The kernel's virtual camera (vivid) through the V4L2 adapter, with all that it can do wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from syncline.errors import SynclineError
from syncline.sensors.adapters.v4l2 import V4l2Camera
from syncline.sensors.adapters.v4l2_layer import Captured, CaptureDevice, Wanted, open_linuxpy
from syncline.sensors.frame import RawFrame
from tests.vm.guest import load_module
from tests.vm.inside.setter import raw_ns

NODE, HDMI, PLANES = "/dev/video0", "/dev/video1", "/dev/video2"
DRIVER = Path("/sys/bus/platform/drivers/vivid")
PARAMETERS = "n_devs=3 node_types=0x1,0x1,0x1 num_inputs=1,1,1 input_types=0,3,0 multiplanar=1,1,2"
"""A webcam, an HDMI input, which has a crop, and a webcam whose pictures come in planes."""


class Noted:
    """The real device; keeps what the driver handed over."""

    def __init__(self, wanted: Wanted, kept: list[Captured]) -> None:
        self._device: CaptureDevice = open_linuxpy(wanted)
        self._kept = kept
        self.layout, self.controls = self._device.layout, self._device.controls
        self.close = self._device.close

    def read(self, timeout_s: float) -> Captured | None:
        found = self._device.read(timeout_s)
        if found is not None:
            self._kept.append(found)
        return found


class Turn:
    """One opened camera with everything it gave."""

    def __init__(
        self, fps: float = 10.0, width: int = 320, height: int = 180, node: str = NODE
    ) -> None:
        self.captured: list[Captured] = []
        self.frames: list[RawFrame] = []
        self.states: list[str] = []
        self.camera = V4l2Camera(
            Wanted(node, width, height, fps), open_device=lambda w: Noted(w, self.captured)
        )

    def take(self, count: int, each: Callable[[int], None] = lambda _: None) -> Turn:
        self.camera.open()
        self.mode = self.camera.mode
        end = raw_ns() + 60_000_000_000
        for frame in self.camera.frames():
            self.frames.append(frame)
            each(len(self.frames))
            if len(self.frames) >= count or raw_ns() > end:
                self.camera.close()
        return self

    def told(self) -> dict[str, Any]:
        health = self.camera.health()
        return {
            "frames": [
                {
                    "sequence": f.sequence,
                    "event": f.driver.event.name,
                    "age_ns": f.arrival.t_ns - f.driver.t_ns,
                    "sigma_ns": f.driver.sigma_ns,
                    "arrival_ns": f.arrival.t_ns,
                    "bias_ns": f.driver.bias_ns,
                    "shape": list(f.payload.shape) if f.payload is not None else [],  # type: ignore[attr-defined]
                }
                for f in self.frames
                if f.driver is not None
            ],
            "captured": [
                (c.sequence, c.flags, c.seconds, c.useconds, len(c.data), len(c.controls))
                for c in self.captured
            ],
            "health": {
                "frames": health.frames, "dropped": health.dropped, "errors": health.errors,
                "duplicates": health.duplicates, "reconnects": health.reconnects,
                "detail": health.detail,
            },
        }  # fmt: skip


def press(name: str, value: int = 1) -> None:
    """Set a control of the device, as another program would."""
    from linuxpy.video.device import Device

    with Device(NODE) as device:
        len(device.controls)
        control = next(c for c in device.controls.values() if c.config_name == name)
        if hasattr(control, "push"):
            control.push()
        else:
            control.value = value


def wait_for_node() -> None:
    for _ in range(100):
        if Path(NODE).exists():
            return
        time.sleep(0.05)
    raise FileNotFoundError(NODE)


def replug(after_s: float) -> None:
    """Gone, and back after a while (the driver is bound anew)."""
    (DRIVER / "unbind").write_text("vivid.0", encoding="ascii")
    time.sleep(after_s)
    (DRIVER / "bind").write_text("vivid.0", encoding="ascii")
    wait_for_node()


def plain() -> dict[str, Any]:
    return Turn().take(12).told()


def start_of_exposure() -> dict[str, Any]:
    press("timestamp_source", 1)
    try:
        return Turn().take(12).told()
    finally:
        press("timestamp_source", 0)


def wrapped_stamps() -> dict[str, Any]:
    press("wrap_timestamp", 1)
    try:
        return Turn().take(8).told()
    finally:
        press("wrap_timestamp", 0)


def wrapped_sequence() -> dict[str, Any]:
    press("timestamp_source", 1)
    press("wrap_sequence_number", 1)
    try:
        return Turn(fps=30.0).take(160).told()
    finally:
        press("wrap_sequence_number", 0)


def dropped() -> dict[str, Any]:
    press("percentage_of_dropped_buffers", 30)
    try:
        return Turn().take(40).told()
    finally:
        press("percentage_of_dropped_buffers", 0)


def faults() -> dict[str, Any]:
    """A damaged buffer at the 5th frame, a fatal error of the stream at the 10th."""
    presses = {5: "inject_v4l2_buf_flag_error", 10: "inject_fatal_streaming_error"}
    return Turn().take(16, lambda n: press(presses[n]) if n in presses else None).told()


def refused() -> list[str]:
    """The driver refuses to start; the next try succeeds."""
    found = []
    for name in ("inject_vidioc_streamon_error", "inject_vidioc_reqbufs_error"):
        press(name)
        try:
            Turn().take(1)
            found.append("opened")
        except SynclineError as error:
            found.append(error.message)
        found.append(f"then {len(Turn().take(2).frames)} frames")
    return found


def busy() -> str:
    """A second program wants the same camera."""
    first = Turn()
    told = ""

    def second(count: int) -> None:
        nonlocal told
        if count == 2:
            try:
                Turn().take(1)
            except SynclineError as error:
                told = error.message

    first.take(4, second)
    return told


def unplugged() -> dict[str, Any]:
    """Disconnected in use, away for 3 s, and back."""
    import threading

    threads: list[threading.Thread] = []

    def each(count: int) -> None:
        if count == 10:
            threads.append(threading.Thread(target=replug, args=(3.0,)))
            threads[0].start()

    turn = Turn().take(16, each)
    threads[0].join()
    return turn.told()


def hdmi() -> dict[str, Any]:
    """An input with a crop rectangle."""
    device = open_linuxpy(Wanted(HDMI))
    try:
        layout = device.layout()
        got = device.read(20.0)
        return {
            "fourcc": layout.fourcc, "size": (layout.width, layout.height), "crop": layout.crop,
            "stride": layout.stride, "bytes": len(got.data) if got else 0,
        }  # fmt: skip
    finally:
        device.close()


def planes() -> str:
    """A device of the multi-planar interface."""
    try:
        Turn(node=PLANES).take(1)
    except SynclineError as error:
        return str(error)
    return "opened"


def doctor() -> dict[str, str]:
    """What `syncline doctor` says of the nodes that are there."""
    from syncline.cli.doctor_checks import Machine, cameras

    return {row.what: f"{row.state}: {row.detail}" for row in cameras(Machine(Path("/run")))}


def main(arguments: list[str]) -> dict[str, Any]:
    load_module("vivid", PARAMETERS)
    wait_for_node()
    parts = (
        plain, hdmi, planes, start_of_exposure, wrapped_stamps, dropped, faults, refused, busy,
        unplugged, wrapped_sequence, doctor,
    )  # fmt: skip
    found = {}
    for part in parts:
        if not arguments or part.__name__ in arguments:
            began = time.monotonic()
            found[part.__name__] = part()
            print(part.__name__, round(time.monotonic() - began, 1), "s", flush=True)
    return found
