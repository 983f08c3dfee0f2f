"""The synthetic camera: when its frames are exposed, how they are stamped, when they arrive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from syncline.sensors.frame import Anchor, Exposure, FrameEvent, RawFrame, Stamp
from syncline.sensors.mode import NS_PER_S, SensorMode, Shutter
from syncline.sensors.synthetic.clocks import Oscillator
from syncline.sensors.synthetic.labels import TruthBox
from syncline.sensors.synthetic.light import AutoExposure, Setting, coded_gain
from syncline.sensors.synthetic.render import Rendered, Renderer
from syncline.sensors.synthetic.road import Pose
from syncline.sensors.synthetic.scene import Scene
from syncline.timebase import Clock


def sensor_mode(width: int, height: int, fps: float, readout_ns: float = 14e6) -> SensorMode:
    """A rolling-shutter mode whose line time and frame length give exactly `fps`.

    Args:
        width: Image columns.
        height: Image rows.
        fps: Frames per second of the device's own clock.
        readout_ns: First line to one past the last, about.
    """
    period_ns = NS_PER_S / fps
    lines = round(period_ns / (readout_ns / height))
    crop = (0, 0, width, height)
    return SensorMode(
        width, height, crop, (1, 1), period_ns / lines, lines, Shutter.ROLLING, control_delay=2
    )


@dataclass(frozen=True, slots=True)
class CameraSpec:
    """A camera and its path to the host.

    Attributes:
        name: Name of the camera.
        fps: Frames per second on its own clock.
        anchor: READOUT (free run: start of readout is periodic) or TRIGGER (start of exposure).
        drop_share: Frames lost on the way; the sequence counts on.
        dma_ns: Least delay from end of readout to arrival.
        tail_share: Arrivals with a heavy-tailed extra delay.
        stalls_per_min: Stalls of the host, 40 to 160 ms.
        irq_ns: Mean delay of the driver's stamp.
    """

    name: str = "front"
    fps: float = 20.0
    anchor: Anchor = Anchor.READOUT
    drop_share: float = 0.008
    dma_ns: int = 1_200_000
    tail_share: float = 0.05
    stalls_per_min: float = 3.0
    irq_ns: float = 25_000.0


@dataclass(frozen=True, slots=True)
class FrameTruth:
    """What a frame really shows, and when. Raw times are exact readings of the raw clock.

    Attributes:
        index: Frame number, drops counted.
        soe_raw_ns: Start of exposure of the first line.
        mid_raw_ns: Middle of exposure of the first line.
        eof_raw_ns: End of readout of the last line.
        mid_utc_ns: UTC of `mid_raw_ns`.
        exposure_ns: Exposure.
        gain: Linear gain.
        boxes: Everything labelled, seen or hidden.
        pose: Camera pose at the middle of the rows.
    """

    index: int
    soe_raw_ns: int
    mid_raw_ns: int
    eof_raw_ns: int
    mid_utc_ns: int
    exposure_ns: int
    gain: float
    boxes: tuple[TruthBox, ...]
    pose: Pose


@dataclass(frozen=True, slots=True)
class DriveFrame:
    """A frame as it arrives, and its truth; `frame.payload` is the BGR picture."""

    frame: RawFrame
    truth: FrameTruth

    @property
    def arrival_raw_ns(self) -> int:
        """Raw time at which the host had it."""
        return self.frame.arrival.t_ns

    @property
    def image(self) -> NDArray[np.uint8]:
        """The picture, BGR (H, W, 3)."""
        assert isinstance(self.frame.payload, np.ndarray)
        return self.frame.payload


@dataclass(frozen=True, slots=True)
class _Timing:
    """One frame's events in true nanoseconds, and its device ticks."""

    soe_ns: int
    sof_ns: int
    eof_ns: int
    ticks: int


