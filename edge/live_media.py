"""A recording as a live camera: paced by its own times on the raw clock, looped at will."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator

from syncline.sensors.adapter import Health, HealthState, SensorAdapter
from syncline.sensors.frame import FrameEvent, RawFrame, Stamp
from syncline.timebase import Clock, RawClock


class LiveMedia:
    """Frames of a recording, delivered when they would have come from a camera.

    Args:
        make: Opens the recording anew for each round.
        clock: Paces and stamps the frames.
        loop: Begin again at the end.
        period_ns: Gap between the last frame of a round and the first of the next.
    """

    def __init__(
        self,
        make: Callable[[], SensorAdapter],
        clock: RawClock,
        *,
        loop: bool,
        period_ns: int,
    ) -> None:
        self._make = make
        self._clock = clock
        self._loop = loop
        self._period_ns = period_ns
        self._closed = threading.Event()
        self._frames = 0
        self._last_ns: int | None = None
        self._inner: SensorAdapter | None = None

    def open(self) -> None:
        """Check that the recording opens; see the adapter for what it raises."""
        self._inner = self._make()
        self._inner.open()

    def frames(self) -> Iterator[RawFrame]:
        """Frames at their times, until the end or `close`."""
        next_ns = self._clock.raw_ns() + self._period_ns
        while not self._closed.is_set():
            if self._inner is None:
                self.open()
            assert self._inner is not None
            shift_ns: int | None = None
            for frame in self._inner.frames():
                assert frame.driver is not None, "media adapters stamp every frame"
                if shift_ns is None:
                    shift_ns = next_ns - frame.driver.t_ns
                at_ns = frame.driver.t_ns + shift_ns
                self._clock.sleep_until(at_ns)
                if self._closed.is_set():
                    return
                yield self._restamped(frame, frame.driver, at_ns)
                next_ns = at_ns + self._period_ns
            self._inner.close()
            self._inner = None
            if not self._loop:
                return

    def _restamped(self, frame: RawFrame, driver: Stamp, at_ns: int) -> RawFrame:
        self._last_ns = self._clock.raw_ns()
        live = dataclasses.replace(
            frame,
            sequence=self._frames,
            driver=dataclasses.replace(driver, t_ns=at_ns),
            arrival=Stamp(self._last_ns, Clock.MONOTONIC_RAW, FrameEvent.ARRIVAL),
        )
        self._frames += 1
        return live

    def health(self) -> Health:
        """State and counters."""
        state = HealthState.CLOSED if self._closed.is_set() else HealthState.OK
        return Health(state, frames=self._frames, last_ns=self._last_ns)

    def close(self) -> None:
        """End `frames` after the frame in flight."""
        self._closed.set()
        if self._inner is not None:
            self._inner.close()
