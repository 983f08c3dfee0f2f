"""The synthetic drive as a configured live camera."""

from __future__ import annotations

from syncline.edge.config import CameraSection
from syncline.sensors.adapter import SensorAdapter
from syncline.sensors.frame import FrameTime, RawFrame
from syncline.sensors.synthetic.adapter import SyntheticCamera
from syncline.sensors.synthetic.camera import CameraSpec, sensor_mode
from syncline.sensors.synthetic.drive import SyntheticDrive
from syncline.sensors.timer import FrameTimer
from syncline.timebase import RawClock

DRIVE_S = 60.0
EXPOSURE_RANGE_NS = (500_000, 18_000_000)


class _Timer:
    """The timer of a rendered camera: everything about it is known."""

    def __init__(self, spec: CameraSpec, size: tuple[int, int]) -> None:
        self._timer = FrameTimer(
            sensor_mode(*size, fps=spec.fps),
            spec.anchor,
            dma_ns=spec.dma_ns,
            exposure_range_ns=EXPOSURE_RANGE_NS,
        )

    def stamp(self, frame: RawFrame) -> FrameTime:
        """Time one frame."""
        return self._timer.stamp(frame)


def synthetic_camera(
    section: CameraSection, clock: RawClock
) -> tuple[SensorAdapter[RawFrame], _Timer]:
    """A rendered camera of the configured size and rate, drive after drive."""
    spec = CameraSpec(name=section.name, fps=section.fps)
    size = (section.width, section.height)

    def make(seed: int, duration_s: float, raw0_ns: int, boot_id: str) -> SyntheticDrive:
        return SyntheticDrive(
            seed, duration_s, size=size, camera=spec, raw0_ns=raw0_ns, boot_id=boot_id
        )

    camera = SyntheticCamera(clock, section.seed, DRIVE_S, loop=section.loop, make=make)
    return camera, _Timer(spec, size)
