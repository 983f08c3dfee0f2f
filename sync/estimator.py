"""The estimator: measurements in, mapping segments and events out. A pure step, no clocks, no I/O."""

from __future__ import annotations

from dataclasses import dataclass

from syncline.sync.events import Event
from syncline.sync.measurement import Measurement
from syncline.timebase import MappingSegment, TimeState


@dataclass(frozen=True, slots=True)
class LearnedOscillator:
    """What is kept of an oscillator across boots.

    Attributes:
        rate: dUTC/draw - 1.
        rate_sigma: One sigma of `rate` at the next boot.
        wander: Random-walk FM, 1/sqrt(s).
    """

    rate: float
    rate_sigma: float
    wander: float


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """One line of `syncline time status`: a source as the estimator sees it."""

    source: str
    verdict: int
    offset_ns: int
    sigma_ns: float
    min_delay_ns: int
    measurements: int
    rejected: int
    last_raw_ns: int
    reason: str


class TimeEstimator:
    """Joint estimator of UTC over the raw clock.

    Args:
        boot_id: Boot whose raw time is mapped.
        settings: `syncline.sync.settings.EstimatorSettings`; None for the defaults.
        learned: Oscillator as `snapshot()` gave it before the last shutdown.
    """

    def __init__(
        self,
        boot_id: str = "",
        settings: object | None = None,
        learned: LearnedOscillator | None = None,
    ) -> None:
        raise NotImplementedError

    @property
    def state(self) -> TimeState:
        """What the service knows now."""
        raise NotImplementedError

    def update(self, m: Measurement) -> list[Event]:
        """Take one measurement (in order of arrival) and tell what changed."""
        raise NotImplementedError

    def advance(self, raw_ns: int) -> list[Event]:
        """Let time pass without a measurement: SYNCED becomes HOLDOVER, HOLDOVER expires."""
        raise NotImplementedError

    def segment(self, raw_ns: int) -> MappingSegment | None:
        """The mapping in force at `raw_ns` (at or after the last update); None while COLD."""
        raise NotImplementedError

    def accept_step(self, raw_ns: int, source: str | None = None) -> list[Event]:
        """Policy's word: adopt what the refused source(s) say, as a new segment."""
        raise NotImplementedError

    def widen(self, raw_ns: int, bound_ns: int) -> list[Event]:
        """Time of unknown amount was lost (suspend, VM pause): grow bounds, keep the rate."""
        raise NotImplementedError

    def sources(self) -> list[SourceStatus]:
        """Status of every source."""
        raise NotImplementedError

    def snapshot(self) -> LearnedOscillator | None:
        """The learned oscillator, None while it is not known."""
        raise NotImplementedError

    def restore(self, learned: LearnedOscillator) -> None:
        """Take a stored oscillator; only before the first measurement."""
        raise NotImplementedError
