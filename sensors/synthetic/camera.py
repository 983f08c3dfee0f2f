"""Timing of the synthetic camera's sensor."""

from __future__ import annotations

from syncline.sensors.mode import NS_PER_S, SensorMode, Shutter



def sensor_mode(width: int, height: int, fps: float, readout_ns: float = 14e6) -> SensorMode:
    """A rolling-shutter mode whose line time and frame length give exactly `fps`.

    Args:
        width: Image columns.
        height: Image rows.
        fps: Frames per second of the device's own clock.
        readout_ns: First line to one past the last, about.
    """
    period_ns = NS_PER_S / fps
    lines = round(period_ns / (readout_ns / height))
    crop = (0, 0, width, height)
    return SensorMode(
        width, height, crop, (1, 1), period_ns / lines, lines, Shutter.ROLLING, control_delay=2
    )
