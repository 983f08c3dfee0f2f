"""An inertial sensor of Linux industrial I/O: buffered scans with the kernel's time of each.

A driver stamps the trigger, which for a data-ready trigger is the interrupt at the end of a
conversion, on the clock that `current_timestamp_clock` names. The motion that a sample shows lies
before it by the group delay of the sensor's filter, which no driver tells.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from syncline.sensors.adapter import Health, HealthState, Sample
from syncline.sensors.adapters.iio_scan import ScanLayout
from syncline.sensors.adapters.iio_sysfs import IioDevice, ImuChannels
from syncline.sensors.adapters.imu import ImuReading
from syncline.sensors.adapters.reopening import Reopening
from syncline.sensors.frame import FrameEvent, Ns, Stamp
from syncline.timebase import NS_PER_S, Clock, PairedRead, RawClock, paired_read

STALE_PERIODS = 3
UNKNOWN_PERIOD_NS = NS_PER_S // 10
MAX_AGE_NS = 10 * NS_PER_S
COARSE_NS = 10_000_000
"""A coarse clock stands still for one tick of the kernel, at most 10 ms (CONFIG_HZ=100)."""
SCANS_A_READ = 64


class IioImu(Reopening[Sample[ImuReading]]):
    """Samples of an IIO accelerometer, gyroscope or both.

    Memory: `SCANS_A_READ` scans and the kernel's own buffer. `frames` survives unplugging: it says
    GONE and looks for the device again every half second, by its name, whatever number it has then.

    Args:
        device: `iio:device0`, or the device's `name` or `label`.
        sensor: Name given to the samples.
        rate_hz: Sampling frequency to set; 0 leaves it.
        trigger: Trigger to set, such as `icm42605-dev1`; empty leaves it.
        clock: Paces retries and stamps arrivals.
        root: Root of the file system that holds `sys` and `dev`.
        pair: Reads a clock against RAW.
    """

    def __init__(
        self,
        device: str,
        sensor: str = "imu",
        *,
        rate_hz: float = 0.0,
        trigger: str = "",
        clock: RawClock | None = None,
        root: Path = Path("/"),
        pair: Callable[[Clock], PairedRead] = paired_read,
    ) -> None:
        self._wanted, self._sensor, self._root, self._pair = device, sensor, root, pair
        self._rate_hz, self._trigger = rate_hz, trigger
        super().__init__(clock)
        self._device: IioDevice | None = None
        self._channels: ImuChannels | None = None
        self._fd = -1
        self._left = b""
        self._unstamped = 0
        self._stamped_ns: Ns | None = None

    def _open(self) -> None:
        """Find the device, enable its channels and begin to sample.

        Raises:
            DeviceError: It is missing, has no inertial channels, or its buffer does not start.
            PermissionDeniedError: Its settings may not be written, or its node not be read.
        """
        device = IioDevice.find(self._wanted, self._root)
        channels = device.prepare(self._rate_hz, self._trigger)
        try:
            self._fd = device.start()
        except BaseException:
            device.stop()
            raise
        self._device, self._channels = device, channels
        self._left, self._stamped_ns = b"", None

    @property
    def _is_open(self) -> bool:
        return self._fd >= 0

    def _some(self) -> Iterator[Sample[ImuReading]]:
        """The samples of one read; silence makes the sensor STALE, an end or error GONE."""
        assert self._channels is not None
        layout = self._channels.layout
        data = self._read(SCANS_A_READ * layout.size_bytes)
        if not data:
            return
        self._state = HealthState.OK
        pair = self._pair(self._channels.stamp_clock)
        data = self._left + data
        whole = len(data) // layout.size_bytes * layout.size_bytes
        self._left = data[whole:]
        for at in range(0, whole, layout.size_bytes):
            behind = (whole - at) // layout.size_bytes - 1
            found = self._sample(layout, data[at : at + layout.size_bytes], pair, behind)
            if found is not None:
                yield found

    def _read(self, size: int) -> bytes:
        try:
            poll = select.poll()
            poll.register(self._fd, select.POLLIN)
            ready = poll.poll(STALE_PERIODS * self._period_s() * 1e3)
            # Asked also when nothing is ready: of a device that is gone, the kernel's poll is
            # silent for ever, and only reading tells.
            data = os.read(self._fd, size)
            reason = "the device hung up"
            if not data and not ready:
                self._state = HealthState.STALE
                return b""
        except BlockingIOError:
            self._state = HealthState.STALE
            return b""
        except OSError as error:
            data, reason = b"", error.strerror or str(error)
        if not data:
            self._errors += bool(self._left)  # a scan that was cut off
            self._lose(f"{self._wanted}: {reason}")
            self._rest()
        return data

    def _period_s(self) -> float:
        period_ns = self._channels.period_ns if self._channels is not None else 0.0
        return (period_ns or UNKNOWN_PERIOD_NS) / NS_PER_S

    def _sample(
        self, layout: ScanLayout, scan: bytes, pair: PairedRead, behind: int
    ) -> Sample[ImuReading] | None:
        """None for a sample that repeats or precedes the last one, or holds no numbers."""
        reading = reading_of(layout.values(scan))
        stamp_ns = layout.raw(scan).get("in_timestamp")
        if reading is None:
            self._errors += 1
            return None
        driver = None if stamp_ns is None else self._stamp(int(stamp_ns), pair)
        arrival_ns = pair.raw_ns
        # Compared as the driver wrote them: moving a stamp to RAW adds the noise of the pairing.
        if stamp_ns is not None and driver is not None and not self._ascends(int(stamp_ns)):
            return None
        # Samples that came with one read waited for it: this one for those behind it too.
        late_ns = round((behind + 1) * self._period_s() * NS_PER_S)
        return Sample(
            sensor=self._sensor,
            sequence=None,
            driver=driver,
            arrival=Stamp(arrival_ns, Clock.MONOTONIC_RAW, FrameEvent.ARRIVAL, 0.0, (-late_ns, 0)),
            payload=reading,
        )

    def _ascends(self, t_ns: Ns) -> bool:
        """Count what lies between this sample and the last one; False for a repeat."""
        last_ns, period_ns = self._stamped_ns, self._period_s() * NS_PER_S
        if last_ns is not None and t_ns <= last_ns:
            self._duplicates += 1
            return False
        if last_ns is not None and self._channels is not None and self._channels.period_ns:
            self._dropped += max(round((t_ns - last_ns) / period_ns) - 1, 0)
        self._stamped_ns = t_ns
        return True

    def _stamp(self, stamp_ns: Ns, pair: PairedRead) -> Stamp | None:
        """The kernel's stamp on RAW; None, counted, for one of the future or of long ago."""
        assert self._channels is not None
        coarse_ns = COARSE_NS if self._channels.coarse else 0
        age_ns = pair.other_ns - stamp_ns
        if not -pair.bracket_ns <= age_ns <= MAX_AGE_NS:
            self._unstamped += 1
            return None
        t_ns, sigma_ns = pair.raw_ns - age_ns, pair.bracket_ns / 12**0.5
        if self._channels.stamp_clock is Clock.MONOTONIC_RAW:
            t_ns, sigma_ns = stamp_ns, 0.0
        return Stamp(t_ns, Clock.MONOTONIC_RAW, FrameEvent.TRIGGER, sigma_ns, (0, coarse_ns))

    def health(self) -> Health:
        """State and counters; stamps that are not used count as errors."""
        health = super().health()
        return replace(health, errors=health.errors + self._unstamped)

    def _stamps(self) -> tuple[Clock, FrameEvent]:
        if self._channels is None or not self._channels.is_stamped:
            return Clock.UNKNOWN, FrameEvent.ARRIVAL
        return Clock.MONOTONIC_RAW, FrameEvent.TRIGGER

    def _told(self) -> list[str]:
        told = [] if self._channels is None else [self._channels.meaning()]
        if self._unstamped:
            told.append(f"{self._unstamped} stamps of the future or over 10 s old: arrivals stand")
        return told

    def _release(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)
        device, self._device = self._device, None
        if device is not None:
            device.stop()


def reading_of(values: dict[str, float]) -> ImuReading | None:
    """The three axes of what a scan holds; None when a number is none."""
    if not all(map(math.isfinite, values.values())):
        return None

    def axes(kind: str) -> tuple[float, float, float] | None:
        found = [values.get(f"in_{kind}_{axis}") for axis in "xyz"]
        x, y, z = found
        return None if x is None or y is None or z is None else (x, y, z)

    return ImuReading(axes("anglvel"), axes("accel"))
