"""Signals of CAN frames by cantools, of the `sensors` extra."""

from __future__ import annotations

from pathlib import Path

from syncline.errors import LogError
from syncline.sensors.adapters.can import CanFrame
from syncline.sensors.adapters.extras import need


class CanDecoder:
    """Signals of frames, by a database (DBC, KCD, SYM, ARXML).

    Args:
        path: The database.

    Raises:
        UsageError: cantools is not installed.
        LogError: The database cannot be read.
    """

    def __init__(self, path: Path) -> None:
        cantools = need("cantools", "decoding CAN signals")
        try:
            database = cantools.database.load_file(str(path))
        except (cantools.database.Error, OSError, ValueError) as error:
            raise LogError(f"cannot read CAN database {path}: {error}") from error
        self._messages = {
            (message.frame_id, message.is_extended_frame): message for message in database.messages
        }
        # J1939: sender and priority are part of the identifier; the PGN tells the message.
        self._groups = {
            _pgn(message.frame_id): message
            for message in database.messages
            if message.protocol == "j1939"
        }
        self.unknown = 0
        self.errors = 0

    def has(self, message: str, signal: str) -> bool:
        """Whether the database holds that signal in that message."""
        return any(
            known.name == message and signal in {s.name for s in known.signals}
            for known in self._messages.values()
        )

    def decode(self, frame: CanFrame) -> tuple[str, dict[str, float | str]] | None:
        """(message name, signals in physical units); None when unknown or damaged, counted."""
        message = self._messages.get((frame.id, frame.extended))
        if message is None and frame.extended:
            message = self._groups.get(_pgn(frame.id))
        if message is None or frame.error or frame.remote:
            self.unknown += 1
            return None
        try:
            values = message.decode(frame.data, decode_choices=False)
        except Exception:  # noqa: BLE001 cantools and bitstruct raise errors of their own kinds
            self.errors += 1
            return None
        return str(message.name), values


def _pgn(identifier: int) -> int:
    """Parameter group number of a 29-bit identifier (SAE J1939-21, 5.2)."""
    group = identifier >> 8 & 0x3FFFF
    return group if group >> 8 & 0xFF >= 240 else group & 0x3FF00
