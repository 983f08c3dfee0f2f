"""How a Linux industrial-I/O device lays out a scan in its buffer (the pure part of `iio`).

Kernel documentation: Documentation/ABI/testing/sysfs-bus-iio, `scan_elements/*_type`; alignment as
in `iio_compute_scan_bytes`: every element on a multiple of its own size, the whole on a multiple of
the largest.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from syncline.errors import DeviceError

_TYPE = re.compile(r"^(be|le):([suf])(\d{1,3})/(\d{1,3})(?:X(\d{1,4}))?>>(\d{1,3})$")
_FLOATS = {16: "e", 32: "f", 64: "d"}
MAX_REPEAT = 64
MAX_SCAN_BYTES = 4096


@dataclass(frozen=True, slots=True)
class ScanType:
    """One element's storage, such as `le:s16/16>>0`.

    Attributes:
        little: Byte order.
        kind: `s` signed, `u` unsigned, `f` floating point.
        bits: Bits of value.
        storage_bits: Bits of storage: 8, 16, 32 or 64.
        repeat: Values in a row.
        shift: Bits below the value.
    """

    little: bool
    kind: str
    bits: int
    storage_bits: int
    repeat: int
    shift: int

    @classmethod
    def parse(cls, text: str) -> ScanType:
        """Read a `*_type` file.

        Raises:
            DeviceError: It is no type, or the bits do not fit their storage.
        """
        match = _TYPE.match(text.strip())
        if match is None:
            raise _bad(text, "is no scan element type such as le:s16/16>>0")
        order, kind, *numbers = match.groups()
        bits, storage, repeat, shift = (int(n) if n else 1 for n in numbers)
        if storage not in (8, 16, 32, 64) or bits < 1 or bits + shift > storage:
            raise _bad(text, "has bits that do not fit their storage")
        if not 0 < repeat <= MAX_REPEAT:
            raise _bad(text, f"repeats more than {MAX_REPEAT} times or never")
        if kind == "f" and (bits != storage or bits not in _FLOATS):
            raise _bad(text, "is no floating point number of 16, 32 or 64 bits")
        return cls(order == "le", kind, bits, storage, repeat, shift)

    @property
    def unit_bytes(self) -> int:
        """Bytes of one value."""
        return self.storage_bits // 8

    @property
    def size_bytes(self) -> int:
        """Bytes of the element, which it is aligned to."""
        return self.unit_bytes * self.repeat

    def decode(self, data: bytes) -> float | int:
        """The first value of an element's bytes."""
        unit = data[: self.unit_bytes]
        if self.kind == "f":
            order = "<" if self.little else ">"
            return float(struct.unpack(order + _FLOATS[self.bits], unit)[0])
        word = int.from_bytes(unit, "little" if self.little else "big")
        value = word >> self.shift & ((1 << self.bits) - 1)
        if self.kind == "s" and value >> (self.bits - 1):
            value -= 1 << self.bits
        return value


def _bad(text: str, what: str) -> DeviceError:
    return DeviceError(
        f"IIO: {text.strip()[:40]!r} {what}", remedy="Update the kernel driver of the sensor"
    )


@dataclass(frozen=True, slots=True)
class Element:
    """One channel of a scan.

    Attributes:
        name: Such as `in_accel_x` or `in_timestamp`.
        index: Place in the scan.
        type: Storage.
        scale: Factor to the SI unit of the kernel's ABI.
        offset: Added to the raw value before scaling.
    """

    name: str
    index: int
    type: ScanType
    scale: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and math.isfinite(self.offset)):
            raise DeviceError(
                f"IIO: {self.name} has scale {self.scale} and offset {self.offset}",
                remedy="Update the kernel driver of the sensor",
            )


class ScanLayout:
    """Where each enabled channel lies.

    Args:
        elements: Enabled channels, in any order.

    Raises:
        DeviceError: None, two at one place, or a scan larger than `MAX_SCAN_BYTES`.
    """

    def __init__(self, elements: Sequence[Element]) -> None:
        ordered = sorted(elements, key=lambda e: e.index)
        if not ordered:
            raise DeviceError("IIO: no channel is enabled", remedy="Enable scan_elements/*_en")
        if len({e.index for e in ordered}) != len(ordered):
            raise DeviceError("IIO: two channels share an index", remedy="Update the driver")
        self._places: list[tuple[Element, int]] = []
        end = largest = 0
        for element in ordered:
            size = element.type.size_bytes
            begin = _aligned(end, size)
            self._places.append((element, begin))
            end, largest = begin + size, max(largest, size)
        self.size_bytes = _aligned(end, largest)
        if self.size_bytes > MAX_SCAN_BYTES:
            raise DeviceError(f"IIO: a scan of {self.size_bytes} bytes, limit {MAX_SCAN_BYTES}")

    def raw(self, scan: bytes) -> dict[str, float | int]:
        """Values as stored, by channel name.

        Raises:
            ValueError: The bytes are not one scan.
        """
        if len(scan) != self.size_bytes:
            raise ValueError(f"{len(scan)} bytes are no scan of {self.size_bytes}")
        return {e.name: e.type.decode(scan[at:]) for e, at in self._places}

    def values(self, scan: bytes) -> dict[str, float]:
        """Values in SI units, by channel name; the timestamp is left out (`raw` has it)."""
        stored = self.raw(scan)
        return {
            e.name: (stored[e.name] + e.offset) * e.scale
            for e, _ in self._places
            if e.name != "in_timestamp"
        }


def _aligned(at: int, size: int) -> int:
    return -(-at // size) * size
