"""What a device hears of its vehicle beside cameras and receivers: CAN buses, inertial sensors."""

from __future__ import annotations

from collections.abc import Callable

from syncline.edge.can_bus import CanBus
from syncline.edge.config import EdgeConfig, ImuSection
from syncline.edge.imu import Imu
from syncline.edge.records import Output
from syncline.messages import syncline_pb2 as pb
from syncline.sensors.adapters.iio import IioImu
from syncline.timebase import RawClock


class Vehicle:
    """The buses and sensors of `[[can]]` and `[[imu]]`, a thread each.

    Args:
        config: `edge.toml`.
        clock: Raw clock.
        emit: Takes what is recorded; called on their threads.

    Raises:
        ConfigError: A database that does not hold the signal of the speed.
        LogError: A database that cannot be read.
    """

    def __init__(
        self, config: EdgeConfig, clock: RawClock, emit: Callable[[list[Output]], None]
    ) -> None:
        self._buses = [CanBus(section, clock, emit) for section in config.can]
        imus = [
            Imu(section.name, imu_adapter(section, clock), clock.boot_id, emit)
            for section in config.imu
        ]
        self._parts: list[CanBus | Imu] = [*self._buses, *imus]

    def speed_mps(self) -> float | None:
        """Speed by the bus that tells it, m/s."""
        speeds = (bus.speed_mps() for bus in self._buses)
        return next((speed for speed in speeds if speed is not None), None)

    def start(self) -> None:
        """Begin to listen; what is absent is looked for again and again."""
        for part in self._parts:
            part.thread.start()

    def close(self) -> None:
        """End the threads and release buses and sensors."""
        for part in self._parts:
            part.thread.close()

    def add_to(self, message: pb.Health) -> list[str]:
        """Add counters to a health message; returns a line for each part with a problem."""
        for part in self._parts:
            part.add_to(message)
        threads = [part.thread for part in self._parts]
        return [f"{thread.label}: {thread.trouble}" for thread in threads if thread.trouble]


def imu_adapter(section: ImuSection, clock: RawClock) -> IioImu:
    """The adapter of a configured inertial sensor, not open yet."""
    return IioImu(
        section.device,
        section.name,
        rate_hz=section.rate_hz,
        trigger=section.trigger,
        clock=clock,
    )
