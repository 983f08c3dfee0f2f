"""Small recordings with known frames, made by our own recorder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from syncline.edge.pipeline import Pipeline, PipelineOptions
from syncline.edge.recorded_time import recorded_timer
from syncline.edge.records import Output
from syncline.log.recorder import Recorder
from syncline.sensors.frame import Anchor, Exposure, FrameEvent, RawFrame, Stamp
from syncline.sensors.mode import SensorMode
from syncline.timebase import NS_PER_S, Clock, ManualClock, MappingSegment

PERIOD_NS = NS_PER_S // 20
WIDTH, HEIGHT = 64, 48
BOOT_A = "aaaa0000-1111-4111-8111-111111111111"
BOOT_B = "bbbb0000-2222-4222-8222-222222222222"


def segment(number: int, boot: str, raw0_ns: int, bound_ns: int = 10_000) -> MappingSegment:
    return MappingSegment(
        id=number,
        revision=0,
        boot_id=boot,
        raw0_ns=raw0_ns,
        utc0_ns=1_790_000_000 * NS_PER_S + raw0_ns,
        cov=(1e6, 0.0, 0.0),
        wander_ns2_per_s=1e6,
        hard_bound_ns=bound_ns,
        drift_limit_ppb=20_000.0,
    )


def grey(index: int) -> NDArray[np.uint8]:
    return np.full((HEIGHT, WIDTH, 3), 40 + index % 150, np.uint8)


def raw_frame(camera: str, index: int, end_ns: int, picture: object) -> RawFrame:
    return RawFrame(
        camera=camera,
        sequence=index,
        device_ticks=None,
        driver=Stamp(end_ns, Clock.MONOTONIC_RAW, FrameEvent.EOF, 1000.0),
        arrival=Stamp(end_ns, Clock.MONOTONIC_RAW, FrameEvent.ARRIVAL),
        exposures=(Exposure(2_000_000, 1.0),),
        payload=picture,
    )


def record_boot(
    folder: Path,
    boot: str,
    frames: int,
    *,
    raw0_ns: int = NS_PER_S,
    cameras: tuple[str, ...] = ("front",),
    segments: tuple[MappingSegment, ...] = (),
    picture: Callable[[int], object] = grey,
) -> None:
    """Record pictures of one boot, 20 a second for each camera, as the edge does."""
    mode = SensorMode.simple(WIDTH, HEIGHT, readout_ns=float(HEIGHT), period_ns=float(PERIOD_NS))
    clock = ManualClock(raw0_ns, boot)
    pipeline = Pipeline(boot, PipelineOptions(images=True))
    timers = {name: recorded_timer(mode, Anchor.READOUT, (2000.0, 2000.0)) for name in cameras}
    left = list(segments)

    def write(recorder: Recorder, outputs: list[Output]) -> None:
        for output in outputs:
            clock.sleep_until(output.raw_ns)
            assert recorder.write(output.topic, output.message, output.raw_ns)

    with Recorder(folder, clock=clock, device="car", lossless=True) as recorder:
        for index in range(frames):
            end_ns = raw0_ns + (index + 1) * PERIOD_NS
            while left and left[0].raw0_ns <= end_ns:
                write(recorder, pipeline.segment(left.pop(0)))
            for name in cameras:
                frame = raw_frame(name, index, end_ns, picture(index))
                write(recorder, pipeline.captured(frame, timers[name].stamp(frame)))


def two_boots(folder: Path) -> Path:
    """An ordinary ring after a reboot: the second boot's raw time begins lower."""
    record_boot(
        folder, BOOT_A, 12, raw0_ns=500 * NS_PER_S, segments=(segment(1, BOOT_A, 500 * NS_PER_S),)
    )
    record_boot(
        folder, BOOT_B, 7, raw0_ns=3 * NS_PER_S, segments=(segment(9, BOOT_B, 3 * NS_PER_S),)
    )
    return folder
