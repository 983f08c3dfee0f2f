"""Device time to host time by the lower convex hull of the last blocks' least delays.

The line under all points that touches them around the window's middle. Exact and unbiased where
delay has a sharp least value; worse than the filter bank where it has not. No guard against steps:
use `BlockMinKalman` unless the path is known to be of that kind.
"""

from __future__ import annotations

from collections import deque

from syncline.errors import SensorDataError
from syncline.sensors.blocks import BlockBuilder
from syncline.sensors.clock import ClockState
from syncline.sensors.frame import FrameEvent, Ns, Quality, Stamp
from syncline.timebase import Clock


class SlidingHull:
    """Online mapper; bounded memory: one point per block of the window.

    Args:
        window_ns: How far back points count, device time.
        block_ns: Length of a block.
        tolerance_ns: See `BlockMinKalman`.
        clock: Host clock of the pairs.
    """

    def __init__(
        self,
        window_ns: Ns = 20_000_000_000,
        block_ns: Ns = 500_000_000,
        tolerance_ns: Ns = 1_000_000,
        clock: Clock = Clock.MONOTONIC_RAW,
    ) -> None:
        if window_ns < 4 * block_ns or block_ns <= 0:
            raise SensorDataError(
                f"sliding hull: window_ns={window_ns} must be at least four blocks of {block_ns}"
            )
        self.clock = clock
        self._window_ns = window_ns
        self._bias = (-tolerance_ns, 0)
        self._builder = BlockBuilder(block_ns)
        self._points: deque[tuple[int, int]] = deque()
        self._line: tuple[int, float, float] | None = None
        self._spread = 300_000.0
        self._last_x = 0

    def reset(self, reason: str) -> None:
        """Forget everything."""
        if not reason:
            raise SensorDataError("sliding hull: reset needs a reason")
        self._builder.clear()
        self._points.clear()
        self._line = None

    def update(self, device_ns: Ns, host_ns: Ns) -> ClockState:
        """Take a pair; answers from this and earlier ones."""
        if self._builder.due(device_ns):
            block = self._builder.take()
            self._points.append((block.x_ns, block.z_ns))
            while self._points[0][0] < block.x_ns - self._window_ns:
                self._points.popleft()
            self._fit()
        z_ns = host_ns - device_ns
        if self._line is None:
            self._line = (device_ns, float(z_ns), 0.0)
        self._builder.add(device_ns, z_ns)
        self._last_x = device_ns
        return self._state(device_ns)

    def to_host(self, device_ns: Ns, event: FrameEvent = FrameEvent.SOF) -> Stamp:
        """Host time of `device_ns`.

        Raises:
            SensorDataError: No frame was ever given.
        """
        state = self._state(device_ns)
        t_ns = device_ns + state.offset_ns
        return Stamp(t_ns, self.clock, event, state.sigma_ns, state.bias_ns)

    def _state(self, device_ns: Ns) -> ClockState:
        if self._line is None:
            raise SensorDataError("sliding hull: no frame yet", remedy="Call update first")
        x0, z0, slope = self._line
        quality = Quality.OK if len(self._points) >= 4 else Quality.HOLDOVER
        offset_ns = round(z0 + slope * (device_ns - x0))
        return ClockState(offset_ns, self._spread, self._bias, quality)

    def _fit(self) -> None:
        x0, z0 = self._points[0]
        hull: list[tuple[float, float]] = []
        for px, pz in self._points:
            x, z = float(px - x0), float(pz - z0)
            if hull and x <= hull[-1][0]:
                continue
            while len(hull) >= 2 and _is_above(hull[-2], hull[-1], x, z):
                hull.pop()
            hull.append((x, z))
        if len(hull) < 2:
            self._line = (x0, float(z0), 0.0)
            return
        middle = 0.5 * hull[-1][0]
        k = 1
        while k < len(hull) - 1 and hull[k][0] < middle:
            k += 1
        (xa, za), (xb, zb) = hull[k - 1], hull[k]
        slope = (zb - za) / (xb - xa)
        self._line = (x0, float(z0) + za - slope * xa, slope)
        over = sum(float(z - z0) - za - slope * (float(x - x0) - xa) for x, z in self._points)
        self._spread = max(over / len(self._points), 1_000.0)


def _is_above(a: tuple[float, float], b: tuple[float, float], x: float, z: float) -> bool:
    """True when `b` is not below the line from `a` to (x, z)."""
    return (b[0] - a[0]) * (z - a[1]) <= (b[1] - a[1]) * (x - a[0])
