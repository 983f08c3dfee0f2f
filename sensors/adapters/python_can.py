"""Interfaces that python-can drives (slcan, PCAN, Kvaser, Vector and more): the `sensors` extra.

SocketCAN is better read by `socket_can`, which has the kernel's stamps to the nanosecond and counts
what the kernel threw away. python-can gives a stamp in float seconds on a clock that depends on the
interface, so that the reading of a frame is its time here, late by the adapter's own queue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from syncline.errors import DeviceError, SynclineError, UsageError
from syncline.sensors.adapter import Sample
from syncline.sensors.adapters.can import CanFrame
from syncline.sensors.adapters.extras import need
from syncline.sensors.adapters.reopening import Reopening
from syncline.sensors.frame import FrameEvent, Stamp
from syncline.timebase import Clock, RawClock

READ_S = 0.2
"""Longest wait for a frame: `close` is noticed within it."""
LATE_NS = 50_000_000
"""USB interfaces hand frames over in batches, of up to some 10 ms; a scheduler adds its own."""


def open_python_can(driver: str, channel: str, bitrate: int) -> Any:
    """A `can.BusABC`.

    Raises:
        UsageError: python-can is not installed.
    """
    can = need("can", f"a CAN interface by {driver}")
    options: dict[str, Any] = {"bitrate": bitrate} if bitrate else {}
    return can.Bus(interface=driver, channel=channel, ignore_config=True, **options)


class PythonCan(Reopening[Sample[CanFrame]]):
    """Live frames of an interface; the sensor's name is the bus.

    A lost interface is opened again every half second. Memory: python-can's own queue.

    Args:
        driver: python-can's name of the interface, such as `slcan`.
        channel: Such as `/dev/ttyACM0` or `PCAN_USBBUS1`.
        bus: Name given to the frames; empty for the channel's.
        bitrate: Of the bus, bit/s; 0 where the driver knows it.
        clock: Stamps readings and paces retries.
        connect: Opens the interface (tests pass their own).
    """

    def __init__(
        self,
        driver: str,
        channel: str,
        bus: str = "",
        *,
        bitrate: int = 0,
        clock: RawClock | None = None,
        connect: Callable[[str, str, int], Any] = open_python_can,
    ) -> None:
        super().__init__(clock)
        self._driver, self._channel, self._bitrate = driver, channel, bitrate
        self._bus, self._connect = bus or channel, connect
        self._device: Any = None

    def _open(self) -> None:
        """Open the interface.

        Raises:
            DeviceError: It is absent or busy.
            UsageError: python-can is not installed, or has no such interface.
        """
        try:
            self._device = self._connect(self._driver, self._channel, self._bitrate)
        except SynclineError:
            raise
        except NotImplementedError as error:
            raise UsageError(
                f"CAN interface {self._name()}: {_line(error)}",
                remedy="Choose one of python-can's interfaces, and install what it needs",
            ) from error
        except Exception as error:  # each interface raises errors of its own kinds
            raise DeviceError(
                f"CAN interface {self._name()}: {_line(error)}",
                remedy="Plug it in, and check driver, channel and bitrate",
            ) from error

    def _name(self) -> str:
        return f"{self._driver}:{self._channel}"

    @property
    def _is_open(self) -> bool:
        return self._device is not None

    def _some(self) -> Iterator[Sample[CanFrame]]:
        """One frame, or none for a silence."""
        try:
            message = self._device.recv(READ_S)
        except Exception as error:  # noqa: BLE001 each interface raises errors of its own kinds
            self._lose(f"CAN interface {self._name()}: {_line(error)}")
            self._rest()
            return
        if message is None:
            return
        t_ns = self._clock.raw_ns()
        arrival = Stamp(t_ns, Clock.MONOTONIC_RAW, FrameEvent.ARRIVAL, 0.0, (-LATE_NS, 0))
        frame = CanFrame(
            int(message.arbitration_id),
            bool(message.is_extended_id),
            bytes(message.data),
            error=bool(message.is_error_frame),
            remote=bool(message.is_remote_frame),
        )
        yield Sample(self._bus, None, None, arrival, frame)

    def _stamps(self) -> tuple[Clock, FrameEvent]:
        return Clock.MONOTONIC_RAW, FrameEvent.ARRIVAL

    def _release(self) -> None:
        device, self._device = self._device, None
        if device is None:
            return
        try:
            device.shutdown()
        except Exception as error:  # noqa: BLE001 an interface that is gone cannot be shut down
            self._detail = self._detail or _line(error)


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
