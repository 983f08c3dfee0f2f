"""Which frames are uploaded: the ones models disagree on, and an unbiased one per cent.

Pure: the same frames give the same choice, whenever they are gone through. The random share is
drawn by a keyed hash of camera and frame time, of every valid result of the serving model: whether
the shadow had time plays no part, so that rates estimated from it carry no bias. It does not pay
for its frames from the bucket, and no score can change it.
"""

from __future__ import annotations

import bisect
import enum
import hashlib
from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache

from syncline.errors import UsageError
from syncline.timebase import NS_PER_S


class Choice(enum.Enum):
    """Why a frame is uploaded, or why not."""

    RANDOM = "random"
    """Drawn by lot."""
    SCORE = "score"
    """Its score is among the highest."""
    LOW = "low"
    """Its score is not high enough."""
    GAP = "gap"
    """Too soon after the last chosen one: it would look the same."""
    BUDGET = "budget"
    """The token bucket is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectOptions:
    """How frames are chosen.

    Attributes:
        random_share: Share drawn by lot.
        top_share: Share of the highest scores, among the last `window` frames, that qualify.
        min_score: Scores below never qualify.
        window: Frames whose scores are remembered.
        warm_up: Frames before any score qualifies.
        min_gap_ns: Least time between two frames of a camera that are chosen by score.
        rate_per_hour: Frames by score per hour, on average, over all cameras.
        burst: Frames by score in a row.
        seed: Of the lot; one per device and boot, so that no two draw the same frames.
    """

    random_share: float = 0.01
    top_share: float = 0.1
    min_score: float = 0.02
    window: int = 512
    warm_up: int = 32
    min_gap_ns: int = 2 * NS_PER_S
    rate_per_hour: float = 120.0
    burst: int = 10
    seed: str = ""

    def __post_init__(self) -> None:
        for name in ("random_share", "top_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UsageError(f"selection: {name}={getattr(self, name)} must be 0 to 1")
        if self.window < 1 or self.burst < 1 or self.rate_per_hour < 0:
            raise UsageError("selection: window and burst must be at least 1, the rate at least 0")


@dataclass
class TokenBucket:
    """A budget that fills with time, on raw nanoseconds.

    Attributes:
        per_s: Tokens per second.
        size: Most tokens it holds; it begins full.
    """

    per_s: float
    size: float
    _tokens: float = field(init=False)
    _last_ns: int | None = None

    def __post_init__(self) -> None:
        self._tokens = self.size

    def take(self, now_ns: int) -> bool:
        """Take one token if there is one. A time before the last one adds nothing."""
        if self._last_ns is not None:
            gained = max(now_ns - self._last_ns, 0) / NS_PER_S * self.per_s
            self._tokens = min(self.size, self._tokens + gained)
        self._last_ns = now_ns if self._last_ns is None else max(now_ns, self._last_ns)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


@dataclass
class Selector:
    """Chooses frames for upload.

    Attributes:
        options: See `SelectOptions`.
        counts: Frames by choice.
        frames: Frames that the lot was drawn of.
    """

    options: SelectOptions = field(default_factory=SelectOptions)
    counts: dict[Choice, int] = field(default_factory=lambda: dict.fromkeys(Choice, 0))
    frames: int = 0
    _scores: deque[float] = field(init=False, repr=False)
    _sorted: list[float] = field(default_factory=list, repr=False)
    _bucket: TokenBucket = field(init=False, repr=False)
    _last_ns: dict[str, int] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._scores = deque(maxlen=self.options.window)
        self._bucket = TokenBucket(self.options.rate_per_hour / 3600.0, float(self.options.burst))

    def lot(self, camera: str, at_ns: int) -> bool:
        """Whether the lot falls on a frame; asked once of every valid result.

        Args:
            camera: Name of the camera.
            at_ns: The frame's time, by which it is told from all others of this boot.
        """
        self.frames += 1
        drawn = draw(self.options.seed, camera, at_ns) < self.options.random_share
        self.counts[Choice.RANDOM] += drawn
        return drawn

    def step(self, camera: str, at_ns: int, worth: float) -> Choice:
        """Choose or pass over a frame that both models saw.

        Args:
            camera: Name of the camera.
            at_ns: The frame's time.
            worth: Of its disagreement.

        Returns:
            RANDOM for a frame that `lot` has chosen already: it is not chosen again.
        """
        high = self._is_high(worth)
        if draw(self.options.seed, camera, at_ns) < self.options.random_share:
            return Choice.RANDOM
        choice = self._choose(camera, at_ns) if high else Choice.LOW
        self.counts[choice] += 1
        return choice

    def _choose(self, camera: str, at_ns: int) -> Choice:
        last_ns = self._last_ns.get(camera)
        if last_ns is not None and at_ns - last_ns < self.options.min_gap_ns:
            return Choice.GAP
        if not self._bucket.take(at_ns):
            return Choice.BUDGET
        self._last_ns[camera] = at_ns
        return Choice.SCORE

    def _is_high(self, score: float) -> bool:
        """Whether a score is among the top share of those before it; it joins them."""
        options, count = self.options, len(self._sorted)
        above = count - bisect.bisect_left(self._sorted, score)
        high = (
            count >= options.warm_up
            and score >= options.min_score
            and above < options.top_share * count
        )
        if count == options.window:
            del self._sorted[bisect.bisect_left(self._sorted, self._scores[0])]
        self._scores.append(score)
        bisect.insort(self._sorted, score)
        return high


def draw(seed: str, camera: str, at_ns: int) -> float:
    """The lot of a frame, 0..1, the same wherever and whenever it is drawn.

    By its time, not by its number: numbers begin at 0 again with every start.
    """
    text = f"{camera}\0{at_ns}".encode()
    digest = hashlib.blake2b(text, key=_key(seed), digest_size=8)
    return int.from_bytes(digest.digest(), "big") / 2.0**64


@lru_cache(maxsize=64)
def _key(seed: str) -> bytes:
    """A key of the whole seed: BLAKE2 takes but 64 bytes, less than device and boot may have."""
    return hashlib.blake2b(seed.encode()).digest()
