"""The synthetic drive as a live camera: the same frames, paced by a clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from syncline.sensors.adapters.recorded import Recorded
from syncline.sensors.frame import FrameEvent, RawFrame
from syncline.sensors.synthetic.camera import FrameTruth
from syncline.sensors.synthetic.drive import SyntheticDrive
from syncline.timebase import Clock, RawClock


class SyntheticCamera(Recorded[RawFrame]):
    """A camera that renders as it goes.

    A frame is handed over when the clock reaches its arrival; when rendering is slower than that,
    frames come late and are counted in `late`, as a busy host would see them.

    Args:
        clock: Paces the frames; stamps are on its raw time and boot.
        seed: See `SyntheticDrive`.
        duration_s: Length of a drive.
        loop: Begin again with the next seed when a drive ends.
        make: Makes a drive from (seed, duration_s, raw0_ns, boot_id).
    """

    def __init__(
        self,
        clock: RawClock,
        seed: int = 1,
        duration_s: float = 40.0,
        *,
        loop: bool = False,
        make: Callable[[int, float, int, str], SyntheticDrive] | None = None,
    ) -> None:
        super().__init__()
        self._clock, self._seed, self._duration_s, self._loop = clock, seed, duration_s, loop
        self._make = make or _drive
        self.late = 0
        self.drive: SyntheticDrive | None = None
        self.truth: FrameTruth | None = None

    def _open(self) -> None:
        """Plan the first drive, beginning now."""
        self.drive, self.late = self._plan(self._seed), 0

    def _read(self) -> Iterator[RawFrame]:
        """Frames in order of arrival, each when the clock reaches it."""
        assert self.drive is not None
        sequence0, seed = 0, self._seed
        while True:
            for made in self.drive.frames():
                if self._closed.is_set():
                    return
                self._pace(made.arrival_raw_ns)
                self._dropped = made.truth.index + sequence0 - self._frames
                self.truth = made.truth
                yield _renumbered(made.frame, sequence0)
            sequence0 += round(self._duration_s * self.drive.fps)
            seed += 1
            if not self._loop:
                return
            self.drive = self._plan(seed)

    def _stamps(self) -> tuple[Clock, FrameEvent]:
        return Clock.MONOTONIC_RAW, FrameEvent.EOF

    def _told(self) -> list[str]:
        return [f"synthetic drive, {self.late} frames late"]

    def _release(self) -> None:
        """Nothing is held."""

    def _plan(self, seed: int) -> SyntheticDrive:
        return self._make(seed, self._duration_s, self._clock.raw_ns(), self._clock.boot_id)

    def _pace(self, arrival_raw_ns: int) -> None:
        if self._clock.raw_ns() > arrival_raw_ns + 5_000_000:
            self.late += 1
        self._clock.sleep_until(arrival_raw_ns)


def _drive(seed: int, duration_s: float, raw0_ns: int, boot_id: str) -> SyntheticDrive:
    return SyntheticDrive(seed, duration_s, raw0_ns=raw0_ns, boot_id=boot_id)


def _renumbered(frame: RawFrame, sequence0: int) -> RawFrame:
    if sequence0 == 0 or frame.sequence is None:
        return frame
    return RawFrame(
        frame.camera, frame.sequence + sequence0, frame.device_ticks, frame.driver,
        frame.arrival, frame.exposures, frame.payload,
    )  # fmt: skip
