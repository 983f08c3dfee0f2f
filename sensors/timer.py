"""From a frame as it arrives to the time of its pixels: everything put together.

    event (trigger edge or start of readout) --anchor, path, exposure, readout--> SOE, mid, EOF
    device time --clock mapper--> host time        metadata, steps --revise--> better times

`stamp` is a pure step on its own state: the same frames give the same times, live or replayed.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace

from syncline.errors import ClockError, SensorDataError
from syncline.sensors.checks import (
    check_clock,
    check_exposures,
    reference_of,
    soe_offset_ns,
    span_of,
)
from syncline.sensors.clock import BlockMinKalman, ClockState
from syncline.sensors.counter import CounterUnwrapper
from syncline.sensors.exposures import ExposureBook
from syncline.sensors.frame import (
    Anchor,
    Exposure,
    FrameEvent,
    FrameTime,
    Ns,
    Quality,
    RawFrame,
    Stamp,
)
from syncline.sensors.kept import Counters, Kept, late_by
from syncline.sensors.mode import SensorMode, TriggerPath
from syncline.timebase import Clock

KEPT_FRAMES = 128
"""Frames that `revise` can still improve (bounded memory)."""
STALE_PERIODS = 3


class FrameTimer:
    """Stamps the frames of one camera.

    The frame's device time (`device_ticks`, or its number times the period) is that of the
    periodic event: the trigger edge (anchor TRIGGER) or the start of readout (READOUT). A driver
    stamp on the host's clock is used as it is. Nothing else is there: arrival alone.

    Args:
        mode: Sensor mode.
        anchor: What is periodic. UNKNOWN: mid is taken at the event, sigma covers both.
        path: Delays from trigger edge to exposure.
        mapper: Device to host clock; None = a new `BlockMinKalman`.
        dma_ns: Least delay from end of frame to arrival.
        period_ns: Frame period; None = from the mode, where it says.
        exposure_range_ns: (least, greatest) exposure, for frames whose exposure is not known.
        counter: Unwraps `device_ticks`; None = they are nanoseconds already.
    """

    def __init__(
        self,
        mode: SensorMode,
        anchor: Anchor,
        path: TriggerPath | None = None,
        mapper: BlockMinKalman | None = None,
        *,
        dma_ns: Ns = 0,
        period_ns: float | None = None,
        exposure_range_ns: tuple[Ns, Ns] = (0, 33_000_000),
        counter: CounterUnwrapper | None = None,
    ) -> None:
        low, high = exposure_range_ns
        if not 0 <= low <= high:
            raise SensorDataError(f"frame timer: exposure_range_ns={exposure_range_ns} is no range")
        if dma_ns < 0:
            raise SensorDataError(f"frame timer: dma_ns={dma_ns} is below 0")
        self.mode = mode
        self.anchor = anchor
        self.exposures = ExposureBook(mode.control_delay)
        self.counters = Counters()
        self._readout_ns = mode.readout_time()
        self._path_ns = path.total_ns() if path is not None else 0
        self._mapper = mapper if mapper is not None else BlockMinKalman(tolerance_ns=dma_ns)
        self._dma_ns = dma_ns
        self._period_ns = mode.period_ns() if period_ns is None else float(period_ns)
        self._range = exposure_range_ns
        self._counter = counter
        self._epoch = 0
        self._index = -1
        self._sequence: int | None = None
        self._device_ns: Ns | None = None
        self._arrival_ns: Ns | None = None
        self._kept: deque[Kept] = deque(maxlen=KEPT_FRAMES)
        self._improved: dict[int, FrameTime] = {}
        self._late_metadata = False

    def stamp(self, frame: RawFrame) -> FrameTime:
        """The time of a frame, from it and earlier ones.

        A repeated frame comes back REJECTED and is counted; it changes nothing.

        Raises:
            SensorDataError: The frame contradicts itself or the mode.
            ClockError: A stamp is on another clock than it claims, or than the mapper's.
        """
        self._check(frame)
        if self._is_repeat(frame):
            self.counters.duplicates += 1
            return self._rejected(frame)
        exposures = frame.exposures or self.exposures.of(frame.sequence)
        check_exposures(exposures, self._period_ns, self.anchor is not Anchor.TRIGGER)
        quality = self._advance(frame)
        # What is kept for revision is stamps: with their pixels, 128 frames of 1080p are 800 MB.
        kept = self._place(_without_pixels(frame), exposures, quality)
        self._kept.append(kept)
        self._retro()
        return kept.time

    def bind(self, sequence: int, exposures: tuple[Exposure, ...]) -> None:
        """Exposure metadata of a frame that may have been stamped already; see `revise`.

        Raises:
            SensorDataError: In free run the exposure is longer than the period.
        """
        check_exposures(exposures, self._period_ns, self.anchor is not Anchor.TRIGGER)
        self.exposures.bind(sequence, exposures)
        for kept in list(self._kept):
            if kept.frame.sequence == sequence and kept.time.exposures != exposures:
                self._expect_late()
                self._improve(kept, exposures)

    def revise(self) -> list[FrameTime]:
        """Times that became better since the last call, in order, each a revision higher."""
        out = [self._improved[index] for index in sorted(self._improved)]
        self._improved.clear()
        self.counters.revised += len(out)
        return out

    def _check(self, frame: RawFrame) -> None:
        if frame.arrival.clock is not self._mapper.clock:
            raise ClockError(
                f"arrival is on {frame.arrival.clock.name}, the mapper on "
                f"{self._mapper.clock.name}",
                remedy="Convert stamps to one clock by a paired read when they are taken",
            )
        if frame.driver is not None and frame.driver.clock not in (Clock.DEVICE, Clock.UNKNOWN):
            check_clock(frame.driver, frame.arrival)

    def _is_repeat(self, frame: RawFrame) -> bool:
        if frame.sequence is not None:
            return frame.sequence == self._sequence
        if not self._kept:
            return False
        last = self._kept[-1].frame
        same_ticks = frame.device_ticks is not None and frame.device_ticks == last.device_ticks
        same_stamp = frame.driver is not None and frame.driver == last.driver
        return same_ticks or same_stamp

    def _advance(self, frame: RawFrame) -> Quality:
        """Work out index and device time; returns what is to be said about them."""
        quality = Quality.OK
        arrival_ns = frame.arrival.t_ns
        device_ns = frame.device_ticks
        if self._counter is not None and device_ns is not None:
            device_ns = self._counter.update(
                device_ns, arrival_ns, renumbered=self._is_renumbered(frame)
            )
            quality |= self._counter.quality
            if self._counter.epoch != self._epoch:
                self._epoch = self._counter.epoch
                self._mapper.reset("the device's counter restarted")
        elif self._device_ns is not None and device_ns is not None and device_ns < self._device_ns:
            quality |= Quality.WRAPPED
        if self._is_stale(arrival_ns):
            self.counters.stale += 1
            quality |= Quality.STALE
        step = self._index_step(frame, device_ns, arrival_ns)
        if frame.sequence is None and self._index >= 0:
            quality |= Quality.INFERRED_INDEX
        self._index += step
        self.counters.frames += 1
        self.counters.dropped += step - 1
        self._sequence = frame.sequence
        self._arrival_ns = arrival_ns
        if device_ns is None:
            device_ns = round(self._index * self._period_ns) if self._period_ns else arrival_ns
        self._device_ns = device_ns
        return quality

    def _is_renumbered(self, frame: RawFrame) -> bool:
        """The camera's numbers began anew: more than a late frame would explain."""
        if frame.sequence is None or self._sequence is None:
            return False
        return 2 * frame.sequence < self._sequence

    def _is_stale(self, arrival_ns: Ns) -> bool:
        """More than three periods without a frame."""
        if self._arrival_ns is None or not self._period_ns:
            return False
        return arrival_ns - self._arrival_ns > STALE_PERIODS * self._period_ns

    def _index_step(self, frame: RawFrame, device_ns: Ns | None, arrival_ns: Ns) -> int:
        """Frames since the last one: by sequence, else by device time, else by arrival."""
        if self._index < 0:
            return 1
        if frame.sequence is not None and self._sequence is not None:
            step = frame.sequence - self._sequence
            if step > 0:
                return step
        if not self._period_ns:
            return 1
        passed_ns = arrival_ns - (self._arrival_ns or arrival_ns)
        if device_ns is not None and self._device_ns is not None:
            passed_ns = device_ns - self._device_ns
        return max(round(passed_ns / self._period_ns), 1)

    def _place(self, frame: RawFrame, exposures: tuple[Exposure, ...], quality: Quality) -> Kept:
        """Map the frame's event to the host clock and work out its time."""
        driver = frame.driver
        device_ns = self._device_ns or 0
        arrival = frame.arrival
        if driver is not None and driver.clock is self._mapper.clock:
            if driver.event is not FrameEvent.ARRIVAL:
                time = self._from_driver(frame, driver, exposures, quality)
                return Kept(frame, time, device_ns, driver.t_ns, driver.t_ns, driver)
            arrival = driver  # the same event, and the adapter says how late it may be
        host_ns = arrival.t_ns - self._dma_ns - self._after_event(exposures)
        waits = self._late_metadata and not exposures
        odd = quality is not Quality.OK and Quality.WRAPPED in quality
        if self._mapper.started and (waits or odd):
            state = self._peek(device_ns)
        else:
            state = self._mapper.update(device_ns, host_ns)
        event_ns = device_ns + state.offset_ns
        if state.quality is not Quality.OK:
            quality |= state.quality
        sigma_ns, bias_ns = late_by(state, arrival)
        time = self._build(frame, event_ns, exposures, sigma_ns, bias_ns, quality)
        return Kept(frame, time, device_ns, event_ns, host_ns, arrival, waits)

    def _expect_late(self) -> None:
        """Metadata comes after its frames: the mapper of a triggered camera waits for it."""
        if self._late_metadata or self.anchor is not Anchor.TRIGGER:
            return
        self._late_metadata = True
        self._mapper.reset("exposures come later than their frames")
        for kept in self._kept:
            kept.waits = True

    def _peek(self, device_ns: Ns) -> ClockState:
        """The mapping as it is, without taking the frame."""
        there = self._mapper.to_host(device_ns)
        return ClockState(there.t_ns - device_ns, there.sigma_ns, there.bias_ns, Quality.OK)

    def _after_event(self, exposures: tuple[Exposure, ...]) -> Ns:
        """From the periodic event to the end of readout."""
        if self.anchor is not Anchor.TRIGGER:
            return self._readout_ns
        span_ns = span_of(exposures) if exposures else sum(self._range) // 2
        return self._path_ns + span_ns + self._readout_ns

    def _from_driver(
        self, frame: RawFrame, driver: Stamp, exposures: tuple[Exposure, ...], quality: Quality
    ) -> FrameTime:
        """A stamp that the kernel took on the host's clock: move it to the periodic event."""
        span_ns = span_of(exposures) if exposures else sum(self._range) // 2
        soe_ns = driver.t_ns - soe_offset_ns(driver.event, self.mode, span_ns, self._path_ns)
        event_ns = soe_ns - self._path_ns if self.anchor is Anchor.TRIGGER else soe_ns + span_ns
        return self._build(
            frame, event_ns, exposures, driver.sigma_ns, driver.bias_ns, quality, driver.event
        )

    def _build(
        self,
        frame: RawFrame,
        event_ns: Ns,
        exposures: tuple[Exposure, ...],
        sigma_ns: float,
        bias_ns: tuple[Ns, Ns],
        quality: Quality,
        stamped: FrameEvent | None = None,
    ) -> FrameTime:
        low, high = self._range
        used = exposures
        spread_ns = 0.0
        if not exposures:
            quality |= Quality.NO_EXPOSURE
            used = (Exposure((low + high) // 2),)
            spread_ns = (high - low) / (2.0 * math.sqrt(12.0))
        if self.anchor is Anchor.UNKNOWN:
            quality |= Quality.AMBIGUOUS
            spread_ns = max(spread_ns, 0.5 * span_of(used))
        if stamped is FrameEvent.MID:
            spread_ns = 0.0
        span_ns, longest = span_of(used), reference_of(used)
        if self.anchor is Anchor.TRIGGER:
            soe_ns = event_ns + self._path_ns
        elif self.anchor is Anchor.READOUT:
            soe_ns = event_ns - span_ns
        else:
            soe_ns = event_ns - span_ns // 2
        variance = sigma_ns**2 + spread_ns**2 + (0.5 * longest.sigma_ns) ** 2
        return FrameTime(
            camera=frame.camera,
            index=self._index,
            soe_ns=soe_ns,
            mid_ns=soe_ns + longest.offset_ns + longest.duration_ns // 2,
            eof_ns=soe_ns + span_ns + self._readout_ns,
            sigma_ns=math.sqrt(variance),
            clock=self._mapper.clock,
            anchor=self.anchor,
            quality=quality,
            mode=self.mode,
            bias_ns=bias_ns,
            exposures=exposures,
            sequence=frame.sequence,
        )

    def _none(self, frame: RawFrame) -> FrameTime:
        at = frame.arrival.t_ns
        return FrameTime(
            frame.camera, self._index, at, at, at, math.inf, self._mapper.clock, self.anchor,
            Quality.REJECTED, self.mode, sequence=frame.sequence,
        )  # fmt: skip

    def _rejected(self, frame: RawFrame) -> FrameTime:
        return self._none(frame)

    def _retro(self) -> None:
        """After a forward step was found: stamp anew what came since."""
        since = self._mapper.take_suspect()
        if since is None:
            return
        for kept in self._kept:
            offset_ns = self._mapper.offset_at(kept.device_ns)
            moved_ns = kept.device_ns + offset_ns - kept.event_ns
            late_ns = kept.host_ns - kept.event_ns
            if kept.device_ns >= since and moved_ns > 0 and late_ns > moved_ns // 2:
                kept.event_ns += moved_ns
                self._improved[kept.time.index] = kept.time = replace(
                    kept.time,
                    soe_ns=kept.time.soe_ns + moved_ns,
                    mid_ns=kept.time.mid_ns + moved_ns,
                    eof_ns=kept.time.eof_ns + moved_ns,
                    quality=kept.time.quality | Quality.STEPPED,
                    revision=kept.time.revision + 1,
                )

    def _improve(self, kept: Kept, exposures: tuple[Exposure, ...]) -> None:
        """Stamp a frame anew whose exposure has become known."""
        old = kept.time
        quality = old.quality & ~Quality.NO_EXPOSURE
        if kept.stamp.event is not FrameEvent.ARRIVAL:
            time = self._from_driver(kept.frame, kept.stamp, exposures, quality)
        else:
            state = self._late_state(kept, exposures)
            time = self._build(
                kept.frame, kept.event_ns, exposures, state.sigma_ns, state.bias_ns,
                quality | state.quality,
            )  # fmt: skip
        kept.time = replace(time, index=old.index, revision=old.revision + 1)
        self._improved[old.index] = kept.time

    def _late_state(self, kept: Kept, exposures: tuple[Exposure, ...]) -> ClockState:
        """The clock's part of a frame whose exposure has become known."""
        if not kept.waits:
            old = kept.time
            return ClockState(0, self._clock_sigma(old), old.bias_ns, Quality.OK)
        kept.waits = False
        kept.host_ns = kept.stamp.t_ns - self._dma_ns - self._after_event(exposures)
        state = self._mapper.update(kept.device_ns, kept.host_ns)
        kept.event_ns = kept.device_ns + state.offset_ns
        return ClockState(0, *late_by(state, kept.stamp), state.quality)

    def _clock_sigma(self, old: FrameTime) -> float:
        """What remains of a frame's sigma without that of its missing exposure."""
        if Quality.NO_EXPOSURE not in old.quality:
            return old.sigma_ns
        low, high = self._range
        return math.sqrt(max(old.sigma_ns**2 - (high - low) ** 2 / 48.0, 0.0))


def _without_pixels(frame: RawFrame) -> RawFrame:
    """The same stamps; eight times cheaper than `replace`, and this is done for every frame."""
    if frame.payload is None:
        return frame
    return RawFrame(
        frame.camera,
        frame.sequence,
        frame.device_ticks,
        frame.driver,
        frame.arrival,
        frame.exposures,
    )
