"""A whole synthetic drive: camera, IMU and GNSS on one virtual clock, with the truth."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import numpy as np

from syncline.errors import SensorDataError
from syncline.sensors.mode import NS_PER_S, SensorMode
from syncline.sensors.synthetic.camera import (
    CameraSpec,
    DriveFrame,
    FrameSource,
    Unpainted,
    sensor_mode,
)
from syncline.sensors.synthetic.clocks import Oscillator, TruthMapping
from syncline.sensors.synthetic.gnss import (
    GnssFix,
    GnssSpec,
    PpsPulse,
    Sky,
    fix_stream,
    pps_stream,
    sky_of,
)
from syncline.sensors.synthetic.imu import ImuSample, ImuSpec, imu_stream
from syncline.sensors.synthetic.light import Setting
from syncline.sensors.synthetic.optics import Pinhole
from syncline.sensors.synthetic.plan import Style, plan_scene
from syncline.sensors.synthetic.render import Renderer
from syncline.sensors.synthetic.scene import LABEL_NAMES, Scene

DriveEvent = DriveFrame | ImuSample | GnssFix | PpsPulse
UTC0_NS = 1_790_000_000 * NS_PER_S + 350_000_000
"""UTC at the start unless given: 2026-09-21T14:13:20.35Z, not a whole second."""
MIN_DURATION_S, MAX_DURATION_S = 1.0, 3600.0


class SyntheticDrive:
    """Streams of a drive, all pure functions of the arguments.

    Args:
        seed: Decides everything.
        duration_s: Length; from 20 s on there is a stop at a red light.
        size: Picture (width, height), pixels.
        camera: The camera and its path to the host.
        raw0_ns: Reading of the raw clock at the start.
        boot_id: Boot that the raw clock counts in.
        utc0_ns: True UTC at the start.
        raw_ppm: Rate error of the raw clock.
        device_ppm: Rate error of the camera's clock.
        gnss: The receiver and what befalls it.
        imu: The inertial sensor.
        style: Density and light; None = the demo's.
        pictures: False gives black pixels and no boxes, where only times matter.

    Attributes:
        truth: Exact UTC of the raw clock.
        sky: When the receiver has a fix and when its time is off.
        mode: The camera's readout.
        labels: Class names by class id.

    Raises:
        SensorDataError: The length or size is impossible.

    Memory: the scene and textures, about 40 MB, and one frame per running stream.
    """

    labels = LABEL_NAMES

    def __init__(
        self,
        seed: int,
        duration_s: float = 40.0,
        *,
        size: tuple[int, int] = (640, 384),
        camera: CameraSpec | None = None,
        raw0_ns: int = 1_000_000_000_000,
        boot_id: str = "synthetic",
        utc0_ns: int = UTC0_NS,
        raw_ppm: float = 11.0,
        device_ppm: float = -37.0,
        gnss: GnssSpec | None = None,
        imu: ImuSpec | None = None,
        style: Style | None = None,
        pictures: bool = True,
    ) -> None:
        _check(duration_s, size)
        self.seed, self.duration_s, self.size, self.boot_id = seed, duration_s, size, boot_id
        self.camera_spec = camera or CameraSpec()
        self.mode: SensorMode = sensor_mode(*size, fps=self.camera_spec.fps)
        self.raw0_ns, self.utc0_ns = raw0_ns, utc0_ns
        self._duration_ns = round(duration_s * NS_PER_S)
        rng = np.random.default_rng([seed, 7])
        self._raw = Oscillator(rng, raw0_ns, self._duration_ns, raw_ppm)
        device0_ns = int(rng.integers(10**9, 10**12))
        self._device = Oscillator(rng, device0_ns, self._duration_ns, device_ppm)
        self.truth = TruthMapping(self._raw, utc0_ns)
        self.scene: Scene = plan_scene(seed, duration_s, style)
        self._gnss, self._imu = gnss or GnssSpec(), imu or ImuSpec()
        self.sky: Sky = sky_of(self.scene.ego, self.scene.light.tunnels, duration_s, self._gnss)
        self._renderer: Renderer | Unpainted | None = None if pictures else Unpainted(self.scene)

    @property
    def fps(self) -> float:
        """Frames per second on the camera's own clock."""
        return self.camera_spec.fps

    def frames(self) -> Iterator[DriveFrame]:
        """Camera frames in order of arrival, rendered when asked for."""
        if self._renderer is None:
            camera = Pinhole.for_size(*self.size)
            self._renderer = Renderer(self.scene, camera, self.mode, self.seed)
        source = FrameSource(
            self.seed, self.camera_spec, self.mode, self._renderer, self._raw, self._device,
            self.utc0_ns, self._duration_ns,
        )  # fmt: skip
        return source.frames(Setting.of_total(1.0 / self.scene.light.ambient(0.0)))

    def imu(self) -> Iterator[ImuSample]:
        """IMU samples in order of arrival."""
        ego, route = self.scene.ego, self.scene.route
        return imu_stream(self.seed, ego, route, self._raw, self._duration_ns, self._imu)

    def gnss(self) -> Iterator[GnssFix]:
        """Receiver messages in order of arrival."""
        return fix_stream(
            self.seed, self.scene.ego, self.scene.route, self._raw, self.utc0_ns,
            self._duration_ns, self.sky, self._gnss,
        )  # fmt: skip

    def pps(self) -> Iterator[PpsPulse]:
        """Second pulses."""
        return pps_stream(
            self.seed, self._raw, self.utc0_ns, self._duration_ns, self.sky, self._gnss
        )

    def events(self) -> Iterator[DriveEvent]:
        """Everything, by raw time of arrival."""
        streams: list[Iterator[DriveEvent]] = [self.frames(), self.imu(), self.gnss(), self.pps()]
        return heapq.merge(*streams, key=lambda event: event.arrival_raw_ns)


def _check(duration_s: float, size: tuple[int, int]) -> None:
    if not MIN_DURATION_S <= duration_s <= MAX_DURATION_S:
        raise SensorDataError(
            f"duration_s={duration_s} must be {MIN_DURATION_S}..{MAX_DURATION_S}",
            remedy="Choose another length for the synthetic drive",
        )
    if not all(64 <= side <= 4096 for side in size):
        raise SensorDataError(
            f"size={size} must be 64..4096 pixels a side",
            remedy="Choose another size for the synthetic camera",
        )
