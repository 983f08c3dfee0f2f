"""A recording as a live camera: paced by its own times on the raw clock, looped at will."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterator

from syncline.sensors.adapter import HealthState, SensorAdapter
from syncline.sensors.adapters.base import BaseAdapter
from syncline.sensors.frame import FrameEvent, RawFrame, Stamp
from syncline.timebase import NS_PER_S, Clock, RawClock

NAP_NS = NS_PER_S // 4
"""Longest sleep before `close` is looked at."""
LATE_PERIODS = 4
"""A camera's driver holds about as many frames; a reader further behind has lost its place."""


class LiveMedia(BaseAdapter[RawFrame]):
    """Frames of a recording, delivered when they would have come from a camera.

    Every frame is delivered. Where the machine cannot keep the pace, the pace gives way: later
    frames come later, and `health` says by how much in all.

    Args:
        make: Opens the recording anew for each round.
        clock: Paces and stamps the frames.
        loop: Begin again at the end.
        period_ns: Gap between the last frame of a round and the first of the next.
    """

    def __init__(
        self,
        make: Callable[[], SensorAdapter[RawFrame]],
        clock: RawClock,
        *,
        loop: bool,
        period_ns: int,
    ) -> None:
        super().__init__()
        self._make = make
        self._clock = clock
        self._loop = loop
        self._period_ns = period_ns
        self._inner: SensorAdapter[RawFrame] | None = None
        self._slipped_ns = 0

    def _open(self) -> None:
        """Check that the recording opens; see the adapter for what it raises."""
        inner = self._make()
        try:
            inner.open()
        except BaseException:
            inner.close()
            raise
        self._inner = inner

    def _run(self) -> Generator[RawFrame, None, None]:
        """Frames at their times, round after round."""
        next_ns = self._clock.raw_ns() + self._period_ns
        while not self._closed.is_set():
            if self._inner is None:
                self._begin()
            assert self._inner is not None
            frames = self._inner.frames()
            try:
                for frame, at_ns in self._paced(frames, next_ns):
                    yield frame
                    next_ns = at_ns + self._period_ns
            finally:
                end(frames)
            self._release()
            if not self._loop:
                if not self._closed.is_set():
                    self._state = HealthState.ENDED
                return

    def _paced(
        self, frames: Iterator[RawFrame], first_ns: int
    ) -> Generator[tuple[RawFrame, int], None, None]:
        """Each frame when its time has come, with that time; the first one at `first_ns`."""
        shift_ns: int | None = None
        for frame in frames:
            assert frame.driver is not None, "media adapters stamp every frame"
            if shift_ns is None:
                shift_ns = first_ns - frame.driver.t_ns
            at_ns = frame.driver.t_ns + shift_ns
            if not self._wait(at_ns):
                return
            late_ns = self._clock.raw_ns() - at_ns
            if late_ns > LATE_PERIODS * self._period_ns:
                self._slipped_ns += late_ns
                shift_ns, at_ns = shift_ns + late_ns, at_ns + late_ns
            yield self._restamped(frame, frame.driver, at_ns), at_ns

    def _wait(self, at_ns: int) -> bool:
        """Sleep until `at_ns`; False when `close` came first."""
        while not self._closed.is_set() and (now_ns := self._clock.raw_ns()) < at_ns - NAP_NS:
            self._clock.sleep_until(now_ns + NAP_NS)
        if not self._closed.is_set():
            self._clock.sleep_until(at_ns)
        return not self._closed.is_set()

    def _restamped(self, frame: RawFrame, driver: Stamp, at_ns: int) -> RawFrame:
        return dataclasses.replace(
            frame,
            sequence=self._frames,
            driver=dataclasses.replace(driver, t_ns=at_ns),
            arrival=Stamp(self._clock.raw_ns(), Clock.MONOTONIC_RAW, FrameEvent.ARRIVAL),
        )

    def _told(self) -> list[str]:
        slipped_s = self._slipped_ns / NS_PER_S
        too_slow = f"the machine is too slow for its pace: {slipped_s:.1f} s behind"
        return [too_slow] if slipped_s else []

    def _release(self) -> None:
        inner, self._inner = self._inner, None
        if inner is not None:
            self._errors += inner.health().errors  # of each round
            inner.close()


def end(frames: Iterator[object]) -> None:
    """Let a generator that is not read further release what it holds, here and now."""
    if isinstance(frames, Generator):
        frames.close()
