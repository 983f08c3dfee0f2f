"""How many bytes may be in flight, from how late the acknowledgements come.

A delay-based window in the manner of LEDBAT (RFC 6817): it grows while acknowledgements come within
the target and shrinks when they do not, so that the queue in the network stays short and a fresh
event does not wait behind a backlog.
"""

from __future__ import annotations

TARGET_NS = 400_000_000
LEAST_BYTES = 64 * 1024


class DelayWindow:
    """Bytes in flight allowed.

    Args:
        most: Upper bound until the collector's own bound is known.
        target_ns: Acknowledgement delay aimed at.
    """

    def __init__(self, most: int = 4 << 20, target_ns: int = TARGET_NS) -> None:
        self.most = most
        self._target_ns = target_ns
        self._bytes = float(LEAST_BYTES * 4)
        self._starting = True
        self._cut_ns = 0

    @property
    def size(self) -> int:
        """Bytes that may be in flight now."""
        return int(min(self._bytes, self.most))

    def acked(self, size: int, sent_ns: int, now_ns: int) -> None:
        """`size` bytes sent at `sent_ns` were acknowledged at `now_ns` (both RAW)."""
        delay_ns = now_ns - sent_ns
        if delay_ns > self._target_ns:
            if sent_ns >= self._cut_ns:  # once per round trip
                self._bytes = max(
                    self._bytes * max(self._target_ns / delay_ns, 0.5), float(LEAST_BYTES)
                )
                self._cut_ns, self._starting = now_ns, False
            return
        if self._bytes < self.most:
            self._bytes += size if self._starting else size * 65536 / self._bytes
