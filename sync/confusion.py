"""Names for the mistakes that sources make, told by the size of their error."""

from __future__ import annotations

from syncline.timebase import NS_PER_S

_DAY_S = 86_400
_WHOLE = (
    (37, "TAI taken for UTC (37 s)"),
    (18, "GPS time taken for UTC (18 s)"),
    (19, "TAI and GPS time confused (19 s)"),
    (1, "a leap second applied twice or not at all (1 s)"),
    (1024 * 7 * _DAY_S, "GPS week rollover (1024 weeks)"),
    (2 * 1024 * 7 * _DAY_S, "two GPS week rollovers (2048 weeks)"),
    (1 << 32, "NTP era (2^32 s)"),
)
_QUARTER_HOUR_S = 900
_ZONE_LIMIT_S = 14 * 3600


def name_of(offset_ns: int, uncertainty_ns: int = 0) -> str:
    """What an error of this size usually is; "" when it is no known mistake.

    Args:
        offset_ns: Source minus truth.
        uncertainty_ns: Of that difference; the name is only given when it is clear.
    """
    room_ns = max(20_000_000, 3 * uncertainty_ns)
    if room_ns > NS_PER_S // 4:
        return ""
    size_ns = abs(offset_ns)
    for seconds, name in _WHOLE:
        if abs(size_ns - seconds * NS_PER_S) <= room_ns:
            return name
    quarters = round(size_ns / (_QUARTER_HOUR_S * NS_PER_S))
    off_ns = abs(size_ns - quarters * _QUARTER_HOUR_S * NS_PER_S)
    if quarters > 0 and quarters * _QUARTER_HOUR_S <= _ZONE_LIMIT_S and off_ns <= room_ns:
        return f"local time taken for UTC ({quarters / 4:g} h)"
    return ""
