"""What shares the link below the records, as the sender sees it."""

from __future__ import annotations

from typing import Protocol

from syncline.link.wire import Message, State


class Side(Protocol):
    """Something that shares the link below the records: file uploads."""

    def begin(self) -> None:
        """A session is open: what was in flight is forgotten."""

    def on_state(self, state: State, now_raw_ns: int) -> None:
        """The collector tells how much of a file it has."""

    def peek(self, max_bytes: int) -> Message | None:
        """The next message, or None; taken when `sent` follows."""

    def sent(self, now_raw_ns: int) -> None:
        """The message that `peek` gave was sent."""

    @property
    def in_flight_bytes(self) -> int:
        """Bytes sent and not acknowledged."""

    def stalled(self, now_raw_ns: int) -> bool:
        """True when an acknowledgement is overdue."""
