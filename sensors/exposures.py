"""Which exposure does a frame have, when its metadata comes later than the frame itself?"""

from __future__ import annotations

from collections import OrderedDict

from syncline.errors import SensorDataError
from syncline.sensors.frame import Exposure

KEPT = 128
"""Frames whose metadata is remembered (bounded memory)."""


class ExposureBook:
    """Exposures by frame sequence, from metadata and from controls.

    Metadata says what a frame had, whenever it comes. A control says what frames will have from
    `control_delay` frames after the one during which it was set.

    Args:
        control_delay: Frames between setting and effect.
    """

    def __init__(self, control_delay: int = 0) -> None:
        if control_delay < 0:
            raise SensorDataError(f"exposure book: control_delay={control_delay} is below 0")
        self._delay = control_delay
        self._known: OrderedDict[int, tuple[Exposure, ...]] = OrderedDict()
        self._set: OrderedDict[int, tuple[Exposure, ...]] = OrderedDict()

    def bind(self, sequence: int, exposures: tuple[Exposure, ...]) -> None:
        """Metadata: frame `sequence` had these exposures."""
        self._known[sequence] = exposures
        while len(self._known) > KEPT:
            self._known.popitem(last=False)

    def control(self, sequence: int, exposures: tuple[Exposure, ...]) -> None:
        """A control was set while frame `sequence` was current."""
        self._set[sequence + self._delay] = exposures
        while len(self._set) > KEPT:
            self._set.popitem(last=False)

    def of(self, sequence: int | None) -> tuple[Exposure, ...]:
        """Exposures of a frame; empty when not known."""
        if sequence is None:
            return ()
        known = self._known.get(sequence)
        if known is not None:
            return known
        best: tuple[Exposure, ...] = ()
        for since, exposures in self._set.items():
            if since <= sequence:
                best = exposures
        return best
