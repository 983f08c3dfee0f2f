"""What the daemon says of its link: refusals at once, an absent collector after a while."""

from __future__ import annotations

import logging
from pathlib import Path

from syncline.timebase import NS_PER_S

_log = logging.getLogger(__name__)

ABSENT_NS = 30 * NS_PER_S
"""A collector may restart, or a vehicle drive through a tunnel, without a word in health."""

_PASSING = ("no answer", "session:", "busy:")
_UNKNOWN_KEY = ("refused", "identity:", "revoked")
_NO_HANDSHAKE = "handshake failed"


class LinkWatch:
    """Turns the link's state into a line for people, and logs it once per change.

    Args:
        endpoint: Where the collector should be.
        key: The device's secret key file; its public half lies beside it.
        raw_ns: Now, CLOCK_MONOTONIC_RAW.
    """

    def __init__(self, endpoint: str, key: Path, raw_ns: int) -> None:
        self._endpoint = endpoint
        self._public = f"{key.stem}.pub"
        self._seen_ns = raw_ns
        self._text = ""

    def step(self, *, is_open: bool, problem: str, raw_ns: int) -> str:
        """The line now; empty while nothing is wrong, or not for long.

        Args:
            is_open: A session with the collector is open.
            problem: What the link says of itself.
            raw_ns: Now, CLOCK_MONOTONIC_RAW.
        """
        if is_open:
            self._seen_ns = raw_ns
        text = self._judged(is_open=is_open, problem=problem, raw_ns=raw_ns)
        if text != self._text:
            _log.warning("link: %s", text or "works again")
        self._text = text
        return text

    def _judged(self, *, is_open: bool, problem: str, raw_ns: int) -> str:
        if problem and not problem.startswith(_PASSING):
            return problem + self._remedy(problem)
        if is_open or raw_ns - self._seen_ns < ABSENT_NS:
            return ""
        return f"{problem or 'no collector'} at {self._endpoint}; records wait in the spool"

    def _remedy(self, problem: str) -> str:
        if problem.startswith(_UNKNOWN_KEY):
            return f". On the collector: syncline keys enrol {self._public} --data DIR"
        if problem.startswith(_NO_HANDSHAKE):
            return ". Give the collector's own server.pub as link.server_key"
        return ""
