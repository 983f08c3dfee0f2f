"""A device counter that wraps, made into device time that does not.

The host's clock says roughly how much time has passed, so that any number of wraps between two
frames (an unplugged camera) is counted right. The result is nanoseconds since the first reading.
"""

from __future__ import annotations

from syncline.errors import SensorDataError
from syncline.sensors.frame import Ns, Quality

SLACK_NS = 2_000_000_000
"""How far the two clocks may disagree about an interval: a stalled host takes frames late."""
SLACK_SHARE = 8
"""Of a counter that wraps fast, at most this part of a wrap."""
RENUMBERED_SLACK_NS = 20_000_000
"""The same when the camera's frame numbers began anew: ordinary lateness."""
SKEW_PPM = 200


class CounterUnwrapper:
    """Unwraps readings in order of arrival.

    An interval is ambiguous only where the host's own error reaches half a wrap (2.1 s for 32 bits
    at 1 GHz). A restart goes unseen when it lands within `slack_ns` of where the old count would
    be: one in four of a 32-bit counter at 1 GHz, which then looks like a step of the clock and is
    flagged by the mapper as one. With frame numbers that begin anew it is one in a hundred.

    Args:
        bits: Width of the counter.
        hz: Its rate.
        slack_ns: How far host and device may disagree about an interval; None = 2 s, or an eighth
            of a wrap where that is less.

    Attributes:
        epoch: Counts restarts of the device.
        wraps: Counts wraps.
        quality: WRAPPED when the last reading began an epoch or came out of order, else OK.
    """

    def __init__(self, bits: int, hz: float, slack_ns: Ns | None = None) -> None:
        if not 1 <= bits <= 64:
            raise SensorDataError(f"counter: bits={bits} must be 1 to 64")
        if not 0 < hz < 1e12:
            raise SensorDataError(f"counter: hz={hz} must be above 0 and below 1e12")
        self._modulus = 1 << bits
        self._millihz = round(hz * 1000)
        wrap_ns = round(self._modulus * 1e9 / hz)
        self._slack_ns = min(SLACK_NS, wrap_ns // SLACK_SHARE) if slack_ns is None else slack_ns
        self._total: int | None = None
        self._zero = 0
        self._host_ns = 0
        self._last_ns = 0
        self.epoch = 0
        self.wraps = 0
        self.quality = Quality.OK

    def update(self, raw: int, host_ns: Ns, *, renumbered: bool = False) -> Ns:
        """Device time of a reading.

        Args:
            raw: The counter.
            host_ns: Host time of its arrival.
            renumbered: The frame numbers began anew: the device may have restarted, or only its
                stream.

        Returns:
            Nanoseconds of device time since the first reading. A new epoch continues where host
            time says; a reading out of order gives its own earlier time.

        Raises:
            SensorDataError: `raw` does not fit the counter's width.
        """
        if not 0 <= raw < self._modulus:
            raise SensorDataError(f"counter: raw={raw} must be 0 to {self._modulus - 1}")
        if self._total is None:
            self._total, self._zero, self._host_ns = raw, raw, host_ns
            return 0
        passed_ns = host_ns - self._host_ns
        expected = self._total + passed_ns * self._millihz // 10**12
        wraps = (2 * (expected - raw) + self._modulus) // (2 * self._modulus)
        total = raw + wraps * self._modulus
        off_ns = (total - expected) * 10**12 // self._millihz
        slack_ns = min(self._slack_ns, RENUMBERED_SLACK_NS) if renumbered else self._slack_ns
        allowed_ns = slack_ns + abs(passed_ns) * SKEW_PPM // 1_000_000
        if self._is_repeat(total, off_ns, allowed_ns):
            self.quality = Quality.WRAPPED
            return self._ns(total)
        if abs(off_ns) > allowed_ns:
            return self._restart(raw, host_ns, max(passed_ns, 0))
        self.quality = Quality.OK
        self.wraps += total // self._modulus - self._total // self._modulus
        self._total, self._host_ns = total, host_ns
        self._last_ns = self._ns(total)
        return self._last_ns

    def _is_repeat(self, total: int, off_ns: int, allowed_ns: int) -> bool:
        """An earlier reading that came late; nothing moves on."""
        return self._total is not None and total < self._total and abs(off_ns) <= allowed_ns

    def _ns(self, total: int) -> Ns:
        return (total - self._zero) * 10**12 // self._millihz

    def _restart(self, raw: int, host_ns: Ns, passed_ns: Ns) -> Ns:
        self.epoch += 1
        self.quality = Quality.WRAPPED
        self._last_ns += passed_ns
        self._total, self._host_ns = raw, host_ns
        self._zero = raw - self._last_ns * self._millihz // 10**12
        return self._last_ns
