"""Device time to host time, online: block minima, a filter bank, and a guard against jumps.

The model is `host = offset + (1 + skew) device`, seen through arrivals that are late by a delay
that is never negative. What a one-way path can never tell is its own least delay: the declared one
is taken off by the caller, what it may be wrong by travels as a bias interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from syncline.errors import SensorDataError
from syncline.sensors.bank import Estimate, OffsetBank
from syncline.sensors.blocks import Block, BlockBuilder, block_starts, make_blocks
from syncline.sensors.frame import FrameEvent, Ns, Quality, Stamp
from syncline.sensors.guard import BlockGuard, Verdict
from syncline.timebase import Clock

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

COLD_SIGMA_NS = 300_000.0
"""Sigma of an offset that only single arrivals speak for."""
SETTLED_BLOCKS = 4
HOLDOVER_S = 3.0


MAX_MOVED_NS = float(2**61)
"""An offset that stamps without sense drive beyond this stays there: int64 must hold its sums."""


def _representable(moved_ns: float) -> int:
    return round(min(max(moved_ns, -MAX_MOVED_NS), MAX_MOVED_NS))


@dataclass(frozen=True, slots=True)
class ClockState:
    """What a mapper says about the frame it was just given.

    Attributes:
        offset_ns: Host minus device time at that frame.
        sigma_ns: One standard deviation of the offset.
        bias_ns: (low, high) that the true offset may differ by, see `Stamp.bias_ns`.
        quality: HOLDOVER and STEPPED, where they hold.
    """

    offset_ns: Ns
    sigma_ns: float
    bias_ns: tuple[Ns, Ns]
    quality: Quality


@dataclass(frozen=True, slots=True)
class ClockBatch:
    """The same for many frames: arrays (N,); `quality` holds `Quality` values."""

    offset_ns: I64
    sigma_ns: F64
    bias_low_ns: I64
    bias_high_ns: I64
    quality: NDArray[np.int16]


class BatchOut:
    """Collects the answers of a batch: whole spans by their estimate, single frames as they are."""

    def __init__(self, count: int) -> None:
        self._spans: list[tuple[float, ...]] = []
        self._ones: list[tuple[int, ClockState]] = []
        self._out = ClockBatch(
            np.zeros(count, dtype=np.int64),
            np.zeros(count, dtype=np.float64),
            np.zeros(count, dtype=np.int64),
            np.zeros(count, dtype=np.int64),
            np.zeros(count, dtype=np.int16),
        )

    def span(
        self, first: int, last: int, est: Estimate, bias_ns: tuple[Ns, Ns], quality: Quality
    ) -> None:
        """Frames first..last-1 are all answered by `est`."""
        numbers = (est.t_s, est.offset_ns, est.skew_ns_s, est.p00, est.p01, est.p11, est.walk)
        self._spans.append((first, last, *bias_ns, quality.value, *numbers))

    def one(self, at: int, state: ClockState) -> None:
        """Frame `at` has its own answer."""
        self._ones.append((at, state))

    def evaluate(self, device_ns: I64, x0_ns: Ns, z0_ns: Ns) -> None:
        """Work out all spans at once, by the very operations that `update` uses."""
        out = self._out
        if self._spans:
            table = np.array(self._spans, dtype=np.float64)
            counts = (table[:, 1] - table[:, 0]).astype(np.int64)
            inside = np.repeat(table[:, 0] - np.cumsum(counts) + counts, counts)
            index = np.arange(int(counts.sum())) + inside.astype(np.int64)
            low, high, quality, at_s, offset, skew, p00, p01, p11, walk = np.repeat(
                table[:, 2:], counts, axis=0
            ).T
            t_s = (device_ns[index] - x0_ns) * 1e-9
            dt = t_s - at_s
            moved = np.clip(offset + skew * dt, -MAX_MOVED_NS, MAX_MOVED_NS)
            out.offset_ns[index] = z0_ns + np.rint(moved).astype(np.int64)
            grown = p00 + dt * (2.0 * p01 + dt * (p11 + walk * np.abs(dt) / 3.0))
            out.sigma_ns[index] = np.sqrt(np.maximum(grown, 0.0))
            out.bias_low_ns[index] = low.astype(np.int64)
            out.bias_high_ns[index] = high.astype(np.int64)
            held = np.where(dt > HOLDOVER_S, Quality.HOLDOVER.value, 0)
            out.quality[index] = quality.astype(np.int16) | held.astype(np.int16)
        for at, state in self._ones:
            out.offset_ns[at] = state.offset_ns
            out.sigma_ns[at] = state.sigma_ns
            out.bias_low_ns[at], out.bias_high_ns[at] = state.bias_ns
            out.quality[at] = state.quality.value

    def result(self) -> ClockBatch:
        """The arrays."""
        return self._out


class ClockMapper(Protocol):
    """Maps device time to host time from (device, host) pairs whose host side is late."""

    def update(self, device_ns: Ns, host_ns: Ns) -> ClockState:
        """Take a pair, in order of arrival; answers from what was known up to it."""

    def to_host(self, device_ns: Ns, event: FrameEvent = FrameEvent.SOF) -> Stamp:
        """Host time of a device time near the last pair."""

    def reset(self, reason: str) -> None:
        """Forget everything: the device began anew."""


class BlockMinKalman:
    """Online mapper, about a microsecond per frame, bounded memory.

    Args:
        block_ns: Length of a block, device time.
        tolerance_ns: How much longer the least delay may be than the caller took off; the lower
            end of the bias interval.
        early_ns: A frame this much before its time means a step back; two make it sure.
        clock: Host clock of the pairs. MONOTONIC_RAW is never set nor slewed, so a small step can
            only be the path's least delay; other clocks are followed.

    Attributes:
        suspect_since_ns: Device time from which a forward step, found late, was already in force;
            None when there is none. The reader clears it by `take_suspect`.
        delay_ns: Least delay beyond the declared one that was seen to come on at once, and that the
            mapping therefore does not follow.
    """

    def __init__(
        self,
        block_ns: Ns = 500_000_000,
        tolerance_ns: Ns = 1_000_000,
        early_ns: Ns = 1_000_000,
        clock: Clock = Clock.MONOTONIC_RAW,
    ) -> None:
        if block_ns <= 0 or tolerance_ns < 0 or early_ns <= 0:
            raise SensorDataError(
                f"clock mapper: block_ns={block_ns}, tolerance_ns={tolerance_ns}, "
                f"early_ns={early_ns} must be positive"
            )
        self.tolerance_ns = tolerance_ns
        self.early_ns = early_ns
        self.clock = clock
        self.steps = 0
        self._builder = BlockBuilder(block_ns)
        self._begin()

    def _begin(self) -> None:
        self._x0 = 0
        self._z0 = 0
        self._started = False
        self._guard = BlockGuard(OffsetBank(), steady_host=self.clock is Clock.MONOTONIC_RAW)
        self._est = Estimate(0.0, 0.0, 0.0, COLD_SIGMA_NS**2, 0.0, 1e10, 0.0)
        self._cold = True
        self._unsettled = SETTLED_BLOCKS
        self._stepped_left = 0
        self._early: list[tuple[int, int]] = []
        self._last_x = 0
        self._block: Block | None = None
        self.suspect_since_ns: Ns | None = None
        self._builder.clear()

    def reset(self, reason: str) -> None:
        """Forget the mapping; what was learned about delay goes too."""
        if not reason:
            raise SensorDataError("clock mapper: reset needs a reason")
        self._begin()

    @property
    def delay_ns(self) -> float:
        """Held extra delay, nanoseconds."""
        return self._guard.delay_ns

    @property
    def bank(self) -> OffsetBank:
        """The filters; the smoother reads their record."""
        return self._guard.bank

    @property
    def origin_ns(self) -> tuple[Ns, Ns]:
        """(device time, offset) that the bank's seconds and nanoseconds count from."""
        return self._x0, self._z0

    def finish(self) -> None:
        """Take the unfinished block too: nothing more is to come."""
        if self._block is not None or self._builder.is_open:
            self._close()

    @property
    def skew_ppm(self) -> float:
        """Host rate against device rate, parts per million."""
        return self._est.skew_ns_s * 1e-3

    def update(self, device_ns: Ns, host_ns: Ns) -> ClockState:
        """Take one frame's device and host time.

        Args:
            device_ns: Device time of an event of the frame.
            host_ns: Its arrival, less what is known to lie between event and arrival.

        Returns:
            The mapping at `device_ns` from this and earlier frames alone.
        """
        z_ns = host_ns - device_ns
        if not self._started:
            self._started, self._x0, self._z0 = True, device_ns, z_ns
        if self._block is not None or self._builder.due(device_ns):
            self._close()
        t_s = (device_ns - self._x0) * 1e-9
        late_ns = (z_ns - self._z0) - self._guard.delay_ns - self._est.at(t_s)
        if self._cold:
            self._lower(t_s, late_ns)
        elif (
            late_ns < -self.early_ns
            and late_ns < -self._early_gate(t_s)
            and self._early_frame(device_ns, z_ns, t_s)
        ):
            return self._state(t_s, Quality.STEPPED)
        else:
            self._early.clear()
        self._builder.add(device_ns, z_ns)
        self._last_x = device_ns
        return self._state(t_s, Quality.OK)

    def to_host(self, device_ns: Ns, event: FrameEvent = FrameEvent.SOF) -> Stamp:
        """Host time of `device_ns` by the present mapping.

        Raises:
            SensorDataError: No frame was ever given.
        """
        if not self._started:
            raise SensorDataError("clock mapper: no frame yet", remedy="Call update first")
        state = self._state((device_ns - self._x0) * 1e-9, Quality.OK)
        return Stamp(device_ns + state.offset_ns, self.clock, event, state.sigma_ns, state.bias_ns)

    @property
    def started(self) -> bool:
        """True once a frame was given."""
        return self._started

    def offset_at(self, device_ns: Ns) -> Ns:
        """Host minus device time at `device_ns` by the present mapping."""
        return self._z0 + _representable(self._est.at((device_ns - self._x0) * 1e-9))

    def take_suspect(self) -> Ns | None:
        """Device time since which frames are to be stamped anew, once; None when nothing is."""
        since, self.suspect_since_ns = self.suspect_since_ns, None
        return since

    def map_batch(self, device_ns: I64, host_ns: I64) -> ClockBatch:
        """The same answers as `update` frame by frame, vectorised.

        Args:
            device_ns: Device times (N,), in order of arrival.
            host_ns: Host times (N,).

        Returns:
            What `update` would have returned for each frame, bit for bit.
        """
        count = len(device_ns)
        out = BatchOut(count)
        if count == 0:
            return out.result()
        z_ns = host_ns - device_ns
        starts = block_starts(device_ns, self._builder.block_ns)
        edges = starts.tolist()
        for at, block in enumerate(make_blocks(device_ns, z_ns, starts)):
            first, last = edges[at], edges[at + 1]
            if self._builder.due(block.first_x_ns) or self._block is not None:
                self._close()
            if self._is_quiet(block):
                out.span(first, last, self._est, self._bias(), self._flags(0.0))
                self._block = block
                self._last_x = block.last_x_ns
            else:
                for i in range(first, last):
                    out.one(i, self.update(int(device_ns[i]), int(host_ns[i])))
        out.evaluate(device_ns, self._x0, self._z0)
        return out.result()

    def _is_quiet(self, block: Block) -> bool:
        if self._cold or self._early or self._builder.is_open:
            return False
        t_s = (block.x_ns - self._x0) * 1e-9
        late_ns = (block.z_ns - self._z0) - self._guard.delay_ns - self._est.at(t_s)
        span_s = (block.last_x_ns - block.first_x_ns) * 1e-9
        margin_ns = abs(self._est.skew_ns_s) * span_s
        return span_s >= 0.0 and late_ns > margin_ns - 0.5 * self.early_ns

    def _close(self) -> None:
        block = self._block if self._block is not None else self._builder.take()
        self._block = None
        t_s = (block.x_ns - self._x0) * 1e-9
        y_ns = float(block.z_ns - self._z0)
        self._unsettled = max(self._unsettled - 1, 0)
        self._stepped_left = max(self._stepped_left - 1, 0)
        if self._cold:
            self._est = self._guard.first(block, t_s, y_ns)
            self._cold = False
            return
        self._est, verdict = self._guard.take(block, t_s, y_ns, self._est)
        if verdict is Verdict.FORWARD and self._guard.since is not None:
            self.steps += 1
            self._stepped_left = 2
            self.suspect_since_ns = self._guard.since.first_x_ns - self._builder.block_ns

    def _lower(self, t_s: float, late_ns: float) -> None:
        if late_ns < 0.0:
            self._est = replace(self._est, t_s=t_s, offset_ns=self._est.at(t_s) + late_ns)

    def _early_gate(self, t_s: float) -> float:
        sigma_ns = math.sqrt(self._est.variance_at(t_s) + self._guard.noise.r_ns2)
        return max(float(self.early_ns), 8.0 * sigma_ns)

    def _early_frame(self, device_ns: Ns, z_ns: Ns, t_s: float) -> bool:
        """Handle a frame before its time; True when it is to be left out."""
        if not self._early:
            self._early.append((device_ns, z_ns))
            return True
        first_x, first_z = self._early.pop()
        offset_ns = float(min(first_z, z_ns) - self._z0)
        self._builder.clear()
        self._est = self._guard.restart(t_s, offset_ns, COLD_SIGMA_NS)
        self._builder.add(first_x, first_z)
        self._cold = True
        self.steps += 1
        self._stepped_left, self._unsettled = 2, SETTLED_BLOCKS
        return False

    def _bias(self) -> tuple[Ns, Ns]:
        return -self.tolerance_ns, math.ceil(self._guard.delay_ns)

    def _flags(self, ahead_s: float) -> Quality:
        held = self._unsettled > 0 or ahead_s > HOLDOVER_S
        quality = Quality.HOLDOVER if held else Quality.OK
        return quality | Quality.STEPPED if self._stepped_left else quality

    def _state(self, t_s: float, quality: Quality) -> ClockState:
        est = self._est
        offset_ns = self._z0 + _representable(est.at(t_s))
        sigma_ns = COLD_SIGMA_NS if self._cold else math.sqrt(est.variance_at(t_s))
        flags = self._flags(t_s - est.t_s)
        if quality is not Quality.OK:
            flags |= quality
        return ClockState(offset_ns, sigma_ns, self._bias(), flags)
