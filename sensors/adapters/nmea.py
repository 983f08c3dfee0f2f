"""NMEA 0183: checked sentences and their fields, decoded in integers.

pynmeagps serves as the judge in the tests; it gives times as floats and raises on the first oddity,
while a vehicle's serial line carries cut, merged and misspelt sentences every day.
"""

from __future__ import annotations

from dataclasses import dataclass

from syncline.timebase import NS_PER_S

MAX_SENTENCE = 128
"""The standard says 82; some receivers send more."""
FIX_MODES = frozenset("ADFPR")
"""RMC/GLL mode letters that mean a satellite fix; E estimated, M manual, S simulator, N none."""
KNOT_MPS = 0.514444


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence whose checksum holds.

    Attributes:
        raw_ns: When its first byte arrived.
        talker: "GP", "GN", ...
        kind: "RMC", "GGA", ...
        fields: What stands between the commas.
    """

    raw_ns: int
    talker: str
    kind: str
    fields: tuple[str, ...]


class NmeaReader:
    """Bytes in, checked sentences out; holds at most one sentence.

    Args:
        byte_ns: Time of one byte on the line (10 bits), 0 for a file or a socket.
    """

    def __init__(self, byte_ns: int = 0) -> None:
        self.bad = 0
        self._byte_ns = byte_ns
        self._part = bytearray()
        self._part_raw_ns = 0
        self._inside = False

    def feed(self, data: bytes, raw_ns: int) -> list[Sentence]:
        """Take the bytes that were read at `raw_ns` (the arrival of the last of them)."""
        found: list[Sentence] = []
        for at, byte in enumerate(data):
            if byte == 0x24:
                self._inside = True
                self._part.clear()
                self._part_raw_ns = raw_ns - (len(data) - at) * self._byte_ns
            elif self._inside:
                self._take(byte, found)
        return found

    def _take(self, byte: int, found: list[Sentence]) -> None:
        if byte in (0x0D, 0x0A):
            sentence = _parse(bytes(self._part), self._part_raw_ns)
            self.bad += sentence is None
            if sentence is not None:
                found.append(sentence)
            self._inside = False
        elif len(self._part) >= MAX_SENTENCE or not 0x20 <= byte < 0x7F:
            # Not counted: in a mixed stream this is a "$" inside a binary frame.
            self._inside = False
        else:
            self._part.append(byte)


def _parse(body: bytes, raw_ns: int) -> Sentence | None:
    text, star, check = body.rstrip().rpartition(b"*")
    if not star or len(check) != 2:
        return None
    total = 0
    for byte in text:
        total ^= byte
    try:
        if int(check, 16) != total:
            return None
    except ValueError:
        return None
    name, *fields = text.decode("ascii").split(",")
    if len(name) != 5 or name[0] == "P":
        return Sentence(raw_ns, "P", name, tuple(fields))
    return Sentence(raw_ns, name[:2], name[2:], tuple(fields))


def time_of_day_ns(text: str) -> int | None:
    """Nanoseconds of the day of an hhmmss[.fraction] field; None when it is not one."""
    whole, _, part = text.partition(".")
    if len(whole) != 6 or not whole.isdigit() or (part and not part.isdigit()) or len(part) > 9:
        return None
    hours, minutes, seconds = int(whole[:2]), int(whole[2:4]), int(whole[4:])
    if hours > 23 or minutes > 59 or seconds > 60:
        return None
    fraction_ns = int(part.ljust(9, "0")) if part else 0
    return (hours * 3600 + minutes * 60 + seconds) * NS_PER_S + fraction_ns


def civil_date(text: str) -> tuple[int, int, int] | None:
    """(year, month, day) of a ddmmyy field; None when it is not one. The century turns at 80."""
    if len(text) != 6 or not text.isdigit():
        return None
    year = int(text[4:])
    return (1900 if year >= 80 else 2000) + year, int(text[2:4]), int(text[:2])


def degrees(value: str, side: str) -> float | None:
    """Degrees, north and east positive, of a dddmm.mmmm field and its side; None for neither."""
    whole, dot, _ = value.partition(".")
    try:
        number = float(value) if dot or whole else None
    except ValueError:
        return None
    if number is None or side not in ("N", "S", "E", "W"):
        return None
    degrees = int(number // 100) + number % 100 / 60
    limit = 90 if side in "NS" else 180
    if not degrees <= limit:
        return None
    return -degrees if side in "SW" else degrees


def number(text: str) -> float | None:
    """A finite number of sane size; None for anything else."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if -1e9 < value < 1e9 else None
