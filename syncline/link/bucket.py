"""Byte caps as token buckets on the raw clock."""

from __future__ import annotations

from syncline.timebase import NS_PER_S

BURST_S = 0.04
"""Seconds' worth of bytes that may go at once; keeps a one-second mean within 1.05 x the cap."""


class TokenBucket:
    """Bytes per second; a debt is allowed once, so that a large record passes whole.

    Args:
        bytes_per_s: The cap, or None for no cap.
    """

    def __init__(self, bytes_per_s: int | None) -> None:
        self.rate = bytes_per_s
        self._tokens = self._limit = (bytes_per_s or 0) * BURST_S
        self._last_ns: int | None = None

    def ready(self, now_raw_ns: int) -> bool:
        """True when something may be sent now."""
        if self.rate is None:
            return True
        if self._last_ns is not None:
            passed_ns = max(now_raw_ns - self._last_ns, 0)
            self._tokens = min(self._tokens + self.rate * passed_ns / NS_PER_S, self._limit)
        self._last_ns = now_raw_ns
        return self._tokens > 0

    def wait_ns(self) -> int:
        """Nanoseconds until `ready`, as of its last call."""
        if self.rate is None or self._tokens > 0:
            return 0
        return int(-self._tokens / self.rate * NS_PER_S) + 1_000_000

    def spend(self, size: int) -> None:
        """`size` bytes were sent."""
        if self.rate is not None:
            self._tokens -= size

    def batch_bytes(self, most: int) -> int:
        """Bytes that one message should have at most."""
        return most if self.rate is None else max(min(most, int(self._limit)), 256)
