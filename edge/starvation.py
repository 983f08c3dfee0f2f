"""Cameras whose frames come and are not processed: by count, and by time.

Books that balance are not enough: when every frame is dropped for a good reason, nothing is seen.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from syncline.edge.job import DropReason
from syncline.timebase import NS_PER_S

STARVED_FRAMES = 30
"""After so many frames in a row without a result a slot is degraded, as with constant outputs."""
STARVED_NS = 3 * NS_PER_S
"""Or after so long, where the slot's patience is not longer, and `LEAST_FRAMES`."""
LEAST_FRAMES = 3
"""One lost frame of a slow camera is no drought."""

_MODEL = frozenset({DropReason.TIMEOUT, DropReason.FAILED, DropReason.HANG})
"""The model had its turn and gave nothing."""
_UNSERVED = _MODEL | {DropReason.LATE, DropReason.BAD_FRAME}
"""Each of these frames should have been run."""
_WAITED = frozenset({DropReason.REPLACED, DropReason.QUEUE_FULL})
"""Usual under overload; alone, they say that no turn ever came."""


@dataclass
class _Drought:
    """Frames of one camera since the last that was processed."""

    since_ns: int
    last_ns: int
    reasons: Counter[DropReason] = field(default_factory=Counter)

    def add(self, raw_ns: int, reason: DropReason) -> None:
        self.last_ns = max(self.last_ns, raw_ns)
        self.reasons[reason] += 1

    def count(self, reasons: frozenset[DropReason]) -> int:
        return sum(self.reasons[reason] for reason in reasons)

    def usual(self) -> str:
        """The usual reason among those that should not be, else among all."""
        bad = {reason: n for reason, n in self.reasons.items() if reason in _UNSERVED}
        return Counter(bad or self.reasons).most_common(1)[0][0].value


@dataclass
class Starvation:
    """Judges what becomes of each camera's frames.

    Attributes:
        patience_ns: A run may take so long: no drought is judged by time before.
    """

    patience_ns: int
    _droughts: dict[str, _Drought] = field(default_factory=dict)

    def served(self, camera: str) -> None:
        """A frame was processed."""
        self._droughts.pop(camera, None)

    def unserved(self, camera: str, raw_ns: int, reason: DropReason) -> bool:
        """A frame was dropped; returns whether the model itself is to blame."""
        if reason in _UNSERVED or reason in _WAITED:
            drought = self._droughts.get(camera)
            if drought is None:
                drought = self._droughts[camera] = _Drought(raw_ns, raw_ns)
            drought.add(raw_ns, reason)
        return reason in _MODEL

    def trouble(self) -> str:
        """Which camera starves; empty when none does."""
        return self._first(_UNSERVED, _UNSERVED | _WAITED)

    def fault(self) -> str:
        """The same, where it is the model that had its turns and gave nothing."""
        return self._first(_MODEL, _MODEL)

    def _first(self, counted: frozenset[DropReason], timed: frozenset[DropReason]) -> str:
        """The first drought that is long enough by number of `counted`, or by time with `timed`."""
        for camera, drought in self._droughts.items():
            lasted_ns = drought.last_ns - drought.since_ns
            if drought.count(counted) >= STARVED_FRAMES:
                which = f"the last {drought.reasons.total()} frames"
            elif drought.count(timed) >= LEAST_FRAMES and lasted_ns >= self._bound_ns:
                which = f"the frames of {lasted_ns / NS_PER_S:.0f} s"
            else:
                continue
            return f"none of {which} of {camera} was processed: {drought.usual()}"
        return ""

    @property
    def _bound_ns(self) -> int:
        return max(STARVED_NS, self.patience_ns)