class Unpainted:
    """Stands in for a renderer where only times matter: a black pixel, and what a meter reads.

    Args:
        scene: Whose light the meter sees.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def draw(self, t_s: float, setting: Setting, frame: int) -> Rendered:
        """No picture; see `Renderer.draw`."""
        pose = self._scene.ego.pose(self._scene.route, t_s)
        light = float(self._scene.light.at(pose.s_m + 10.0, t_s))
        luma = min(108.0 * float(coded_gain(light, setting.total)), 255.0)
        return Rendered(np.zeros((1, 1, 3), np.uint8), (), pose, luma)


class FrameSource:
    """Renders the frames of a drive one after the other, in order of arrival.

    Memory: one frame and the renderer.

    Args:
        seed: Decides drops, delays and noise.
        spec: The camera.
        mode: Its readout.
        renderer: Of its scene.
        raw: The host's clock.
        device: The camera's clock; ticks are its nanoseconds.
        utc0_ns: UTC at true time 0.
        duration_ns: Length of the drive.
    """

    def __init__(
        self,
        seed: int,
        spec: CameraSpec,
        mode: SensorMode,
        renderer: Renderer | Unpainted,
        raw: Oscillator,
        device: Oscillator,
        utc0_ns: int,
        duration_ns: int,
    ) -> None:
        self._seed, self._spec, self._mode, self._renderer = seed, spec, mode, renderer
        self._raw, self._device, self._utc0_ns = raw, device, utc0_ns
        self._duration_ns = duration_ns

    def frames(self, start: Setting) -> Iterator[DriveFrame]:
        """All frames; every call starts over and gives the same.

        Args:
            start: Exposure of the first frame.
        """
        rng = np.random.default_rng([self._seed, 10])
        meter = AutoExposure(start, self._mode.control_delay)
        stall_share = self._spec.stalls_per_min / 60.0 / self._spec.fps
        busy_until_ns, last_ns = 0, 0
        for index in range(int(self._duration_ns * self._spec.fps / NS_PER_S)):
            setting = meter.setting
            at = self._timing(index, round(setting.exposure_ms * 1e6))
            draws = rng.random(3)
            jitter_ns = rng.exponential(300_000.0)
            tail_ns = min(rng.pareto(1.5) * 1e6, 40e6) if draws[1] < self._spec.tail_share else 0.0
            irq_ns = rng.exponential(self._spec.irq_ns)
            stall_ns = rng.uniform(40e6, 160e6)
            if draws[0] < self._spec.drop_share and index > 0:
                meter.step(meter.target)
                continue
            if draws[2] < stall_share:
                busy_until_ns = at.eof_ns + round(stall_ns)
            arrival_ns = at.eof_ns + self._spec.dma_ns + round(jitter_ns + tail_ns)
            last_ns = max(arrival_ns, busy_until_ns, last_ns + 50_000)
            made, mean_luma = self._frame(index, setting, at, last_ns, round(irq_ns))
            meter.step(mean_luma)
            yield made

    def _timing(self, index: int, exposure_ns: int) -> _Timing:
        """Events of frame `index`: the anchored one is periodic on the device's clock."""
        first_ns = self._device.read(100_000_000)
        period_ns = self._mode.period_ns()
        ticks = first_ns + round(index * period_ns)
        anchor_ns = self._device.true(ticks)
        rate = 1.0 / (1.0 + self._device.rate(anchor_ns))
        exposure_true_ns = round(exposure_ns * rate)
        readout = self._spec.anchor is Anchor.READOUT
        soe_ns = anchor_ns - exposure_true_ns if readout else anchor_ns
        sof_ns = soe_ns + exposure_true_ns
        eof_ns = sof_ns + round(self._mode.readout_time() * rate)
        return _Timing(soe_ns, sof_ns, eof_ns, ticks)

    def _frame(
        self, index: int, setting: Setting, at: _Timing, arrival_ns: int, irq_ns: int
    ) -> tuple[DriveFrame, float]:
        raw = self._raw
        exposure_ns = round(setting.exposure_ms * 1e6)
        lines = (self._mode.line_count - 1) / 2.0
        middle_ns = (at.soe_ns + at.sof_ns) // 2 + round(lines * self._mode.line_time_ns)
        drawn = self._renderer.draw(middle_ns * 1e-9, setting, index)
        driver = Stamp(
            raw.read(at.eof_ns) + irq_ns, Clock.MONOTONIC_RAW, FrameEvent.EOF,
            self._spec.irq_ns, (-round(4 * self._spec.irq_ns), 0),
        )  # fmt: skip
        arrival = Stamp(raw.read(arrival_ns), Clock.MONOTONIC_RAW, FrameEvent.ARRIVAL)
        exposures = (Exposure(exposure_ns, setting.gain),)
        frame = RawFrame(
            self._spec.name, index, at.ticks, driver, arrival, exposures, drawn.image
        )  # fmt: skip
        mid_ns = (at.soe_ns + at.sof_ns) // 2
        truth = FrameTruth(
            index, raw.read(at.soe_ns), raw.read(mid_ns), raw.read(at.eof_ns),
            self._utc0_ns + mid_ns, exposure_ns, setting.gain, drawn.boxes, drawn.pose,
        )  # fmt: skip
        return DriveFrame(frame, truth), drawn.mean_luma
